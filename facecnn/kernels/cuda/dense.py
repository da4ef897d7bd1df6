"""Dense layers: three products of matrices by one kernel.

A block makes a tile of the product. It brings slabs of both factors to shared memory, where each number is read by a
whole row or column of threads, and each thread keeps up to 8 x 8 sums in registers: 16 numbers that are read serve 64
multiply-adds. Threads and their rows and columns are interleaved (thread 0 has columns 0, 8, 16, ...), so that
neighbours read neighbouring memory, without bank conflicts.

The forward product has few outputs and long sums (deep: 60 x 96 outputs of 13,824 products each), so several blocks
share the sums of a tile; their parts are then added in order. How a sum is cut doesn't depend on the number of
photos: a photo's answer is the same in every batch.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

import numpy as np

from facecnn.kernels.cuda.columns import add_up, natural
from facecnn.kernels.cuda.driver import SIMULATED, cuda, device_function, kernel, launch
from facecnn.kernels.cuda.memory import Array, Workspace

_ZERO = np.float32(0)
_SIDE = 2 if SIMULATED else 8
"""A block is _SIDE x _SIDE threads."""
_EACH = (1, 2) if SIMULATED else (1, 2, 4, 6, 8)
"""Possible numbers of output rows, and columns, of a thread."""
_SLAB = 4 if SIMULATED else 32
"""Depth of the slab in shared memory."""
_SPLIT_SLABS = 2 if SIMULATED else 4
"""Least number of slabs in a part, where a long sum is split, ..."""
_BLOCKS = 6 if SIMULATED else 256
"""... and the most blocks, parts times column tiles, of a row of tiles: about 2 per multiprocessor of a large card."""

Bias = Literal["none", "add", "sum"]


def _pitch(width: int) -> int:
    """Elements from one row of a tile to the next: 1 beyond a multiple of the 32 banks, so that writing down a column
    is as quick as along a row."""
    return width + (1 - width) % 32


@cache
def _load(width: int, depth_last: bool) -> Any:
    """A device function that fills tile (slab, width) in shared memory: tile[d, i] = source[first + i, start + d], or
    source[start + d, first + i] if the depth comes first, and 0 outside of the source and from depth ``stop`` on."""
    threads = _SIDE * _SIDE

    @device_function
    def load(tile: Any, source: Any, first: Any, start: Any, stop: Any) -> None:
        e = natural(cuda.threadIdx.x)
        while e < width * _SLAB:
            value = _ZERO
            if depth_last:
                i, d = e // _SLAB, e % _SLAB
                if first + i < source.shape[0] and start + d < stop:
                    value = source[first + i, start + d]
            else:
                i, d = e % width, e // width
                if first + i < source.shape[1] and start + d < stop:
                    value = source[start + d, first + i]
            tile[d, i] = value
            e += threads

    return load


@cache
def _product(rows_each: int, columns_each: int, a_depth_last: bool, b_depth_last: bool, bias_is: Bias) -> Any:
    """out[s, r, c] = sum of a[r, d] * b[c, d] over the depths d of split s; a factor may have its depth first instead.

    bias_is: "add": bias (columns,) is added to out; "sum": bias (rows,) becomes the sum of a over its whole depth.
    """
    rows, columns = _SIDE * rows_each, _SIDE * columns_each
    shape_a, shape_b = (_SLAB, _pitch(rows)), (_SLAB, _pitch(columns))
    outputs = rows_each * columns_each
    load_a, load_b = _load(rows, a_depth_last), _load(columns, b_depth_last)
    adds_bias, sums_bias = bias_is == "add", bias_is == "sum"
    assert rows <= _SIDE * _SIDE

    @kernel
    def product(out: Array, bias: Array, a: Array, b: Array, depth: Any, split_depth: Any) -> None:
        # grid: (tiles of columns, tiles of rows, splits)
        tile_a = cuda.shared.array(shape_a, np.float32)
        tile_b = cuda.shared.array(shape_b, np.float32)
        sums = cuda.local.array(outputs, np.float32)
        left = cuda.local.array(rows_each, np.float32)
        thread = natural(cuda.threadIdx.x)
        down, along = thread // _SIDE, thread % _SIDE
        first_row, first_column = natural(cuda.blockIdx.y) * rows, natural(cuda.blockIdx.x) * columns
        for o in range(outputs):
            sums[o] = _ZERO
        total = _ZERO
        start = natural(cuda.blockIdx.z) * natural(split_depth)
        stop = min(start + natural(split_depth), natural(depth))
        while start < stop:
            load_a(tile_a, a, first_row, start, stop)
            load_b(tile_b, b, first_column, start, stop)
            cuda.syncthreads()
            d = 0
            while d < _SLAB:
                for i in range(rows_each):
                    left[i] = tile_a[d, down + i * _SIDE]
                for j in range(columns_each):
                    right = tile_b[d, along + j * _SIDE]
                    for i in range(rows_each):
                        sums[i * columns_each + j] += left[i] * right
                d += 1
            if sums_bias and cuda.blockIdx.x == 0 and thread < rows:
                for d in range(_SLAB):
                    total += tile_a[d, thread]
            cuda.syncthreads()
            start += _SLAB
        for i in range(rows_each):
            r = first_row + down + i * _SIDE
            for j in range(columns_each):
                c = first_column + along + j * _SIDE
                if r < out.shape[1] and c < out.shape[2]:
                    value = sums[i * columns_each + j]
                    if adds_bias:
                        value += bias[c]
                    out[natural(cuda.blockIdx.z), r, c] = value
        if sums_bias and cuda.blockIdx.x == 0 and thread < rows and first_row + thread < out.shape[1]:
            bias[first_row + thread] = total

    return product


def _each(size: int) -> int:
    """Outputs of a thread along a side: as few tiles as can be, all equally large if possible."""
    tiles = -(-size // (_SIDE * _EACH[-1]))
    return next(each for each in _EACH if each * _SIDE * tiles >= size)


def _launch_product(
    out: Array, bias: Array, bias_is: Bias, a: Array, a_depth_last: bool, b: Array, b_depth_last: bool,
    split_depth: int, workspace: Workspace,
) -> None:  # fmt: skip
    splits, rows, columns = out.shape
    rows_each, columns_each = _each(rows), _each(columns)
    depth = a.shape[1 if a_depth_last else 0]
    grid = (-(-columns // (_SIDE * columns_each)), -(-rows // (_SIDE * rows_each)), splits)
    product = _product(rows_each, columns_each, a_depth_last, b_depth_last, bias_is)
    launch(product, grid, _SIDE * _SIDE, workspace, out, bias, a, b, depth, split_depth)


def dense_forward(out: Array, x: Array, weight: Array, bias: Array, workspace: Workspace) -> None:
    """out = x weight' + bias: out (N, U), x (N, I), weight (U, I), bias (U,)."""
    slabs = -(-x.shape[1] // _SLAB)
    tiles = -(-out.shape[1] // (_SIDE * _EACH[-1]))
    split_slabs = max(_SPLIT_SLABS, -(-slabs // max(1, _BLOCKS // tiles)))
    splits = -(-slabs // split_slabs)
    if splits == 1:
        _launch_product(out.reshape(1, *out.shape), bias, "add", x, True, weight, True, split_slabs * _SLAB, workspace)
    else:
        partials = workspace.array("dense partials", (splits, *out.shape))
        _launch_product(partials, bias, "none", x, True, weight, True, split_slabs * _SLAB, workspace)
        add_up(out, partials, bias, workspace)


def dense_backward_weight(dweight: Array, dbias: Array, dout: Array, x: Array, workspace: Workspace) -> None:
    """dweight = dout' x, dbias = sum of dout over the batch: dweight (U, I), dbias (U,), dout (N, U), x (N, I)."""
    whole = dweight.reshape(1, *dweight.shape)
    _launch_product(whole, dbias, "sum", dout, False, x, False, dout.shape[0], workspace)


def dense_backward_input(dx: Array, dout: Array, weight: Array, workspace: Workspace) -> None:
    """dx = dout weight: dx (N, I), dout (N, U), weight (U, I)."""
    unused = workspace.array("no bias", (1,))
    _launch_product(dx.reshape(1, *dx.shape), unused, "none", dout, True, weight, False, dout.shape[1], workspace)
