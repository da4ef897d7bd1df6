"""How good answers are to photos whose people are known, in figures."""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from facecnn.learning import scores
from facecnn.photos.folder import class_order
from facecnn.recognition import Answers, Recogniser
from facecnn.runs.plots import draw_confusion


def judge(
    recogniser: Recogniser, answers: Answers, labels: npt.NDArray[np.int64], threshold: float | None
) -> dict[str, Any]:
    """Figures of ``answers`` to n photos, as ``train``, ``eval``, reports and model cards have them.

    One rule holds for all of them but ``closed_set_accuracy`` and ``log_loss``: an answer is what ``predict`` gives, a
    name or a refusal. A known person's photo is named right, named wrong or refused; a stranger's is named or refused.
    ``closed_set_accuracy`` takes the likeliest person, and ``log_loss`` the probabilities over the people, whatever
    the threshold says; so does ``alike``, which has pairs of people whom the model doesn't tell apart. ``precision`` is
    that among known people's photos, and ``expected_calibration_error`` is of those that are named.

    Args:
        recogniser: whose answers they are.
        answers: to the photos.
        labels: (n,) who they show: index into the people, or their number for strangers.
        threshold: that the answers were refused by.
    """
    people = len(recogniser.people)
    known = labels < people
    truth, likeliest, refused = labels[known], answers.likeliest[known], answers.refused[known]
    named = np.where(refused, people, likeliest)  # the number after the people's stands for a refusal
    confusion = scores.confusion_matrix(truth, named, people + 1)[:people]
    right, closed_set, photos = int(np.trace(confusion)), int((likeliest == truth).sum()), len(truth)
    strange = answers.unknown_scores
    return {
        "accuracy": right / photos if photos else None,
        "interval": list(wilson_interval(right, photos)) if photos else None,
        "closed_set_accuracy": closed_set / photos if photos else None,
        "closed_set_interval": list(wilson_interval(closed_set, photos)) if photos else None,
        "balanced_accuracy": scores.balanced_accuracy(confusion),
        "log_loss": scores.log_loss(answers.probabilities[known], truth),
        "expected_calibration_error": scores.expected_calibration_error(
            answers.confidences[known][~refused], (likeliest == truth)[~refused]
        ),
        "classes": list(recogniser.people),
        "confusion": confusion.tolist(),
        "per_class": [
            {
                "name": name,
                **row,
                "named_right": counts[index],
                "named_wrong": sum(counts[:people]) - counts[index],
                "refused": counts[people],
            }
            for index, (name, row, counts) in enumerate(
                zip(recogniser.people, scores.per_class(confusion), confusion.tolist(), strict=True)
            )
        ],
        "alike": [
            [recogniser.people[one], recogniser.people[other]]
            for one, other in scores.indistinguishable(scores.confusion_matrix(truth, likeliest, people))
        ],
        "known": {
            "photos": photos,
            "named_right": right,
            "named_wrong": int((~refused).sum()) - right,
            "refused": int(refused.sum()),
        },
        "unknown": None
        if known.all()
        else {
            "photos": int((~known).sum()),
            "auroc": scores.area_under_roc(strange[~known], strange[known]),
            "named": int((~answers.refused[~known]).sum()),
            "refused": int(answers.refused[~known].sum()),
            "named_as": np.bincount(answers.likeliest[~known & ~answers.refused], minlength=people).tolist(),
            "threshold": threshold,
        },
    }


def draw_judged(path: Path, judged: Mapping[str, Any], what: str) -> None:
    """Draw as whom each person's photos were named, or that they were refused, with strangers in a row of their own.

    ``judged``: what ``judge`` gave; ``what``: which photos these are, as "held-out". Raises OutputError.
    """
    names: list[str] = judged["classes"]
    order = sorted(range(len(names)), key=lambda person: class_order(names[person]))
    people = [names[person] for person in order]
    matrix = [judged["confusion"][person] for person in order]
    rows = people
    if judged["unknown"] is not None:
        matrix.append([*judged["unknown"]["named_as"], judged["unknown"]["refused"]])
        rows = [*people, "strangers"]
    counts = np.array(matrix)[:, [*order, len(names)]]
    draw_confusion(path, counts, rows, [*people, "refused"], f"{counts.sum()} {what} photos")


def wilson_interval(right: int, number: int, deviations: float = 1.959964) -> tuple[float, float]:
    """The interval in which a share lies of which ``right`` of ``number`` independent trials came out, with 95 %
    confidence unless other ``deviations`` of the normal distribution are given (Wilson 1927). Unlike the usual
    formula's it holds for few trials, and where all or none came out."""
    share, square = right / number, deviations**2
    middle = (share + square / (2 * number)) / (1 + square / number)
    half = deviations * sqrt(share * (1 - share) / number + square / (4 * number**2)) / (1 + square / number)
    # Rounding mustn't push an end beyond the share itself.
    return max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))
