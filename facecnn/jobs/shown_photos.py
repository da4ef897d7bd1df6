"""The photos on a page: the network's crops, but in colour and at a higher resolution."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from facecnn.photos.cache import load_photos
from facecnn.photos.dataset import Dataset
from facecnn.photos.preparation import without_margin
from facecnn.reports.facts import Answer
from facecnn.reports.page import THUMBNAIL
from facecnn.reports.report import ShownPhoto


def show_photos(dataset: Dataset, answers: Sequence[Answer]) -> dict[str, ShownPhoto]:
    """The faces that ``answers`` are about, for a report, by the SHA-256 of the photo."""
    number = {digest: index for index, digest in enumerate(dataset.sha256)}
    wanted = [(number[answer.sha256], answer.face) for answer in answers if answer.sha256 in number]
    shown = show_faces(dataset, wanted)
    return {dataset.sha256[photo]: of_photo for (photo, _), of_photo in zip(wanted, shown, strict=True)}


def show_faces(
    dataset: Dataset, wanted: Sequence[tuple[int, int]], progress: Callable[[int, int], None] | None = None
) -> list[ShownPhoto]:
    """Crops of faces; a photo that is now missing or changed is shown as the network saw it.

    ``wanted``: the number of a photo in the data set, and the index of a face, 0 for the main one.
    """
    settings = dataset.settings
    scale = max(1.0, THUMBNAIL / max(settings.height, settings.width))
    size = (round(scale * settings.height), round(scale * settings.width))
    sharp = replace(settings, size=size, colour="rgb")
    files = [Path(dataset.files[photo]) for photo, _ in wanted]
    loaded = load_photos(files, sharp, finder=dataset.finder, progress=progress)
    shown = []
    for index, (photo, face) in enumerate(wanted):
        row = int(loaded.row[index])
        if row >= 0 and loaded.sha256[index] == dataset.sha256[photo]:
            # Prepared otherwise, the faces may be in another order.
            boxes = [found.box for found in loaded.faces[index]]
            place = boxes.index(dataset.faces[photo][face].box) if boxes else 0
            shown.append(ShownPhoto(without_margin(loaded.pixels[row + place], sharp), files[index]))
        else:
            shown.append(ShownPhoto(without_margin(dataset.pixels[dataset.rows[photo] + face], settings)))
    return shown
