"""How good answers are to photos whose people are known, in figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from facecnn.learning import scores
from facecnn.photos.dataset import Dataset
from facecnn.recognition import Answers, Recogniser


@dataclass(frozen=True)
class Verdicts:
    """What the answers to the faces in n photos, whose people are known, come to, photo by photo."""

    named: npt.NDArray[np.int64]
    """(n,): number of the name that counts: the person's own where a face was given it, else that of the best match
    among those given; the number after the people's where none was."""
    face: npt.NDArray[np.int64]
    """(n,): number, among all the faces, of the one that decided that: the one with the name, or the main one."""
    first: npt.NDArray[np.int64]
    """(n,): number, among all the faces, of the main one."""
    faces: npt.NDArray[np.int64]
    """(n,): how many faces a photo has."""
    likeliest_right: npt.NDArray[np.bool_]
    """(n,): whether the person's name would be given if no face were refused as a stranger's."""

    @property
    def alone(self) -> npt.NDArray[np.bool_]:
        """(n,): whether a photo has one face only, so that it is known whose it is."""
        return np.asarray(self.faces == 1)


def verdicts(recogniser: Recogniser, answers: Answers, labels: npt.NDArray[np.int64]) -> Verdicts:
    """Who each photo's person was taken for. ``labels`` (n,): index into the people, or their number for strangers.

    A person's photo with several faces is named right where the person's name is among those given in it, named wrong
    where it isn't and others are, and refused otherwise. So no face needs to be picked as the person's, which the label
    would have to help with.
    """
    people, likeliest, photo = len(recogniser.people), answers.likeliest, answers.photo
    faces = np.bincount(photo, minlength=len(labels))
    first = np.cumsum(faces) - faces
    # A photo's faces by what they count: the right name, then another one, then none; the best match first. Of none the
    # main face is first.
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
    """Photos of a data set whose people are known, with the answers to their faces."""

    dataset: Dataset
    numbers: npt.NDArray[np.int64]
    """(n,): which photos."""
    labels: npt.NDArray[np.int64]
    """(n,): who is in them, index into the model's people, or their number for anybody else."""
    answers: Answers
    figures: dict[str, Any]
    """That ``judge`` gives."""


def judge_photos(
    recogniser: Recogniser,
    dataset: Dataset,
    numbers: npt.NDArray[np.int64],
    logs: npt.NDArray[np.float64] | None = None,
) -> JudgedPhotos:
    """Judge a model by photos of a data set, those with these numbers (n,).

    ``logs``: what ``recogniser.log_probabilities`` gives for their crops, where that is known.
    """
    labels = labels_in(dataset, numbers, recogniser.people)
    threshold = recogniser.threshold("auto")
    crops = dataset.crops(numbers)
    if logs is None:
        logs = recogniser.log_probabilities(dataset.pixels, crops.rows)
    answers = recogniser.answers_from(logs, threshold, crops.photo)
    return JudgedPhotos(dataset, numbers, labels, answers, judge(recogniser, answers, labels, threshold))


def labels_in(dataset: Dataset, numbers: npt.NDArray[np.int64], people: Sequence[str]) -> npt.NDArray[np.int64]:
    """(n,): who is in the photos with these numbers (n,), index into ``people``, or their number for anybody else."""
    index = {name: number for number, name in enumerate(people)}
    return np.array([index.get(name, len(people)) for name in dataset.classes], np.int64)[dataset.labels[numbers]]


def judge(
    recogniser: Recogniser, answers: Answers, labels: npt.NDArray[np.int64], threshold: float | None
) -> dict[str, Any]:
    """Figures of ``answers`` to the faces in n photos, as ``train``, ``eval``, reports and model cards have them.

    One rule holds for all of them but ``closed_set_accuracy`` and ``log_loss``: an answer is what ``predict`` gives, a
    name or a refusal. A known person's photo is named right, named wrong or refused; a stranger's is named or refused,
    named where any face in it is. Of a photo with several faces ``verdicts`` tells which; ``several`` counts those of
    known people apart (zeros where there are none).

    ``closed_set_accuracy`` takes the likeliest person, and ``log_loss`` the probabilities over the people, whatever
    the threshold says; so does ``alike``, which has pairs of people whom the model doesn't tell apart. ``precision`` is
    that among known people's photos, and ``expected_calibration_error`` is of those that are named. ``log_loss``,
    ``expected_calibration_error``, ``auroc`` and ``alike`` are of photos with one face, as of several nobody has said
    which is the person's.

    Args:
        recogniser: whose answers they are.
        answers: to the photos' faces.
        labels: (n,) who the photos show: index into the people, or their number for strangers.
        threshold: that the answers were refused by.
    """
    people = len(recogniser.people)
    found = verdicts(recogniser, answers, labels)
    known = labels < people
    truth, named = labels[known], found.named[known]
    confusion = scores.confusion_matrix(truth, named, people + 1)[:people]
    right, closed_set, photos = int(np.trace(confusion)), int(found.likeliest_right[known].sum()), len(truth)
    # The one face of each of a known person's photos with one, and who that person is.
    face, whose = found.first[known & found.alone], labels[known & found.alone]
    likeliest, kept = answers.likeliest[face], ~answers.refused[face]
    return {
        "accuracy": right / photos if photos else None,
        "interval": list(wilson_interval(right, photos)) if photos else None,
        "closed_set_accuracy": closed_set / photos if photos else None,
        "closed_set_interval": list(wilson_interval(closed_set, photos)) if photos else None,
        "balanced_accuracy": scores.balanced_accuracy(confusion),
        "log_loss": scores.log_loss(answers.probabilities[face], whose),
        "expected_calibration_error": scores.expected_calibration_error(
            answers.confidences[face][kept], (likeliest == whose)[kept]
        ),
        "classes": list(recogniser.people),
        "confusion": confusion.tolist(),
        "per_class": _per_class(recogniser.people, confusion),
        "alike": [
            [recogniser.people[one], recogniser.people[other]]
            for one, other in scores.indistinguishable(scores.confusion_matrix(whose, likeliest, people))
        ],
        "known": _counts(truth, named, people),
        "several": _counts(labels[known & ~found.alone], found.named[known & ~found.alone], people),
        "unknown": None if known.all() else _strangers(answers, found, ~known, face, people, threshold),
    }


def _per_class(people: Sequence[str], confusion: npt.NDArray[np.int64]) -> list[dict[str, Any]]:
    """A row of figures for each person; ``confusion`` (people, people + 1), the last column being refusals."""
    return [
        {
            "name": name,
            **row,
            "named_right": counts[index],
            "named_wrong": sum(counts[:-1]) - counts[index],
            "refused": counts[-1],
        }
        for index, (name, row, counts) in enumerate(
            zip(people, scores.per_class(confusion), confusion.tolist(), strict=True)
        )
    ]


def _strangers(
    answers: Answers,
    found: Verdicts,
    theirs: npt.NDArray[np.bool_],
    known_faces: npt.NDArray[np.int64],
    people: int,
    threshold: float | None,
) -> dict[str, Any]:
    """Figures of strangers' photos, of which ``theirs`` (n,) tells; ``known_faces``: numbers of faces to tell them
    from."""
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
    """Of known people's photos (n,), by what they were named (n,): ``people`` stands for a refusal."""
    right, refused = int((named == truth).sum()), int((named == people).sum())
    return {"photos": len(truth), "named_right": right, "named_wrong": len(truth) - right - refused, "refused": refused}


def wilson_interval(right: int, number: int, deviations: float = 1.959964) -> tuple[float, float]:
    """The interval in which a share lies of which ``right`` of ``number`` independent trials came out, with 95 %
    confidence unless other ``deviations`` of the normal distribution are given (Wilson 1927). Unlike the usual
    formula's it holds for few trials, and where all or none came out."""
    share, square = right / number, deviations**2
    middle = (share + square / (2 * number)) / (1 + square / number)
    half = deviations * sqrt(share * (1 - share) / number + square / (4 * number**2)) / (1 + square / number)
    # Rounding mustn't push an end beyond the share itself.
    return max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))
