"""What is questionable about a set of photos: copies, a picture under two names, people with few photos."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from facecnn.arrays import BoolArray, Float32Array, Int64Array, UInt8Array
from facecnn.errors import shown
from facecnn.photos.fingerprint import are_near, near_duplicate_groups
from facecnn.photos.folder import some
from facecnn.photos.grouping import Groups, Indices, repeated

UNBALANCED = 10
"""Ratio between two people's numbers of photos at or above which there is a warning."""

_COARSE = 12
_BYTES = 1 << 22  # of crops averaged at a time
_DIFFERENCE = 7.0
_CORRELATION = 0.95


def same_content(sha256: Sequence[str]) -> list[list[int]]:
    """Groups of indices of files with equal bytes."""
    copies: dict[str, list[int]] = {}
    for index, content in enumerate(sha256):
        copies.setdefault(content, []).append(index)
    return [indices for indices in copies.values() if len(indices) > 1]


def same_picture(pixels: UInt8Array, rows: Int64Array, hashes: npt.NDArray[np.uint64]) -> list[list[int]]:
    """Groups of photos that show the same picture, saved again or in another size, with different bytes.

    Near hashes alone prove nothing: centred portraits of different people have them, too. The stored crops, averaged
    down to 12x12 grey values, must also differ by at most 7 of 256 (root mean square) with a correlation of at least
    0.95. Measured: at most 3.7 for a photo saved again at half the size in low quality, 5.5 for the one pair that is
    known in 643 photos of LFW, 26 and 51 for photos of one person at one event with near hashes. Groups are transitive,
    as for the frames of a video.

    Args:
        pixels: (rows, height, width, channels)
        rows: (photos,) each photo's row of ``pixels``.
        hashes: (photos,) perceptual hashes, from ``facecnn.photos.fingerprint``.

    Returns:
        Sorted groups of two or more sorted indices; of equal files only the first counts.
    """
    _, first = np.unique(rows, return_index=True)
    first = np.sort(first)
    near = repeated(near_duplicate_groups(hashes[first]))
    pictures = _Pictures(pixels, rows[first], hashes[first], np.concatenate([*near, np.empty(0, np.int64)]))
    groups = Groups(len(first))
    for members in near:
        groups.join_related(members, pictures.are_one)
    return sorted(first[members].tolist() for members in repeated(groups.roots(np.arange(len(first)))))


class _Pictures:
    """Hashes of distinct photos and their coarse grey values.

    These are whole numbers of half grey levels, so that sums of their products are exact in float32, and the result for
    two photos doesn't depend on which others are compared at the same time.
    """

    def __init__(self, pixels: UInt8Array, rows: Int64Array, hashes: npt.NDArray[np.uint64], needed: Indices) -> None:
        """``needed``: indices of the photos that will be compared."""
        self._hashes = hashes
        self._grey = np.zeros((len(rows), _COARSE**2), dtype=np.float32)
        step = max(1, _BYTES // pixels[:1].nbytes) if len(needed) else 1
        for start in range(0, len(needed), step):
            batch = needed[start : start + step]
            self._grey[batch] = _coarse(pixels[rows[batch]])
        self._squares = np.einsum("ij,ij->i", self._grey, self._grey)
        self._sum = self._grey.sum(axis=1, dtype=np.float64)
        self._spread = np.sqrt(_COARSE**2 * self._squares.astype(np.float64) - self._sum**2)

    def are_one(self, one: Indices, other: Indices) -> BoolArray:
        """Whether photos (n,) and (m,) show the same picture, (n, m); a uniform one never does."""
        products = self._grey[one] @ self._grey[other].T
        difference = self._squares[one, None] + self._squares[other] - 2 * products
        same: BoolArray = are_near(self._hashes[one], self._hashes[other]) & (
            difference <= (2 * _DIFFERENCE * _COARSE) ** 2
        )
        n, m = np.nonzero(same)
        covariance = _COARSE**2 * products[n, m].astype(np.float64) - self._sum[one[n]] * self._sum[other[m]]
        same[n, m] = covariance > _CORRELATION * self._spread[one[n]] * self._spread[other[m]]
        return same


def _coarse(pictures: UInt8Array) -> Float32Array:
    """(n, 144): mean grey of 12x12 fields of pictures (n, height, width, channels), minus 128, in half levels."""
    grey: Float32Array = pictures.mean(axis=3, dtype=np.float32)
    means = _field_weights(grey.shape[1]) @ grey @ _field_weights(grey.shape[2]).T
    return np.rint(2 * (means - 128)).reshape(len(pictures), -1)


def _field_weights(length: int) -> Float32Array:
    """(12, length): weights of pixels for the means of 12 fields of equal width, which needn't be whole pixels."""
    field, pixel = np.ogrid[:_COARSE, :length]
    width = length / _COARSE
    overlap = np.minimum((field + 1) * width, pixel + 1) - np.maximum(field * width, pixel)
    shares: Float32Array = (np.maximum(overlap, 0) / width).astype(np.float32)
    return shares


def warn_of_copies(
    paths: Sequence[str], labels: Int64Array, equal: Sequence[list[int]], near: Sequence[list[int]]
) -> list[str]:
    """Warnings about photos that occur more than once.

    Args:
        paths: (photos,) names for messages.
        labels: (photos,) class of each.
        equal: from ``same_content``.
        near: from ``same_picture``; only groups of different people are reported.
    """

    def names(groups: Sequence[list[int]], *, across: bool) -> list[str]:
        chosen = [_one_each(group, labels) for group in groups if (len(set(labels[group].tolist())) > 1) is across]
        return _first([some([shown(paths[index]) for index in group]) for group in chosen])

    return [
        *(f"the same photo under two names: {one}: remove one" for one in names(equal, across=True)),
        *(f"nearly the same photo under two names: {one}: remove one" for one in names(near, across=True)),
        *(f"the same photo more than once: {one}; counted as often" for one in names(equal, across=False)),
    ]


def _one_each(group: list[int], labels: Int64Array) -> list[int]:
    """The group with one photo of each person first, so that a message with a few names shows who is in it."""
    first = np.unique(labels[group], return_index=True)[1].tolist()
    return [group[place] for place in sorted(first)] + [
        one for place, one in enumerate(group) if place not in set(first)
    ]


def warn_of_unbalanced(counts: Mapping[str, int]) -> list[str]:
    """A warning if a person has many times more photos than another; ``counts``: of each person."""
    if not counts:
        return []
    most, least = max(counts, key=lambda name: counts[name]), min(counts, key=lambda name: counts[name])
    if counts[most] < UNBALANCED * counts[least]:
        return []
    return [
        f"unbalanced: {shown(most)} has {counts[most]} photos, {shown(least)} {counts[least]}: "
        "each photo counts alike, so look at the balanced accuracy, or add photos"
    ]


def _first(lines: list[str], limit: int = 5) -> list[str]:
    """The first few lines; the last of them says how many more there are."""
    more = len(lines) - limit
    return lines if more <= 0 else [*lines[: limit - 1], f"{lines[limit - 1]} (and {more} more such)"]
