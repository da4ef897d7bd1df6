"""What is questionable about a set of photos: copies, one picture under two names, people with few photos."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from facecnn.errors import shown
from facecnn.photos.fingerprint import near_pairs
from facecnn.photos.folder import some

UNBALANCED = 10
"""How many times as many photos as another a person may have before it is said."""

_COARSE = 12
_CHUNK = 10_000  # pairs compared at once
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
    """Pairs of photos that are one picture, saved again or in another size, of different bytes.

    Their hashes are near, which alone proves nothing, as centred portraits of different people are so, too. And their
    stored crops, averaged down to 12x12 grey values, differ by at most 7 of 256 (root mean square) with a correlation
    of at least 0.95. Measured: at most 3.7 for a photo saved again at half the size in low quality, 5.5 for the one
    pair that is known in 643 photos of LFW, 26 and 51 for photos of one person at one event whose hashes are near.

    Args:
        pixels: uint8 of (rows, height, width, channels).
        rows: int64 of (photos,), each photo's row of ``pixels``.
        hashes: uint64 of (photos,).

    Returns:
        Pairs of indices of photos, the smaller first, sorted; of equal files only the first counts.
    """
    _, first = np.unique(rows, return_index=True)
    first = np.sort(first)
    pairs = near_pairs(hashes[first])
    needed, place = np.unique(pairs, return_inverse=True)
    if not len(pairs):
        return []
    coarse = np.stack([_coarse(pixels[row]) for row in rows[first[needed]]])
    place = place.reshape(-1, 2)
    same = [
        _alike(coarse[part[:, 0]], coarse[part[:, 1]]) for part in np.split(place, range(_CHUNK, len(place), _CHUNK))
    ]
    return [[int(one), int(other)] for one, other in first[pairs[np.concatenate(same)]]]


def _coarse(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """(144,) grey values of a picture (height, width, channels)."""
    grey = Image.fromarray(picture.mean(axis=2, dtype=np.float32))
    return np.asarray(grey.resize((_COARSE, _COARSE), Image.Resampling.BOX), dtype=np.float32).ravel()


def _alike(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Which rows of (pairs, 144) grey values are those of one picture; a flat one is like none."""
    difference = np.mean((one - other) ** 2, axis=1)
    a, b = one - one.mean(axis=1, keepdims=True), other - other.mean(axis=1, keepdims=True)
    scale = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    same: npt.NDArray[np.bool_] = (difference <= _DIFFERENCE**2) & ((a * b).sum(axis=1) > _CORRELATION * scale)
    return same


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
        chosen = [group for group in groups if (len(set(labels[group].tolist())) > 1) is across]
        return _first([some([shown(paths[index]) for index in group]) for group in chosen])

    return [
        *(f"the same photo under two names: {one}: remove one" for one in names(equal, across=True)),
        *(f"nearly the same photo under two names: {one}: remove one" for one in names(near, across=True)),
        *(f"the same photo more than once: {one}; counted as often" for one in names(equal, across=False)),
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
        "look at the balanced accuracy, or add photos"
    ]


def _first(lines: list[str], limit: int = 5) -> list[str]:
    """The first few lines, the last of them saying how many more there are."""
    more = len(lines) - limit
    return lines if more <= 0 else [*lines[: limit - 1], f"{lines[limit - 1]} (and {more} more such)"]
