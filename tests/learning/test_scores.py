"""Scores: scikit-learn as the oracle, and cases that can be worked out by hand."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from facecnn.learning import scores
from facecnn.learning.scores import (
    Confusion,
    area_under_roc,
    balanced_accuracy,
    expected_calibration_error,
    indistinguishable,
    log_loss,
    over_people,
    per_class,
)

metrics = pytest.importorskip("sklearn.metrics")
examples = settings(deadline=None, derandomize=True, max_examples=60)


@st.composite
def answers(draw: st.DrawFn) -> tuple[Any, Any, Any]:
    """Log-probabilities (N, classes), labels (N,), answers (N,)."""
    photos, classes = draw(st.integers(1, 25)), draw(st.integers(2, 4))
    logits = draw(hnp.arrays(np.float64, (photos, classes), elements=st.floats(-6, 6)))
    labels = draw(hnp.arrays(np.int64, photos, elements=st.integers(0, classes - 1)))
    return logits, labels, logits.argmax(axis=1)


@examples
@given(answers())
def test_confusion_and_what_follows_from_it(drawn: Any) -> None:
    logits, labels, predicted = drawn
    classes = logits.shape[1]
    confusion = Confusion.of(labels, predicted, classes)
    assert np.array_equal(confusion.matrix(), metrics.confusion_matrix(labels, predicted, labels=range(classes)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns of classes that were answered and have no photo
        assert balanced_accuracy(confusion) == pytest.approx(metrics.balanced_accuracy_score(labels, predicted))
    expected = metrics.precision_recall_fscore_support(labels, predicted, labels=range(classes), zero_division=np.nan)
    for row, *wanted in zip(per_class(confusion), *expected, strict=True):
        found = [np.nan if row[name] is None else row[name] for name in ("precision", "recall", "f1", "support")]
        assert found == pytest.approx(wanted, nan_ok=True)


@examples
@given(answers())
def test_log_loss(drawn: Any) -> None:
    logits, labels, _ = drawn
    probabilities = over_people(logits, logits.shape[1])
    assert log_loss(probabilities[np.arange(len(labels)), labels]) == pytest.approx(
        metrics.log_loss(labels, probabilities, labels=range(logits.shape[1])), rel=1e-9, abs=1e-12
    )


@examples
@given(
    positive=st.lists(st.integers(0, 8), min_size=1, max_size=30),
    negative=st.lists(st.integers(0, 8), min_size=1, max_size=30),
)
def test_area_under_roc_with_ties(positive: list[int], negative: list[int]) -> None:
    truth = [1] * len(positive) + [0] * len(negative)
    expected = metrics.roc_auc_score(truth, positive + negative)
    assert area_under_roc(np.array(positive) / 8, np.array(negative) / 8) == pytest.approx(expected)


@examples
@given(answers(), st.integers(1, 4))
def test_probabilities_over_people_sum_to_one_and_keep_their_ratios(drawn: Any, people: int) -> None:
    logits = drawn[0]
    people = min(people, logits.shape[1])
    probabilities = over_people(logits, people)
    assert probabilities.shape == (len(logits), people)
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(len(logits)))
    ratios = np.log(probabilities) - np.log(probabilities[:, :1])
    assert ratios == pytest.approx(logits[:, :people] - logits[:, :1], abs=1e-9)


def test_over_people_stands_large_logarithms() -> None:
    assert over_people(np.array([[-1e4, -1e4, 0.0]]), 2) == pytest.approx(np.array([[0.5, 0.5]]))


def test_without_photos_there_are_no_figures() -> None:
    nothing, no_labels = np.zeros((0, 2)), np.zeros(0, int)
    assert log_loss(nothing) is None
    assert expected_calibration_error(nothing, no_labels) is None
    assert balanced_accuracy(Confusion.of(no_labels, no_labels, 2)) is None
    assert area_under_roc(np.zeros(0), np.ones(3)) is None
    assert area_under_roc(np.ones(3), np.zeros(0)) is None
    nobody = Confusion.of(no_labels, no_labels, 1)
    assert per_class(nobody) == [{"precision": None, "recall": None, "f1": None, "support": 0}]


def test_log_loss_of_an_impossible_answer_is_large_and_finite() -> None:
    assert log_loss(np.array([0.0])) == pytest.approx(708.4, abs=0.1)


@pytest.mark.parametrize(
    ("confidences", "labels", "expected"),
    [
        ([1.0, 1.0], [0, 0], 0.0),  # sure and right
        ([1.0, 1.0], [1, 1], 1.0),  # sure and wrong
        ([0.8] * 5, [0, 0, 0, 0, 1], 0.0),  # right as often as it says
        ([0.8] * 4, [0, 0, 1, 1], 0.3),
        ([0.95, 0.95, 0.65, 0.65], [0, 0, 0, 1], (0.05 + 0.15) / 2),
        ([0.95, 0.65, 0.65, 0.65], [1, 0, 0, 0], (0.95 + 3 * 0.35) / 4),  # weighted by the bins' photos
        ([0.61, 0.65], [0, 1], 0.13),  # one of the 15 bins: its mean confidence is 0.63
    ],
)
def test_expected_calibration_error_by_hand(confidences: list[float], labels: list[int], expected: float) -> None:
    right = np.array(labels) == 0
    assert expected_calibration_error(np.array(confidences), right) == pytest.approx(expected)


def pair(*table: int, others: int = 0, refused: int = 0) -> Any:
    """Confusion of two people and a third, of whose 20 photos none is confused; ``others``, ``refused``: photos of each
    of the two that were taken for the third's, or refused."""
    aa, ab, ba, bb = table
    return np.array([[aa, ab, others, refused], [ba, bb, others, refused], [0, 0, 20, 0]])


def confusion_of(counts: Any) -> Confusion:
    """That of as many photos as ``counts`` (people, answers) says."""
    truth, answer = (np.repeat(places, counts.ravel()) for places in np.indices(counts.shape).reshape(2, -1))
    return Confusion.of(truth, answer, *counts.shape)


@pytest.mark.parametrize(
    ("confusion", "one_person"),
    [
        (pair(14, 14, 14, 14), True),
        (pair(9, 5, 5, 9), True),
        (pair(3, 2, 3, 2), True),
        (pair(20, 8, 5, 3), True),  # the network prefers one name, whoever it is
        (pair(2, 2, 2, 2), False),  # too few photos to say so
        (pair(0, 4, 4, 0), False),
        (pair(1, 1, 1, 1), False),
        (pair(14, 0, 14, 0), False),  # nobody is taken for the second: not confused, swallowed
        (pair(12, 2, 3, 11), False),  # alike, and told apart all the same
        (pair(60, 40, 40, 60), False),  # so many photos show that they are told apart
        (pair(28, 0, 0, 28), False),
        (pair(9, 5, 5, 9, others=7), False),  # it knows nobody
        (pair(9, 5, 5, 9, refused=7), False),
        (pair(9, 5, 5, 9, refused=2), True),
    ],
)
def test_people_whom_the_answers_do_not_tell_apart(confusion: Any, one_person: bool) -> None:
    assert indistinguishable(confusion_of(confusion)) == ([(0, 1)] if one_person else [])
    turned = confusion[[2, 1, 0]][:, [2, 1, 0, 3]]
    assert indistinguishable(confusion_of(turned)) == ([(1, 2)] if one_person else [])


def test_the_tests_behind_it_are_those_of_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    random = np.random.default_rng(5)
    for _ in range(50):
        table = random.integers(0, 30, (2, 2))
        assert scores._fisher_tail(table) == pytest.approx(stats.fisher_exact(table, "greater").pvalue)
        least, trials = sorted(random.integers(0, 2000, 2).tolist())
        assert scores._binomial_tail(least, trials, 0.15) == pytest.approx(stats.binom.sf(least - 1, trials, 0.15))


def test_one_person_is_nearly_always_found_and_two_hard_ones_hardly_ever() -> None:
    random = np.random.default_rng(6)

    def found(share: float, photos: int) -> float:
        confused = random.binomial(photos, share, (2000, 2))
        return float(
            np.mean([bool(indistinguishable(confusion_of(pair(photos - a, a, b, photos - b)))) for a, b in confused])
        )

    assert found(0.5, 14) > 0.9
    assert found(0.5, 6) > 0.7
    assert found(0.1, 14) < 0.01
    assert found(0.1, 6) < 0.01


def test_margins_are_what_the_own_class_is_ahead_of_the_best_other() -> None:
    answers = np.array([[0.5, 0.25, 0.125], [0.5, 0.25, 0.125], [-3.0, -1.0, -1.5], [0.25, 0.25, 0.0]])
    assert scores.margins(answers, np.array([0, 2, 1, 1])).tolist() == [0.25, -0.375, 0.5, 0.0]


def test_equal_values_share_a_rank() -> None:
    assert scores.ranks(np.array([2.0, -1.0, 2.0, 5.0])).tolist() == [2.5, 1.0, 2.5, 4.0]
