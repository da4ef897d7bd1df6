"""Convolution, bias, activation and max-pooling in one kernel, and the gradient of its input in another.

A block makes a tile of one photo's outputs for some kernels; conv_sums.py has the sums, conv_tiles.py the sizes. The
weights' gradient, which is another kind of sum, is in conv_weight.py.

Kernel size, maps, kernels, pool and activation are constants of the compiled code.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from facecnn.kernels.cuda.conv_sums import load_delta, load_photo, load_weights, sum_up
from facecnn.kernels.cuda.conv_tiles import LANES, Tile, choose_tile
from facecnn.kernels.cuda.conv_unrolled import unrolled
from facecnn.kernels.cuda.driver import cuda, device_function, kernel, launch
from facecnn.kernels.cuda.elementwise import value_of
from facecnn.kernels.cuda.memory import Array, Workspace
from facecnn.kernels.protocol import FUSED_ACTIVATIONS, Activation

_I, _U, _U64 = np.int32, np.uint32, np.uint64
_ZERO, _LEAST = np.float32(0), np.float32(-np.inf)


def _block_place(tile: Tile, kernels: int) -> Any:
    """A device function ``place(rows, columns)``: photo, first row, first column and first kernel of the outputs (rows,
    columns) that this block makes."""
    kernel_blocks = _U(-(-kernels // tile.block_kernels))
    block_kernels, block_rows, block_columns = tile.block_kernels, _U(tile.block_rows), _U(tile.block_columns)

    @device_function
    def place(rows: Any, columns: Any) -> Any:
        block = _U(cuda.blockIdx.x)
        down = (_U(rows) + block_rows - _U(1)) // block_rows
        across = (_U(columns) + block_columns - _U(1)) // block_columns
        area = block // kernel_blocks
        line = area // across
        return (
            _I(line // down),
            _I(line % down * block_rows),
            _I(area % across * block_columns),
            _I(block % kernel_blocks * _U(block_kernels)),
        )

    return place


def _write(tile: Tile, kernels: int, finish: Any) -> Any:
    """A device function ``write(state)`` for state = (values, where, held, target, place, rows, columns): the outputs
    of all threads to global memory, one row of each after the other.

    values, and where if pool > 1, are [row, column, kernel] of this thread. They pass through shared memory (held), as
    [kernel, column of the thread, place of the thread], so that a warp writes neighbouring numbers: by
    ``finish(target, value, where, index, kernel)``.
    """
    kernel_count, outputs_across, places, groups = tile.kernels, tile.outputs_across, tile.places, tile.groups
    stride, pooled = tile.staged_stride, tile.pool > 1
    half = _U(tile.block_kernels * tile.staged_stride if tile.pool > 1 else 0)
    teams, lanes = _U(tile.threads // LANES), _U(LANES)
    block_kernels, run = _U(tile.block_kernels), _U(tile.block_columns * tile.block_kernels)
    threads_down, threads_across = _U(tile.threads_down), _U(tile.threads_across)
    outputs_down = tile.outputs_down

    def one_row(row_of_thread: int) -> Any:
        @device_function
        def write(state: Any) -> None:
            values, where, held, target, place, rows, columns = state
            thread = _U(cuda.threadIdx.x)
            if thread < _U(places * groups):
                first = _U(thread // _U(places) * _U(kernel_count * stride) + thread % _U(places))
                for output in range(outputs_across):
                    for k in range(kernel_count):
                        value = (row_of_thread * outputs_across + output) * kernel_count + k
                        held[first + k * stride + output * places] = values[value]
                        if pooled:
                            held[first + half + k * stride + output * places] = where[value]
            cuda.syncthreads()
            photo, first_row, first_column, first_kernel = place
            down: Any = _U(thread // lanes)
            while down < threads_down:
                row = first_row + _I(down) * outputs_down + row_of_thread
                if row < rows:
                    start = ((np.int64(photo) * rows + row) * columns + first_column) * kernels + first_kernel
                    i: Any = _U(thread % lanes)
                    while i < run:
                        of_block, column = i % block_kernels, i // block_kernels
                        kernel = first_kernel + _I(of_block)
                        if kernel < kernels and first_column + _I(column) < columns:
                            at = of_block * _U(stride) + column % _U(outputs_across) * _U(places)
                            at += down * threads_across + column // _U(outputs_across)
                            index = _U64(start + _I(column) * kernels + _I(of_block))
                            finish(target, held[at], held[at + half], index, kernel)
                        i = _U(i + lanes)
                down = _U(down + teams)
            cuda.syncthreads()

        return write

    return unrolled(outputs_down, one_row)


def _largest(tile: Tile) -> Any:
    """A device function ``largest(state)`` for state = (best, where, sums, strip), best and where [row, column, kernel]
    of the thread's outputs: takes in the sums of a strip of their windows, in row order. Of equal sums the first wins,
    and so does the first that is not a number."""
    pool, kernels, outputs_across, patch_columns = tile.pool, tile.kernels, tile.outputs_across, tile.patch_columns
    outputs_down, rows = tile.outputs_down, 1 if tile.strips > 1 else tile.pool

    def one_output(output: int) -> Any:
        place, k = divmod(output, kernels)
        y, x = divmod(place, outputs_across)

        @device_function
        def largest(state: Any) -> None:
            # Into best and where it goes once, at the end: elements written under a condition end up on the stack on
            # some cards (sm_100 and sm_120), whereas two numbers stay in registers.
            best, where, sums, strip = state
            most, place_of_most = best[output], where[output]
            for r in range(rows):
                for s in range(pool):
                    z = sums[((y * rows + r) * patch_columns + x * pool + s) * kernels + k]
                    if not z <= most and most == most:
                        most = z
                        place_of_most = np.float32((strip + r) * pool + s)
            best[output] = most
            where[output] = place_of_most

        return largest

    return unrolled(outputs_down * outputs_across * kernels, one_output)


def _convolution(tile: Tile, maps: int, kernels: int, load: Any, transposed: bool, finish: Any) -> Any:
    """A kernel: the largest sums of windows, of what ``load`` brings of its source, are written by ``finish``."""
    pool, strips, kernel_count = tile.pool, tile.strips, tile.kernels
    floats, weights = tile.floats, tile.weights
    sums_size = tile.patch_rows * tile.patch_columns * kernel_count
    window_size = tile.patch_rows * (tile.patch_columns + tile.kernel_columns - 1)
    best_size = tile.outputs_down * tile.outputs_across * kernel_count if pool > 1 else 1
    sums_of = sum_up(tile, maps, load, load_weights(tile, maps, kernels, transposed=transposed))
    place_of, largest, write = _block_place(tile, kernels), _largest(tile), _write(tile, kernels, finish)

    @kernel
    def convolution(target: Any, source: Any, weight: Array, rows: Any, columns: Any, top: Any, left: Any) -> None:
        # outputs (N, rows, columns, kernels)
        held = cuda.shared.array(floats, np.float32)
        held_weights = cuda.shared.array(weights, np.float32)
        sums = cuda.local.array(sums_size, np.float32)
        window = cuda.local.array(window_size, np.float32)
        best = cuda.local.array(best_size, np.float32)
        where = cuda.local.array(best_size, np.float32)
        place = place_of(rows, columns)
        photo, first_row, first_column, first_kernel = place
        for i in range(best_size):
            best[i] = _LEAST
            where[i] = _ZERO
        for strip in range(strips):
            sums_of(
                sums, window, held, held_weights, source, weight,
                photo, first_row * pool - top, first_column * pool - left, first_kernel, strip,
            )  # fmt: skip
            if pool > 1:
                largest((best, where, sums, strip))
        if pool > 1:
            write((best, where, held, target, place, rows, columns))
        else:
            write((sums, sums, held, target, place, rows, columns))

    return convolution


# ------------------------------------------------------------------------------------------------------- forward


@cache
def _forward(tile: Tile, maps: int, kernels: int, activation: Activation) -> Any:
    value_at, pooled = value_of(activation), tile.pool > 1

    @device_function
    def finish(target: Any, value: Any, where: Any, index: Any, kernel: Any) -> None:
        out, argmax, bias, slope = target
        out[index] = value_at(value + bias[kernel], slope)
        if pooled:
            argmax[index] = np.uint8(where)

    return _convolution(tile, maps, kernels, load_photo(tile, maps), False, finish)


def conv_forward(
    out: Array, argmax: Array, x: Array, weight: Array, bias: Array, padding: tuple[int, int], activation: Activation,
    slope: float, pool: int, workspace: Workspace,
) -> None:  # fmt: skip
    """Convolution, bias, activation and max-pooling; the full map is never stored."""
    assert activation in FUSED_ACTIVATIONS
    kernels, kernel_rows, kernel_columns, maps = weight.shape
    photos, rows, columns, _ = out.shape
    if out.size == 0:
        return
    if pool > 1 and argmax.size == 0:
        argmax = workspace.array("unused argmax", out.shape, np.uint8)
    tile = choose_tile(rows, columns, kernels, maps, (kernel_rows, kernel_columns), pool)
    target, source = (out.reshape(-1), argmax.reshape(-1), bias, float(slope)), (x.reshape(-1), *x.shape[1:3])
    launch(
        _forward(tile, maps, kernels, activation), tile.blocks(photos, rows, columns, kernels), tile.threads, workspace,
        target, source, weight.reshape(-1), rows, columns, *padding,
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------ the input's gradient


@cache
def _backward_input(tile: Tile, maps: int, kernels: int, pool: int, activation: Activation) -> Any:
    """dx[q, c] = sum over kernels k and taps t of delta[q + padding - t, k] * weight[k, t, c]. With t' = last tap - t
    this is the sum of conv_sums.py, for map k of delta, kernel c, tap t' and a padding of last tap - padding."""

    @device_function
    def finish(dx: Array, value: Any, where: Any, index: Any, kernel: Any) -> None:
        dx[index] = value

    return _convolution(tile, kernels, maps, load_delta(tile, kernels, pool, activation), True, finish)


def conv_backward_input(
    dx: Array, dout: Array, out: Array, argmax: Array, weight: Array, padding: tuple[int, int], activation: Activation,
    slope: float, pool: int, workspace: Workspace,
) -> None:  # fmt: skip
    """dx[q, c] = sum over kernels k and taps t of delta[q - t, k] * weight[k, t, c]."""
    kernels, kernel_rows, kernel_columns, maps = weight.shape
    photos, rows, columns, _ = dx.shape
    tile = choose_tile(rows, columns, maps, kernels, (kernel_rows, kernel_columns), 1)
    source = (dout.reshape(-1), out.reshape(-1), argmax.reshape(-1), float(slope), *out.shape[1:3])
    launch(
        _backward_input(tile, maps, kernels, pool, activation), tile.blocks(photos, rows, columns, maps), tile.threads,
        workspace, dx.reshape(-1), source, weight.reshape(-1), rows, columns, kernel_rows - 1 - padding[0],
        kernel_columns - 1 - padding[1],
    )  # fmt: skip
