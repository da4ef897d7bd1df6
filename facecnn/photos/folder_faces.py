"""Which face of each photo is trained on: that of the person whose folder the photo lies in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from facecnn.errors import PhotoError, shown
from facecnn.photos.cache import Crops, crops_of, load_photos
from facecnn.photos.consensus import Choice, choose
from facecnn.photos.dataset import Dataset
from facecnn.photos.face import size_and_place
from facecnn.photos.hog import describe

Numbers = npt.NDArray[np.int64]

FITS = 0.3
"""See ``Choice.fit``: below it a face doesn't look like the folder's person. Chosen on pasted groups
(docs/FACES.md says how many it loses and catches)."""

ENOUGH = 20
"""Photos of a folder in which a face must fit before those in which none does are left out: with fewer, most of those
left out would hold the person."""

SAME_COMPANION, SURE_COMPANION = 0.7, 30
"""Median of ``Choice.companion``, and photos, from which on the same other face is said to appear beside a person."""

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

    def rows(self, dataset: Dataset) -> Numbers:
        """(the data set's photos,): index into its ``pixels``; of a photo that isn't trained on, the main face's."""
        rows = dataset.rows.copy()
        rows[self.photos] += self.faces
        return rows

    def part(self, which: Numbers) -> FolderFaces:
        """Some of the photos: indices into ``photos``."""
        return FolderFaces(self.photos[which], self.faces[which], {})

    def record(self, dataset: Dataset) -> dict[str, Any]:
        """What ``from_record`` needs, for the run's split.json: of each photo with several faces the one chosen, and
        whether the main one isn't it."""
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
        return {name: photos for name, photos in (("faces", faces), ("left_out", left_out)) if photos}


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
            boxes = [list(face.box) for face in dataset.faces[photo]]
            box = chosen[dataset.paths[photo]]["box"]
            faces[index] = boxes.index(box) if box in boxes else 0
    left_out = {number[path]: gone["reason"] for path, gone in record.get("left_out", {}).items() if path in number}
    return FolderFaces(photos, faces, left_out)


def folder_faces(dataset: Dataset, among: Numbers) -> FolderFaces:
    """Choose the face to train on of each of the photos numbered ``among``, by these photos alone.

    Photos in ``unknown/`` show their main face. Where no photo has several faces there is nothing to choose.
    """
    several = ~dataset.show_one_face(among)
    known = among[dataset.labels[among] < len(dataset.people)]
    if not several.any() or not len(known):
        return main_faces(among)
    choice, crops = _choose(dataset, known)
    chosen = np.zeros(len(dataset.labels), np.int64)
    first = np.searchsorted(crops.photo, np.arange(len(known)))
    chosen[known] = choice.face - first
    left_out = _fitting_nobody(dataset, known, choice)
    kept = among[~np.isin(among, list(left_out))]
    return FolderFaces(kept, chosen[kept], left_out, _companions(dataset, known, choice))


def _choose(dataset: Dataset, known: Numbers) -> tuple[Choice, Crops]:
    crops = dataset.crops(known)
    pixels, rows = dataset.pixels, crops.rows
    if dataset.settings.hide_face:
        pixels, rows = _visible(dataset, known)
    faces = [face for number in known.tolist() for face in dataset.faces[number]]
    sizes = dataset.sizes[known][crops.photo].tolist()
    prior = _PRIOR * np.array([size_and_place(face, *size) for face, size in zip(faces, sizes, strict=True)])
    features = describe(np.asarray(pixels[rows]))
    labels = np.unique(dataset.labels[known], return_inverse=True)[1]
    return choose(features, crops.photo, labels, prior), crops


def _visible(dataset: Dataset, known: Numbers) -> tuple[npt.NDArray[np.uint8], Numbers]:
    """The crops of a data set whose faces are hidden, as they are if they aren't: pixels, and the rows of them."""
    files = [Path(dataset.files[number]) for number in known.tolist()]
    loaded = load_photos(files, replace(dataset.settings, hide_face=False), finder=dataset.finder)
    there = [loaded.faces[index] == dataset.faces[number] for index, number in enumerate(known.tolist())]
    if not all(there):
        gone = dataset.paths[known[there.index(False)]]
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
