"""Boxes around faces: (n, 4) of left, top, right, bottom, in pixels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Boxes = npt.NDArray[np.float64]

_AT_ONCE = 256
"""Boxes that are compared with all better ones at a time: a photo of a crowd has ten thousands of candidates."""


def suppress(
    boxes: Boxes, scores: npt.NDArray[np.floating], threshold: float, *, of_smaller: bool = False
) -> npt.NDArray[np.intp]:
    """Numbers of the boxes that no better one overlaps by more than the threshold, the best first.

    The overlap is the share of the intersection in the union, or in the smaller of the two boxes. A box that is
    suppressed suppresses others all the same, so that all pairs are looked at at once.
    """
    order = np.argsort(-scores, kind="stable")
    left, top, right, bottom = boxes[order].T[:, :, None]
    area = (right - left) * (bottom - top)
    kept = np.empty(len(order), np.bool_)
    for start in range(0, len(order), _AT_ONCE):
        # [j, i]: box j of this part with box i, which is a better one where i < j
        part = slice(start, start + _AT_ONCE)
        stop = min(part.stop, len(order))
        width = np.minimum(right[part], right[:stop, 0]) - np.maximum(left[part], left[:stop, 0])
        height = np.minimum(bottom[part], bottom[:stop, 0]) - np.maximum(top[part], top[:stop, 0])
        shared = np.maximum(width, 0) * np.maximum(height, 0)
        whole = np.minimum(area[part], area[:stop, 0]) if of_smaller else area[part] + area[:stop, 0] - shared
        kept[part] = ~np.tril(shared > threshold * whole, start - 1).any(axis=1)
    return np.asarray(order[kept])


def squares(boxes: Boxes) -> Boxes:
    """Squares about the boxes' centres, as large as their longer sides."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, keepdims=True) / 2
    return np.concatenate([centre - half, centre + half], axis=1)


def shifted(boxes: Boxes, shifts: npt.NDArray[np.floating]) -> Boxes:
    """Boxes whose edges are moved by shares (n, 4) of their own width and height."""
    size = boxes[:, 2:] - boxes[:, :2]
    return np.asarray(boxes + shifts * np.concatenate([size, size], axis=1))
