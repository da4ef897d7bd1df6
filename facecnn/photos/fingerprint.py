"""Perceptual fingerprints: photos that look alike have hashes that differ in few bits."""

from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image

NEAR = 6
"""Bits in which the hashes of two photos may differ that count as near-duplicates."""

_SIDE = 32
_KEPT = 8


def dct_hash(image: Image.Image) -> int:
    """64-bit hash of the low frequencies of a whole upright picture.

    Grey, resampled to 32x32 by Lanczos' filter, orthonormal DCT-II; of the 8x8 lowest frequencies, row by row from the
    most significant bit, a bit says whether the coefficient is above the median of the 63 without the mean (DC).
    After C. Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010.
    """
    grey = np.asarray(image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS), dtype=np.float64)
    basis = _dct_basis()
    low = (basis @ grey @ basis.T).ravel()
    above = low > np.median(low[1:])
    return int.from_bytes(np.packbits(above).tobytes(), "big")


@cache
def _dct_basis() -> npt.NDArray[np.float64]:
    """The first 8 rows of the orthonormal DCT-II of 32 values, (8, 32): √(2/32) cos(π/32 (n + ½) k), row 0 by √½."""
    frequency, place = np.ogrid[:_KEPT, :_SIDE]
    basis: npt.NDArray[np.float64] = np.sqrt(2 / _SIDE) * np.cos(np.pi / _SIDE * (place + 0.5) * frequency)
    basis[0] *= np.sqrt(0.5)
    return basis


def near_duplicate_groups(hashes: npt.NDArray[np.uint64], bits: int = NEAR) -> npt.NDArray[np.int64]:
    """Group hashes that differ in at most ``bits`` bits, transitively.

    Two hashes that differ in at most ``bits`` places agree in at least one of any ``bits + 1`` pieces of them, so only
    hashes that share a piece are compared (with 6 bits: one pair in about 70).

    Args:
        hashes: uint64 of (photos,).
        bits: 0 to 63.

    Returns:
        int64 of (photos,): a group's number, counted from 0 in the order of the groups' first photos.
    """
    distinct, member = np.unique(hashes, return_inverse=True)
    parent = np.arange(len(distinct))
    for first, second in near_pairs(distinct, bits).tolist():
        parent[_root(parent, first)] = _root(parent, second)
    roots = np.array([_root(parent, index) for index in range(len(distinct))], dtype=np.int64)
    _, first_photo, group = np.unique(roots[member], return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first_photo))[group].astype(np.int64)


def near_pairs(hashes: npt.NDArray[np.uint64], bits: int = NEAR) -> npt.NDArray[np.int64]:
    """Index pairs (pairs, 2), the smaller first, sorted, of all hashes that differ in at most ``bits`` (0 to 63) bits.

    See ``near_duplicate_groups`` for how.
    """
    pieces = bits + 1
    # Every so-manyth bit: neighbouring frequencies say much the same, so this spreads the photos more evenly.
    masks = [np.uint64(sum(1 << bit for bit in range(piece, 64, pieces))) for piece in range(pieces)]
    found = [np.empty((0, 2), dtype=np.int64)]
    for piece, mask in enumerate(masks):
        value = hashes & mask
        order = np.argsort(value, kind="stable")
        for same in np.split(order, np.flatnonzero(np.diff(value[order])) + 1):
            for place in range(len(same) - 1):
                rest = same[place + 1 :]
                difference = hashes[same[place]] ^ hashes[rest]
                near = np.bitwise_count(difference) <= bits
                rest, difference = rest[near], difference[near]
                for earlier in masks[:piece]:  # a pair is taken with the first piece it shares
                    rest, difference = rest[(difference & earlier) != 0], difference[(difference & earlier) != 0]
                found.append(np.stack([np.full(len(rest), same[place]), rest], axis=1))
    pairs = np.sort(np.concatenate(found), axis=1)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def _root(parent: npt.NDArray[np.int64], index: int) -> int:
    """The representative of a union-find set; the path to it is halved on the way."""
    while parent[index] != index:
        parent[index] = parent[parent[index]]
        index = int(parent[index])
    return int(index)
