"""Scores of answers, computed from probabilities and labels."""

from __future__ import annotations

from math import exp, lgamma, log

import numpy as np

from facecnn.arrays import Array, Float64Array, Int64Array


def over_people(log_probabilities: Array, people: int) -> Float64Array:
    """Probabilities (N, people) of the first outputs, normalised to sum to 1, from logarithms (N, outputs)."""
    chosen = log_probabilities[:, :people]
    exponentials = np.exp(chosen - chosen.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


def confusion_matrix(labels: Array, predicted: Array, classes: int) -> Int64Array:
    """(classes, classes): rows are the truth, columns the answers."""
    matrix = np.zeros((classes, classes), np.int64)
    np.add.at(matrix, (labels, predicted), 1)
    return matrix


def per_class(confusion: Array) -> list[dict[str, float | int | None]]:
    """Precision, recall, F1 and support of each class; None for a division by zero.

    Args:
        confusion: (classes, classes or more); further columns are answers that name no class.
    """
    rows: list[dict[str, float | int | None]] = []
    for k in range(len(confusion)):
        right, said, true = int(confusion[k, k]), int(confusion[:, k].sum()), int(confusion[k].sum())
        rows.append(
            {
                "precision": right / said if said else None,
                "recall": right / true if true else None,
                "f1": 2 * right / (said + true) if said + true else None,
                "support": true,
            }
        )
    return rows


def balanced_accuracy(confusion: Array) -> float | None:
    """Mean recall of the classes that have photos, None if none has; ``confusion`` as for ``per_class``."""
    support = confusion.sum(axis=1)
    if not support.any():
        return None
    return float((np.diag(confusion)[support > 0] / support[support > 0]).mean())


def margins(answers: Array, labels: Array) -> Float64Array:
    """(N,): lead of each photo's own class over the best other one, negative if behind; ``answers`` (N, classes)."""
    own = answers[np.arange(len(labels)), labels]
    others = np.array(answers, np.float64)
    others[np.arange(len(labels)), labels] = -np.inf
    return np.asarray(own - others.max(axis=1))


def ranks(values: Array) -> Float64Array:
    """(N,): ranks from 1 for the smallest; equal values share their mean rank."""
    ordered = np.sort(values)
    return (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right") + 1) / 2


LEAST_OF_EACH = 5
"""Minimum number of photos of either person in a comparison of two."""
HARD = 0.15
"""Share of confusions of two people who are hard to tell apart. Measured by cross-validation: at most 0.05 for a pair
in two sets of ten people of LFW, 0.11 after a training cut short, 0.36 to 0.61 for halves of one person's photos."""
_ONE_IN_TWENTY = 0.05
_MOSTLY = 0.75


def indistinguishable(confusion: Array) -> list[tuple[int, int]]:
    """Pairs of people whom the answers don't tell apart, as if they were one person under two names.

    Only photos of the two that were given either name count. A pair must meet all of these conditions:

    - the name doesn't depend on whose photo it is (Fisher's exact test, one-sided, p above 0.05);
    - there are more confusions than of two people who are hard to tell apart (binomial test against ``HARD``, p below
      0.05);
    - they go both ways, so that one name isn't just preferred;
    - there are at least five photos of each;
    - at least three in four of their photos were given either name: the network tells the two from everybody else.

    Args:
        confusion: (people, people or more): rows are the truth, columns the answers; further columns are refusals.
    """
    people = len(confusion)
    square = np.asarray(confusion)[:, :people]
    photos = np.asarray(confusion).sum(axis=1)
    mixed = np.argwhere(np.triu((square > 0) & (square.T > 0), 1))
    return [(int(a), int(b)) for a, b in mixed if _is_one(square[np.ix_((a, b), (a, b))], int(photos[a] + photos[b]))]


def _is_one(named: Array, photos: int) -> bool:
    """``named`` (2, 2): truth and answer of those of two people's ``photos`` that were given either name."""
    of_each, total, confused = named.sum(axis=1), int(named.sum()), int(named[0, 1] + named[1, 0])
    return bool(
        of_each.min() >= LEAST_OF_EACH
        and total >= _MOSTLY * photos
        and _binomial_tail(confused, total, HARD) < _ONE_IN_TWENTY
        and _fisher_tail(named) > _ONE_IN_TWENTY
    )


def _binomial_tail(least: int, trials: int, share: float) -> float:
    """Probability of at least ``least`` successes in independent trials."""
    return sum(
        exp(_log_choose(trials, k) + k * log(share) + (trials - k) * log(1 - share)) for k in range(least, trials + 1)
    )


def _fisher_tail(table: Array) -> float:
    """Probability of a first cell at least this large if rows and columns of a (2, 2) table are independent (Fisher
    1922)."""
    row, column, total = int(table[0].sum()), int(table[:, 0].sum()), int(table.sum())
    return sum(
        exp(_log_choose(column, k) + _log_choose(total - column, row - k) - _log_choose(total, row))
        for k in range(int(table[0, 0]), min(row, column) + 1)
        if row - k <= total - column
    )


def _log_choose(n: int, k: int) -> float:
    """Logarithm of the binomial coefficient, which itself would overflow."""
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)


def log_loss(probabilities: Array, labels: Array) -> float | None:
    """Mean of -log p[label], None without photos; 0 counts as the smallest normal float64."""
    if not len(labels):
        return None
    chosen = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(chosen, np.finfo(np.float64).tiny)).mean())


def expected_calibration_error(confidences: Array, right: Array, bins: int = 15) -> float | None:
    """Mean distance between ``confidences`` (n,) and the share that is ``right`` (n,), over equal bins of confidence
    weighted by their photos (Guo et al. 2017); None without photos."""
    if not len(confidences):
        return None
    which = np.minimum((confidences * bins).astype(int), bins - 1)
    error = 0.0
    for b in range(bins):
        inside = which == b
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - confidences[inside].mean())
    return float(error)


def area_under_roc(positive: Array, negative: Array) -> float | None:
    """Probability that a ``positive`` score exceeds a ``negative`` one, ties counting half; None if either is empty."""
    if not len(positive) or not len(negative):
        return None
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, "left")
    not_above = np.searchsorted(ordered, positive, "right")
    return float((below + not_above).mean() / (2 * len(negative)))
