"""The threshold for strangers, of a model made of mean embeddings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from facecnn.body.threshold import (
    FORMULA,
    SCALE,
    ThresholdFormula,
    highest_unknown_score,
    leave_one_out,
    less_rivals,
    stranger_threshold,
    strangers_score,
)


def photos(alike: int, odd_one: float) -> Any:
    """Embeddings of so many photos that are exactly alike, and of one with that cosine to them."""
    return np.array([[2.0, 0.0]] * alike + [[odd_one, np.sqrt(1 - odd_one**2)]])


@pytest.mark.parametrize(
    ("people", "rate", "expected"),
    [
        (1, 0.02, 0.9194),
        (1, 0.002, 0.9383),
        (2, 0.02, 0.924857),  # 0.9194 + 0.0189 * 0.30103 - ln(1.0475) / 200
        (10, 0.02, 0.936520),  # 0.9194 + 0.0189 - ln(1.4275) / 200
        (80, 0.02, 0.947575),  # 0.9194 + 0.0189 * 1.90309 - ln(4.7525) / 200
        (10, 0.05, 0.928999),  # less 0.0189 * 0.39794
    ],
)
def test_the_formula_of_the_documentation(people: int, rate: float, expected: float) -> None:
    assert FORMULA.threshold(people, rate) == pytest.approx(expected, abs=1e-6)


def test_few_photos_get_the_formula_s_threshold() -> None:
    embeddings = np.concatenate([photos(8, 1.0), photos(8, 1.0) @ [[0, 1], [1, 0]]])
    assert stranger_threshold(embeddings, np.repeat([3, 7], 9), 0.02) == pytest.approx(0.924857, abs=1e-6)


def test_many_photos_raise_it_to_where_one_in_a_hundred_is_refused() -> None:
    raised = stranger_threshold(photos(99, 0.93), np.zeros(100, int), 0.02)
    assert raised == pytest.approx(0.93 + 0.0133 / 99, abs=1e-9)
    # One in 98 would be more than 1 %.
    assert stranger_threshold(photos(98, 0.93), np.zeros(99, int), 0.02) == pytest.approx(0.93 + 0.0133 / 98, abs=1e-9)
    assert stranger_threshold(photos(97, 0.93), np.zeros(98, int), 0.02) == pytest.approx(0.9194)


def test_it_is_not_lowered_for_photos_that_differ_much() -> None:
    assert stranger_threshold(photos(99, 0.8), np.zeros(100, int), 0.02) == pytest.approx(0.9194)


def test_photos_of_one_day_do_not_raise_it_beyond_a_tenth_of_the_strangers() -> None:
    assert stranger_threshold(photos(199, 1.0), np.zeros(200, int), 0.02) == pytest.approx(0.9383)


def test_it_is_raised_only_if_everybody_has_fifty_photos() -> None:
    other = np.eye(2)[[1] * 50]
    embeddings = np.concatenate([photos(59, 0.93), other])
    labels = np.repeat([0, 1], [60, 50])
    assert stranger_threshold(embeddings, labels, 0.02) == pytest.approx(0.93 + 0.0133 / 59, abs=1e-9)
    assert stranger_threshold(embeddings[:-1], labels[:-1], 0.02) == pytest.approx(0.924857, abs=1e-6)


def test_people_with_one_photo_are_not_judged_by_it() -> None:
    assert len(leave_one_out(np.eye(3)[[0, 0, 1]], np.array([4, 4, 2]))) == 2
    assert len(leave_one_out(np.eye(2), np.arange(2))) == 0


def test_each_photo_is_judged_by_the_others_of_its_person() -> None:
    embeddings = np.array([[3.0, 4.0, 0.0], [0.0, 0.0, 9.0], [1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
    scores = leave_one_out(embeddings, np.array([5, 2, 5, 5]), few_photos=0.1)
    # (3, 4) with (1, 2); (1, 0) with (3, 6); (0, 1) with (4, 4): cosines, and half of the term.
    expected = np.array([11 / np.sqrt(125), 1 / np.sqrt(5), np.sqrt(0.5)]) + 0.05
    np.testing.assert_allclose(scores, expected, atol=1e-12)


def test_a_rival_lowers_the_score() -> None:
    alone, beside, level = less_rivals(np.array([[0.95, 0.5], [0.95, 0.93], [0.95, 0.95]]))
    assert alone == pytest.approx(0.95)
    assert beside == pytest.approx(0.95 - np.log(2) / 200)
    assert level == pytest.approx(0.95 - np.log(1 + np.exp(4)) / 200)
    assert less_rivals(np.array([[0.9]])) == pytest.approx([0.9]), "one person has no rival"


@pytest.mark.parametrize(("threshold", "unknown"), [(0.9, 0.5), (0.93, 0.5), (0.95, 0.0179862), (0.94, 0.1192029)])
def test_the_unknown_score_that_belongs_to_a_threshold(threshold: float, unknown: float) -> None:
    assert highest_unknown_score(threshold) == pytest.approx(unknown, abs=1e-6)


@pytest.mark.parametrize("threshold", [0.91, 0.925, 0.94, 0.96])
def test_a_face_is_named_by_its_score_where_it_is_by_its_probability(threshold: float) -> None:
    scores = np.random.default_rng(0).uniform(threshold - 0.1, threshold + 0.03, (500, 4))
    outputs = np.exp(SCALE * (np.concatenate([scores, np.full((500, 1), strangers_score(threshold))], axis=1) - 0.93))
    unknown = 1 - outputs[:, :4].max(axis=1) / outputs.sum(axis=1)
    named = less_rivals(scores, strangers_score(threshold)) >= threshold
    assert 100 < named.sum() < 400
    np.testing.assert_array_equal(named, unknown <= highest_unknown_score(threshold))


def test_another_formula_can_be_tried() -> None:
    formula = ThresholdFormula(base=0.5, per_decade=0.0, rival=0.0, few_photos=0.0)
    assert stranger_threshold(photos(5, 1.0), np.zeros(6, int), 0.02, formula) == 0.5
