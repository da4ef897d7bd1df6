"""Temperature and threshold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facecnn.learning.calibration import (
    KNOWN_KEPT,
    LEAST_PHOTOS,
    Calibration,
    calibrate,
    fit_temperature,
    unknown_score,
)
from facecnn.learning.scores import over_people


def log_softmax(logits: Any) -> Any:
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def drawn_answers(photos: int, classes: int, seed: int, spread: float = 1.5) -> tuple[Any, Any]:
    """Logarithms of probabilities that are right, and labels drawn by them."""
    generator = np.random.default_rng(seed)
    honest = log_softmax(generator.normal(0, spread, (photos, classes)))
    labels = np.array([generator.choice(classes, p=np.exp(row)) for row in honest])
    return honest, labels


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_temperature_is_recovered(temperature: float) -> None:
    honest, labels = drawn_answers(4000, 3, 0)
    too_sure = log_softmax(honest * temperature)
    # 4,000 drawn labels tell the temperature to some 3 %.
    assert fit_temperature(too_sure, labels, 3) == pytest.approx(temperature, rel=0.08)


@settings(deadline=None, derandomize=True, max_examples=25)
@given(
    seed=st.integers(0, 10_000),
    photos=st.integers(LEAST_PHOTOS, 80),
    people=st.integers(2, 4),
    strangers=st.booleans(),
    sureness=st.floats(0.2, 5),
)
def test_the_temperature_is_the_best_of_its_neighbours_and_98_percent_are_kept(
    seed: int, photos: int, people: int, strangers: bool, sureness: float
) -> None:
    honest, labels = drawn_answers(photos, people, seed)
    logits = honest * sureness
    if strangers:
        logits = np.column_stack([logits, np.random.default_rng(seed).normal(-1, 1, photos)])
    answers = log_softmax(logits)
    found = calibrate(answers, labels, people)
    assert found.photos == photos
    right = (photos + 1) / (photos + 2)  # Platt's target

    def misfit(temperature: float) -> float:
        logs = np.log(over_people(answers / temperature, people))
        of_right = logs[np.arange(photos), labels]
        return float(-(right * of_right + (1 - right) / (people - 1) * (logs.sum(axis=1) - of_right)).sum())

    for temperature in (0.05, 0.95 * found.temperature, 1.0, 1.05 * found.temperature, 20.0):
        assert misfit(found.temperature) <= misfit(float(np.clip(temperature, 0.05, 20))) + 1e-7
    scores = unknown_score(answers / found.temperature, people)
    assert found.threshold is not None
    assert (scores <= found.threshold).mean() >= KNOWN_KEPT
    # And no lower than it must be: were it below the highest score that it keeps, too few would be left.
    assert (scores < found.threshold).mean() < KNOWN_KEPT


def test_answers_that_are_all_right_do_not_make_it_certain() -> None:
    labels = np.arange(40) % 2
    logits = np.where(labels[:, None] == np.arange(2), 2.0, -2.0)
    temperature = fit_temperature(log_softmax(logits), labels, 2)
    confidence = over_people(log_softmax(logits) / temperature, 2).max(axis=1)
    assert confidence == pytest.approx(41 / 42, abs=1e-4)


def test_photos_of_strangers_neither_count_nor_matter() -> None:
    honest, labels = drawn_answers(30, 2, 3)
    answers = log_softmax(np.column_stack([honest, np.full(30, -3.0)]))
    strangers = log_softmax(np.random.default_rng(1).normal(0, 3, (50, 3)))
    alone = calibrate(answers, labels, 2)
    together = calibrate(np.vstack([strangers, answers]), np.concatenate([np.full(50, 2), labels]), 2)
    assert together == alone
    assert alone.photos == 30


def test_too_few_photos_leave_it_uncalibrated() -> None:
    honest, labels = drawn_answers(LEAST_PHOTOS - 1, 2, 0)
    assert calibrate(honest, labels, 2) == Calibration(temperature=1.0, threshold=None, photos=0)
    strangers = np.zeros((40, 2))
    both = calibrate(np.vstack([honest, strangers]), np.concatenate([labels, np.full(40, 2)]), 2)
    assert both.photos == 0
    third = log_softmax(np.column_stack([honest, np.zeros(LEAST_PHOTOS - 1)]))
    assert calibrate(third, labels, 2) == Calibration(temperature=1.0, threshold=None, photos=0)
    # With a single person, the likelier of two outputs is the answer.
    assert calibrate(honest, np.zeros(len(honest), int), 1) == Calibration(temperature=1.0, threshold=0.5, photos=0)


@pytest.mark.parametrize(
    ("probabilities", "people", "expected"),
    [([0.7, 0.3], 2, 0.3), ([0.5, 0.5], 2, 0.5), ([0.2, 0.1, 0.7], 2, 0.8), ([0.2, 0.8], 1, 0.8), ([1.0], 1, 0.0)],
)
def test_unknown_score_is_what_the_likeliest_person_leaves(
    probabilities: list[float], people: int, expected: float
) -> None:
    answers = np.log(np.array([probabilities]))
    assert unknown_score(answers, people) == pytest.approx([expected])
    assert unknown_score(answers * 3, people).shape == (1,)
