"""Photos whose faces are found and cut out at a fraction of their size, where they are large.

The decoder of a JPEG shrinks a picture while decoding it, which takes a fraction of the time and of the memory.
"""

import os
from collections.abc import Sequence

import numpy as np

from facecnn.arrays import UInt8Array
from facecnn.photos.decode import Decoded, decode
from facecnn.photos.face import Face
from facecnn.photos.preparation import MOST_SAMPLES, PhotoSettings, aligned_crop, crop_scale

_TO_FIND = 400
"""Minimum pixels of the shorter side of a picture in which faces are found: the smallest faces that count, a twentieth
of it, keep the 20 pixels that the finder would shrink them to (``facecnn.faces.finder``)."""

_TO_CUT = 1.5
"""Minimum pixels of a picture for each pixel of a face's crop, along a side. The crop then differs from that of the
whole photo by half a grey level of 255, on average (docs/FACES.md)."""

_SAMPLES = 2
"""The same for a reduced picture as ``facecnn.photos.preparation.MOST_SAMPLES`` for a whole one: another quarter of a
grey level, in a fraction of the time."""


def decode_to_find(data: bytes, path: str | os.PathLike[str], largest: int) -> Decoded:
    """Decode a picture file as large as is needed to find its faces.

    It doesn't depend on the settings of the crops, so the faces of a photo are the same however they are cut out.

    ``data``: the file's bytes, which ``path`` names in messages; ``largest``: as for ``decode``. Raises what ``decode``
    raises.
    """
    return decode(data, path, largest, enough_across=_TO_FIND)


def cut_faces(
    data: bytes, path: str | os.PathLike[str], decoded: Decoded, faces: Sequence[Face], settings: PhotoSettings
) -> UInt8Array:
    """Cut faces out of a photo.

    Args:
        decoded: what ``decode_to_find`` made of them. If a face is too small in it for its crop, the file is decoded
            again, as large as the smallest face needs.
        faces: at least one, in pixels of ``decoded``.

    Returns:
        (faces, height, width, channels), margin included.

    Raises:
        UnusablePhoto: as by ``decode``.
    """
    if decoded.reduction > 1:
        least = decoded.reduction * min(crop_scale(face, settings) for face in faces)
        wanted = max(number for number in (1, 2, 4, 8) if number == 1 or least >= _TO_CUT * number)
        if wanted < decoded.reduction:
            before = decoded.reduction
            decoded = decode(data, path, settings.largest_pixels, enough_across=min(decoded.size) // wanted)
            faces = [face.scaled(before / decoded.reduction) for face in faces]
    samples = samples_for(decoded)
    return np.stack([aligned_crop(decoded.image, face, settings, samples) for face in faces])


def samples_for(decoded: Decoded) -> int:
    """``most_samples`` of crops from this picture."""
    return MOST_SAMPLES if decoded.reduction == 1 else _SAMPLES
