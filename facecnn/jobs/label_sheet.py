"""The pictures of the contact sheet that ``data check --faces`` writes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from facecnn.arrays import Array
from facecnn.jobs.console import Console
from facecnn.jobs.label_doubts import InspectedPhoto
from facecnn.jobs.shown_photos import show_faces
from facecnn.photos.dataset import Dataset
from facecnn.photos.decode import UnusablePhoto, decode, read
from facecnn.photos.face import Face
from facecnn.photos.folder import class_order
from facecnn.reports.contact_sheet import PhotoCard, Sheet
from facecnn.reports.page import THUMBNAIL

_CHOSEN, _OTHER, _GROUND = (255, 190, 40), (235, 235, 235), (20, 20, 20)


def make_sheet(
    dataset: Dataset, photos: Sequence[InspectedPhoto], remarks: Sequence[str], explanation: str, console: Console
) -> Sheet:
    """The contact sheet of an album's photos, which are in order of doubt."""
    with console.counting("Cutting faces") as progress:
        shown = show_faces(dataset, [(photo.photo, photo.number) for photo in photos], progress)
    people: dict[str, list[PhotoCard]] = {name: [] for name in sorted(dataset.classes, key=class_order)}
    with console.counting("Making the contact sheet") as progress:
        for done, (photo, face) in enumerate(zip(photos, shown, strict=True), start=1):
            file = Path(dataset.files[photo.photo])
            card = PhotoCard(
                file=file,
                name=photo.path.partition("/")[2],
                crop=face.pixels,
                photo=_framed(file, dataset.faces[photo.photo], photo.number, dataset.settings.largest_pixels),
                likeliest=photo.likeliest,
                confidence=photo.confidence,
                reasons=photo.reasons,
                is_doubtful=photo.is_doubtful,
            )
            people[photo.folder].append(card)
            progress(done, len(photos))
    return Sheet(
        album=dataset.folder.resolve().name or str(dataset.folder),
        size=(dataset.settings.width, dataset.settings.height),
        explanation=explanation,
        remarks=remarks,
        people=list(people.items()),
    )


def _framed(file: Path, faces: Sequence[Face], chosen: int, largest: int) -> Array | None:
    """A thumbnail of a photo with its faces framed, the chosen one in colour; None for fewer than two faces."""
    if len(faces) < 2:
        return None
    try:
        decoded = decode(read(file, largest), file, largest)
    except UnusablePhoto:  # removed meanwhile
        return None
    picture = decoded.image.convert("RGB")
    picture.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    scale = picture.width / decoded.size[0]
    draw = ImageDraw.Draw(picture)
    for number in sorted(range(len(faces)), key=lambda number: number == chosen):  # the chosen one on top
        left, top, right, bottom = (round(scale * edge) for edge in faces[number].box)
        box = (max(left, 0), max(top, 0), min(right, picture.width - 1), min(bottom, picture.height - 1))
        if box[0] >= box[2] or box[1] >= box[3]:
            continue
        wide = 3 if number == chosen else 1
        outside = (box[0] - 1, box[1] - 1, box[2] + 1, box[3] + 1)
        draw.rectangle(outside, outline=_GROUND, width=wide + 2)  # an edge that shows on bright photos, too
        draw.rectangle(box, outline=_CHOSEN if number == chosen else _OTHER, width=wide)
    return np.asarray(picture)
