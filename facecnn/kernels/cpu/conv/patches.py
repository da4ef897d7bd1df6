"""Windows of photos as lines of numbers, and back."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from facecnn.arrays import Array
from facecnn.kernels.cpu.conv.frames import copy
from facecnn.kernels.cpu.jit import helper

_ZERO = np.float32(0)


@cache
def windows_of(
    kernel_rows: int, kernel_columns: int, maps: int, stride: tuple[int, int], padding: tuple[int, int]
) -> tuple[Any, Any]:
    """The helpers ``unfold(patches, x, first, stop, rows, columns)`` and ``fold(dx, patches, first, stop, rows,
    columns)``: they copy the windows of pixels first to stop from x (N, H, W, C) to patches (pixels, D), flat, and add
    patches to the windows of dx. Pixels of an output (N, rows, columns) are counted through."""
    (down, along), (top, left) = stride, padding
    run = kernel_columns * maps

    @helper(inline=True)
    def visible(column: int, width: int) -> Any:
        """First column of the window in x, and which of its columns are inside."""
        place = column * along - left
        return place, min(kernel_columns, max(0, -place)), max(0, min(kernel_columns, width - place))

    @helper()
    def unfold(patches: Array, x: Array, first: int, stop: int, rows: int, columns: int) -> None:
        height, width = x.shape[1], x.shape[2]
        source, at = x.reshape(-1), 0
        for pixel in range(first, stop):
            line, column = pixel // columns, pixel % columns
            n, row = line // rows, line % rows
            place, skipped, behind = visible(column, width)
            for r in range(kernel_rows):
                y = row * down - top + r
                if 0 <= y < height and skipped == 0 and behind == kernel_columns:
                    copy(patches, at, source, ((n * height + y) * width + place) * maps, run)
                else:
                    for i in range(at, at + run):
                        patches[i] = _ZERO
                    if 0 <= y < height and skipped < behind:
                        start = ((n * height + y) * width + place + skipped) * maps
                        copy(patches, at + skipped * maps, source, start, (behind - skipped) * maps)
                at += run

    @helper()
    def fold(dx: Array, patches: Array, first: int, stop: int, rows: int, columns: int) -> None:
        height, width = dx.shape[1], dx.shape[2]
        target, at = dx.reshape(-1), 0
        for pixel in range(first, stop):
            line, column = pixel // columns, pixel % columns
            n, row = line // rows, line % rows
            place, skipped, behind = visible(column, width)
            for r in range(kernel_rows):
                y = row * down - top + r
                if 0 <= y < height and skipped < behind:
                    start = ((n * height + y) * width + place) * maps
                    own = patches[at + skipped * maps : at + behind * maps]
                    d = target[start + skipped * maps : start + behind * maps]
                    for i in range(len(own)):
                        d[i] += own[i]
                at += run

    return unfold, fold
