"""The sample people's photos as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from facecnn.arrays import Float64Array
from facecnn.kernels import reference
from facecnn.kernels.protocol import AUGMENTATION_NONE, Normalise
from facecnn.photos.dataset import load_files
from facecnn.photos.preparation import PhotoSettings
from facecnn.photos.sample import sample_folder

ALL = tuple(f"s{person}/{number}" for person in (1, 2) for number in range(1, 11))
"""The ten photos of both people."""


@cache
def sample_photos(names: Sequence[str], side: int, normalise: Normalise) -> Float64Array:
    """Load photos as a network sees them: (photos, side, side, 1).

    Args:
        names: Such as "s1/1", as a tuple.
        side: Pixels a side of the centre crop.
        normalise: "none" gives 0 to 1.

    Raises:
        PhotoError: The extra ``sample`` isn't installed.
    """
    settings = PhotoSettings(size=side, normalise=normalise, augment=None)
    loaded = load_files([sample_folder() / f"{name}.pgm" for name in names], settings)
    out = np.empty((len(names), side, side, 1))
    parameters = np.tile(AUGMENTATION_NONE, (len(names), 1))
    rows = loaded.row.astype(np.int32)
    reference.prepare_photos(out, loaded.pixels, rows, parameters, normalise, reference.Workspace())
    return out
