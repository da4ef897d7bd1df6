"""The sums of a convolution, for the forward pass and for the input's gradient: a tile of one photo at a time.

    sum[p, k] = sum over input maps c and taps t of weight[k, t, c] * input[p + t, c]

Forward, the input is x. For the input's gradient it is delta, in which all is 0 but the elements that won their window,
and the weights are flipped, kernels and maps exchanged: both happen on the way to shared memory. ``Tile`` says how the
work is divided. In shared memory
    input   [map, row, phase, q]      column = q * patch_columns + phase
    weights [map, tap row, tap column, kernel of the block]
"""

from __future__ import annotations

from typing import Any

import numpy as np

from facecnn.kernels.cuda.conv_tiles import LANES, Tile, ceil_div
from facecnn.kernels.cuda.conv_unrolled import unrolled
from facecnn.kernels.cuda.driver import cuda, device_function
from facecnn.kernels.cuda.elementwise import derivative_of
from facecnn.kernels.cuda.memory import Array
from facecnn.kernels.protocol import Activation

_I, _U, _U64 = np.int32, np.uint32, np.uint64  # indices that Numba needn't check for being negative
_ZERO = np.float32(0)
_WRITTEN_OUT = 128
"""Multiply-adds of a loop that the compiler writes out for every card. For some (sm_100, sm_120) it stops there."""


def load_photo(tile: Tile, maps: int) -> Any:
    """A device function ``load(held, source, photo, first_row, first_column, first_map, strip)``: a part of x to shared
    memory, with zeros outside of it; source = (x flat, height, width)."""
    teams, run = _U(tile.threads // LANES), _U(tile.input_columns * tile.maps)
    input_rows, held_maps = _U(tile.input_rows), _U(tile.maps)
    row_stride, map_stride, phase_stride = _U(tile.row_stride), _U(tile.map_stride), _U(tile.phase_stride)
    phases, lanes, pool, kernel_rows = _U(tile.patch_columns), _U(LANES), _U(tile.pool), _U(tile.kernel_rows)
    striped = tile.strips > 1

    @device_function
    def load(
        held: Array, source: Any, photo: Any, first_row: Any, first_column: Any, first_map: Any, strip: Any
    ) -> None:
        x, height, width = source
        thread = _U(cuda.threadIdx.x)
        y = _U(thread // lanes)
        while y < input_rows:
            # A strip needs kernel_rows rows of each window only.
            if not striped or (y + pool - _U(strip)) % pool < kernel_rows:
                row = first_row + _I(y)
                start = ((np.int64(photo) * height + row) * width + first_column) * maps + first_map
                inside = row >= 0 and row < height
                i = _U(thread % lanes)
                while i < run:
                    m, column = i % held_maps, i // held_maps
                    from_left = first_column + _I(column)
                    value = _ZERO
                    if inside and from_left >= 0 and from_left < width and first_map + _I(m) < maps:
                        value = x[_U64(start + _I(column) * maps + _I(m))]
                    at = m * map_stride + y * row_stride + column % phases * phase_stride + column // phases
                    held[at] = value
                    i = _U(i + lanes)
            y = _U(y + teams)

    return load


def load_delta(tile: Tile, maps: int, pool: int, activation: Activation) -> Any:
    """The same for delta (N, H' * pool, W' * pool, maps): dout * activation' at the element that won its window, zero
    elsewhere; source = (dout flat, out flat, argmax flat, slope, H', W')."""
    teams, lanes, held_maps = _U(tile.threads // LANES), _U(LANES), _U(tile.maps)
    windows_down = _U((tile.input_rows + pool - 2) // pool + 1)
    run = _U(((tile.input_columns + pool - 2) // pool + 1) * tile.maps)
    input_rows, input_columns = _I(tile.input_rows), _I(tile.input_columns)
    row_stride, map_stride, phase_stride = _U(tile.row_stride), _U(tile.map_stride), _U(tile.phase_stride)
    phases = _U(tile.patch_columns)
    slope_of = derivative_of(activation)

    @device_function
    def load(
        held: Array, source: Any, photo: Any, first_row: Any, first_column: Any, first_map: Any, strip: Any
    ) -> None:
        dout, out, argmax, slope, height, width = source
        thread = _U(cuda.threadIdx.x)
        first_down, first_across = _I(first_row // pool), _I(first_column // pool)
        wy = _U(thread // lanes)
        while wy < windows_down:
            down = first_down + _I(wy)
            start = ((np.int64(photo) * height + down) * width + first_across) * maps + first_map
            i = _U(thread % lanes)
            while i < run:
                m, wx = i % held_maps, i // held_maps
                across = first_across + _I(wx)
                value = _ZERO
                won = _I(0)
                if down >= 0 and down < height and across >= 0 and across < width and first_map + _I(m) < maps:
                    index = _U64(start + _I(wx) * maps + _I(m))
                    value = dout[index] * slope_of(out[index], slope)
                    if pool > 1:
                        won = _I(argmax[index])
                for r in range(pool):
                    y = _I(down * pool + r - first_row)
                    for s in range(pool):
                        column = _I(across * pool + s - first_column)
                        if y >= 0 and y < input_rows and column >= 0 and column < input_columns:
                            phase, q = _U(column) % phases, _U(column) // phases
                            at = m * map_stride + _U(y) * row_stride + phase * phase_stride + q
                            held[at] = value if won == r * pool + s else _ZERO
                i = _U(i + lanes)
            wy = _U(wy + teams)

    return load


def load_weights(tile: Tile, maps: int, kernels: int, transposed: bool) -> Any:
    """A device function ``load(held, weight, first_kernel, first_map)``: copies the weights of the block's kernels to
    shared memory, with zeros beyond the last kernel and map. weight (kernels, R, S, maps), flat; or if ``transposed``
    (maps, R, S, kernels), with the taps reversed. Both are read in memory order."""
    count, threads, held_maps, block_kernels = _U(tile.weights), _U(tile.threads), _U(tile.maps), _U(tile.block_kernels)
    taps = _U(tile.kernel_rows * tile.kernel_columns)
    all_maps, all_kernels, one = _U(maps), _U(kernels), _U(1)

    @device_function
    def load(held: Array, weight: Array, first_kernel: Any, first_map: Any) -> None:
        i = _U(cuda.threadIdx.x)
        while i < count:
            if transposed:
                k, tap, m = i % block_kernels, i // block_kernels % taps, i // (block_kernels * taps)
            else:
                m, tap, k = i % held_maps, i // held_maps % taps, i // (held_maps * taps)
            kernel, map_ = _U(first_kernel) + k, _U(first_map) + m
            value = _ZERO
            if kernel < all_kernels and map_ < all_maps:
                if transposed:
                    value = weight[(map_ * taps + taps - one - tap) * all_kernels + kernel]
                else:
                    value = weight[(kernel * taps + tap) * all_maps + map_]
            held[(m * taps + tap) * block_kernels + k] = value
            i = _U(i + threads)

    return load


def _window_reader(tile: Tile) -> Any:
    """A device function that copies this thread's window from shared memory to registers."""
    spread = tile.patch_columns + tile.kernel_columns - 1
    patch_columns, phase_stride, row_stride = tile.patch_columns, tile.phase_stride, tile.row_stride

    def one_row(i: int) -> Any:
        @device_function
        def read(state: Any) -> None:
            window, held, at = state
            for j in range(spread):
                window[i * spread + j] = held[
                    at + i * row_stride + j % patch_columns * phase_stride + j // patch_columns
                ]

        return read

    return unrolled(tile.patch_rows, one_row)


def _taps_adder(tile: Tile) -> Any:
    """A device function that adds what a row of taps makes of the window to the sums of all kernels of a thread."""
    kernel_columns, patch_rows, patch_columns = tile.kernel_columns, tile.patch_rows, tile.patch_columns
    kernels, block_kernels, spread = tile.kernels, tile.block_kernels, patch_columns + kernel_columns - 1
    columns_at_once = max(1, _WRITTEN_OUT // (patch_rows * patch_columns))

    def some_columns(k: int, first: int) -> Any:
        stop = min(first + columns_at_once, kernel_columns)

        @device_function
        def add(state: Any) -> None:
            sums, window, weights, at = state
            for s in range(first, stop):
                w = weights[at + s * block_kernels + k]
                for i in range(patch_rows):
                    for j in range(patch_columns):
                        sums[(i * patch_columns + j) * kernels + k] += w * window[i * spread + j + s]

        return add

    def one_kernel(k: int) -> Any:
        return unrolled(ceil_div(kernel_columns, columns_at_once), lambda part: some_columns(k, part * columns_at_once))

    return unrolled(kernels, one_kernel)


def sum_up(tile: Tile, maps: int, load_input: Any, load_weights: Any) -> Any:
    """A device function that leaves this thread's sums [patch row, patch column, kernel] of a strip. They are in
    registers, as ``window`` (patch_rows, patch_columns + S - 1) is. Ends with shared memory free to be used.

    Maps are taken some at a time, and summed up in order; then taps, row by row.
    """
    kernels, groups, places, patch_rows = tile.kernels, tile.groups, tile.places, tile.patch_rows
    sums_size = patch_rows * tile.patch_columns * kernels
    kernel_rows, held_maps, row_stride, threads_across = (
        tile.kernel_rows,
        tile.maps,
        tile.row_stride,
        tile.threads_across,
    )
    pitch = tile.outputs_down * tile.pool
    next_row, next_map = _U(row_stride), _U(tile.map_stride - kernel_rows * row_stride)
    weights_of_row = _U(tile.kernel_columns * tile.block_kernels)
    read_window, add_taps = _window_reader(tile), _taps_adder(tile)

    @device_function
    def sums_of(
        sums: Array, window: Array, held: Array, held_weights: Array, source: Any, weight: Array, photo: Any,
        first_row: Any, first_column: Any, first_kernel: Any, strip: Any,
    ) -> None:  # fmt: skip
        thread = cuda.threadIdx.x
        place, group = thread % places, thread // places
        if group >= groups:
            group = 0  # a surplus thread, whose sums are unused
        place_at = _U((place // threads_across * pitch + strip * patch_rows) * row_stride + place % threads_across)
        for i in range(sums_size):
            sums[i] = _ZERO
        first_map = _I(0)
        while first_map < maps:
            load_input(held, source, photo, first_row, first_column, first_map, strip)
            load_weights(held_weights, weight, first_kernel, first_map)
            cuda.syncthreads()
            at, weights_at = place_at, _U(group * kernels)
            left = maps - first_map
            for _ in range(held_maps if held_maps < left else left):
                for _ in range(kernel_rows):
                    read_window((window, held, at))
                    add_taps((sums, window, held_weights, weights_at))
                    at = _U(at + next_row)
                    weights_at = _U(weights_at + weights_of_row)
                at = _U(at + next_map)
            cuda.syncthreads()
            first_map += _I(held_maps)

    return sums_of
