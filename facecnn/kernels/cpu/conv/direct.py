"""Convolution, bias, activation and max-pooling in one block, forward and backward, on micro-kernels of vectors.

Maps are NHWC, so a row of a kernel's window, S columns of C maps, is a run of S * C floats of the input. Each photo is
one task. Where windows reach over the photo's edge, the photo is first copied into a frame of zeros (a thread's own
scratch, so it stays in its cache), and no inner loop knows about edges.

Kernel size, maps, pool, activation and the tile are constants of the compiled code: every set of them is compiled once.
The functions are those of ``plain``, with the length of a vector as ``lanes`` (``vector_ir.lanes``).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import prange

from facecnn.arrays import Array
from facecnn.kernels.cpu.conv.frames import (
    CHUNKS,
    add_chunks,
    add_to_bias,
    bias_tile_of,
    cut_out,
    frame_size,
    in_frame,
)
from facecnn.kernels.cpu.elementwise import derivative_of, value_of
from facecnn.kernels.cpu.jit import compiled, helper, thread_number
from facecnn.kernels.cpu.launching import launch
from facecnn.kernels.cpu.memory import Workspace
from facecnn.kernels.cpu.vector_ir.lanes import group_of, registers
from facecnn.kernels.cpu.vector_ir.micro_kernels import (
    RowSizes,
    add_windows,
    convolve_row,
    spread_windows,
    taps_held,
    window_parts,
)
from facecnn.kernels.protocol import Activation

_F = np.float32
_ZERO = _F(0)

_BAND = 4096
"""Floats of the input, and winners, that the weights' gradient processes at once: they stay in the first-level
cache."""


# ------------------------------------------------------------------------------------------------------- forward


def _packs(kernels: int, lanes: int) -> tuple[int, int]:
    """The number of vectors full of kernels, and of kernels left over for one more."""
    return kernels // lanes, kernels % lanes


def _values(group: int, maps: int, pool: int) -> int:
    """How many lanes of a group hold values of one run. It is 1, which needs no sum over lanes and leaves no remainder
    of a run, if consecutive values begin adjacent windows, and the windows of one output share vectors."""
    return 1 if maps == 1 and group % pool == 0 else group


def _tile(columns: int, pool: int, kernel_columns: int, beside: int, lanes: int) -> tuple[int, bool, int]:
    """Outputs of a tile; whether the row's last tiles have one less; and rows of a window at once. The last is all of
    them, if that leaves room for the sums of three outputs, since the largest of a window is then found with less work.
    ``beside``: windows that share a vector of sums.

    A tile has as many outputs as leave registers for the weights, one for the input, and one to spare, or as few fewer
    as divide the row into such tiles and tiles that are one output shorter.
    """
    most = registers(lanes) - min(kernel_columns, taps_held(lanes)) - 2
    rows_at_once = pool if 3 * pool * pool <= most * beside else 1
    most = max(1, min(columns, most // rows_at_once * beside // pool))
    tile = -(-columns // -(-columns // most))
    return tile, columns % tile > 0, rows_at_once


@helper()
def _pack(packed: Array, weight: Array, first: int, lanes: int, group: int, values: int, steps: int) -> None:
    """packed[((row * steps + step) * lanes) + k * group + g] = weight[first + k, row, step * values + g % values], or
    zero."""
    kernels, rows, run = weight.shape
    for row in range(rows):
        for step in range(steps):
            for lane in range(lanes):
                k, i = first + lane // group, step * values + lane % values
                value = weight[k, row, i] if k < kernels and i < run else _ZERO
                packed[(row * steps + step) * lanes + lane] = value


@cache
def _forward(
    maps: int, kernels: int, kernel_rows: int, kernel_columns: int, pool: int, activation: Activation, lanes: int,
    tile: tuple[int, bool, int],
) -> Any:  # fmt: skip
    """Vectors full of kernels first; what is left of the kernels shares a vector with neighbours in the run."""
    full, rest = _packs(kernels, lanes)
    group = group_of(rest, lanes)
    values = _values(group, maps, pool)
    rests, outputs = min(rest, 1), tile[0]
    run = kernel_columns * maps
    whole_size = kernel_rows * run * lanes
    rest_steps = -(-run // values)
    sizes = (maps, kernels, kernel_rows, kernel_columns, pool, lanes)
    convolve_full = convolve_row(RowSizes(*sizes, 1, 1, lanes, *tile))
    convolve_rest = convolve_row(RowSizes(*sizes, group, values, max(rest, 1), *tile))
    value_at = value_of(activation)

    @compiled(parallel=True)
    def forward(
        out: Array, argmax: Array, x: Array, weight: Array, bias: Array, top: int, left: int, slope: Any, height: int,
        width: int, frames: Array, packed: Array, bias_row: Array,
    ) -> None:  # fmt: skip
        # out (N, H', W', K), argmax the same if pool > 1, x (N, H, W, C), weight (K, R, S C); frames (threads, height *
        # width * C), without a column if x is used as it is; bias_row (W' K,)
        photos, rows, columns = out.shape[0], out.shape[1], out.shape[2]
        for pack in range(full):
            _pack(packed[pack * whole_size :], weight, pack * lanes, lanes, 1, 1, run)
        for _ in range(rests):
            _pack(packed[full * whole_size :], weight, full * lanes, lanes, group, values, rest_steps)
        for column in range(columns):
            for k in range(kernels):
                bias_row[column * kernels + k] = bias[k]
        row_length = width * maps
        tiles = (columns + outputs - 1) // outputs
        whole = tiles - (tiles * outputs - columns)
        for n in prange(photos):
            photo = in_frame(frames, thread_number(), x[n], top, left, height, width)
            target, places = out[n].reshape(-1), argmax[n if pool > 1 else 0].reshape(-1)
            for row in range(rows):
                for pack in range(full):
                    at = row * columns * kernels + pack * lanes
                    convolve_full(
                        target, at, places, at, photo, row * pool * row_length, row_length, packed, pack * whole_size,
                        whole, tiles - whole,
                    )  # fmt: skip
                for _ in range(rests):
                    at = row * columns * kernels + full * lanes
                    convolve_rest(
                        target, at, places, at, photo, row * pool * row_length, row_length, packed, full * whole_size,
                        whole, tiles - whole,
                    )  # fmt: skip
                o = target[row * columns * kernels : (row + 1) * columns * kernels]
                for i in range(columns * kernels):
                    o[i] = value_at(o[i] + bias_row[i], slope)

    return forward


def conv_forward(
    out: Array, argmax: Array, x: Array, weight: Array, bias: Array, padding: tuple[int, int], activation: Activation,
    slope: float, pool: int, workspace: Workspace, lanes: int,
) -> None:  # fmt: skip
    """Convolution, bias, activation and max-pooling; the full map is never stored."""
    kernels, kernel_rows, kernel_columns, maps = weight.shape
    height, width, framed = frame_size(out.shape, x.shape, weight.shape, padding, pool)
    full, rest = _packs(kernels, lanes)
    run = kernel_columns * maps
    group = group_of(rest, lanes) if rest else 1
    values = _values(group, maps, pool)
    steps = full * run + (-(-run // values) if rest else 0)
    tile = _tile(out.shape[2], pool, kernel_columns, 1 if full else group // values, lanes)
    launch(
        _forward(maps, kernels, kernel_rows, kernel_columns, pool, activation, lanes, tile),
        out,
        argmax,
        x,
        weight.reshape(kernels, kernel_rows, run),
        bias,
        *padding,
        _F(slope),
        height,
        width,
        workspace.per_thread("frames", height * width * maps if framed else 0),
        workspace.array("packed weights", (kernel_rows * steps * lanes,)),
        workspace.array("bias row", (out.shape[2] * kernels,)),
    )  # fmt: skip


# -------------------------------------------------------------------------------------------------------- backward
#
# Only positions that won their window are visited: a kernel's delta there, and where in the photo its window begins.


@helper()
def _winner_bases(bases: Array, rows: int, columns: int, kernels: int, pool: int, row_length: int, maps: int) -> None:
    """bases[(row, column, k)] = the first float of the windows of that output, of the topmost row of windows on."""
    for row in range(rows):
        for column in range(columns):
            start = (row * columns + column) * kernels
            for k in range(kernels):
                bases[start + k] = (row * row_length + column * maps) * pool


@helper(inline=True)
def _find_winners(
    delta: Array, windows: Array, dout: Array, out: Array, argmax: Array, bases: Array, row_length: int, slope: Any,
    derivative_at: Any, maps: int, pool: int,
) -> None:  # fmt: skip
    """Of each number of the output, all flat and equally many: delta, and the first float of the window that won. The
    last three arguments are constants where it is called."""
    for i in range(len(dout)):
        delta[i] = dout[i] * derivative_at(out[i], slope)
    if pool > 1:
        for i in range(len(dout)):
            won = np.uint32(argmax[i])
            row, column = won // np.uint32(pool), won % np.uint32(pool)
            windows[i] = bases[i] + np.int32(row * np.uint32(row_length) + column * np.uint32(maps))
    else:
        for i in range(len(dout)):
            windows[i] = bases[i]


def _together(kernels: int, maps: int, kernel_rows: int, kernel_columns: int, lanes: int) -> int:
    """Kernels whose sums are in registers at the same time, which hides the latency of an addition."""
    slots = kernel_rows * len(window_parts(kernel_columns * maps, lanes))
    return max(1, min(kernels, 4, (registers(lanes) - 6) // slots))


@cache
def _backward_weight(
    maps: int, kernels: int, kernel_rows: int, kernel_columns: int, pool: int, activation: Activation, lanes: int
) -> Any:
    """Each chunk of photos has sums of its own, which are added in order."""
    together = _together(kernels, maps, kernel_rows, kernel_columns, lanes)
    size = kernel_rows * kernel_columns * maps
    last = kernels - kernels % together
    bias_tile = bias_tile_of(kernels)
    shape = (maps, kernels, kernel_rows, kernel_columns)
    add_some, add_one = add_windows(*shape, together, lanes), add_windows(*shape, 1, lanes)
    derivative_at = derivative_of(activation)

    @compiled(parallel=True)
    def backward(
        dweight: Array, dbias: Array, dout: Array, out: Array, argmax: Array, x: Array, top: int, left: int, slope: Any,
        height: int, width: int, band: int, frames: Array, deltas: Array, windows: Array, bases: Array, sums: Array,
        bias_sums: Array,
    ) -> None:  # fmt: skip
        # dweight (K, R S C), deltas and windows (threads, band * W' * K), bases (band * W' * K),
        # sums (chunks, K R S C), bias_sums (chunks, bias_tile)
        photos, rows, columns = out.shape[0], out.shape[1], out.shape[2]
        chunks, row_length, numbers = sums.shape[0], width * maps, columns * kernels
        _winner_bases(bases, band, columns, kernels, pool, row_length, maps)
        for chunk in prange(chunks):
            thread = thread_number()
            own, own_bias, delta, window = sums[chunk], bias_sums[chunk], deltas[thread], windows[thread]
            for i in range(bias_tile):
                own_bias[i] = _ZERO
            for i in range(kernels * size):
                own[i] = _ZERO
            for n in range(photos * chunk // chunks, photos * (chunk + 1) // chunks):
                photo = in_frame(frames, thread, x[n], top, left, height, width)
                d, o = dout[n].reshape(-1), out[n].reshape(-1)
                won = argmax[n if pool > 1 else 0].reshape(-1)
                for row in range(0, rows, band):
                    start, stop = row * numbers, min(rows, row + band) * numbers
                    winners = (stop - start) // kernels
                    _find_winners(
                        delta, window, d[start:stop], o[start:stop], won[start:stop], bases, row_length, slope,
                        derivative_at, maps, pool,
                    )  # fmt: skip
                    add_to_bias(own_bias, delta, stop - start, bias_tile)
                    first = row * pool * row_length
                    for k in range(0, last, together):
                        add_some(own, k * size, delta, k, window, k, winners, photo, first, row_length)
                    for k in range(last, kernels):
                        add_one(own, k * size, delta, k, window, k, winners, photo, first, row_length)
        add_chunks(dweight, dbias, sums, bias_sums)

    return backward


def conv_backward_weight(
    dweight: Array, dbias: Array, dout: Array, out: Array, argmax: Array, x: Array, padding: tuple[int, int],
    activation: Activation, slope: float, pool: int, workspace: Workspace, lanes: int,
) -> None:  # fmt: skip
    """dweight[k, t, c] = sum over photos and positions p of delta[p, k] * x[p + t, c]; dbias[k] = sum of delta."""
    kernels, kernel_rows, kernel_columns, maps = dweight.shape
    height, width, framed = frame_size(out.shape, x.shape, dweight.shape, padding, pool)
    band = max(1, min(out.shape[1], _BAND // (width * maps * pool), _BAND // (out.shape[2] * kernels)))
    numbers = band * out.shape[2] * kernels
    chunks = min(CHUNKS, len(x))
    launch(
        _backward_weight(maps, kernels, kernel_rows, kernel_columns, pool, activation, lanes),
        dweight.reshape(kernels, -1),
        dbias,
        dout,
        out,
        argmax,
        x,
        *padding,
        _F(slope),
        height,
        width,
        band,
        workspace.per_thread("frames", height * width * maps if framed else 0),
        workspace.per_thread("deltas", numbers),
        workspace.per_thread("windows", numbers, np.int32),
        workspace.array("window bases", (numbers,), np.int32),
        workspace.array("chunk sums", (chunks, dweight.size)),
        workspace.array("chunk sums of the bias", (chunks, bias_tile_of(kernels))),
    )  # fmt: skip


@cache
def _backward_input(
    maps: int, kernels: int, kernel_rows: int, kernel_columns: int, pool: int, activation: Activation, lanes: int
) -> Any:
    """Every winner adds delta times its kernel to its window of the photo's gradient."""
    size = kernel_rows * kernel_columns * maps
    stride = -(-(pool - 1 + kernel_columns) // pool)
    spread = spread_windows(maps, kernels, kernel_rows, kernel_columns, stride, lanes)
    derivative_at = derivative_of(activation)

    @compiled(parallel=True)
    def backward(
        dx: Array, dout: Array, out: Array, argmax: Array, weight: Array, top: int, left: int, slope: Any, height: int,
        width: int, frames: Array, deltas: Array, windows: Array, bases: Array,
    ) -> None:  # fmt: skip
        # dx (N, H, W, C), weight flat; frames (threads, height * width * C), without a column if dx is summed up in
        # place; deltas and windows (threads, W' * K), bases (W' * K)
        photos, rows, columns = out.shape[0], out.shape[1], out.shape[2]
        row_length, numbers = width * maps, columns * kernels
        _winner_bases(bases, 1, columns, kernels, pool, row_length, maps)
        for n in prange(photos):
            thread = thread_number()
            delta, window = deltas[thread], windows[thread]
            framed = frames.shape[1] > 0
            photo = frames[thread] if framed else dx[n].reshape(-1)
            for i in range(height * row_length):
                photo[i] = _ZERO
            d, o = dout[n].reshape(-1), out[n].reshape(-1)
            won = argmax[n if pool > 1 else 0].reshape(-1)
            for row in range(rows):
                start, stop = row * numbers, (row + 1) * numbers
                _find_winners(
                    delta, window, d[start:stop], o[start:stop], won[start:stop], bases, row_length, slope,
                    derivative_at, maps, pool,
                )  # fmt: skip
                first = row * pool * row_length
                for k in range(kernels):
                    spread(photo, first, row_length, delta, k, window, k, columns, weight, k * size)
            if framed:
                cut_out(dx[n], photo, top, left, height, width)

    return backward


def conv_backward_input(
    dx: Array, dout: Array, out: Array, argmax: Array, weight: Array, padding: tuple[int, int], activation: Activation,
    slope: float, pool: int, workspace: Workspace, lanes: int,
) -> None:  # fmt: skip
    """dx[q, c] = sum over kernels k and taps t of delta[q - t, k] * weight[k, t, c]."""
    kernels, kernel_rows, kernel_columns, maps = weight.shape
    height, width, framed = frame_size(out.shape, dx.shape, weight.shape, padding, pool)
    numbers = out.shape[2] * kernels
    launch(
        _backward_input(maps, kernels, kernel_rows, kernel_columns, pool, activation, lanes), dx, dout, out, argmax,
        weight.reshape(-1), *padding, _F(slope), height, width,
        workspace.per_thread("frames", height * width * maps if framed else 0), workspace.per_thread("deltas", numbers),
        workspace.per_thread("windows", numbers, np.int32), workspace.array("window bases", (numbers,), np.int32),
    )  # fmt: skip
