"""Write what the network would see of each photo, as pictures."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from facecnn.errors import OutputError, PhotoError, shown
from facecnn.jobs.console import Console
from facecnn.jobs.faces import installed_finder
from facecnn.photos.dataset import load_files
from facecnn.photos.folder import list_photos, readable_name, remarks
from facecnn.photos.preparation import PhotoSettings, without_margin
from facecnn.runs.atomic import output_error, refuse_inside, write_atomically

SHEET = "contact_sheet.png"
_SHEET_COLUMNS = 20
_SHEET_PHOTOS = 1000
"""Few programs open a larger picture."""


def crop(source: Path, destination: Path, settings: PhotoSettings, console: Console) -> dict[str, Any]:
    """Write the crop of every photo in ``source`` to ``destination``, in the same folders, as PNG, and a contact sheet.

    The crop is what the network sees, before normalisation. Of several faces, it shows the main one. Returns the ``data
    crop`` JSON. Raises PhotoError if there is no photo that can be used, and OutputError if the destination isn't
    empty, or can't be written to.
    """
    finder = installed_finder(settings, console)
    listing = list_photos(source)
    for line in remarks(listing.passed_over, listing.warnings):
        console.info(line)
    files = listing.files
    _make_empty(destination, source)
    with console.counting("Reading photos") as progress:
        loaded = load_files(files, settings, progress, finder=finder)
    for line in loaded.warnings:
        console.info(line)
    skipped = [
        {"path": shown(path), "reason": reason}
        for path, reason in zip(loaded.paths, loaded.reasons, strict=True)
        if reason is not None
    ]
    usable = np.flatnonzero(loaded.row >= 0).tolist()
    if not usable:
        raise PhotoError(f"{shown(source)}: none of {len(files)} photos can be used: {skipped[0]['reason']}")
    windows = without_margin(loaded.pixels, settings)
    taken: set[Path] = set()
    for index in usable:
        relative = Path(*map(readable_name, loaded.paths[index].relative_to(source).parts)).with_suffix(".png")
        number = 2
        while relative in taken:  # a.jpg and a.png
            relative = relative.with_stem(f"{relative.stem}-{number}")
            number += 1
        taken.add(relative)
        _write(destination / relative, windows[loaded.row[index]])
    _write(destination / SHEET, _contact_sheet(windows, loaded.row[usable[:_SHEET_PHOTOS]]))
    return {
        "folder": str(destination),
        "crops": len(usable),
        "aligned": finder is not None,
        "several_faces": sum(len(loaded.faces[index]) > 1 for index in usable),
        "contact_sheet": str(destination / SHEET),
        "skipped": skipped,
    }


def _make_empty(destination: Path, source: Path) -> None:
    """Make the folder, and refuse one that isn't empty, so that none of the user's files is overwritten."""
    try:
        refuse_inside(destination, source, "crops would be taken for photos")
        destination.mkdir(parents=True, exist_ok=True)
        if any(destination.iterdir()):
            raise OutputError(f"{shown(destination)}: not an empty folder: choose another, or empty it")
    except OSError as error:
        raise output_error(destination, error) from error


def _write(path: Path, pixels: npt.NDArray[np.uint8]) -> None:
    stream = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(stream, "PNG")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(path.parent, error) from error
    write_atomically(path, stream.getvalue())


def _contact_sheet(windows: npt.NDArray[np.uint8], rows: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """All crops side by side, row by row."""
    height, width, channels = windows.shape[1:]
    columns = min(_SHEET_COLUMNS, len(rows))
    lines = -(-len(rows) // columns)
    sheet = np.full((lines * columns, height, width, channels), 255, np.uint8)
    sheet[: len(rows)] = windows[rows]
    grid = sheet.reshape(lines, columns, height, width, channels).swapaxes(1, 2)
    return np.ascontiguousarray(grid.reshape(lines * height, columns * width, channels))
