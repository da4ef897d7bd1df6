"""Who is where? Copies of photos with the faces framed and named."""

from __future__ import annotations

import io
import os
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from PIL import Image

from facecnn.jobs.console import Console
from facecnn.jobs.models import read_model
from facecnn.jobs.pictures import Album, PictureNames, named_face
from facecnn.photos.colours import to_srgb
from facecnn.photos.companions import DRAWN
from facecnn.photos.decode import UnusablePhoto, decode, read
from facecnn.photos.folder import UNKNOWN
from facecnn.reports.drawing import draw_faces, letters_for
from facecnn.runs.atomic import write_atomically

LONGEST_SIDE = 2000
"""Pixels of a copy's longer side at most, as many as a screen has."""

SHORTEST_SIDE = 800
"""Pixels of a copy's longer side at least, so that there is room for names: smaller photos are drawn larger."""

_LETTERS = 0.016  # of the longer side
_QUALITY = 90


def draw(
    model_path: Path,
    results: Sequence[dict[str, Any]],
    folder: Path,
    console: Console,
    threads: int | None = None,
) -> list[Path]:
    """A copy of each photo of ``results`` (the ``predict`` JSON) that has a face with an answer, with all its faces
    framed and named, in ``folder``, which is made if missing.

    PHOTO's is PHOTO.drawn.jpg, or PHOTO-2.drawn.jpg and so on where that is taken: nothing is replaced, and photos that
    are looked for in folders are never these (see ``photos.companions``). It is upright, a JPEG in sRGB with a longer
    side of ``SHORTEST_SIDE`` to ``LONGEST_SIDE`` pixels, and holds none of the photo's metadata. Photos without a face
    or an answer, and pictures of this kind that were named one by one, get none, and are told.

    Raises CheckpointError, OutputError.
    """
    model = read_model(model_path)
    largest = model.settings.photos.largest_pixels
    people = [name for name in model.checkpoint.classes if name != UNKNOWN]
    names = PictureNames(folder, DRAWN)
    album = Album("drawn", folder)
    workers = threads or min(8, os.cpu_count() or 1)
    under_way: deque[tuple[str, Path, Future[None]]] = deque()
    executor = ThreadPoolExecutor(workers, thread_name_prefix="draw")

    def finish_first() -> None:
        photo, picture, done = under_way.popleft()
        try:
            done.result()
            album.made(photo, picture)
        except UnusablePhoto as error:
            album.failed(error)

    try:
        with console.counting("Drawing photos") as progress:
            for number, result in enumerate(results, 1):
                if album.takes(result):
                    picture = names.next(Path(result["path"]))
                    done = executor.submit(_draw_photo, result, picture, people, largest)
                    under_way.append((result["path"], picture, done))
                if len(under_way) > 2 * workers:  # few at a time, as each holds a picture
                    finish_first()
                progress(number - len(under_way), len(results))
            while under_way:
                finish_first()
                progress(len(results) - len(under_way), len(results))
    finally:
        executor.shutdown(cancel_futures=True)
    return album.tell(console)


def _draw_photo(result: dict[str, Any], picture: Path, people: Sequence[str], largest: int) -> None:
    path = Path(result["path"])
    decoded = decode(read(path, largest), path, largest, LONGEST_SIDE)
    photo = decoded.image
    longer = max(photo.size)
    side = min(max(longer, SHORTEST_SIDE), LONGEST_SIDE)
    if side != longer:
        size = (max(1, round(photo.width * side / longer)), max(1, round(photo.height * side / longer)))
        photo = photo.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
    photo = to_srgb(photo)
    scale = photo.width / decoded.size[0], photo.height / decoded.size[1]
    faces = [named_face(face, scale) for face in result["faces"]]
    drawn = draw_faces(photo, faces, letters_for(people), _LETTERS * side)
    stream = io.BytesIO()
    drawn.save(stream, "JPEG", quality=_QUALITY, subsampling="4:4:4")
    write_atomically(picture, stream.getvalue())
