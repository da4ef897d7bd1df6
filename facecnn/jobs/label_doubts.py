"""What is doubtful about each photo of a labelled album, in words and in an order; nothing is labelled anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from facecnn.arrays import Array
from facecnn.errors import shown
from facecnn.learning import scores
from facecnn.photos.dataset import Dataset
from facecnn.photos.face import Face
from facecnn.photos.folder import UNKNOWN
from facecnn.photos.preparation import without_margin
from facecnn.photos.sharpness import sharpness

BLURRED = 0.2
"""Of the album's median sharpness: below this a face is called blurred. Measured: of 896 photos of LFW three are; with
a Gaussian blur whose deviation is 1.5 of the network's pixels all are, with 1 three in four."""
SMALL_SHARE = 0.08
"""Of the photo's shorter side: a narrower face is called small."""
SMALL_PIXELS = 0.6
"""Of the pixels across that the network sees: a narrower face is called small, as half of what it shows is made up."""


@dataclass(frozen=True)
class Answers:
    """What is made of each photo by those that haven't seen it; the larger, the likelier the folder."""

    faces: Array
    """(photos,): which of each photo's faces was looked at, the main one being 0: the one that is most like its folder,
    as training chooses it."""
    fitting_nobody: frozenset[int]
    """Numbers of the photos in which no face is like the folder; the main one was looked at."""
    ridge: Array
    """(photos, classes)"""
    network: Array | None
    """(photos, classes) log-probabilities; None where nothing was trained."""

    @property
    def leading(self) -> Array:
        """(photos, classes): the network's, where there is one."""
        return self.ridge if self.network is None else self.network

    def margins(self, labels: Array) -> Array:
        """(answers, photos): by how much the folder of each photo (photos,) is ahead of the best other one, to the
        ridge and, where there is one, to the network."""
        answers = [self.ridge] if self.network is None else [self.ridge, self.network]
        return np.array([scores.margins(each, labels) for each in answers])


@dataclass(frozen=True)
class Looked:
    """A photo, and what was seen in it."""

    photo: int
    """Its number in the data set."""
    path: str
    """PERSON/FILE"""
    face: Face | None
    """Of its faces the one that was looked at; None where faces weren't looked for."""
    number: int
    """Of that face among the photo's, from 0."""
    folder: str
    likeliest: str
    """Of all folders, to the network, or to the ridge where nothing was trained."""
    confidence: float | None
    """The network's probability of ``likeliest``; None where nothing was trained."""
    reasons: tuple[str, ...]
    """What was seen that may be wrong, each as it can be printed; also how many faces it is one of."""
    is_doubtful: bool
    """Whether there is more to say than that it has several faces."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "path": self.path,
            "box": None if self.face is None else list(self.face.box),
            "folder": self.folder,
            "likeliest": self.likeliest,
            "confidence": self.confidence,
            "reasons": list(self.reasons),
        }


def in_order_of_doubt(dataset: Dataset, answers: Answers) -> tuple[Looked, ...]:
    """All photos, the most doubtful first.

    First come those that are more like another folder than their own, to the network or to the ridge, then those in
    which something else was seen, then the rest. Within each the order is that of the margins by which the own folder
    is ahead of the best other one: their ranks among all photos, by the network and by the ridge, are added.
    """
    labels = dataset.labels
    margins = answers.margins(labels)
    ranks: Array = np.sum([scores.ranks(each) for each in margins], axis=0)
    unlike = np.min(margins, axis=0) < 0
    seen = _Seen(dataset, answers)
    rows = []
    for photo, label in enumerate(labels.tolist()):
        likeliest = int(answers.leading[photo].argmax())
        faces, number = dataset.faces[photo], int(answers.faces[photo])
        flaws = seen.flaws(photo)
        several = [f"1 of {len(faces)} faces"] if len(faces) > 1 else []
        looked = Looked(
            photo=photo,
            path=dataset.paths[photo],
            face=faces[number] if faces else None,
            number=number,
            folder=dataset.classes[label],
            likeliest=dataset.classes[likeliest],
            confidence=None if answers.network is None else float(np.exp(answers.network[photo, likeliest])),
            reasons=(*seen.likeness(photo), *flaws, *several),
            is_doubtful=bool(unlike[photo] or flaws),
        )
        rows.append((0 if unlike[photo] else 1 if flaws else 2, float(ranks[photo]), photo, looked))
    return tuple(looked for *_, looked in sorted(rows, key=lambda row: row[:3]))


def maybe_one_person(dataset: Dataset, answers: Answers) -> list[tuple[int, int]]:
    """Pairs of people whom the answers don't tell apart."""
    people = len(dataset.people)
    known = dataset.labels < people
    named = answers.leading[known, :people].argmax(axis=1)
    return scores.indistinguishable(scores.confusion_matrix(dataset.labels[known], named, people))


class _Seen:
    """What is seen in photos that may be wrong, in words."""

    def __init__(self, dataset: Dataset, answers: Answers) -> None:
        self._dataset, self._answers = dataset, answers
        rows = dataset.rows + answers.faces
        self._sharpness = sharpness(without_margin(dataset.pixels[rows], dataset.settings))
        self._usual = float(np.median(self._sharpness))
        self._alike = maybe_one_person(dataset, answers)

    def likeness(self, photo: int) -> list[str]:
        """Which folders it is more like than its own."""
        own, ridge = int(self._dataset.labels[photo]), int(self._answers.ridge[photo].argmax())
        network = ridge if self._answers.network is None else int(self._answers.network[photo].argmax())
        if network == ridge == own:
            return []
        if network == ridge:
            said = [f"more like {self._name(ridge)}"]
        elif own not in (network, ridge):
            said = [f"more like {self._name(network)}, to the ridge like {self._name(ridge)}"]
        elif network != own:
            said = [f"more like {self._name(network)} to the network, not to the ridge"]
        else:
            said = [f"more like {self._name(ridge)} to the ridge, not to the network"]
        if any(tuple(sorted((own, other))) in self._alike for other in (network, ridge)):
            said.append("maybe one person under two names")
        return said

    def flaws(self, photo: int) -> list[str]:
        """What else may be wrong."""
        faces, number = self._dataset.faces[photo], int(self._answers.faces[photo])
        share = self._sharpness[photo] / self._usual if self._usual else 1.0
        found = [f"blurred: {100 * share:.0f} % as sharp as most photos"] if share < BLURRED else []
        if faces:
            found += self._small(faces[number], self._dataset.sizes[photo])
        if number:
            found.append("not its main face")
        if photo in self._answers.fitting_nobody:
            found.append(f"none of its faces is like {self._name(int(self._dataset.labels[photo]))}")
        return found

    def _small(self, face: Face, size: Sequence[int]) -> list[str]:
        left, top, right, bottom = face.box
        width, settings = min(right - left, bottom - top), self._dataset.settings
        share = width / min(size)
        if share >= SMALL_SHARE and width >= SMALL_PIXELS * min(settings.height, settings.width):
            return []
        return [f"small face: {width:.0f} pixels, {100 * share:.0f} % of the photo's side"]

    def _name(self, number: int) -> str:
        name = self._dataset.classes[number]
        return "a stranger" if name == UNKNOWN else shown(name)
