"""Copies of photos with the faces framed and named."""

import io
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image, ImageCms

from facecnn.jobs.console import Console
from facecnn.jobs.models import read_model
from facecnn.jobs.pictures import PictureNames, make_pictures, named_face
from facecnn.photos.companions import DRAWN
from facecnn.photos.decode import decode, read
from facecnn.photos.folder import UNKNOWN
from facecnn.reports.drawing import draw_faces, letters_for
from facecnn.runs.atomic import write_atomically

LONGEST_SIDE = 2000
"""Pixels of a copy's longer side at most, about as many as a screen has."""

SHORTEST_SIDE = 800
"""Pixels of a copy's longer side at least: smaller photos are enlarged to make room for names."""

_LETTERS = 0.016  # of the longer side
_QUALITY = 90


def draw(
    model_path: Path,
    results: Sequence[dict[str, Any]],
    folder: Path,
    console: Console,
    threads: int | None = None,
) -> list[Path]:
    """Draw a copy of each answered photo, with all its faces framed and named.

    The copy of PHOTO is PHOTO.drawn.jpg, or PHOTO-2.drawn.jpg and so on where the name is taken, since no file is
    replaced. It is upright, a JPEG in sRGB with a longer side of ``SHORTEST_SIDE`` to ``LONGEST_SIDE`` pixels, without
    the photo's metadata. Photos without a face or an answer, and pictures that this job has drawn, are skipped with a
    message.

    Args:
        results: the ``predict`` JSON.
        threads: draw at once; as many as there are processors, 8 at most, unless given.

    Returns:
        The files written.

    Raises:
        CheckpointError: the model can't be read.
        OutputError: a picture can't be written.
    """
    model = read_model(model_path)
    largest = model.settings.photos.largest_pixels
    people = [name for name in model.checkpoint.classes if name != UNKNOWN]
    workers = threads or min(8, os.cpu_count() or 1)
    draw_photo = partial(_draw_photo, people=people, largest=largest)
    return make_pictures(results, PictureNames(folder, DRAWN), ("drawing", "drawn"), draw_photo, console, workers)


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


def to_srgb(image: Image.Image) -> Image.Image:
    """Convert a picture to sRGB; it stays as it is if it has no ICC profile, or one that can't be used.

    So the profile, which may identify a device, needn't be kept. Don't rely on ``info`` of the result.
    """
    data = image.info.get("icc_profile")
    if not data or image.mode != "RGB":
        return image
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
        if profile.profile.xcolor_space.strip() != "RGB" or "sRGB" in (profile.profile.profile_description or ""):
            return image  # the profile of a former CMYK picture, or nothing to convert
        converted = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"))
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image
    return image if converted is None else converted
