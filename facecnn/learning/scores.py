"""Figures that say how good answers are. Probabilities and labels come in, numbers come out."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def over_people(log_probabilities: Array, people: int) -> npt.NDArray[np.float64]:
    """Probabilities of the first ``people`` outputs, scaled to sum to 1: (N, people) from (N, outputs) logarithms."""
    chosen = log_probabilities[:, :people]
    exponentials = np.exp(chosen - chosen.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


def confusion_matrix(labels: Array, predicted: Array, classes: int) -> npt.NDArray[np.int64]:
    """(classes, classes): row = truth, column = answer."""
    matrix = np.zeros((classes, classes), np.int64)
    np.add.at(matrix, (labels, predicted), 1)
    return matrix


def per_class(confusion: Array) -> list[dict[str, float | int | None]]:
    """Precision, recall, f1 and support of each class; None where there is nothing to divide by.

    confusion (classes, classes or more): columns beyond the classes are answers that name none of them.
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
    """Mean recall of the classes that have photos; None if none has. confusion: as for ``per_class``."""
    support = confusion.sum(axis=1)
    if not support.any():
        return None
    return float((np.diag(confusion)[support > 0] / support[support > 0]).mean())


def log_loss(probabilities: Array, labels: Array) -> float | None:
    """Mean of -log p[label]; None without photos. A probability of 0 counts as the smallest normal float64."""
    if not len(labels):
        return None
    chosen = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(chosen, np.finfo(np.float64).tiny)).mean())


def expected_calibration_error(confidences: Array, right: Array, bins: int = 15) -> float | None:
    """Mean distance between confidence (n,) and the share that is right (n,) over equal bins of confidence, weighted by
    their photos (Guo et al. 2017); None without photos."""
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
    """Probability that a score of ``positive`` is above one of ``negative``, ties counting half; None if either is
    empty."""
    if not len(positive) or not len(negative):
        return None
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, "left")
    not_above = np.searchsorted(ordered, positive, "right")
    return float((below + not_above).mean() / (2 * len(negative)))
