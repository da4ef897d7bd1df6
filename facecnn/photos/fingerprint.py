"""Perceptual hashes: those of photos that look alike differ in few bits."""

from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image

from facecnn.arrays import BoolArray, Float64Array, Int64Array
from facecnn.photos.grouping import Groups, Indices, repeated

NEAR = 6
"""Maximum number of bits in which the hashes of near-duplicates differ."""

_SIDE = 32
_KEPT = 8


def dct_hash(image: Image.Image) -> int:
    """64-bit hash of the low frequencies of a whole upright picture.

    The picture is converted to grey, resampled to 32x32 (Lanczos) and transformed (orthonormal DCT-II). Each of the 8x8
    lowest frequencies, row by row from the most significant bit, is compared with the median of the 63 without DC.
    After C. Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010.
    """
    grey = np.asarray(image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS), dtype=np.float64)
    basis = _dct_basis()
    low = (basis @ grey @ basis.T).ravel()
    above = low > np.median(low[1:])
    return int.from_bytes(np.packbits(above).tobytes(), "big")


@cache
def _dct_basis() -> Float64Array:
    """The first 8 rows of the orthonormal DCT-II of 32 values, (8, 32): √(2/32) cos(π/32 (n + ½) k), row 0 by √½."""
    frequency, place = np.ogrid[:_KEPT, :_SIDE]
    basis: Float64Array = np.sqrt(2 / _SIDE) * np.cos(np.pi / _SIDE * (place + 0.5) * frequency)
    basis[0] *= np.sqrt(0.5)
    return basis


def near_duplicate_groups(hashes: npt.NDArray[np.uint64], bits: int = NEAR) -> Int64Array:
    """Group hashes that differ in at most ``bits`` bits, transitively.

    Two such hashes agree in at least one of any ``bits + 1`` pieces of them, so only hashes that share a piece are
    compared (with 6 bits: one pair in about 70), and only until they are in the same group. Returns (photos,): group
    numbers from 0, in the order of the groups' first photos.
    """
    distinct, member = np.unique(hashes, return_inverse=True)

    def near(one: Indices, other: Indices) -> BoolArray:
        return are_near(distinct[one], distinct[other], bits)

    groups = Groups(len(distinct))
    pieces = bits + 1
    for piece in range(pieces):
        # Bits at equal distances: neighbouring frequencies are correlated, so this spreads the photos more evenly.
        value = distinct & np.uint64(sum(1 << bit for bit in range(piece, 64, pieces)))
        for same in repeated(value):
            groups.join_related(same, near)
    roots = groups.roots(np.arange(len(distinct)))
    _, first_photo, group = np.unique(roots[member], return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first_photo))[group].astype(np.int64)


def are_near(one: npt.NDArray[np.uint64], other: npt.NDArray[np.uint64], bits: int = NEAR) -> BoolArray:
    """Whether hashes (n,) and (m,) differ in at most ``bits`` bits, (n, m)."""
    near: BoolArray = np.bitwise_count(one[:, None] ^ other) <= bits
    return near
