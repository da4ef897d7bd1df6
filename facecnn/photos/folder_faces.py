"""Chooses the face of each photo to train on: that of the person whose folder the photo lies in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from facecnn.arrays import Int64Array, UInt8Array
from facecnn.errors import PhotoError, shown
from facecnn.photos.cache import Crops, crops_of, load_photos
from facecnn.photos.consensus import Choice, choose, likeness
from facecnn.photos.dataset import Dataset
from facecnn.photos.face import size_and_place
from facecnn.photos.hog import Features, describe

FITS = 0.3
"""Minimum ``Choice.fit`` of a face that looks like the folder's person, chosen on pasted groups (docs/FACES.md has the
error rates)."""

ENOUGH = 20
"""How many of a folder's photos must have a fitting face before those without one are left out: with fewer, most photos
left out would show the person."""

LIKE_NOBODY = 0.5
"""A bystander whose ``likeness`` is below this is taken for a stranger. docs/FACES.md has the share of the people
themselves for whom that holds."""

SAME_COMPANION, SURE_COMPANION = 0.7, 30
"""Minimum median of ``Choice.companion``, and of photos, for a warning that the same companion is always there."""

_NOBODY = np.zeros((0, 2), np.int64)

_PRIOR = 0.1
"""Weight of size and position relative to looks."""


@dataclass(frozen=True)
class FolderFaces:
    """The faces to train on."""

    photos: Int64Array
    """(photos used,): indices in the data set, ascending."""
    faces: Int64Array
    """(photos used,): which of a photo's faces; the main one is 0."""
    left_out: Mapping[int, str]
    """Why photos are left out in which no face fits, as "reason: what to do", by index."""
    warnings: tuple[str, ...] = ()
    spectators: Int64Array = field(default_factory=lambda: _NOBODY)
    """(spectators, 2): indices of photo and face of the bystanders to train on as strangers."""

    def rows(self, dataset: Dataset) -> Int64Array:
        """(the data set's photos,): index into its ``pixels``; the main face's for photos that aren't trained on."""
        rows = dataset.rows.copy()
        rows[self.photos] += self.faces
        return rows

    def samples(self, dataset: Dataset) -> tuple[Int64Array, Int64Array, Int64Array]:
        """The samples of a training run.

        Returns (n,) rows of the data set's ``pixels`` and (n,) labels, of its photos and then of the spectators, and
        the indices of the samples to train on.
        """
        photo, face = self.spectators.T
        rows = np.concatenate([self.rows(dataset), dataset.rows[photo] + face])
        labels = np.concatenate([dataset.labels, np.full(len(photo), len(dataset.people))])
        return rows, labels, np.concatenate([self.photos, np.arange(len(dataset.labels), len(rows))])

    def part(self, which: Int64Array) -> FolderFaces:
        """Some of the photos, by index into ``photos``, without spectators."""
        return FolderFaces(self.photos[which], self.faces[which], {})

    def record(self, dataset: Dataset) -> dict[str, Any]:
        """The data for the run's split.json, which ``from_record`` reads: the face chosen of several and whether it
        isn't the main one, the photos left out, and the spectators."""
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


def main_faces(photos: Int64Array) -> FolderFaces:
    """The main face of each of the photos."""
    return FolderFaces(photos, np.zeros(len(photos), np.int64), {})


def from_record(record: Mapping[str, Any], dataset: Dataset) -> FolderFaces:
    """The choice recorded in a run's split.json, for photos that still exist.

    If a face isn't found any more, the photo's main face is used, as it always was in runs of older versions.
    """
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
    """The index of the photo's face with that box."""
    return next((index for index, face in enumerate(dataset.faces[photo]) if list(face.box) == box), None)


def folder_faces(dataset: Dataset, among: Int64Array, *, spectators: bool = True) -> FolderFaces:
    """Choose the face to train on in each photo with an index in ``among``, judged by these photos alone.

    Photos in ``unknown/`` show their main face. ``spectators``: whether to look for these, too.
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

    photos: Int64Array
    """(photos,): indices in the data set."""
    crops: Crops
    """Of the faces."""
    features: Features
    """(faces, features)"""


def _describe(dataset: Dataset, photos: Int64Array) -> _Described:
    crops = dataset.crops(photos)
    pixels, rows = dataset.pixels, crops.rows
    if dataset.settings.hide_face:
        pixels, rows = _visible(dataset, photos)
    return _Described(photos, crops, describe(np.asarray(pixels[rows])))


def _folders(dataset: Dataset, photos: Int64Array) -> Int64Array:
    """(photos,): the folder of each, numbered from 0 without gaps."""
    return np.asarray(np.unique(dataset.labels[photos], return_inverse=True)[1])


def _choose(dataset: Dataset, described: _Described) -> Choice:
    photos, photo = described.photos, described.crops.photo
    faces = [face for number in photos.tolist() for face in dataset.faces[number]]
    sizes = dataset.sizes[photos][photo].tolist()
    prior = _PRIOR * np.array([size_and_place(face, *size) for face, size in zip(faces, sizes, strict=True)])
    return choose(described.features, photo, _folders(dataset, photos), prior)


def _spectators(dataset: Dataset, described: _Described, choice: Choice, kept: Int64Array) -> Int64Array:
    """(spectators, 2): indices of photo and face of bystanders in the photos ``kept`` who look like none of the people.

    There are none without photos of strangers, as they are trained on as such.
    """
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


def _visible(dataset: Dataset, photos: Int64Array) -> tuple[UInt8Array, Int64Array]:
    """The crops of a data set with hidden faces as if these weren't hidden: pixels and the crops' rows."""
    files = [Path(dataset.files[number]) for number in photos.tolist()]
    loaded = load_photos(files, replace(dataset.settings, hide_face=False), finder=dataset.finder)
    there = [loaded.faces[index] == dataset.faces[number] for index, number in enumerate(photos.tolist())]
    if not all(there):
        gone = dataset.paths[photos[there.index(False)]]
        raise PhotoError(f"{shown(gone)}: it has changed, or can't be read any more: start again")
    return loaded.pixels, crops_of(loaded.row, loaded.faces).rows


def _fitting_nobody(dataset: Dataset, known: Int64Array, choice: Choice) -> dict[int, str]:
    """Photos with several faces of which none fits, in folders with enough others to compare with."""
    fits = choice.fit >= FITS
    sure = Counter(dataset.labels[known[fits]].tolist())
    return {
        number: f"none of {len(dataset.faces[number])} faces looks like "
        f"{shown(dataset.classes[dataset.labels[number]])} in the other photos: crop the photo to this person, or take "
        "a photo of this person alone"
        for number, is_right in zip(known.tolist(), fits.tolist(), strict=True)
        if not is_right and len(dataset.faces[number]) > 1 and sure[int(dataset.labels[number])] >= ENOUGH
    }


def _companions(dataset: Dataset, known: Int64Array, choice: Choice) -> tuple[str, ...]:
    """Warnings about people without a photo alone, beside whom the same other face keeps appearing."""
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
