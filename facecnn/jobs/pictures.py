"""Pictures that are made of answered photos: their names, their faces, and what is told of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from facecnn.errors import folded, shown
from facecnn.jobs.console import Console
from facecnn.photos.companions import is_drawn
from facecnn.photos.decode import UnusablePhoto
from facecnn.photos.folder import some
from facecnn.reports.drawing import NamedFace
from facecnn.runs.atomic import make_folder, output_error

_NO_FACE = "there is no face with an answer"
_DRAWN_ALREADY = "predict has drawn them"
_LONGEST_NAME = 200  # bytes: most file systems take 255


class PictureNames:
    """Names in a folder that nothing has yet: PHOTO, the suffix, and between them a number where that is taken, also
    where a file system takes no account of case."""

    def __init__(self, folder: Path, suffix: str) -> None:
        """The folder is made if missing. Raises OutputError."""
        make_folder(folder)
        self._folder, self._suffix = folder, suffix
        try:
            self._taken = {folded(entry.name) for entry in folder.iterdir()}
        except OSError as error:
            raise output_error(folder, error) from error
        self._last: dict[str, int] = {}

    def next(self, photo: Path) -> Path:
        """The file for a photo's picture: photo.drawn.jpg, photo-2.drawn.jpg, …"""
        stem = photo.stem
        while len(os.fsencode(stem)) > _LONGEST_NAME:
            stem = stem[:-1]
        number = self._last.get(folded(stem), 0)
        while True:
            number += 1
            name = f"{stem}{self._suffix}" if number == 1 else f"{stem}-{number}{self._suffix}"
            if folded(name) not in self._taken and not os.path.lexists(self._folder / name):
                break
        self._last[folded(stem)] = number
        self._taken.add(folded(name))
        return self._folder / name


def named_face(face: dict[str, Any], scale: tuple[float, float]) -> NamedFace:
    """A face of the predict JSON in a photo of another size, so many pixels across and down for one."""
    left, top, right, bottom = face["box"]
    named = NamedFace(
        box=(left, top, right, bottom),
        name=face["label"],
        is_person=face["label"] in face["probabilities"],
        confidence=face["confidence"],
        also_like=face["also_like"],
    )
    return named.scaled(*scale)


class Album:
    """What becomes of the photos of which pictures are made, for those who want to know."""

    def __init__(self, done: str, folder: Path) -> None:
        """``done``: what is done with a photo, as a participle; ``folder``: where the pictures are."""
        self._done, self._folder = done, folder
        self._made: list[tuple[str, Path]] = []
        self._left_out: dict[str, list[str]] = {_NO_FACE: [], _DRAWN_ALREADY: []}

    def takes(self, result: dict[str, Any]) -> bool:
        """Whether a picture is to be made of a photo of the predict JSON. If not, it is noted why."""
        is_picture = is_drawn(Path(result["path"]).name)
        if is_picture or not result["faces"]:
            self._left_out[_DRAWN_ALREADY if is_picture else _NO_FACE].append(shown(result["path"]))
        return not is_picture and bool(result["faces"])

    def made(self, photo: str, picture: Path) -> None:
        """Note a picture."""
        self._made.append((photo, picture))

    def failed(self, error: UnusablePhoto) -> None:
        """Note a photo that was readable when it was answered, but isn't any more."""
        self._left_out[_NO_FACE].append(str(error))

    def tell(self, console: Console) -> list[Path]:
        """Say which picture is whose, and which photos have none and why; the pictures."""
        for photo, picture in self._made:
            console.info(f"{shown(photo)}: {self._done} in {shown(picture)}")
        total = len(self._made) + sum(map(len, self._left_out.values()))
        console.info(f"{self._done.capitalize()}: {len(self._made)} of {total} photos, in {shown(self._folder)}")
        for reason, photos in self._left_out.items():
            if photos:
                console.info(f"Not {self._done}, as {reason}: {some(photos)}")
        return [picture for _, picture in self._made]
