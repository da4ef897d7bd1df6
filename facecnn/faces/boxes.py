"""Boxes around faces: (n, 4) of left, top, right, bottom, in pixels."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from facecnn.arrays import BoolArray, Float64Array, Int64Array

Boxes = Float64Array

_AT_ONCE = 256
"""Boxes compared at a time with all better ones, to bound the memory: a crowd gives tens of thousands of candidates."""


def suppress(
    boxes: Boxes,
    scores: npt.NDArray[np.floating],
    threshold: float,
    *,
    of_smaller: bool = False,
    groups: Int64Array | None = None,
    mark: Callable[..., None] | None = None,
) -> npt.NDArray[np.intp]:
    """Non-maximum suppression: drop every box that a better one overlaps by more than ``threshold``.

    The overlap is the intersection over the union, or ``of_smaller`` over the smaller box. Unlike in the usual greedy
    algorithm a dropped box still suppresses others, so that all pairs can be compared at once.

    Args:
        boxes: (n, 4)
        scores: (n,)
        groups: (n,) the number of the group within which each box is compared; by default all are one.
        mark: ``facecnn.kernels.cpu.candidates.mark_kept``, or None for NumPy, which does the same more slowly.

    Returns:
        Indices of the boxes that are kept, by group, in each best first.
    """
    if groups is None:
        groups = np.zeros(len(boxes), np.int64)
    order = np.lexsort((-scores, groups))
    kept = np.ones(len(order), np.bool_)
    (mark or mark_kept)(kept, boxes[order], groups[order], threshold, of_smaller)
    return np.asarray(order[kept])


def mark_kept(kept: BoolArray, boxes: Boxes, groups: Int64Array, threshold: float, of_smaller: bool) -> None:
    """``suppress`` boxes that are in order: ``kept`` (n,) becomes whether each is kept."""
    left, top, right, bottom = boxes.T[:, :, None]
    area = (right - left) * (bottom - top)
    for start in range(0, len(boxes), _AT_ONCE):
        # [j, i]: box j of this part against box i, which is better if i < start + j
        part = slice(start, start + _AT_ONCE)
        stop = min(part.stop, len(boxes))
        width = np.minimum(right[part], right[:stop, 0]) - np.maximum(left[part], left[:stop, 0])
        height = np.minimum(bottom[part], bottom[:stop, 0]) - np.maximum(top[part], top[:stop, 0])
        shared = np.maximum(width, 0) * np.maximum(height, 0)
        whole = np.minimum(area[part], area[:stop, 0]) if of_smaller else area[part] + area[:stop, 0] - shared
        drops = (shared > threshold * whole) & (groups[part, None] == groups[:stop])
        kept[part] = ~np.tril(drops, start - 1).any(axis=1)


def squares(boxes: Boxes) -> Boxes:
    """Squares around the boxes' centres, with each box's longer side."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, keepdims=True) / 2
    return np.concatenate([centre - half, centre + half], axis=1)


def shifted(boxes: Boxes, shifts: npt.NDArray[np.floating]) -> Boxes:
    """Boxes with edges shifted by fractions (n, 4) of their width and height."""
    size = boxes[:, 2:] - boxes[:, :2]
    return np.asarray(boxes + shifts * np.concatenate([size, size], axis=1))
