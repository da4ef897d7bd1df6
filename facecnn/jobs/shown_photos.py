"""The photos that a report shows: what the network was shown of them, in colour and sharper than it sees them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy.typing as npt

from facecnn.photos.cache import load_photos
from facecnn.photos.face import Finder
from facecnn.photos.preparation import PhotoSettings, without_margin
from facecnn.runs.page import THUMBNAIL
from facecnn.runs.report import ShownPhoto

Array = npt.NDArray[Any]


def show_photos(
    photos: Mapping[str, tuple[Array, Path]], settings: PhotoSettings, finder: Finder | None
) -> dict[str, ShownPhoto]:
    """Photos for a report, by SHA-256.

    ``photos``: by SHA-256, what the network was shown of each, (rows, columns, 1 or 3), and its file. A photo that is
    gone, or has other contents by now, is shown as the network saw it.
    """
    scale = max(1.0, THUMBNAIL / max(settings.height, settings.width))
    size = (round(scale * settings.height), round(scale * settings.width))
    sharp = replace(settings, size=size, colour="rgb")
    files = [file for _, file in photos.values()]
    loaded = load_photos(files, sharp, finder=finder)
    shown = {}
    for number, (digest, (window, file)) in enumerate(photos.items()):
        row = int(loaded.row[number])
        if row >= 0 and loaded.sha256[number] == digest:
            shown[digest] = ShownPhoto(without_margin(loaded.pixels[row], sharp), file)
        else:
            shown[digest] = ShownPhoto(window)
    return shown
