"""Describes a face in numbers without any training: histograms of oriented gradients (HOG).

After Dalal and Triggs, "Histograms of Oriented Gradients for Human Detection", 2005. There are two grids: fine cells on
the middle of a crop, the face itself, and coarse ones on all of it.
"""

from collections.abc import Iterable

import numpy as np
from PIL import Image

from facecnn.arrays import Float32Array, Int64Array, UInt8Array
from facecnn.photos.preparation import as_image

SIDE = 72
"""Side in pixels to which crops are resized."""

FEATURES = 3060
"""Features of a face."""

_DIRECTIONS = 9
_GRIDS = ((12, 4, 0.67), (0, 9, 1.0))
"""For each grid: border of the crop that is left out and side of a cell, in pixels, and weight."""
_SCALE = 0.707
_CLIPPED_AT = 0.2
_AT_ONCE = 256
"""Crops processed at a time, to bound the memory."""

Features = Float32Array


def describe(crops: UInt8Array) -> Features:
    """HOG features of faces, the same for a face and its mirror image.

    Central differences of the square roots of grey values give each pixel an unsigned direction and a strength, which
    is split between the two nearest of nine directions. Each cell sums them up. Each block of 2x2 cells is normalised,
    clipped at 0.2, and normalised again. The features are the sum of those of the crop and of its mirror image: a ridge
    regression (``consensus``) trained on both with equal targets makes no use of their difference.

    ``crops``: (n, rows, columns, 1 or 3), as stored, margin included. Returns (n, ``FEATURES``).
    """
    features = np.empty((len(crops), FEATURES), np.float32)
    for start in range(0, len(crops), _AT_ONCE):
        features[start : start + _AT_ONCE] = _describe(_grey(crops[start : start + _AT_ONCE]))
    return features


def _grey(crops: UInt8Array) -> UInt8Array:
    """(n, ``SIDE``, ``SIDE``)"""
    if crops.shape[1:] == (SIDE, SIDE, 1):
        return crops[..., 0]
    images = (as_image(crop).convert("L") for crop in crops)
    small = [np.asarray(image.resize((SIDE, SIDE), Image.Resampling.LANCZOS)) for image in images]
    return np.array(small, np.uint8).reshape(-1, SIDE, SIDE)


def _describe(grey: UInt8Array) -> Features:
    roots = np.sqrt(grey.astype(np.float32) / 255)
    down, right = np.zeros_like(roots), np.zeros_like(roots)
    down[:, 1:-1] = roots[:, 2:] - roots[:, :-2]
    right[:, :, 1:-1] = roots[:, :, 2:] - roots[:, :, :-2]
    strength = np.hypot(right, down)
    # In widths of a direction, from the middle of the first one.
    direction = np.arctan2(down, right) * np.float32(_DIRECTIONS / np.pi) % _DIRECTIONS - np.float32(0.5)
    lower = np.floor(direction)
    upper_share = direction - lower
    lower = lower.astype(np.int64) % _DIRECTIONS
    dealt = (lower, strength * (1 - upper_share)), ((lower + 1) % _DIRECTIONS, strength * upper_share)
    return np.concatenate([_SCALE * weight * _blocks(dealt, *grid) for *grid, weight in _GRIDS], axis=1)


def _blocks(dealt: Iterable[tuple[Int64Array, Features]], edge: int, cell: int) -> Features:
    """The features (n, features) of a grid, from directions and strengths (n, rows, columns)."""
    count = (SIDE - 2 * edge) // cell
    window = slice(edge, SIDE - edge)
    row = np.arange(count * cell) // cell
    sums = []
    for directions, strengths in dealt:
        places = (np.arange(len(strengths))[:, None, None] * count + row[:, None]) * count + row
        bins = places * _DIRECTIONS + directions[:, window, window]
        weights = strengths[:, window, window].reshape(-1)
        sums.append(np.bincount(bins.reshape(-1), weights, len(strengths) * count * count * _DIRECTIONS))
    cells = np.sum(sums, axis=0, dtype=np.float32).reshape(-1, count, count, _DIRECTIONS)
    # (n, rows, columns, row of a cell in its block, its column, directions)
    last = count - 1
    rows = [[cells[:, i : last + i, j : last + j] for j in (0, 1)] for i in (0, 1)]
    blocks = np.stack([np.stack(row, axis=3) for row in rows], axis=3)
    for highest in (_CLIPPED_AT, 1):
        length = np.sqrt(np.square(blocks).sum(axis=(3, 4, 5), keepdims=True) + np.float32(1e-10))
        blocks = np.minimum(blocks / length, highest)
    both = blocks + blocks[:, :, ::-1, :, ::-1, ::-1]
    # The right half repeats the left half, and in the middle blocks the right cells repeat the left ones.
    middle = last // 2
    halves = both[:, :, :middle].reshape(len(both), -1), both[:, :, middle, :, 0].reshape(len(both), -1)
    return np.concatenate(halves, axis=1)
