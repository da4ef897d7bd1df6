"""What is questionable about a set of photos: copies, one picture under two names, people with few photos."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from facecnn.errors import shown
from facecnn.photos.fingerprint import are_near, near_duplicate_groups
from facecnn.photos.folder import some
from facecnn.photos.grouping import Groups, Indices

UNBALANCED = 10
"""How many times as many photos as another a person may have before it is said."""

_COARSE = 12
_BYTES = 1 << 22  # of crops averaged at once
_DIFFERENCE = 7.0
_CORRELATION = 0.95


def same_content(sha256: Sequence[str]) -> list[list[int]]:
    """The indices of files of equal bytes, for every content that is there more than once."""
    copies: dict[str, list[int]] = {}
    for index, content in enumerate(sha256):
        copies.setdefault(content, []).append(index)
    return [indices for indices in copies.values() if len(indices) > 1]


def same_picture(
    pixels: npt.NDArray[np.uint8], rows: npt.NDArray[np.int64], hashes: npt.NDArray[np.uint64]
) -> list[list[int]]:
    """Groups of photos that are one picture, saved again or in another size, of different bytes.

    Their hashes are near, which alone proves nothing, as centred portraits of different people are so, too. And their
    stored crops, averaged down to 12x12 grey values, differ by at most 7 of 256 (root mean square) with a correlation
    of at least 0.95. Measured: at most 3.7 for a photo saved again at half the size in low quality, 5.5 for the one
    pair that is known in 643 photos of LFW, 26 and 51 for photos of one person at one event whose hashes are near.
    Two photos that are both like a third are in its group, as the frames of a video are.

    Args:
        pixels: uint8 of (rows, height, width, channels).
        rows: int64 of (photos,), each photo's row of ``pixels``.
        hashes: uint64 of (photos,).

    Returns:
        Groups of two and more indices of photos, each sorted, and sorted by their first; of equal files only the first
        counts.
    """
    _, first = np.unique(rows, return_index=True)
    first = np.sort(first)
    near = _split_by(near_duplicate_groups(hashes[first]))
    pictures = _Pictures(pixels, rows[first], hashes[first], np.concatenate([*near, np.empty(0, np.int64)]))
    groups = Groups(len(first))
    for members in near:
        groups.join_related(members, pictures.are_one)
    found = _split_by(groups.roots(np.arange(len(first))))
    return sorted(first[members].tolist() for members in found)


def _split_by(numbers: npt.NDArray[np.int64]) -> list[Indices]:
    """For each number that is there at least twice the indices where it is, ascending."""
    order = np.argsort(numbers, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1)
    return [part for part in parts if len(part) > 1]


class _Pictures:
    """Distinct photos' hashes and their crops in short.

    The grey values are whole numbers, of half a grey level each, so that sums of their products are exact in float32
    and an answer depends on the two photos alone, not on which others are compared with them in one go.
    """

    def __init__(
        self,
        pixels: npt.NDArray[np.uint8],
        rows: npt.NDArray[np.int64],
        hashes: npt.NDArray[np.uint64],
        needed: Indices,
    ) -> None:
        """``needed``: indices of the photos that will be compared."""
        self._hashes = hashes
        self._grey = np.zeros((len(rows), _COARSE**2), dtype=np.float32)
        step = max(1, _BYTES // pixels[:1].nbytes) if len(needed) else 1
        for start in range(0, len(needed), step):
            some_of_them = needed[start : start + step]
            self._grey[some_of_them] = _in_short(pixels[rows[some_of_them]])
        self._squares = np.einsum("ij,ij->i", self._grey, self._grey)
        self._sum = self._grey.sum(axis=1, dtype=np.float64)
        self._spread = np.sqrt(_COARSE**2 * self._squares.astype(np.float64) - self._sum**2)

    def are_one(self, one: Indices, other: Indices) -> npt.NDArray[np.bool_]:
        """Whether each of (n,) and each of (m,) photos show one picture, (n, m); a flat one is like none."""
        products = self._grey[one] @ self._grey[other].T
        difference = self._squares[one, None] + self._squares[other] - 2 * products
        same: npt.NDArray[np.bool_] = are_near(self._hashes[one], self._hashes[other]) & (
            difference <= (2 * _DIFFERENCE * _COARSE) ** 2
        )
        n, m = np.nonzero(same)
        covariance = _COARSE**2 * products[n, m].astype(np.float64) - self._sum[one[n]] * self._sum[other[m]]
        same[n, m] = covariance > _CORRELATION * self._spread[one[n]] * self._spread[other[m]]
        return same


def _in_short(pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """(n, 144): the mean grey of 12x12 fields of pictures (n, height, width, channels), less 128, in half levels."""
    grey: npt.NDArray[np.float32] = pictures.mean(axis=3, dtype=np.float32)
    means = _shares(grey.shape[1]) @ grey @ _shares(grey.shape[2]).T
    return np.rint(2 * (means - 128)).reshape(len(pictures), -1)


def _shares(length: int) -> npt.NDArray[np.float32]:
    """(12, length): how much of each pixel lies in each of 12 fields of equal width; each field's sum is 1."""
    field, pixel = np.ogrid[:_COARSE, :length]
    width = length / _COARSE
    overlap = np.minimum((field + 1) * width, pixel + 1) - np.maximum(field * width, pixel)
    shares: npt.NDArray[np.float32] = (np.maximum(overlap, 0) / width).astype(np.float32)
    return shares


def warn_of_copies(
    paths: Sequence[str], labels: npt.NDArray[np.int64], equal: Sequence[list[int]], near: Sequence[list[int]]
) -> list[str]:
    """Warnings about photos that are there more than once.

    Args:
        paths: (photos,) names for messages.
        labels: (photos,) whose they are.
        equal: what ``same_content`` found.
        near: what ``same_picture`` found; it is of interest only where the two are different people's.
    """

    def names(groups: Sequence[list[int]], *, across: bool) -> list[str]:
        chosen = [_one_each(group, labels) for group in groups if (len(set(labels[group].tolist())) > 1) is across]
        return _first([some([shown(paths[index]) for index in group]) for group in chosen])

    return [
        *(f"the same photo under two names: {one}: remove one" for one in names(equal, across=True)),
        *(f"nearly the same photo under two names: {one}: remove one" for one in names(near, across=True)),
        *(f"the same photo more than once: {one}; counted as often" for one in names(equal, across=False)),
    ]


def _one_each(group: list[int], labels: npt.NDArray[np.int64]) -> list[int]:
    """The group with one photo of each person first, so that a few names tell who is in it."""
    first = np.unique(labels[group], return_index=True)[1].tolist()
    return [group[place] for place in sorted(first)] + [
        one for place, one in enumerate(group) if place not in set(first)
    ]


def warn_of_unbalanced(counts: Mapping[str, int]) -> list[str]:
    """A warning where one person has many times as many photos as another; ``counts`` are the people's photos."""
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
    """The first few lines, the last of them saying how many more there are."""
    more = len(lines) - limit
    return lines if more <= 0 else [*lines[: limit - 1], f"{lines[limit - 1]} (and {more} more such)"]
