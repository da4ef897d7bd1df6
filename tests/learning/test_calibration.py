"""Temperature and threshold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facecnn.learning.calibration import (
    EVEN,
    LEAST_PHOTOS,
    CalibrationSettings,
    calibrate,
    drawn_photos,
    fit,
    threshold_for,
    unknown_score,
)
from facecnn.learning.scores import expected_calibration_error, over_people


def log_softmax(logits: Any) -> Any:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def drawn_answers(photos: int, classes: int, seed: int, spread: float = 1.5) -> tuple[Any, Any]:
    """Logarithms of probabilities that are right, and labels drawn by them."""
    generator = np.random.default_rng(seed)
    honest = log_softmax(generator.normal(0, spread, (photos, classes)))
    labels = np.array([generator.choice(classes, p=np.exp(row)) for row in honest])
    return honest, labels


def answers_with_strangers(known: int, strangers: int, people: int, seed: int, apart: float = 2.0) -> tuple[Any, Any]:
    """Answers of a network with an output for strangers: logits of deviation 1, that of the right output higher."""
    labels = np.concatenate([np.arange(known) % people, np.full(strangers, people)])
    logits = np.random.default_rng(seed).normal(0, 1, (len(labels), people + 1))
    logits[np.arange(len(labels)), labels] += apart
    return log_softmax(logits), labels


def calibration_error(probabilities: Any, labels: Any) -> float | None:
    return expected_calibration_error(probabilities.max(axis=1), probabilities.argmax(axis=1) == labels)


def temperature_of(answers: Any, labels: Any) -> float:
    """Of photos among which there are no strangers."""
    temperature, bias = fit(answers, labels, answers.shape[1])
    assert bias == 0
    return temperature


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_temperature_is_recovered(temperature: float) -> None:
    honest, labels = drawn_answers(4000, 3, 0)
    too_sure = log_softmax(honest * temperature)
    # 4,000 drawn labels tell the temperature to some 3 %.
    assert temperature_of(too_sure, labels) == pytest.approx(temperature, rel=0.08)


@pytest.mark.parametrize("temperature", [0.4, 2.5])
@pytest.mark.parametrize("classes", [2, 3, 6])
def test_confidence_is_right_on_photos_that_the_temperature_was_not_fitted_on(classes: int, temperature: float) -> None:
    honest, labels = drawn_answers(8000, classes, 1)
    answers = log_softmax(honest * temperature)
    found = temperature_of(answers[:2000], labels[:2000])
    after = calibration_error(over_people(answers[2000:] / found, classes), labels[2000:])
    before = calibration_error(over_people(answers[2000:], classes), labels[2000:])
    assert after is not None
    assert before is not None
    assert after < 0.03  # chance alone makes some 0.015 of 6,000 photos
    assert before > 0.1


@settings(deadline=None, derandomize=True, max_examples=25)
@given(photos=st.integers(1, 200), margin=st.floats(1, 8))
def test_answers_that_are_all_right_move_it_from_1_as_far_as_their_number_allows(photos: int, margin: float) -> None:
    labels = np.arange(photos) % 2
    logits = np.where(labels[:, None] == np.arange(2), margin / 2, -margin / 2)
    temperature = temperature_of(log_softmax(logits), labels)
    # Where the density exp(-(ln T / 0.5)^2 / 2) / (1 + exp(-margin / T))^photos is highest, its derivative is 0.
    pull = photos * margin / temperature / (1 + np.exp(margin / temperature))
    assert np.log(temperature) / 0.5**2 == pytest.approx(-pull, abs=0.03 * (1 + pull))


def test_without_photos_it_is_1() -> None:
    assert temperature_of(np.zeros((0, 3)), np.zeros(0, int)) == pytest.approx(1)


@pytest.mark.parametrize("scale", [0.25, 4.0])
def test_few_photos_leave_it_near_1_and_many_take_it_where_they_say(scale: float) -> None:
    honest, labels = drawn_answers(4000, 3, 2)
    found = [temperature_of(log_softmax(honest * scale)[:count], labels[:count]) for count in (5, 50, 4000)]
    distances = np.abs(np.log(found))
    assert (np.diff(distances) > 0).all()
    assert found[-1] == pytest.approx(scale, rel=0.1)


def test_where_answers_are_wrong_too_the_prior_hardly_counts() -> None:
    honest, labels = drawn_answers(300, 2, 5)
    found = temperature_of(honest, labels)

    def misfit(temperature: float) -> float:
        return float(-np.log(over_people(honest / temperature, 2)[np.arange(300), labels]).sum())

    best = min(np.linspace(0.5, 2, 301), key=misfit)
    assert found == pytest.approx(best, rel=0.03)


def test_answers_that_say_nothing_get_a_temperature_too() -> None:
    assert 0.05 <= temperature_of(np.full((30, 2), np.log(0.5)), np.arange(30) % 2) <= 20


@settings(deadline=None, derandomize=True, max_examples=25)
@given(
    seed=st.integers(0, 10_000),
    photos=st.integers(LEAST_PHOTOS, 80),
    people=st.integers(2, 4),
    rejected=st.floats(0.01, 0.3),
)
def test_without_strangers_the_share_of_the_people_that_was_asked_for_is_kept(
    seed: int, photos: int, people: int, rejected: float
) -> None:
    answers, labels = drawn_answers(photos, people, seed)
    found = calibrate(answers, labels, people, CalibrationSettings(false_reject_rate=rejected))
    assert (found.photos, found.strangers, found.false_accept_rate) == (photos, 0, None)
    assert found.temperature == temperature_of(answers, labels)
    scores = unknown_score(answers / found.temperature, people)
    assert found.threshold is not None
    assert (scores <= found.threshold).mean() >= 1 - rejected
    # And no lower than it must be, but for a little: were it below the highest score that it keeps, too few were left.
    assert (scores < found.threshold / 1.0011).mean() < 1 - rejected


@settings(deadline=None, derandomize=True, max_examples=25)
@given(
    seed=st.integers(0, 10_000),
    strangers=st.integers(LEAST_PHOTOS, 60),
    people=st.integers(1, 4),
    accepted=st.floats(0.005, 0.3),
    apart=st.floats(0, 8),
)
def test_with_strangers_the_threshold_is_theirs_and_at_most_the_even_chance(
    seed: int, strangers: int, people: int, accepted: float, apart: float
) -> None:
    answers, labels = answers_with_strangers(30, strangers, people, seed, apart)
    found = calibrate(answers, labels, people, CalibrationSettings(false_accept_rate=accepted))
    assert (found.photos, found.strangers, found.false_accept_rate) == (30, strangers, accepted)
    assert (found.temperature, found.stranger_bias) == fit(answers, labels, people), (
        "strangers have an output: they count"
    )
    scores = unknown_score(found.apply(answers, people), people)
    assert found.threshold == min(EVEN, threshold_for(scores[labels == people], accepted))
    stricter = calibrate(answers, labels, people, CalibrationSettings(false_accept_rate=accepted / 2))
    assert stricter.threshold is not None
    assert stricter.threshold <= found.threshold


def test_people_who_are_taken_for_strangers_too_easily_are_named_all_the_same() -> None:
    """Many strangers and few photos of each person: the network's logit of strangers is too high by 3."""
    answers, labels = answers_with_strangers(3000, 1000, 4, 0, apart=4.0)
    shy = log_softmax(answers + np.array([0.0] * 4 + [3.0]))
    held_out = np.arange(len(labels)) % 40 == 0
    found = calibrate(shy[held_out], labels[held_out], 4)
    assert found.stranger_bias > 2
    people = labels < 4
    scaled = found.apply(shy[people & ~held_out], 4)
    scores, best = unknown_score(scaled, 4), scaled[:, :4].argmax(axis=1)
    named = scores <= found.threshold
    right = best == labels[people & ~held_out]
    error = expected_calibration_error((1 - scores)[named], right[named])
    assert error is not None
    assert error < 0.05
    # As the network has it, many are refused, and those who aren't are named with too little confidence.
    shy_scores = unknown_score(shy[people & ~held_out], 4)
    assert (shy_scores <= 0.5).mean() < named.mean() - 0.05


def test_how_many_strangers_were_held_out_does_not_matter_much() -> None:
    answers, labels = answers_with_strangers(200, 2000, 3, 1)
    few = labels < 3
    few[200:240] = True
    one, other = fit(answers, labels, 3), fit(answers[few], labels[few], 3)
    assert one == pytest.approx(other, abs=0.25)


def test_few_photos_move_the_bias_as_far_as_they_can_carry() -> None:
    """Worked by hand: two photos are as likely the person's as a stranger's, and of twenty strangers there is no doubt,
    so the bias b is where the slope of the likelihood, 2 / (1 + e^b), is that of its prior of deviation 6: b / 36."""
    answers = np.log([[0.5, 0.5]] * 2 + [[1e-20, 1.0]] * 20)
    temperature, bias = fit(answers, np.array([0] * 2 + [1] * 20), 1)
    assert temperature == pytest.approx(1, abs=0.01)
    assert bias == pytest.approx(3.10, abs=0.02)


@pytest.mark.parametrize("rate", [0.02, pytest.param(0.035, marks=pytest.mark.slow), 0.1])
def test_so_many_strangers_are_let_through_as_was_asked_for(rate: float) -> None:
    let_in = []
    for seed in range(40):
        answers, labels = answers_with_strangers(40, 400, 2, seed)
        part = labels < 2
        part[40:70] = True  # by 30 strangers; the others judge
        found = calibrate(answers[part], labels[part], 2, CalibrationSettings(false_accept_rate=rate))
        scores = unknown_score(found.apply(answers[~part], 2), 2)
        let_in.append((scores <= found.threshold).mean())
    assert rate / 2 < np.mean(let_in) < 1.25 * rate


@settings(deadline=None, derandomize=True, max_examples=50)
@given(
    scores=st.lists(st.floats(0, 1), min_size=LEAST_PHOTOS, max_size=40),
    rate=st.floats(0.001, 0.49),
)
def test_thresholds_are_scores_below_the_middle_of_the_strangers(scores: list[float], rate: float) -> None:
    threshold = threshold_for(np.array(scores), rate)
    assert 0 <= threshold <= 1
    assert threshold <= max(scores) + 1e-12
    assert threshold_for(np.array(scores), rate / 2) <= threshold


def test_of_normal_log_odds_the_threshold_is_their_quantile() -> None:
    odds = np.random.default_rng(0).normal(3, 2, 20_000)
    threshold = threshold_for(1 / (1 + np.exp(-odds)), 0.05)
    assert (odds < np.log(threshold / (1 - threshold))).mean() == pytest.approx(0.05, abs=0.005)


def test_the_deviation_is_that_of_the_strangers_there_will_be() -> None:
    """Worked by hand: log-odds of ten 0 and ten 2 have the mean 1 and, with n - 1, the deviation (20 / 19)^1/2."""
    scores = np.array([0.5] * 10 + [1 / (1 + np.exp(-2))] * 10)
    threshold = threshold_for(scores, 0.1)
    assert np.log(threshold / (1 - threshold)) == pytest.approx(1 - 1.2815516 * 1.0259784, abs=1e-5)


def test_strangers_without_an_output_neither_count_nor_matter() -> None:
    honest, labels = drawn_answers(30, 2, 3)
    strangers = log_softmax(np.random.default_rng(1).normal(0, 3, (50, 2)))
    together = calibrate(np.vstack([strangers, honest]), np.concatenate([np.full(50, 2), labels]), 2)
    assert together == calibrate(honest, labels, 2)
    assert (together.photos, together.strangers) == (30, 0)


def test_with_few_strangers_the_even_chance_decides() -> None:
    answers, labels = answers_with_strangers(40, LEAST_PHOTOS - 1, 2, 0)
    found = calibrate(answers, labels, 2)
    assert (found.threshold, found.photos, found.strangers) == (EVEN, 40, LEAST_PHOTOS - 1)
    assert found.false_accept_rate is None
    none = calibrate(answers[:40], labels[:40], 2)
    assert (none.threshold, none.strangers) == (EVEN, 0)


def test_too_few_photos_set_no_threshold() -> None:
    honest, labels = drawn_answers(LEAST_PHOTOS - 1, 2, 0)
    found = calibrate(honest, labels, 2)
    assert (found.threshold, found.photos) == (None, LEAST_PHOTOS - 1)
    assert found.temperature == temperature_of(honest, labels), "the first held-out photo counts"


@pytest.mark.parametrize("photos", [0, *(pytest.param(count, marks=pytest.mark.slow) for count in (1, 5))])
def test_strangers_set_their_threshold_however_few_photos_are_of_people(photos: int) -> None:
    let_in = []
    for seed in range(40):
        answers, labels = answers_with_strangers(photos, 430, 3, seed)
        held_out = np.arange(len(labels)) < photos + 30  # the other strangers judge
        found = calibrate(answers[held_out], labels[held_out], 3)
        assert (found.photos, found.strangers, found.false_accept_rate) == (photos, 30, 0.035)
        scores = unknown_score(found.apply(answers[~held_out], 3), 3)
        let_in.append((scores <= found.threshold).mean())
    assert 0.035 / 2 < np.mean(let_in) < 1.25 * 0.035


@pytest.mark.parametrize(("photos", "highest"), [(0, 1 / 2), (1, 2 / 3), (18, 0.95), (98, 0.99)])
def test_without_strangers_no_confidence_is_higher_than_the_held_out_photos_carry(photos: int, highest: float) -> None:
    answers, labels = drawn_answers(max(photos, 1), 2, 0)
    assert calibrate(answers[:photos], labels[:photos], 2).highest_confidence == pytest.approx(highest)
    with_strangers, labels = answers_with_strangers(40, 40, 2, 0)
    assert calibrate(with_strangers, labels, 2).highest_confidence is None


def test_a_single_person_is_calibrated_against_strangers() -> None:
    answers, labels = answers_with_strangers(40, 40, 1, 0, apart=4)
    found = calibrate(log_softmax(answers * 3), labels, 1)
    assert (found.photos, found.strangers) == (40, 40)
    assert 1 < found.temperature / calibrate(answers, labels, 1).temperature < 3, "held back by the prior"
    assert found.threshold is not None
    assert 0 < found.threshold <= 0.5


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


def test_unknown_scores_of_very_sure_answers_still_differ() -> None:
    logits = np.array([[0.0, -40.0], [0.0, -41.0], [0.0, -500.0]])
    scores = unknown_score(log_softmax(logits), 2)
    assert scores[0] > scores[1] > scores[2] > 0


def test_few_photos_all_calibrate_and_of_many_some_are_drawn() -> None:
    labels = np.arange(5000) % 10
    assert np.array_equal(drawn_photos(labels, 10, 10, seed=1, most=50_000), np.arange(5000))
    drawn = drawn_photos(labels, 10, 10, seed=1, most=6000)
    assert len(drawn) == 600
    assert (np.diff(drawn) > 0).all(), "each once"
    assert np.bincount(labels[drawn], minlength=10).min() > 30, "of everybody"
    assert np.array_equal(drawn, drawn_photos(labels, 10, 10, seed=1, most=6000))
    assert not np.array_equal(drawn, drawn_photos(labels, 10, 10, seed=2, most=6000))


def test_of_few_strangers_among_many_photos_none_is_left_out() -> None:
    """By chance there would be three, of whom no threshold could be set."""
    labels = np.where(np.arange(10_000) % 400 == 0, 10, np.arange(10_000) % 10)
    drawn = drawn_photos(labels, 10, 11, seed=3, most=11 * 1000)
    assert (len(drawn), (labels[drawn] == 10).sum()) == (1000, 25)
