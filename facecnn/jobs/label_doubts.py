"""What is doubtful about each photo of a labelled album, and which photos are the most doubtful."""

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
from facecnn.photos.preparation import sharpness, without_margin

BLURRED = 0.2
"""Share of the album's median sharpness below which a face is called blurred. Measured: 3 of 896 photos of LFW are; all
are after a Gaussian blur with a standard deviation of 1.5 network pixels, and three in four with one of 1."""
SMALL_SHARE = 0.08
"""Share of the photo's shorter side below which a face is called small."""
SMALL_PIXELS = 0.6
"""Share of the network's pixels below which a face is called small: half of what the network sees is interpolated."""


@dataclass(frozen=True)
class UnseenAnswers:
    """Scores of each photo by models that haven't seen it: the larger, the likelier the folder."""

    faces: Array
    """(photos,): index of the face that was scored, 0 for the main one: the one most like its folder, as training
    chooses it."""
    without_match: frozenset[int]
    """Numbers of the photos in which no face is like the folder; the main face was scored."""
    ridge: Array
    """(photos, classes)"""
    network: Array | None
    """(photos, classes) log-probabilities; None if nothing was trained."""

    @property
    def best(self) -> Array:
        """(photos, classes): the network's scores, or the ridge's where nothing was trained."""
        return self.ridge if self.network is None else self.network

    def margins(self, labels: Array) -> Array:
        """(models, photos): by how much each photo's own folder (photos,) is ahead of the best other one."""
        answers = [self.ridge] if self.network is None else [self.ridge, self.network]
        return np.array([scores.margins(each, labels) for each in answers])


@dataclass(frozen=True)
class InspectedPhoto:
    """A photo, and what may be wrong with it."""

    photo: int
    """Its number in the data set."""
    path: str
    """PERSON/FILE"""
    face: Face | None
    """The face that was scored; None if faces weren't looked for."""
    number: int
    """Index of that face among the photo's, from 0."""
    folder: str
    likeliest: str
    """The likeliest folder by the network, or by the ridge where nothing was trained."""
    confidence: float | None
    """The network's probability of ``likeliest``; None if nothing was trained."""
    reasons: tuple[str, ...]
    """What may be wrong, as printable text; also the number of faces in the photo."""
    is_doubtful: bool
    """Whether anything but the number of faces may be wrong."""

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


def rank_by_doubt(dataset: Dataset, answers: UnseenAnswers) -> tuple[InspectedPhoto, ...]:
    """All photos, the most doubtful first.

    First come photos that are more like another folder, by the network or by the ridge, then those with other flaws,
    then the rest. Each of these groups is sorted by the sum of two ranks: by the network's and by the ridge's margin
    between a photo's own folder and the best other one.
    """
    labels = dataset.labels
    margins = answers.margins(labels)
    ranks: Array = np.sum([scores.ranks(each) for each in margins], axis=0)
    unlike = np.min(margins, axis=0) < 0
    inspector = _Inspector(dataset, answers)
    rows = []
    for photo, label in enumerate(labels.tolist()):
        likeliest = int(answers.best[photo].argmax())
        faces, number = dataset.faces[photo], int(answers.faces[photo])
        flaws = inspector.flaws(photo)
        several = [f"1 of {len(faces)} faces"] if len(faces) > 1 else []
        inspected = InspectedPhoto(
            photo=photo,
            path=dataset.paths[photo],
            face=faces[number] if faces else None,
            number=number,
            folder=dataset.classes[label],
            likeliest=dataset.classes[likeliest],
            confidence=None if answers.network is None else float(np.exp(answers.network[photo, likeliest])),
            reasons=(*inspector.likeness(photo), *flaws, *several),
            is_doubtful=bool(unlike[photo] or flaws),
        )
        rows.append((0 if unlike[photo] else 1 if flaws else 2, float(ranks[photo]), photo, inspected))
    return tuple(inspected for *_, inspected in sorted(rows, key=lambda row: row[:3]))


def indistinguishable_people(dataset: Dataset, answers: UnseenAnswers) -> list[tuple[int, int]]:
    """Pairs of people whom the answers don't tell apart."""
    people = len(dataset.people)
    known = dataset.labels < people
    named = answers.best[known, :people].argmax(axis=1)
    return scores.indistinguishable(scores.Confusion.of(dataset.labels[known], named, people))


class _Inspector:
    """Says in words what may be wrong with photos."""

    def __init__(self, dataset: Dataset, answers: UnseenAnswers) -> None:
        self._dataset, self._answers = dataset, answers
        rows = dataset.rows + answers.faces
        self._sharpness = sharpness(without_margin(dataset.pixels[rows], dataset.settings))
        self._median_sharpness = float(np.median(self._sharpness))
        self._alike = indistinguishable_people(dataset, answers)

    def likeness(self, photo: int) -> list[str]:
        """The folders that it is more like than its own."""
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
        share = self._sharpness[photo] / self._median_sharpness if self._median_sharpness else 1.0
        found = [f"blurred: {100 * share:.0f} % as sharp as most photos"] if share < BLURRED else []
        if faces:
            found += self._small(faces[number], self._dataset.sizes[photo])
        if number:
            found.append("not its main face")
        if photo in self._answers.without_match:
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
