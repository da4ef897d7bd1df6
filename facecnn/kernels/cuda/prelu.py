"""The leaky relu whose slopes are learned, one for each map or unit.

Backward cuts the rows (M of an array (M, C)) into chunks: each block fills its part of dx and sums up its chunk's part
of dslope, and a second launch adds those up in order. Where one chunk is all, the first launch does it.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from facecnn.kernels.cuda.columns import column_sum, lane_sum, natural, tile
from facecnn.kernels.cuda.driver import cuda, kernel, launch
from facecnn.kernels.cuda.memory import Array, Workspace
from facecnn.kernels.cuda.sizes import BLOCKS, STRIDE, THREADS, launch_each

_U = np.uint32
_ZERO = np.float32(0)
_LEAST_ROWS = 4
"""Of a thread, before there is another chunk."""


@cache
def _forward(columns: int) -> Any:
    @kernel
    def forward(out: Array, x: Array, slope: Array) -> None:
        # out, x (M * C,); slope (C,)
        i = cuda.grid(1)
        while i < out.size:
            value = x[i]
            out[i] = value if value > _ZERO else value * slope[_U(i) % _U(columns)]
            i += STRIDE

    return forward


@cache
def _backward(columns: int) -> Any:
    width, lanes, _ = tile(columns)
    add_lanes = lane_sum(width, lanes)

    @kernel
    def backward(dx: Array, partials: Array, dout: Array, x: Array, slope: Array, chunk: Any) -> None:
        # dx, dout, x (M, C); slope (C,); partials (chunks, C): sums over each chunk of rows; grid: (chunks, tiles)
        values = cuda.shared.array(THREADS, np.float32)
        thread = natural(cuda.threadIdx.x)
        column, lane = thread % width, thread // width
        block = natural(cuda.blockIdx.x)
        c = natural(cuda.blockIdx.y) * width + column
        exists = lane < lanes and c < columns
        total = _ZERO
        if exists:
            own_slope = slope[c]
            row, stop = block * natural(chunk) + lane, min((block + 1) * natural(chunk), x.shape[0])
            while row < stop:
                value, delta = x[row, c], dout[row, c]
                if value > _ZERO:
                    dx[row, c] = delta
                else:
                    dx[row, c] = delta * own_slope
                    total += delta * value
                row += lanes
        total = add_lanes(values, column, total)
        if exists and lane == 0:
            partials[block, c] = total

    return backward


@cache
def _add_chunks(columns: int) -> Any:
    width, lanes, _ = tile(columns)
    total_of = column_sum(width, lanes)

    @kernel
    def add_chunks(dslope: Array, partials: Array) -> None:
        # dslope (C,) = sum of partials (chunks, C) over the chunks; grid: tiles
        values = cuda.shared.array(THREADS, np.float32)
        c, is_mine, total = total_of(values, partials)
        if is_mine:
            dslope[c] = total

    return add_chunks


def prelu_forward(out: Array, x: Array, slope: Array, workspace: Workspace) -> None:
    """out = x where x > 0, else slope[c] * x."""
    flat = (array.reshape(array.size) for array in (out, x))
    launch_each(_forward(x.shape[1]), out.size, workspace, *flat, slope)


def prelu_backward(dx: Array, dslope: Array, dout: Array, x: Array, slope: Array, workspace: Workspace) -> None:
    """dx and dslope of ``prelu_forward``."""
    rows, columns = x.shape
    _, lanes, tiles = tile(columns)
    chunk = max(_LEAST_ROWS * lanes, -(-rows // max(1, BLOCKS // tiles)))
    chunks = -(-rows // chunk)
    partials = dslope.reshape(1, columns) if chunks == 1 else workspace.array("slope partials", (chunks, columns))
    launch(_backward(columns), (chunks, tiles), THREADS, workspace, dx, partials, dout, x, slope, chunk)
    if chunks > 1:
        launch(_add_chunks(columns), tiles, THREADS, workspace, dslope, partials)
