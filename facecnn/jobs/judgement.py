"""Figures of how good the answers to photos of known people are."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from facecnn.errors import shown
from facecnn.jobs.console import Console
from facecnn.learning import scores
from facecnn.photos.dataset import Dataset
from facecnn.recognition import Answers, Recogniser
from facecnn.reports import findings

_NORMAL_QUANTILE = 1.959964
"""Standard deviations on either side of the mean that hold 95 % of a normal distribution."""


@dataclass(frozen=True)
class Verdicts:
    """What each of n photos counts as, by the answers for its faces."""

    named: npt.NDArray[np.int64]
    """(n,): index of the name that counts: the photo's person where a face was given that name, else the best match
    among the names given; the number of people where none was given."""
    face: npt.NDArray[np.int64]
    """(n,): index among all faces of the one with that name, or of the main one."""
    first: npt.NDArray[np.int64]
    """(n,): index among all faces of the main one."""
    faces: npt.NDArray[np.int64]
    """(n,): number of faces in a photo."""
    likeliest_right: npt.NDArray[np.bool_]
    """(n,): whether the person's name would be given if no face were refused as a stranger."""

    @property
    def alone(self) -> npt.NDArray[np.bool_]:
        """(n,): whether a photo has a single face, so that it is known whose it is."""
        return np.asarray(self.faces == 1)


def verdicts(recogniser: Recogniser, answers: Answers, labels: npt.NDArray[np.int64]) -> Verdicts:
    """Find out what each photo counts as.

    A photo with several faces is named right where the person's name is among the names given in it, named wrong where
    only others are, and refused otherwise. This needs no choice of which face is the person's, in which the label would
    have a part.

    ``answers``: for all faces of the photos; ``labels``: (n,) index into the people, or their number for strangers.
    """
    people, likeliest, photo = len(recogniser.people), answers.likeliest, answers.photo
    faces = np.bincount(photo, minlength=len(labels))
    first = np.cumsum(faces) - faces
    # Sort a photo's faces: the right name, then other names, then refused ones; within each, the best match first. Of
    # refused ones the main face is first.
    wanted = likeliest == labels[photo]
    rank = np.where(answers.refused, 2, np.where(wanted, 0, 1))
    match = np.where(answers.refused, 0.0, answers.unknown_scores)
    face = np.lexsort((match, rank, photo))[first]
    return Verdicts(
        named=np.where(answers.refused[face], people, likeliest[face]),
        face=face,
        first=first,
        faces=faces,
        likeliest_right=np.bincount(photo[wanted], minlength=len(labels)) > 0,
    )


@dataclass(frozen=True)
class JudgedPhotos:
    """Photos of known people, with the answers for their faces."""

    dataset: Dataset
    numbers: npt.NDArray[np.int64]
    """(n,): the photos' numbers in the data set."""
    labels: npt.NDArray[np.int64]
    """(n,): index into the model's people, or their number for anybody else."""
    answers: Answers
    figures: dict[str, Any]
    """From ``judge``."""

    @property
    def alone(self) -> npt.NDArray[np.bool_]:
        """(faces,): whether each is the only one of its photo."""
        return self.dataset.show_one_face(self.numbers)[self.answers.photo]


def judge_photos(
    recogniser: Recogniser,
    dataset: Dataset,
    numbers: npt.NDArray[np.int64],
    logs: npt.NDArray[np.float64] | None = None,
) -> JudgedPhotos:
    """Judge a model by photos of a data set.

    Args:
        numbers: (n,) of the photos in it.
        logs: ``recogniser.log_probabilities`` of their crops, if known already; else only one block of them is in
            memory at a time.
    """
    labels = labels_in(dataset, numbers, recogniser.people)
    threshold = recogniser.threshold("auto")
    crops = dataset.crops(numbers)
    of_faces = labels[crops.photo]
    if logs is None:
        answers = recogniser.answers(dataset.pixels, crops.rows, threshold, crops.photo, labels=of_faces)
    else:
        answers = recogniser.answers_from(logs, threshold, crops.photo, labels=of_faces)
    return JudgedPhotos(dataset, numbers, labels, answers, judge(recogniser, answers, labels, threshold))


def labels_in(dataset: Dataset, numbers: npt.NDArray[np.int64], people: Sequence[str]) -> npt.NDArray[np.int64]:
    """(n,): index into ``people`` of who is in the photos ``numbers`` (n,), or their number for anybody else."""
    index = {name: number for number, name in enumerate(people)}
    return np.array([index.get(name, len(people)) for name in dataset.classes], np.int64)[dataset.labels[numbers]]


def judge(
    recogniser: Recogniser, answers: Answers, labels: npt.NDArray[np.int64], threshold: float | None
) -> dict[str, Any]:
    """The figures of ``train``, ``eval``, reports and model cards.

    An answer is what ``predict`` gives, a name or a refusal. So a known person's photo is named right, named wrong or
    refused; a stranger's photo is named, where any face in it is, or refused. ``verdicts`` decides this for photos with
    several faces, and ``several`` counts those of known people separately.

    ``closed_set_accuracy`` (likeliest person), ``log_loss`` (probabilities over the people) and ``alike`` (people whom
    the model doesn't tell apart) take no account of the threshold. ``precision`` is that among known people's photos,
    and ``expected_calibration_error`` that of photos that are named. ``log_loss``, ``expected_calibration_error``,
    ``auroc`` and ``alike`` are of photos with one face: of several, it isn't known which is the person's.

    Args:
        answers: for all faces of the photos, about the labels, too.
        labels: (n,) index into the people, or their number for strangers.
        threshold: by which faces were refused.
    """
    assert answers.about_labels is not None
    people = len(recogniser.people)
    found = verdicts(recogniser, answers, labels)
    known = labels < people
    truth, named = labels[known], found.named[known]
    confusion = scores.Confusion.of(truth, named, people, people + 1)
    right, closed_set, photos = int(confusion.right.sum()), int(found.likeliest_right[known].sum()), len(truth)
    # Of known people's photos with a single face: the face, and the person.
    face, whose = found.first[known & found.alone], labels[known & found.alone]
    likeliest, kept = answers.likeliest[face], ~answers.refused[face]
    return {
        "accuracy": right / photos if photos else None,
        "interval": list(wilson_interval(right, photos)) if photos else None,
        "closed_set_accuracy": closed_set / photos if photos else None,
        "closed_set_interval": list(wilson_interval(closed_set, photos)) if photos else None,
        "balanced_accuracy": scores.balanced_accuracy(confusion),
        "log_loss": scores.log_loss(answers.about_labels.probabilities[face]),
        "expected_calibration_error": scores.expected_calibration_error(
            answers.confidences[face][kept], (likeliest == whose)[kept]
        ),
        "classes": list(recogniser.people),
        "confusion": _recorded(confusion),
        "per_class": _per_class(recogniser.people, confusion),
        "alike": [
            [recogniser.people[one], recogniser.people[other]]
            for one, other in scores.indistinguishable(scores.Confusion.of(whose, likeliest, people))
        ],
        "known": _counts(truth, named, people),
        "several": _counts(labels[known & ~found.alone], found.named[known & ~found.alone], people),
        "unknown": None if known.all() else _strangers(answers, found, ~known, face, people, threshold),
    }


def _recorded(confusion: scores.Confusion) -> list[list[int]] | dict[str, list[int]]:
    """For JSON: up to ``MOST_PEOPLE`` a row of counts for each person; of more people, whose matrix would have millions
    of zeros, the ``row``, ``column`` and ``photos`` of each pair of person and answer that happened."""
    if confusion.people <= scores.MOST_PEOPLE:
        rows: list[list[int]] = confusion.matrix().tolist()
        return rows
    return {"row": confusion.truth.tolist(), "column": confusion.answer.tolist(), "photos": confusion.photos.tolist()}


def _per_class(people: Sequence[str], confusion: scores.Confusion) -> list[dict[str, Any]]:
    """A row of figures for each person; the last column of the confusion is that of refusals."""
    counts = zip(confusion.right.tolist(), confusion.answered(len(people)).tolist(), strict=True)
    return [
        {
            "name": name,
            **row,
            "named_right": right,
            "named_wrong": row["support"] - right - refused,
            "refused": refused,
        }
        for name, row, (right, refused) in zip(people, scores.per_class(confusion), counts, strict=True)
    ]


def _strangers(
    answers: Answers,
    found: Verdicts,
    theirs: npt.NDArray[np.bool_],
    known_faces: npt.NDArray[np.int64],
    people: int,
    threshold: float | None,
) -> dict[str, Any]:
    """Figures of strangers' photos, given by the mask ``theirs`` (n,); ``known_faces`` are the negatives of the ROC."""
    named = found.named[theirs]
    alone = answers.unknown_scores[found.first[theirs & found.alone]]
    return {
        "photos": len(named),
        "several": int((theirs & ~found.alone).sum()),
        "auroc": scores.area_under_roc(alone, answers.unknown_scores[known_faces]),
        "named": int((named < people).sum()),
        "refused": int((named == people).sum()),
        "named_as": np.bincount(named[named < people], minlength=people).tolist(),
        "threshold": threshold,
    }


def _counts(truth: npt.NDArray[np.int64], named: npt.NDArray[np.int64], people: int) -> dict[str, int]:
    """Count known people's photos (n,) by what they were named (n,), where ``people`` stands for a refusal."""
    right, refused = int((named == truth).sum()), int((named == people).sum())
    return {"photos": len(truth), "named_right": right, "named_wrong": len(truth) - right - refused, "refused": refused}


def wilson_interval(right: int, number: int) -> tuple[float, float]:
    """The 95 % confidence interval of a proportion, ``right`` of ``number`` independent trials (Wilson 1927).

    It holds for few trials, and for 0 and 1, too.
    """
    share, square = right / number, _NORMAL_QUANTILE**2
    middle = (share + square / (2 * number)) / (1 + square / number)
    half = _NORMAL_QUANTILE * sqrt(share * (1 - share) / number + square / (4 * number**2)) / (1 + square / number)
    # Rounding mustn't push an end beyond the share itself.
    return max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))


def warn_of_people_alike(pairs: Sequence[tuple[str, str]], console: Console) -> None:
    """Warn of pairs of people whom the answers don't tell apart."""
    for text in findings.people_alike([(shown(one), shown(other)) for one, other in pairs]):
        console.warning(text)
