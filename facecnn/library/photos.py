"""The photos that a caller gives: paths, PIL images and arrays."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image

from facecnn.arrays import Array
from facecnn.errors import PhotoError, UsageError, shown
from facecnn.photos.cache import LoadedPhotos
from facecnn.photos.decode import Picture
from facecnn.photos.face import SHOWS_NOBODY

Photo: TypeAlias = str | os.PathLike[str] | Image.Image | Array
"""A file, a PIL image of any mode, or uint8 of (height, width) or (height, width, 3): grey, or red, green and blue."""


@dataclass(frozen=True)
class Given:
    """The photos of a call."""

    photos: tuple[Path | Picture, ...]
    is_one: bool
    """Whether one photo was given, not a list."""

    @property
    def on_disk(self) -> bool:
        """Whether all are files, of which the caches on disk may keep something."""
        return all(isinstance(photo, Path) for photo in self.photos)


def given(photos: object) -> Given:
    """Check the photos of a call: one, or several of them. Raises UsageError."""
    if isinstance(photos, (str, os.PathLike, Image.Image, np.ndarray)):
        return Given((_checked(photos, "the photo"),), is_one=True)
    if isinstance(photos, Iterable) and not isinstance(photos, (bytes, bytearray, dict)):
        return Given(tuple(_checked(photo, f"photo {n}") for n, photo in enumerate(photos, 1)), is_one=False)
    raise _no_photo(photos, "the photo")


def refuse_unreadable(loaded: LoadedPhotos) -> None:
    """Raise PhotoError with the names of the photos that can't be read, and why."""
    lines = [
        f"{shown(path)}: {reason}"
        for path, reason in zip(loaded.paths, loaded.reasons, strict=True)
        if reason is not None and reason not in SHOWS_NOBODY
    ]
    if len(loaded.paths) > 1 and lines:
        lines = [f"{len(lines)} of {len(loaded.paths)} photos can't be read:", *(f"  {line}" for line in lines)]
    if lines:
        raise PhotoError("\n".join(lines))


def as_path(path: object, name: str) -> Path:
    """A path that a caller gave for ``name``. Raises UsageError: it is empty, or isn't a path."""
    text = os.fspath(path) if isinstance(path, (str, os.PathLike)) else path
    if not isinstance(text, str) or not text:
        raise UsageError(f"{name}: {text!r} is no path: give the name of a file or folder")
    return Path(text)


def _checked(photo: object, name: str) -> Path | Picture:
    if isinstance(photo, (str, os.PathLike)):
        return as_path(photo, name)
    if isinstance(photo, Image.Image):
        return Picture(photo, name)
    if isinstance(photo, np.ndarray):
        return Picture(_as_image(photo, name), name)
    raise _no_photo(photo, name)


def _no_photo(photo: object, name: str) -> UsageError:
    return UsageError(f"{name}: {type(photo).__name__} is no photo: give a path, a PIL image or a NumPy array")


def _as_image(array: Array, name: str) -> Image.Image:
    shape = array.shape
    if array.dtype != np.uint8 or not (array.ndim == 2 or (array.ndim == 3 and shape[2] in (1, 3))):
        raise UsageError(
            f"{name}: an array of {array.dtype}, shape {shape}: must be uint8 of (height, width), grey, or "
            f"(height, width, 3), red, green and blue{_hint(array)}"
        )
    if not array.size:
        raise UsageError(f"{name}: an array of shape {shape} has no pixels")
    return Image.fromarray(np.ascontiguousarray(array[..., 0] if shape[2:] == (1,) else array))


def _hint(array: Array) -> str:
    """How to make a photo of an array that isn't one."""
    shape = array.shape
    if array.ndim == 4:
        return ": several photos are given as a list: list(array)"
    if array.ndim == 3 and shape[2] not in (1, 3) and shape[0] in (1, 3):
        return ": array.transpose(1, 2, 0) moves the colours to the end"
    if array.ndim == 3 and shape[2] == 4:
        return ": array[..., :3] leaves transparency out"
    if array.dtype.kind == "f":
        return ": (255 * array).round().astype(numpy.uint8) if its numbers are from 0 to 1"
    return ""
