"""The boxes that a network of the face finder proposes, and which of them go on: each in one call.

With NumPy that takes dozens of calls for a small photo, and each keeps the other threads from their Python code.
"""

from __future__ import annotations

import numpy as np

from facecnn.arrays import Array
from facecnn.kernels.cpu.jit import compiled
from facecnn.kernels.cpu.launching import launch


def collect(
    boxes: Array, scores: Array, levels: Array, probabilities: Array, shifts: Array, windows: Array, scales: Array,
    least: float, cell: int, stride: int,
) -> None:  # fmt: skip
    """Collect the boxes of all outputs that are probable enough, by window, row and column.

    Args:
        boxes: (n, 4) float64 left, top, right, bottom
        scores: (n,) float32 probabilities
        levels: (n,) int64. Of all three, rows behind the last box stay as they were.
        probabilities: (tiles, rows, columns) float32
        shifts: (tiles, rows, columns, 4) float32, of a box's edges, in fractions of its side
        windows: (m, 8) int64 level; row and column in it, in pixels; tile; the first row and column of outputs; their
            rows and columns
        scales: (levels,) float64
        least: what a probability has to be above
        cell: side of a box in its level, in pixels
        stride: pixels from an output to the next
    """
    launch(_collect, boxes, scores, levels, probabilities, shifts, windows, scales, np.float32(least), cell, stride)


def mark_kept(kept: Array, boxes: Array, groups: Array, threshold: float, of_smaller: bool) -> None:
    """See ``facecnn.faces.boxes.mark_kept``."""
    launch(_mark_kept, kept, boxes, groups, threshold, of_smaller)


@compiled(exact=True)
def _collect(
    boxes: Array, scores: Array, levels: Array, probabilities: Array, shifts: Array, windows: Array, scales: Array,
    least: float, cell: int, stride: int,
) -> None:  # fmt: skip
    found = 0
    for m in range(len(windows)):
        level, top, left, tile, row, column, rows, columns = windows[m]
        for i in range(rows):
            for j in range(columns):
                score = probabilities[tile, row + i, column + j]
                if not score > least:
                    continue
                for edge in range(4):
                    corner = top + i * stride if edge % 2 else left + j * stride
                    if edge >= 2:
                        corner += cell
                    shift = np.float64(shifts[tile, row + i, column + j, edge]) * np.float64(cell)
                    boxes[found, edge] = (np.float64(corner) + shift) / scales[level]
                scores[found], levels[found] = score, level
                found += 1


@compiled(exact=True)
def _mark_kept(kept: Array, boxes: Array, groups: Array, threshold: float, of_smaller: bool) -> None:
    for j in range(len(boxes)):
        left, top, right, bottom = boxes[j]
        area = (right - left) * (bottom - top)
        kept[j] = True
        for i in range(j - 1, -1, -1):
            if groups[i] != groups[j]:
                break
            width = min(right, boxes[i, 2]) - max(left, boxes[i, 0])
            height = min(bottom, boxes[i, 3]) - max(top, boxes[i, 1])
            shared = max(width, 0.0) * max(height, 0.0)
            other = (boxes[i, 2] - boxes[i, 0]) * (boxes[i, 3] - boxes[i, 1])
            whole = min(area, other) if of_smaller else area + other - shared
            if shared > threshold * whole:
                kept[j] = False
                break
