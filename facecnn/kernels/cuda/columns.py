"""Sums over the rows of a matrix, column by column, in a fixed order.

A block takes a tile of columns. Its threads form ``lanes`` rows of ``width``, so that neighbouring threads read
neighbouring memory. A thread sums the rows of its column with stride ``lanes``; then the lanes are added in order.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from facecnn.kernels.cuda.driver import SIMULATED, cuda, device_function, kernel, launch
from facecnn.kernels.cuda.memory import Array, Workspace
from facecnn.kernels.cuda.sizes import THREADS

_F = np.float32
_WIDEST = 4 if SIMULATED else 32
"""Columns of a tile: a warp reads 128 bytes in a row. Where there are fewer columns, the tile has more lanes."""


@device_function
def natural(i: Any) -> Any:
    """A thread's or block's number, or a count, as an int64 that the compiler knows isn't negative. Any other index
    costs instructions at every use, since Python counts negative indices from the end."""
    return np.int64(np.uint32(i))


def tile(columns: int) -> tuple[int, int, int]:
    """(width, lanes, tiles): the layout of THREADS threads over ``columns``. Threads beyond width * lanes are idle."""
    width = min(columns, _WIDEST)
    return width, THREADS // width, -(-columns // width)


@cache
def lane_sum(width: int, lanes: int) -> Any:
    """A device function ``total(values, column, value)``: the sum of ``value`` over the block's lanes, which all
    threads of a column get. Has two barriers, the last of them behind all reading.

    values (THREADS,) is in shared memory; thread t has column t % width and lane t // width.
    """

    @device_function
    def total(values: Any, column: Any, value: Any) -> Any:
        values[natural(cuda.threadIdx.x)] = value
        cuda.syncthreads()
        result = values[column]
        for lane in range(1, lanes):
            result += values[lane * width + column]
        cuda.syncthreads()
        return result

    return total


@cache
def column_sum(width: int, lanes: int) -> Any:
    """A device function ``total(values, partials)`` for blocks of a ``tile``: (column, is_mine, sum), where column is
    the thread's, sum that of partials (rows, columns) over the rows, and is_mine whether it is for this thread to
    store it. values (THREADS,) is in shared memory."""
    add_lanes = lane_sum(width, lanes)

    @device_function
    def total(values: Any, partials: Any) -> Any:
        thread = natural(cuda.threadIdx.x)
        column, lane = thread % width, thread // width
        c = natural(cuda.blockIdx.x) * width + column
        result = _F(0)
        if lane < lanes and c < partials.shape[1]:
            row = lane
            while row < partials.shape[0]:
                result += partials[row, c]
                row += lanes
        result = add_lanes(values, column, result)
        return c, lane == 0 and c < partials.shape[1], result

    return total


@cache
def _add_up(width: int, lanes: int) -> Any:
    total_of = column_sum(width, lanes)

    @kernel
    def add_up(out: Array, partials: Array, bias: Array) -> None:
        # out (columns,) = sum of partials (rows, columns) over the rows, + bias (B,), which is repeated
        values = cuda.shared.array(THREADS, np.float32)
        c, is_mine, total = total_of(values, partials)
        if is_mine:
            out[c] = total + bias[np.int32(np.uint32(c) % np.uint32(bias.size))]

    return add_up


def add_up(out: Array, partials: Array, bias: Array, workspace: Workspace) -> None:
    """out = sum of ``partials`` (rows, *out.shape) over the rows + ``bias``, whose shape out's ends in."""
    width, lanes, tiles = tile(out.size)
    flat = partials.reshape(partials.shape[0], out.size)
    launch(_add_up(width, lanes), tiles, THREADS, workspace, out.reshape(out.size), flat, bias.reshape(bias.size))
