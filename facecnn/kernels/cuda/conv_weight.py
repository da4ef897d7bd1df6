"""The gradient of a convolution's weights and bias: two kernels, of sizes from conv_weight_tiles.py.

    dweight[k, t, c] = sum over pooled outputs p of delta[p, k] * x[start[p, k] + t, c], dbias[k] = sum of delta[p, k]

where delta = dout * activation', and start[p, k] is the place of the window's winner: only winners are visited. Each
block sums over some tiles of outputs; the second kernel adds the blocks' sums in order. In shared memory
    input   [row, column, map of the block]
    deltas  [output of the tile, kernel of the block], starts the same: the winner's place in input
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from facecnn.kernels.cuda.columns import column_sum, natural
from facecnn.kernels.cuda.conv_tiles import LANES
from facecnn.kernels.cuda.conv_unrolled import unrolled
from facecnn.kernels.cuda.conv_weight_tiles import WeightTile, choose_weight_tile
from facecnn.kernels.cuda.driver import SIMULATED, cuda, device_function, kernel, launch
from facecnn.kernels.cuda.elementwise import derivative_of
from facecnn.kernels.cuda.memory import Array, Workspace
from facecnn.kernels.cuda.sizes import THREADS
from facecnn.kernels.protocol import Activation

_I, _U, _U64 = np.int32, np.uint32, np.uint64
_ZERO = np.float32(0)

_WIDTH: int = 4 if SIMULATED else 8
"""Columns of a tile of the blocks' sums: few, so that many threads add up the same column."""


def _load_input(tile: WeightTile, maps: int) -> Any:
    """A device function ``load(held, x, photo, first_row, first_column, first_map, height, width)``: a part of x
    (N, height, width, maps), flat, to shared memory, with zeros outside of it."""
    teams, lanes = _U(tile.threads // LANES), _U(LANES)
    input_rows, run, held_maps = _U(tile.input_rows), _U(tile.input_columns * tile.maps), _U(tile.maps)
    row_stride = _U(tile.row_stride)

    @device_function
    def load(
        held: Array, x: Array, photo: Any, first_row: Any, first_column: Any, first_map: Any, height: Any, width: Any
    ) -> None:
        thread = _U(cuda.threadIdx.x)
        y = _U(thread // lanes)
        while y < input_rows:
            row = first_row + _I(y)
            start = ((np.int64(photo) * height + row) * width + first_column) * maps + first_map
            inside = row >= 0 and row < height
            i = _U(thread % lanes)
            while i < run:
                m, column = _I(i % held_maps), _I(i // held_maps)
                value = _ZERO
                across = first_column + column
                if inside and across >= 0 and across < width and first_map + m < maps:
                    value = x[_U64(start + column * maps + m)]
                held[y * row_stride + i] = value
                i = _U(i + lanes)
            y = _U(y + teams)

    return load


def _load_deltas(tile: WeightTile, kernels: int, activation: Activation) -> Any:
    """A device function that brings deltas and starts of a tile of outputs (N, rows, columns, kernels), flat, to shared
    memory: 0 for outputs that there aren't."""
    pool, threads, count = _U(tile.pool), _U(tile.threads), _U(tile.outputs * tile.block_kernels)
    block_kernels, tile_columns = _U(tile.block_kernels), _U(tile.columns)
    row_stride, held_maps = _U(tile.row_stride), _U(tile.maps)
    slope_of, pooled = derivative_of(activation), tile.pool > 1

    @device_function
    def load(
        deltas: Array, starts: Array, dout: Array, out: Array, argmax: Array, photo: Any, first_row: Any,
        first_column: Any, first_kernel: Any, rows: Any, columns: Any, slope: Any,
    ) -> None:  # fmt: skip
        i = _U(cuda.threadIdx.x)
        while i < count:
            k, output = i % block_kernels, i // block_kernels
            y, x = output // tile_columns, output % tile_columns
            row, column, kernel = first_row + _I(y), first_column + _I(x), first_kernel + _I(k)
            delta = _ZERO
            won = _U(0)
            if row < rows and column < columns and kernel < kernels:
                index = _U64(((np.int64(photo) * rows + row) * columns + column) * kernels + kernel)
                delta = dout[index] * slope_of(out[index], slope)
                if pooled:
                    won = _U(argmax[index])
            deltas[i] = delta
            if pooled:
                starts[i] = (y * pool + won // pool) * row_stride + (x * pool + won % pool) * held_maps
            i = _U(i + threads)

    return load


def _outputs_adder(tile: WeightTile) -> Any:
    """A device function that adds what a tile of outputs gives, team by team, to a thread's sums [tap row, tap column,
    kernel] and sums of deltas. Both are in registers, as ``delta`` (kernels) is."""
    kernels, block_kernels, block_maps = tile.kernels, tile.block_kernels, tile.maps
    kernel_columns, columns, row_stride = tile.kernel_columns, tile.columns, tile.row_stride
    outputs, teams, pool = tile.outputs, tile.teams, tile.pool

    def tap_row(r: int) -> Any:
        @device_function
        def add(state: Any) -> None:
            sums, delta, held, at = state
            for s in range(kernel_columns):
                value = held[at + r * row_stride + s * block_maps]
                for k in range(kernels):
                    sums[(r * kernel_columns + s) * kernels + k] += delta[k] * value

        return add

    every_tap_row = unrolled(tile.tap_rows, tap_row)

    @device_function
    def add_outputs(
        sums: Array, bias_sums: Array, delta: Array, held: Array, deltas: Array, starts: Array, team: Any, group: Any,
        place_at: Any,
    ) -> None:  # fmt: skip
        output = team if team < teams else outputs
        while output < outputs:
            first = output * block_kernels + group * kernels
            for k in range(kernels):
                delta[k] = deltas[first + k]
                bias_sums[k] += delta[k]
            if pool > 1:
                start = natural(starts[first])
            else:
                start = output // columns * row_stride + output % columns * block_maps
            every_tap_row((sums, delta, held, start + place_at))
            output += teams

    return add_outputs


def _sums_to_shared(tile: WeightTile) -> Any:
    """A device function that writes a thread's sums to shared memory, or adds them to those there if there are more."""
    of_row, places = tile.kernel_columns * tile.kernels, tile.places

    def tap_row(r: int) -> Any:
        @device_function
        def put(state: Any) -> None:
            sums, held, place, more = state
            for i in range(r * of_row, (r + 1) * of_row):
                held[i * places + place] = sums[i] + (held[i * places + place] if more else _ZERO)

        return put

    return unrolled(tile.tap_rows, tap_row)


def _sums_to_partials(tile: WeightTile, maps: int, kernels: int) -> Any:
    """A device function that writes the sums of all teams: those of a thread of the first, and what lies in shared
    memory."""
    kernel_rows, kernel_columns, kernel_count = tile.kernel_rows, tile.kernel_columns, tile.kernels
    teams, places = tile.teams, tile.places

    def tap_row(r: int) -> Any:
        @device_function
        def put(state: Any) -> None:
            sums, held, place, partials, chunk, first_kernel, first_tap_row, map_ = state
            row = first_tap_row + r
            for s in range(kernel_columns):
                for k in range(kernel_count):
                    i = (r * kernel_columns + s) * kernel_count + k
                    value = sums[i]
                    if teams > 1:
                        value += held[i * places + place]
                    if first_kernel + k < kernels and row < kernel_rows and map_ < maps:
                        index = (((first_kernel + k) * kernel_rows + row) * kernel_columns + s) * maps + map_
                        partials[chunk, index] = value

        return put

    return unrolled(tile.tap_rows, tap_row)


def _sums_writer(tile: WeightTile, maps: int, kernels: int) -> Any:
    """A device function that adds up the teams' sums in order, and writes them."""
    teams, places, sums_size, kernel_count = tile.teams, tile.places, tile.sums, tile.kernels
    weights = kernels * tile.kernel_rows * tile.kernel_columns * maps
    all_to_shared, all_to_partials = _sums_to_shared(tile), _sums_to_partials(tile, maps, kernels)

    @device_function
    def write(
        sums: Array, bias_sums: Array, held: Array, partials: Array, chunk: Any, place: Any, team: Any, kernel: Any,
        first_tap_row: Any, map_: Any,
    ) -> None:  # fmt: skip
        for other in range(1, teams):
            if team == other:
                all_to_shared((sums, held, place, other > 1))
                for k in range(kernel_count):
                    at = (sums_size + k) * places + place
                    held[at] = bias_sums[k] + (held[at] if other > 1 else _ZERO)
            cuda.syncthreads()
        if team == 0:
            all_to_partials((sums, held, place, partials, chunk, kernel, first_tap_row, map_))
            if map_ == 0 and first_tap_row == 0:
                for k in range(kernel_count):
                    if kernel + k < kernels:
                        value = bias_sums[k]
                        if teams > 1:
                            value += held[(sums_size + k) * places + place]
                        partials[chunk, weights + kernel + k] = value

    return write


@cache
def _partial_sums(tile: WeightTile, maps: int, kernels: int, activation: Activation) -> Any:
    pool, places, block_maps, block_kernels = tile.pool, tile.places, tile.maps, tile.block_kernels
    kernel_count, kernel_groups, tap_rows, row_stride = tile.kernels, tile.kernel_groups, tile.tap_rows, tile.row_stride
    floats, delta_size, sums_size = tile.floats, tile.outputs * block_kernels, tile.sums
    tile_rows, tile_columns, starts_size = tile.rows, tile.columns, delta_size if pool > 1 else 1
    map_blocks, kernel_blocks = -(-maps // block_maps), -(-kernels // block_kernels)
    load_input, load_deltas = _load_input(tile, maps), _load_deltas(tile, kernels, activation)
    add_outputs, write_sums = _outputs_adder(tile), _sums_writer(tile, maps, kernels)

    @kernel
    def partial_sums(
        partials: Array, dout: Array, out: Array, argmax: Array, x: Array, rows: Any, columns: Any, height: Any,
        width: Any, top: Any, left: Any, tiles: Any, slope: Any,
    ) -> None:  # fmt: skip
        # partials (chunks, K R S C + K); dout, out, argmax (N, rows, columns, K), x (N, height, width, C), flat
        held = cuda.shared.array(floats, np.float32)
        deltas = cuda.shared.array(delta_size, np.float32)
        starts = cuda.shared.array(starts_size, np.uint32)
        sums = cuda.local.array(sums_size, np.float32)
        bias_sums = cuda.local.array(kernel_count, np.float32)
        delta = cuda.local.array(kernel_count, np.float32)

        thread, block = natural(cuda.threadIdx.x), _U(cuda.blockIdx.x)
        place, team = thread % places, thread // places
        group = place // block_maps % kernel_groups
        first_tap_row = place // (block_maps * kernel_groups) * tap_rows
        place_at = first_tap_row * row_stride + place % block_maps
        first_map = _I(block % _U(map_blocks)) * _I(block_maps)
        first_kernel = _I(block // _U(map_blocks) % _U(kernel_blocks)) * _I(block_kernels)
        chunk, chunks = natural(block // _U(map_blocks * kernel_blocks)), _U(partials.shape[0])
        across = _U((columns + (tile_columns - 1)) // tile_columns)
        down = _U((rows + (tile_rows - 1)) // tile_rows)

        for i in range(sums_size):
            sums[i] = _ZERO
        for k in range(kernel_count):
            bias_sums[k] = _ZERO
        number = _U(chunk)
        while number < _U(tiles):
            line = _U(number // across)
            photo = _I(line // down)
            first_row, first_column = _I(line % down) * _I(tile_rows), _I(number % across) * _I(tile_columns)
            load_input(held, x, photo, first_row * pool - top, first_column * pool - left, first_map, height, width)
            load_deltas(
                deltas, starts, dout, out, argmax,
                photo, first_row, first_column, first_kernel, rows, columns, slope,
            )  # fmt: skip
            cuda.syncthreads()
            add_outputs(sums, bias_sums, delta, held, deltas, starts, team, group, place_at)
            cuda.syncthreads()
            number = _U(number + chunks)

        map_, kernel = first_map + place % block_maps, first_kernel + group * kernel_count
        write_sums(sums, bias_sums, held, partials, chunk, place, team, kernel, first_tap_row, map_)

    return partial_sums


@cache
def _add_up(width: int, lanes: int) -> Any:
    total_of = column_sum(width, lanes)

    @kernel
    def add_up(dweight: Array, dbias: Array, partials: Array) -> None:
        # dweight (K R S C,) and then dbias (K,) = sum of partials (chunks, K R S C + K) over the chunks
        values = cuda.shared.array(THREADS, np.float32)
        c, is_mine, total = total_of(values, partials)
        if is_mine:
            if c < dweight.size:
                dweight[c] = total
            else:
                dbias[natural(c - dweight.size)] = total

    return add_up


def add_partials(dweight: Array, dbias: Array, partials: Array, workspace: Workspace) -> None:
    """dweight (K, R, S, C) and dbias (K,) = sum of ``partials`` (chunks, K R S C + K) over the chunks, in order."""
    add_up, tiles = _add_up(_WIDTH, THREADS // _WIDTH), -(-partials.shape[1] // _WIDTH)
    launch(add_up, tiles, THREADS, workspace, dweight.reshape(-1), dbias, partials)


def conv_backward_weight(
    dweight: Array, dbias: Array, dout: Array, out: Array, argmax: Array, x: Array, padding: tuple[int, int],
    activation: Activation, slope: float, pool: int, workspace: Workspace,
) -> None:  # fmt: skip
    """dweight[k, t, c] = sum over photos and positions p of delta[p, k] * x[p + t, c]; dbias[k] = sum of delta."""
    kernels, kernel_rows, kernel_columns, maps = dweight.shape
    photos, rows, columns, _ = out.shape
    tile = choose_weight_tile(rows, columns, kernels, maps, (kernel_rows, kernel_columns), pool)
    chunks = tile.chunks(photos, rows, columns)
    blocks = -(-kernels // tile.block_kernels) * -(-maps // tile.maps)
    partials = workspace.array("partial sums", (chunks, dweight.size + kernels))
    launch(
        _partial_sums(tile, maps, kernels, activation), chunks * blocks, tile.threads, workspace, partials,
        dout.reshape(-1), out.reshape(-1), argmax.reshape(-1), x.reshape(-1), rows, columns, x.shape[1], x.shape[2],
        *padding, tile.tiles(photos, rows, columns), float(slope),
    )  # fmt: skip
    add_partials(dweight, dbias, partials, workspace)
