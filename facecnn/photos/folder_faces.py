"""Which face of each photo is trained on: that of the person whose folder the photo lies in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from facecnn.errors import PhotoError, shown
from facecnn.photos.cache import Crops, crops_of, load_photos
from facecnn.photos.consensus import Choice, choose, likeness
from facecnn.photos.dataset import Dataset
from facecnn.photos.face import size_and_place
from facecnn.photos.hog import Features, describe

Numbers = npt.NDArray[np.int64]

FITS = 0.3
"""See ``Choice.fit``: below it a face doesn't look like the folder's person. Chosen on pasted groups
(docs/FACES.md says how many it loses and catches)."""

ENOUGH = 20
"""Photos of a folder in which a face must fit before those in which none does are left out: with fewer, most of those
left out would hold the person."""

LIKE_NOBODY = 0.5
"""Of ``likeness``: below it somebody beside a person is taken for a stranger. docs/FACES.md says how many of the people
themselves are below it."""

SAME_COMPANION, SURE_COMPANION = 0.7, 30
"""Median of ``Choice.companion``, and photos, from which on the same other face is said to appear beside a person."""

_NOBODY = np.zeros((0, 2), np.int64)

_PRIOR = 0.1
"""What size and place count for beside what a face looks like."""


@dataclass(frozen=True)
class FolderFaces:
    """What is trained on."""

    photos: Numbers
    """(photos used,): numbers in the data set, ascending."""
    faces: Numbers
    """(photos used,): which of a photo's faces, the main one being 0."""
    left_out: Mapping[int, str]
    """Numbers of the photos in which no face fits, and why, as "reason: what to do"."""
    warnings: tuple[str, ...] = ()
    spectators: Numbers = field(default_factory=lambda: _NOBODY)
    """(spectators, 2): numbers of photo and face of those beside the people who are trained on as strangers."""

    def rows(self, dataset: Dataset) -> Numbers:
        """(the data set's photos,): index into its ``pixels``; of a photo that isn't trained on, the main face's."""
        rows = dataset.rows.copy()
        rows[self.photos] += self.faces
        return rows

    def samples(self, dataset: Dataset) -> tuple[Numbers, Numbers, Numbers]:
        """What a training takes: (n,) rows of the data set's ``pixels`` and (n,) labels, those of its photos and then
        those of the spectators; and the numbers among these n of those that are trained on."""
        photo, face = self.spectators.T
        rows = np.concatenate([self.rows(dataset), dataset.rows[photo] + face])
        labels = np.concatenate([dataset.labels, np.full(len(photo), len(dataset.people))])
        return rows, labels, np.concatenate([self.photos, np.arange(len(dataset.labels), len(rows))])

    def part(self, which: Numbers) -> FolderFaces:
        """Some of the photos, indices into ``photos``, without spectators."""
        return FolderFaces(self.photos[which], self.faces[which], {})

    def record(self, dataset: Dataset) -> dict[str, Any]:
        """What ``from_record`` needs, for the run's split.json: of each photo with several faces the one chosen,
        whether the main one isn't it, and the spectators."""
        faces = {
            dataset.paths[number]: {
                "box": list(dataset.faces[number][face].box),
                "of": len(dataset.faces[number]),
                "another": face > 0,
            }
            for number, face in zip(self.photos.tolist(), self.faces.tolist(), strict=True)
            if len(dataset.faces[number]) > 1
        }
        left_out = {
            dataset.paths[number]: {"sha256": dataset.sha256[number], "reason": reason}
            for number, reason in self.left_out.items()
        }
        spectators: dict[str, list[list[float]]] = {}
        for number, face in self.spectators.tolist():
            spectators.setdefault(dataset.paths[number], []).append(list(dataset.faces[number][face].box))
        recorded = {"faces": faces, "left_out": left_out, "spectators": spectators}
        return {name: photos for name, photos in recorded.items() if photos}


def main_faces(photos: Numbers) -> FolderFaces:
    """The main face of each of the photos."""
    return FolderFaces(photos, np.zeros(len(photos), np.int64), {})


def from_record(record: Mapping[str, Any], dataset: Dataset) -> FolderFaces:
    """What was chosen for a run, by its split.json, of the photos that are still there. Of a photo in which the face
    isn't found any more it is the main one; in runs of older versions it always was."""
    chosen, number = record.get("faces", {}), {path: index for index, path in enumerate(dataset.paths)}
    photos = np.array(sorted(number[path] for path in record["train"] if path in number), np.int64)
    faces = np.zeros(len(photos), np.int64)
    for index, photo in enumerate(photos.tolist()):
        if dataset.paths[photo] in chosen:
            faces[index] = _face_at(chosen[dataset.paths[photo]]["box"], dataset, photo) or 0
    left_out = {number[path]: gone["reason"] for path, gone in record.get("left_out", {}).items() if path in number}
    spectators = [
        (number[path], face)
        for path, boxes in record.get("spectators", {}).items()
        if path in number
        for box in boxes
        if (face := _face_at(box, dataset, number[path])) is not None
    ]
    return FolderFaces(photos, faces, left_out, spectators=np.array(spectators, np.int64).reshape(-1, 2))


def _face_at(box: list[float], dataset: Dataset, photo: int) -> int | None:
    """Which of a photo's faces has that box."""
    return next((index for index, face in enumerate(dataset.faces[photo]) if list(face.box) == box), None)


def folder_faces(dataset: Dataset, among: Numbers, *, spectators: bool = True) -> FolderFaces:
    """Choose the face to train on of each of the photos numbered ``among``, by these photos alone, and unless they
    aren't wanted the spectators.

    Photos in ``unknown/`` show their main face. Where no photo has several faces there is nothing to choose.
    """
    several = ~dataset.show_one_face(among)
    known = among[dataset.labels[among] < len(dataset.people)]
    if not several.any() or not len(known):
        return main_faces(among)
    faces = _describe(dataset, known)
    choice = _choose(dataset, faces)
    chosen = np.zeros(len(dataset.labels), np.int64)
    chosen[known] = faces.crops.face[choice.face]
    left_out = _fitting_nobody(dataset, known, choice)
    kept = among[~np.isin(among, list(left_out))]
    beside = _spectators(dataset, faces, choice, kept) if spectators else _NOBODY
    return FolderFaces(kept, chosen[kept], left_out, _companions(dataset, known, choice), beside)


@dataclass(frozen=True)
class _Described:
    """What the faces in some photos look like."""

    photos: Numbers
    """(photos,): their numbers in the data set."""
    crops: Crops
    """Of the faces."""
    features: Features
    """(faces, features)"""


def _describe(dataset: Dataset, photos: Numbers) -> _Described:
    crops = dataset.crops(photos)
    pixels, rows = dataset.pixels, crops.rows
    if dataset.settings.hide_face:
        pixels, rows = _visible(dataset, photos)
    return _Described(photos, crops, describe(np.asarray(pixels[rows])))


def _folders(dataset: Dataset, photos: Numbers) -> Numbers:
    """(photos,): whose folder each lies in, from 0 on, without gaps."""
    return np.asarray(np.unique(dataset.labels[photos], return_inverse=True)[1])


def _choose(dataset: Dataset, described: _Described) -> Choice:
    photos, photo = described.photos, described.crops.photo
    faces = [face for number in photos.tolist() for face in dataset.faces[number]]
    sizes = dataset.sizes[photos][photo].tolist()
    prior = _PRIOR * np.array([size_and_place(face, *size) for face, size in zip(faces, sizes, strict=True)])
    return choose(described.features, photo, _folders(dataset, photos), prior)


def _spectators(dataset: Dataset, described: _Described, choice: Choice, kept: Numbers) -> Numbers:
    """(spectators, 2): numbers of photo and face of those beside the people, in the photos ``kept``, who look like none
    of them. As they are trained on as strangers, some of these photos must be of strangers."""
    crops, is_kept = described.crops, np.isin(described.photos, kept)
    strangers = kept[dataset.labels[kept] == len(dataset.people)]
    beside = is_kept[crops.photo]
    beside[choice.face] = False
    if not len(strangers) or not beside.any():
        return _NOBODY
    people, others = described.features[choice.face[is_kept]], _describe(dataset, strangers).features
    folders = np.concatenate([_folders(dataset, described.photos[is_kept]), np.full(len(others), -1)])
    fits = likeness(np.concatenate([people, others]), folders, described.features[beside])
    return np.stack([described.photos[crops.photo], crops.face], axis=1)[beside][fits < LIKE_NOBODY]


def _visible(dataset: Dataset, photos: Numbers) -> tuple[npt.NDArray[np.uint8], Numbers]:
    """The crops of a data set whose faces are hidden, as they are if they aren't: pixels, and the rows of them."""
    files = [Path(dataset.files[number]) for number in photos.tolist()]
    loaded = load_photos(files, replace(dataset.settings, hide_face=False), finder=dataset.finder)
    there = [loaded.faces[index] == dataset.faces[number] for index, number in enumerate(photos.tolist())]
    if not all(there):
        gone = dataset.paths[photos[there.index(False)]]
        raise PhotoError(f"{shown(gone)}: it has changed, or can't be read any more: start again")
    return loaded.pixels, crops_of(loaded.row, loaded.faces).rows


def _fitting_nobody(dataset: Dataset, known: Numbers, choice: Choice) -> dict[int, str]:
    """Of the photos with several faces those in which none fits, where enough others say what fits."""
    fits = choice.fit >= FITS
    sure = Counter(dataset.labels[known[fits]].tolist())
    return {
        number: _reason(len(dataset.faces[number]), dataset.classes[dataset.labels[number]])
        for number, is_right in zip(known.tolist(), fits.tolist(), strict=True)
        if not is_right and len(dataset.faces[number]) > 1 and sure[int(dataset.labels[number])] >= ENOUGH
    }


def _reason(faces: int, name: str) -> str:
    return (
        f"none of {faces} faces looks like {shown(name)} in the other photos: cut the face out, or take a photo of "
        "this person alone"
    )


def _companions(dataset: Dataset, known: Numbers, choice: Choice) -> tuple[str, ...]:
    """Of people without a photo alone, beside whom the same other face keeps appearing."""
    labels = dataset.labels[known]
    warnings = []
    for label in np.unique(labels).tolist():
        own = choice.companion[labels == label]
        if len(own) >= SURE_COMPANION and np.median(own) >= SAME_COMPANION:
            name = shown(dataset.classes[label])
            warnings.append(
                f"no photo of {name} alone: add one: the same other face keeps appearing, and which of the two "
                "is meant can't be known"
            )
    return tuple(warnings)
