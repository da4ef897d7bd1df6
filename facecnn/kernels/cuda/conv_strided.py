"""Convolution with a step between windows, forward and backward, as products of matrices by one kernel.

With D = R * S * C, the numbers of a window (a patch)
    out (pixels, K) = patches (pixels, D) x weight' (D, K)
    dweight (K, D) = delta' (K, pixels) x patches (pixels, D), where delta = dout * activation'
    dx (pixels of x, C) = delta at the windows' positions (pixels of x, taps * K) x weight (taps * K, C)
No patch is stored: the factors' elements are looked up in the maps on the way to shared memory, as in cuDNN's implicit
products (Chetlur et al. 2014, arXiv:1410.0759). A block makes a tile of the product as in dense.py, from slabs of both
factors.

A pixel of x is in the windows at some of the taps only: those with the same remainder by the stride. So there is a
launch for every remainder, which sums over its taps alone.

All sizes but the number of photos are constants of the compiled code, so that no division is slow.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from facecnn.kernels.cuda.columns import natural
from facecnn.kernels.cuda.conv_patches import (
    Remainder,
    StridedShape,
    deltas_around,
    deltas_of,
    divided,
    patches_by_pixel,
    patches_of,
    shape_of,
    weights_around,
    weights_of,
)
from facecnn.kernels.cuda.conv_unrolled import unrolled
from facecnn.kernels.cuda.conv_weight import add_partials
from facecnn.kernels.cuda.driver import SIMULATED, cuda, device_function, kernel, launch
from facecnn.kernels.cuda.elementwise import value_of
from facecnn.kernels.cuda.memory import Array, Workspace
from facecnn.kernels.protocol import FUSED_ACTIVATIONS, Activation

_U64 = np.uint64
_ZERO = np.float32(0)
_SIDE = 2 if SIMULATED else 8
"""A block is _SIDE x _SIDE threads."""
_EACH = (1, 2) if SIMULATED else (1, 2, 4, 8)
"""Possible numbers of output rows, and columns, of a thread."""
_SLAB = 4 if SIMULATED else 32
"""Depth of the slab in shared memory."""
_SPLITS = 6 if SIMULATED else 528
"""The weights' gradient has long sums and few tiles: the sums are split, into at most this many blocks in all ..."""
_SPLIT_SLABS = 2 if SIMULATED else 8
"""... and into parts of at least this many slabs. (``Conv.scratch`` has room for the parts.)"""


# -------------------------------------------------------------------------------------------------------- product


def _pitch(width: int) -> int:
    """Elements from one row of a tile to the next: 1 beyond a multiple of the 32 banks, so that writing down a column
    is as quick as along a row."""
    return width + (1 - width) % 32


def _load(width: int, element: Any, depth_first: bool) -> Any:
    """A device function that fills tile (slab, width) in shared memory with the elements of lines ``first`` and depths
    ``start`` on, and 0 beyond ``lines`` and ``stop``. Neighbouring threads read neighbouring depths if ``depth_first``,
    else lines."""
    threads = _SIDE * _SIDE

    @device_function
    def load(tile: Any, source: Any, lines: Any, first: Any, start: Any, stop: Any) -> None:
        e = natural(cuda.threadIdx.x)
        while e < width * _SLAB:
            if depth_first:
                i, d = e // _SLAB, e % _SLAB
            else:
                i, d = e % width, e // width
            value = _ZERO
            if first + i < lines and start + d < stop:
                value = element(source, first + i, start + d)
            tile[d, i] = value
            e += threads

    return load


def _store(columns_each: int, place: Any, finish: Any) -> Any:
    """For output number ``output`` of a thread, a device function that stores its sum: see ``_product``."""

    def one_output(output: int) -> Any:
        i, j = divmod(output, columns_each)

        @device_function
        def store(state: Any) -> None:
            sums, target, first_row, first_column, row_count, column_count, split = state
            r, c = first_row + i * _SIDE, first_column + j * _SIDE
            if r < row_count and c < column_count:
                finish(target, place(r), c, sums[output], split)

        return store

    return one_output


def _product(
    rows_each: int, columns_each: int, a: tuple[Any, bool], b: tuple[Any, bool], place: Any, finish: Any,
    adds_rows: bool = False,
) -> Any:  # fmt: skip
    """A kernel that sums a[r, d] * b[c, d] over the depths d of its split, in order, for its tile of rows r and columns
    c, and stores each sum by ``finish(target, place(r), c, sum, split)``.

    a, b: an ``element`` and whether its depths lie side by side. With ``adds_rows`` target is (splits, sums), and the
    sum of a[r, d] over d is stored there, too, behind rows x columns others.
    """
    rows, columns = _SIDE * rows_each, _SIDE * columns_each
    shape_a, shape_b = (_SLAB, _pitch(rows)), (_SLAB, _pitch(columns))
    outputs = rows_each * columns_each
    load_a, load_b = _load(rows, *a), _load(columns, *b)
    store_all = unrolled(outputs, _store(columns_each, place, finish))

    @kernel
    def product(target: Any, a: Any, b: Any, row_count: Any, column_count: Any, depth: Any, split_depth: Any) -> None:
        # grid: (tiles of rows, tiles of columns, splits)
        tile_a = cuda.shared.array(shape_a, np.float32)
        tile_b = cuda.shared.array(shape_b, np.float32)
        sums = cuda.local.array(outputs, np.float32)
        left = cuda.local.array(rows_each, np.float32)
        thread = natural(cuda.threadIdx.x)
        down, along = thread // _SIDE, thread % _SIDE
        first_row, first_column = natural(cuda.blockIdx.x) * rows, natural(cuda.blockIdx.y) * columns
        split = natural(cuda.blockIdx.z)
        for o in range(outputs):
            sums[o] = _ZERO
        total = _ZERO
        start = split * natural(split_depth)
        stop = min(start + natural(split_depth), natural(depth))
        while start < stop:
            load_a(tile_a, a, row_count, first_row, start, stop)
            load_b(tile_b, b, column_count, first_column, start, stop)
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
            if adds_rows and cuda.blockIdx.y == 0 and thread < rows:
                for d in range(_SLAB):
                    total += tile_a[d, thread]
            cuda.syncthreads()
            start += _SLAB
        store_all((sums, target, first_row + down, first_column + along, row_count, column_count, split))
        if adds_rows and cuda.blockIdx.y == 0 and thread < rows and first_row + thread < row_count:
            target[split, natural(row_count) * natural(column_count) + first_row + thread] = total

    return product


def _each(size: int) -> int:
    """Outputs of a thread along a side: as few tiles as can be, of as little as they need."""
    tiles = -(-size // (_SIDE * _EACH[-1]))
    return next(each for each in _EACH if each * _SIDE * tiles >= size)


def _grid(rows: int, columns: int, splits: int = 1) -> tuple[int, int, int]:
    return -(-rows // (_SIDE * _each(rows))), -(-columns // (_SIDE * _each(columns))), splits


# -------------------------------------------------------------------------------------------------------- kernels


@device_function
def _same(row: Any) -> Any:
    return row


@cache
def _forward(shape: StridedShape, activation: Activation, rows_each: int, columns_each: int) -> Any:
    kernels, value_at = shape.kernels, value_of(activation)

    @device_function
    def finish(target: Any, pixel: Any, k: Any, value: Any, split: Any) -> None:
        out, bias, slope = target
        out[_U64(pixel * kernels + k)] = value_at(value + bias[k], slope)

    return _product(rows_each, columns_each, (patches_of(shape), True), (weights_of(shape), True), _same, finish)


def strided_conv_forward(
    out: Array, x: Array, weight: Array, bias: Array, stride: tuple[int, int], padding: tuple[int, int],
    activation: Activation, slope: float, workspace: Workspace,
) -> None:  # fmt: skip
    """Convolution, bias and activation, at every ``stride``-th position only."""
    assert activation in FUSED_ACTIVATIONS
    if out.size == 0:
        return
    shape = shape_of(x, weight, out, stride, padding)
    pixels, kernels = out.size // shape.kernels, shape.kernels
    launch(
        _forward(shape, activation, _each(pixels), _each(kernels)), _grid(pixels, kernels), _SIDE * _SIDE, workspace,
        (out.reshape(-1), bias, float(slope)), x.reshape(-1), weight.reshape(-1), pixels, kernels, shape.patch,
        shape.patch,
    )  # fmt: skip


@cache
def _backward_weight(shape: StridedShape, activation: Activation, rows_each: int, columns_each: int) -> Any:
    size = shape.patch

    @device_function
    def finish(partials: Array, k: Any, d: Any, value: Any, split: Any) -> None:
        partials[split, k * size + d] = value

    a, b = (deltas_of(shape, activation), False), (patches_by_pixel(shape), False)
    return _product(rows_each, columns_each, a, b, _same, finish, adds_rows=True)


def strided_conv_backward_weight(
    dweight: Array, dbias: Array, dout: Array, out: Array, x: Array, stride: tuple[int, int], padding: tuple[int, int],
    activation: Activation, slope: float, workspace: Workspace,
) -> None:  # fmt: skip
    """dweight[k, t, c] = sum over photos and positions p of delta[p, k] * x[p * stride + t - padding, c]; dbias[k] =
    sum of delta."""
    shape = shape_of(x, dweight, out, stride, padding)
    kernels, size, pixels = shape.kernels, shape.patch, out.size // shape.kernels
    across, down, _ = _grid(kernels, size)
    slabs = -(-pixels // _SLAB)
    split_slabs = max(_SPLIT_SLABS, -(-slabs // max(1, _SPLITS // (across * down))))
    splits = -(-slabs // split_slabs)
    partials = workspace.array("partial sums", (splits, dweight.size + kernels))
    launch(
        _backward_weight(shape, activation, _each(kernels), _each(size)), (across, down, splits), _SIDE * _SIDE,
        workspace, partials, (dout.reshape(-1), out.reshape(-1), float(slope)), x.reshape(-1), kernels, size, pixels,
        split_slabs * _SLAB,
    )  # fmt: skip
    add_partials(dweight, dbias, partials, workspace)


@cache
def _backward_input(remainder: Remainder, activation: Activation, rows_each: int, columns_each: int) -> Any:
    shape, (pixel_rows, pixel_columns) = remainder.shape, remainder.pixels
    (first_row, first_column), (down, along) = remainder.first, shape.stride
    height, width, maps = shape.height, shape.width, shape.maps

    @device_function
    def place(line: Any) -> Any:
        row, column = divided(line, pixel_columns)
        n, row = divided(row, pixel_rows)
        y, z = natural(row) * down + first_row, natural(column) * along + first_column
        return (natural(n) * height + y) * width + z

    @device_function
    def finish(dx: Array, pixel: Any, c: Any, value: Any, split: Any) -> None:
        dx[_U64(pixel * maps + c)] = value

    a, b = (deltas_around(remainder, activation), True), (weights_around(remainder), False)
    return _product(rows_each, columns_each, a, b, place, finish)


def strided_conv_backward_input(
    dx: Array, dout: Array, out: Array, weight: Array, stride: tuple[int, int], padding: tuple[int, int],
    activation: Activation, slope: float, workspace: Workspace,
) -> None:  # fmt: skip
    """dx[q, c] = sum of delta[p, k] * weight[k, t, c] over the windows p, and their taps t, that lie at q."""
    shape = shape_of(dx, weight, out, stride, padding)
    deltas = (dout.reshape(-1), out.reshape(-1), float(slope))
    for y in range(min(shape.stride[0], shape.height)):
        for z in range(min(shape.stride[1], shape.width)):
            remainder = Remainder(shape, (y, z))
            pixels = len(dx) * remainder.pixels[0] * remainder.pixels[1]
            depth = remainder.taps[0] * remainder.taps[1] * shape.kernels
            launch(
                _backward_input(remainder, activation, _each(pixels), _each(shape.maps)), _grid(pixels, shape.maps),
                _SIDE * _SIDE, workspace, dx.reshape(-1), deltas, weight.reshape(-1), pixels, shape.maps, depth, depth,
            )  # fmt: skip
