"""What the pictures of answered photos (``draw``, ``explain``) have in common."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
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
    """Free names in a folder: PHOTO, the suffix, and a number between them where the name is taken.

    Names that differ only in case count as the same, as some file systems take them.
    """

    def __init__(self, folder: Path, suffix: str) -> None:
        """Make the folder if it is missing. Raises OutputError."""
        make_folder(folder)
        self.folder, self._suffix = folder, suffix
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
            if folded(name) not in self._taken and not os.path.lexists(self.folder / name):
                break
        self._last[folded(stem)] = number
        self._taken.add(folded(name))
        return self.folder / name


def named_face(face: dict[str, Any], scale: tuple[float, float]) -> NamedFace:
    """A face of the predict JSON, in a photo that is scaled by factors across and down."""
    left, top, right, bottom = face["box"]
    named = NamedFace(
        box=(left, top, right, bottom),
        name=face["label"],
        is_person=face["label"] in face["probabilities"],
        confidence=face["confidence"],
        also_like=face["also_like"],
    )
    return named.scaled(*scale)


def make_pictures(
    results: Sequence[dict[str, Any]],
    names: PictureNames,
    done: tuple[str, str],
    draw: Callable[[dict[str, Any], Path], None],
    console: Console,
    workers: int = 0,
) -> list[Path]:
    """Make a picture of each photo that has a face with an answer, and list the others.

    Args:
        results: the ``predict`` JSON.
        done: the work, as participles: "drawing", "drawn".
        draw: draws the picture of one of ``results`` to a file; raises UnusablePhoto where the photo can't be read any
            more.
        workers: threads that draw at once; 0 draws in this one.

    Returns:
        The files written.
    """
    doing, done_with = done
    left_out: dict[str, list[str]] = {_NO_FACE: [], _DRAWN_ALREADY: []}
    wanted: list[tuple[dict[str, Any], Path]] = []
    for result in results:
        if is_drawn(Path(result["path"]).name):
            left_out[_DRAWN_ALREADY].append(shown(result["path"]))
        elif not result["faces"]:
            left_out[_NO_FACE].append(shown(result["path"]))
        else:
            wanted.append((result, names.next(Path(result["path"]))))

    def attempt(photo: tuple[dict[str, Any], Path]) -> UnusablePhoto | None:
        try:
            draw(*photo)
        except UnusablePhoto as error:
            return error
        return None

    made: list[tuple[str, Path]] = []
    with console.counting(f"{doing.capitalize()} photos") as progress, ThreadPoolExecutor(workers or 1) as executor:
        errors = executor.map(attempt, wanted) if workers else map(attempt, wanted)
        for number, ((result, picture), error) in enumerate(zip(wanted, errors, strict=True), 1):
            if error is None:
                made.append((result["path"], picture))
            else:
                left_out[_NO_FACE].append(str(error))
            progress(number, len(wanted))
    for photo, picture in made:
        console.info(f"{shown(photo)}: {done_with} in {shown(picture)}")
    console.info(f"{done_with.capitalize()}: {len(made)} of {len(results)} photos, in {shown(names.folder)}")
    for reason, photos in left_out.items():
        if photos:
            console.info(f"Not {done_with}, as {reason}: {some(photos)}")
    return [picture for _, picture in made]
