"""Which faces show enough to say whose they are."""

import numpy as np

from facecnn.arrays import Float64Array, Int64Array, UInt8Array
from facecnn.photos.face import Face
from facecnn.photos.preparation import sharpness

SMALLEST = 30
"""Pixels of the longer side of a face's box."""

BLURRED = 0.1
"""4 of the main faces in 1,196 photos of LFW are less sharp. Very blurred faces are more like each other than like the
same people's other faces, so they would form a group of their own."""

LEAST_INSIDE = 0.75
"""Share of a face's box that has to lie in the photo."""

_STEP = 3  # pixels of a crop a side that are averaged: a small face says nothing at the crop's own resolution
_FACE = slice(4, 44), slice(5, 45)
"""Rows and columns of the face in what is left, without hair and background."""


def crop_sharpness(pixels: UInt8Array, rows: Int64Array) -> Float64Array:
    """The sharpness of faces, see ``facecnn.photos.preparation.sharpness``, at a third of the crops' resolution.

    ``pixels``: (P, 150, 150, 3) the body's crops; ``rows``: (n,) of ``pixels``. Returns (n,).
    """
    found = np.zeros(len(rows))
    for index, row in enumerate(rows.tolist()):
        height, width, channels = pixels.shape[1:]
        blocks = pixels[row].reshape(height // _STEP, _STEP, width // _STEP, _STEP, channels)
        reduced = np.round(blocks.mean(axis=(1, 3))).astype(np.uint8)
        found[index] = sharpness(reduced[*_FACE][None])[0]
    return found


def why_unclear(face: Face, width: int, height: int, sharp: float) -> str | None:
    """Why a face shows too little; None if it doesn't.

    ``width`` and ``height`` are those of its photo, ``sharp`` is its ``crop_sharpness``.
    """
    left, top, right, bottom = face.box
    inside = max(min(right, width) - max(left, 0.0), 0.0) * max(min(bottom, height) - max(top, 0.0), 0.0)
    if face.side < SMALLEST:
        return f"too small: {face.side:.0f} pixels, at least {SMALLEST} are needed"
    if inside < LEAST_INSIDE * (right - left) * (bottom - top):
        return "cut off by the edge of the photo"
    if sharp < BLURRED:
        return "blurred"
    return None
