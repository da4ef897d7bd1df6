"""How good answers are to photos whose people are known, in figures."""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from facecnn.learning import scores
from facecnn.recognition import Answers, Recogniser


def judge(
    recogniser: Recogniser, answers: Answers, labels: npt.NDArray[np.int64], threshold: float | None
) -> dict[str, Any]:
    """Figures of ``answers`` to n photos, as ``eval`` and reports have them.

    Accuracy is the best of the people, whatever the threshold says.

    Args:
        recogniser: whose answers they are.
        answers: to the photos.
        labels: (n,) who they show: index into the people, or their number for strangers.
        threshold: that the answers were refused by.
    """
    people = len(recogniser.people)
    known = labels < people
    probabilities, truth = answers.probabilities[known], labels[known]
    predicted = probabilities.argmax(axis=1)
    confusion = scores.confusion_matrix(truth, predicted, people)
    strange, refused = answers.unknown_scores, answers.refused
    return {
        "accuracy": float((predicted == truth).mean()) if len(truth) else None,
        "balanced_accuracy": scores.balanced_accuracy(confusion),
        "log_loss": scores.log_loss(probabilities, truth),
        "expected_calibration_error": scores.expected_calibration_error(probabilities, truth),
        "classes": list(recogniser.people),
        "confusion": confusion.tolist(),
        "per_class": [
            {"name": name, **row} for name, row in zip(recogniser.people, scores.per_class(confusion), strict=True)
        ],
        "known": {
            "photos": int(known.sum()),
            "named": int((~refused[known]).sum()),
            "refused": int(refused[known].sum()),
        },
        "unknown": None
        if known.all()
        else {
            "photos": int((~known).sum()),
            "auroc": scores.area_under_roc(strange[~known], strange[known]),
            "named": int((~refused[~known]).sum()),
            "refused": int(refused[~known].sum()),
            "threshold": threshold,
        },
    }


def wilson_interval(right: int, number: int, deviations: float = 1.959964) -> tuple[float, float]:
    """The interval in which a share lies of which ``right`` of ``number`` independent trials came out, with 95 %
    confidence unless other ``deviations`` of the normal distribution are given (Wilson 1927). Unlike the usual
    formula's it holds for few trials, and where all or none came out."""
    share, square = right / number, deviations**2
    middle = (share + square / (2 * number)) / (1 + square / number)
    half = deviations * sqrt(share * (1 - share) / number + square / (4 * number**2)) / (1 + square / number)
    # Rounding mustn't push an end beyond the share itself.
    return max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))
