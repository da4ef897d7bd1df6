"""Pictures that are made of answered photos: their names, their faces, and what is told of them."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from facecnn.errors import shown
from facecnn.jobs.console import Console
from facecnn.photos.folder import some
from facecnn.runs.atomic import make_folder, output_error
from facecnn.runs.drawing import NamedFace

_LONGEST_NAME = 200  # bytes: most file systems take 255


class PictureNames:
    """Names in a folder that nothing has yet: PHOTO, the suffix, and between them a number where that is taken, also
    where a file system takes no account of case."""

    def __init__(self, folder: Path, suffix: str) -> None:
        """The folder is made if missing. Raises OutputError."""
        make_folder(folder)
        self._folder, self._suffix = folder, suffix
        try:
            self._taken = {_folded(entry.name) for entry in folder.iterdir()}
        except OSError as error:
            raise output_error(folder, error) from error
        self._last: dict[str, int] = {}

    def next(self, photo: Path) -> Path:
        """The file for a photo's picture: photo.drawn.jpg, photo-2.drawn.jpg, …"""
        stem = photo.stem
        while len(os.fsencode(stem)) > _LONGEST_NAME:
            stem = stem[:-1]
        number = self._last.get(_folded(stem), 0)
        while True:
            number += 1
            name = f"{stem}{self._suffix}" if number == 1 else f"{stem}-{number}{self._suffix}"
            if _folded(name) not in self._taken and not os.path.lexists(self._folder / name):
                break
        self._last[_folded(stem)] = number
        self._taken.add(_folded(name))
        return self._folder / name


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def named_face(face: dict[str, Any], scale: tuple[float, float], number: int | None = None) -> NamedFace:
    """A face of the predict JSON in a photo of another size, so many pixels across and down for one."""
    left, top, right, bottom = face["box"]
    return NamedFace(
        box=(scale[0] * left, scale[1] * top, scale[0] * right, scale[1] * bottom),
        name=face["label"],
        is_person=face["label"] in face["probabilities"],
        confidence=face["confidence"],
        also_like=face.get("also_like"),
        number=number,
    )


def tell(
    console: Console,
    done: str,
    pictures: Sequence[tuple[str, Path]],
    without: Sequence[str],
    folder: Path,
) -> None:
    """Which picture is whose, and which photos have none.

    Args:
        console: where it is told.
        done: what was done with a photo, as a participle.
        pictures: of each picture the photo's path, and its own.
        without: the photos that have none, or why not, as they can be printed.
        folder: where the pictures are.
    """
    for photo, picture in pictures:
        console.info(f"{shown(photo)}: {done} in {shown(picture)}")
    console.info(f"{done.capitalize()}: {len(pictures)} of {len(pictures) + len(without)} photos, in {shown(folder)}")
    if without:
        console.info(f"Not {done}, as there is no face with an answer: {some(without)}")
