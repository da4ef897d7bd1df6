"""The convolution block, forward and its weights' gradient, by Winograd's minimal filtering along rows (``winograd``).

A row of outputs is cut into tiles of 4. Of 5 columns of weights a tile takes 8 multiplications in place of 20, of 3
columns 6 in place of 12, for each row of weights, map and kernel. Transforms are only along rows: so the photo's are
shared by all kernels and rows of weights, and numbers stay exact enough. They differ from exact sums by two to four
times as much as those that ``conv_vectors`` adds one by one; of windows that are equal but for that, any may win.

A photo's rows are transformed once each, when they are first needed, into as many rows of scratch memory as windows
have. Then each point's products are summed up over maps and rows of weights, in registers, and transformed back.

What the arrays in scratch memory hold: points (row, p, tile, map) or, for few maps, (row, p, map, tile), as vectors of
them are loaded; packed weights (vector of kernels, p, map, row, lane); products (p, row of the window, vector of tiles,
lane). In a vector are as many kernels as it has lanes, or fewer for a ``group`` of neighbouring tiles each.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import literally, prange  # type: ignore[attr-defined]

from facecnn.kernels.cpu import vectors
from facecnn.kernels.cpu.conv_frames import (
    CHUNKS,
    add_bias_chunks,
    bias_tile_of,
    copy,
    fill_frame,
    frame_size,
)
from facecnn.kernels.cpu.elementwise import activate, derivative
from facecnn.kernels.cpu.jit import compiled, thread_number
from facecnn.kernels.cpu.launching import launch
from facecnn.kernels.cpu.memory import Array, Workspace, to_device
from facecnn.kernels.cpu.winograd import filtering
from facecnn.kernels.cpu.winograd_kernels import (
    add_points,
    multiply_points,
    transform_gradient,
    transform_maps,
    transform_output,
    transform_pixels,
)
from facecnn.kernels.protocol import CODES, Activation

_F = np.float32
_ZERO = _F(0)

OUTPUTS = 4
"""Columns of outputs in a tile."""

PLANAR = 4
"""Up to so many maps, columns are taken apart first, for vectors of tiles; more maps fill vectors by themselves."""

_TAPS = (3, 5)
_POOLS = (1, 2, 4)


def _tiles(out: Array, pool: int) -> int:
    """Of a row."""
    return -(-int(out.shape[2]) * pool // OUTPUTS)


def pays(out: Array, weight: Array, pool: int, lanes: int) -> bool:
    """Whether there is code for such a block, and it is faster than sums of all windows: by measurement, see
    docs/PERFORMANCE.md. The number of photos doesn't matter, so that a photo's numbers don't depend on it."""
    kernels, kernel_rows, taps, maps = map(int, weight.shape)
    if taps not in _TAPS or pool not in _POOLS:
        return False
    tiles = _tiles(out, pool)
    if maps > PLANAR:
        return maps % 8 == 0 and kernels >= lanes and tiles >= 3
    saved = kernel_rows * maps * (taps - (OUTPUTS + taps - 1) / OUTPUTS)
    return kernels >= 8 and pool > 1 and tiles >= 7 and saved > 12


def pays_backward(out: Array, weight: Array, pool: int, lanes: int) -> bool:
    """The same for the weights' gradient. Elsewhere it is as fast, or faster, to visit only the places that won."""
    return lanes == 16 and 1 < weight.shape[3] <= PLANAR and pays(out, weight, pool, lanes)


def _sums_held(lanes: int) -> int:
    """Sums that stay in registers, beside weights and the values that they meet."""
    return vectors.registers(lanes) * 3 // 4


@cache
def _weights_transform(taps: int) -> Array:
    """(points, taps): G."""
    return to_device(np.array([[float(value) for value in row] for row in filtering(OUTPUTS, taps).weights], _F))


def _rest_vector(maps: int, rest: int, lanes: int) -> tuple[int, int]:
    """Lanes of the vector for the last ``rest`` kernels, and tiles that share it: 1, 2 or 4."""
    if maps <= PLANAR:
        group = 1
        while group < 4 and lanes // (2 * group) >= max(rest, 2):
            group *= 2
        return lanes, group
    while lanes > 4 and lanes // 2 >= rest:
        lanes //= 2
    return lanes, 1


@compiled(inline=True)
def _pack_map(
    packed: Array, start: int, weight: Array, transform: Array, first: int, c: int, own: Array, maps: int, kernels: int,
    kernel_rows: int, taps: int, points: int, lanes: int, group: int,
) -> None:  # fmt: skip
    """packed[start + ((p * maps + c) * rows + row) * lanes + k * group + g] = sum over j of transform[p, j] *
    weight[first + k, row, j * maps + c], or zero where there is no such kernel. own: scratch memory, taps * lanes."""
    for row in range(kernel_rows):
        for j in range(taps):
            for lane in range(lanes):
                k = first + lane // group
                own[j * lanes + lane] = weight[k, row, j * maps + c] if k < kernels else _ZERO
        for p in range(points):
            place = start + ((p * maps + c) * kernel_rows + row) * lanes
            for lane in range(lanes):
                total = _ZERO
                for j in range(taps):
                    total += transform[p, j] * own[j * lanes + lane]
                packed[place + lane] = total


def _block(tiles: int, group: int, pool: int, points: int, lanes: int) -> tuple[int, int, int]:
    """Vectors of tiles that are worked on together, and points at once: as many as their sums fit into registers,
    beside the weights and values that they are made of. And blocks of so many vectors in a row."""
    most = _sums_held(lanes)
    count = -(-tiles // group)
    blocks = -(-count * pool // most)
    together = -(-count // blocks)
    at_once = max(some for some in range(1, points + 1) if points % some == 0 and some * together * pool <= most)
    return together, at_once, blocks


@compiled(inline=True)
def _transform_row(
    points: Array, first: int, point_length: int, map_length: int, photo: Array, y: int, row_length: int, height: int,
    tiles: int, ahead: int, maps: int, few_maps: int, outputs: int, taps: int, lanes: int, width: int,
) -> None:  # fmt: skip
    """Row y of the photo at all points, from ``first`` on; the row that is so many ``ahead`` is fetched meanwhile. The
    beginning of ``points`` is scratch memory. The last six arguments are constants where it is called."""
    maps, few_maps, outputs = literally(maps), literally(few_maps), literally(outputs)
    taps, lanes, width = literally(taps), literally(lanes), literally(width)
    blocks = tiles // lanes + 1  # the last tile takes columns that would be the next one's
    last = 1 if tiles % lanes > 0 else 0
    start, read = y * row_length, blocks * lanes * outputs * maps
    if maps != few_maps:
        transform_pixels(points, first, point_length, photo, start, tiles, maps, outputs, taps, width)
    elif start + read <= height * row_length:
        transform_maps(
            points, first, point_length, map_length, photo, start, blocks - 1, last, ahead * row_length,
            few_maps, outputs, taps, lanes,
        )  # fmt: skip
    else:  # so that nothing behind the photo is read
        copy(points, 0, photo, start, (tiles * outputs + taps - 1) * maps)
        transform_maps(
            points, first, point_length, map_length, points, 0, blocks - 1, last, 0, few_maps, outputs, taps, lanes
        )


@cache
def _forward(
    maps: int, kernels: int, kernel_rows: int, taps: int, pool: int, code: int, lanes: int, full_block: tuple[int, int],
    rest_width: int, group: int, rest_block: tuple[int, int],
) -> Any:  # fmt: skip
    """Vectors full of kernels first; then one for what is left of them."""
    outputs = OUTPUTS
    points = outputs + taps - 1
    full, rest = kernels // lanes, kernels % lanes
    rests, valid = min(rest, 1), max(rest, 1)
    (together, at_once), (rest_together, rest_at_once) = full_block, rest_block
    window_rows = kernel_rows + pool - 1
    weights = maps * kernel_rows
    planar = maps <= PLANAR
    copied = lanes * outputs * maps if planar else 0
    few_maps, width_of_maps = min(maps, PLANAR), lanes if maps % lanes == 0 else lanes // 2
    full_length, rest_length = (1, group) if planar else (maps, maps)
    windows = outputs // pool
    sums_held = _sums_held(lanes)

    @compiled(parallel=True)
    def forward(
        out: Array, argmax: Array, x: Array, weight: Array, transform: Array, bias: Array, top: int, left: int,
        slope: Any, height: int, columns: int, tiles: int, blocks: int, rest_blocks: int, row_tiles: int, frames: Array,
        scratch: Array, starts: Array, row_argmax: Array, packed: Array, tap_rows: Array, bias_row: Array,
    ) -> None:  # fmt: skip
        # out (N, H', W', K), argmax the same if pool > 1, x (N, H, W, C), weight (K, R, S C), transform G; frames
        # (threads, height * columns * C), without a column if x is used as it is; scratch and row_argmax (threads,
        # ...); starts (threads, window_rows at least); tap_rows (C, S * lanes); bias_row (W' K,). row_tiles: tiles that
        # rows of scratch memory have room for.
        photos, rows, out_columns = out.shape[0], out.shape[1], out.shape[2]
        for c in prange(maps):
            for pack in range(full):
                start = pack * points * weights * lanes
                _pack_map(
                    packed, start, weight, transform, pack * lanes, c, tap_rows[c],
                    maps, kernels, kernel_rows, taps, points, lanes, 1,
                )  # fmt: skip
            for _ in range(rests):
                start = full * points * weights * lanes
                _pack_map(
                    packed, start, weight, transform, full * lanes, c, tap_rows[c],
                    maps, kernels, kernel_rows, taps, points, rest_width, group,
                )  # fmt: skip
        for column in range(out_columns):
            for k in range(kernels):
                bias_row[column * kernels + k] = bias[k]
        row_length = columns * maps
        first_point = (tiles // lanes + 1) * copied
        point_length = row_tiles * maps
        first_product = first_point + window_rows * points * point_length
        covered = max(blocks * together, rest_blocks * rest_together * group) * windows
        reach = (covered + out_columns - 1) // out_columns
        last_row = first_product + points * sums_held * lanes
        for n in prange(photos):
            thread = thread_number()
            own, own_argmax, own_starts = scratch[thread], row_argmax[thread], starts[thread]
            if frames.shape[1] > 0:
                photo = frames[thread]
                fill_frame(photo, x[n], top, left, height, columns)
            else:
                photo = x[n].reshape(-1)
            target, places = out[n].reshape(-1), argmax[n if pool > 1 else 0].reshape(-1)
            transformed = 0
            for row in range(rows):
                for y in range(transformed, row * pool + window_rows):
                    _transform_row(
                        own, first_point + y % window_rows * points * point_length, point_length, row_tiles, photo, y,
                        row_length, height, tiles, pool, maps, few_maps, outputs, taps, lanes, width_of_maps,
                    )  # fmt: skip
                transformed = row * pool + window_rows
                for i in range(window_rows):
                    own_starts[i] = (row * pool + i) % window_rows * points * point_length
                # The last tiles may be more than the row has, and what is behind it is written anew; but not behind the
                # photo's last row.
                start = row * out_columns * kernels
                if row + reach <= rows:
                    found, found_argmax, first_out, first_place = target, places, start, start
                else:
                    found, found_argmax, first_out, first_place = own, own_argmax, last_row, 0
                map_length = row_tiles if planar else 1
                for pack in range(full):
                    for block in range(blocks):
                        first_tile = block * together
                        for p in range(0, points, at_once):
                            multiply_points(
                                own, first_product + p * pool * together * lanes, pool * together * lanes,
                                own, first_point + p * point_length + first_tile * full_length, point_length,
                                map_length, own_starts, packed, (pack * points + p) * weights * lanes,
                                maps, kernel_rows, pool, together, full_length, at_once, 1, lanes,
                            )  # fmt: skip
                        transform_output(
                            found, first_out + first_tile * windows * kernels + pack * lanes,
                            found_argmax, first_place + first_tile * windows * kernels + pack * lanes,
                            own, first_product, pool * together * lanes, together, out_columns * kernels,
                            kernels, lanes, pool, outputs, taps, 1, lanes,
                        )  # fmt: skip
                for _ in range(rests):
                    for block in range(rest_blocks):
                        first_tile = block * rest_together * group
                        for p in range(0, points, rest_at_once):
                            multiply_points(
                                own, first_product + p * pool * rest_together * rest_width,
                                pool * rest_together * rest_width,
                                own, first_point + p * point_length + first_tile * full_length, point_length,
                                map_length, own_starts, packed,
                                full * points * weights * lanes + p * weights * rest_width,
                                maps, kernel_rows, pool, rest_together, rest_length, rest_at_once, group, rest_width,
                            )  # fmt: skip
                        transform_output(
                            found, first_out + first_tile * windows * kernels + full * lanes,
                            found_argmax, first_place + first_tile * windows * kernels + full * lanes,
                            own, first_product, pool * rest_together * rest_width, rest_together,
                            out_columns * kernels,
                            kernels, valid, pool, outputs, taps, group, rest_width,
                        )  # fmt: skip
                o = target[start : start + out_columns * kernels]
                if row + reach <= rows:
                    for i in range(out_columns * kernels):
                        o[i] = activate(o[i] + bias_row[i], code, slope)
                else:
                    o_last, won = own[last_row:], places[start if pool > 1 else 0 :]
                    for i in range(out_columns * kernels):
                        o[i] = activate(o_last[i] + bias_row[i], code, slope)
                    for i in range(out_columns * kernels if pool > 1 else 0):
                        won[i] = own_argmax[i]

    return forward


def _frame(out: Array, x: Array, weight: Array, padding: tuple[int, int], pool: int) -> tuple[int, int, bool]:
    """As ``frame_size``; also a copy where the last tile has columns that no output needs, which would be something
    else's: what they are must not show in rounding."""
    height, _, framed = frame_size(out.shape, x.shape, weight.shape, padding, pool)
    columns = _tiles(out, pool) * OUTPUTS + weight.shape[2] - 1
    return (height, columns, True) if framed or columns > x.shape[2] else (height, x.shape[2], False)


def conv_forward(
    out: Array, argmax: Array, x: Array, weight: Array, bias: Array, padding: tuple[int, int], activation: Activation,
    slope: float, pool: int, workspace: Workspace, lanes: int,
) -> None:  # fmt: skip
    """Convolution, bias, activation and max-pooling; the full map is never stored."""
    kernels, kernel_rows, taps, maps = weight.shape
    points, window_rows = OUTPUTS + taps - 1, kernel_rows + pool - 1
    tiles = _tiles(out, pool)
    height, columns, framed = _frame(out, x, weight, padding, pool)
    rest = kernels % lanes
    rest_width, group = _rest_vector(maps, max(rest, 1), lanes)
    *full_block, blocks = _block(tiles, 1, pool, points, lanes)
    *rest_block, rest_blocks = _block(tiles, group, pool, points, rest_width)
    row_tiles = max(blocks * full_block[0], rest_blocks * rest_block[0] * group, -(-tiles // lanes) * lanes)
    row_size = row_tiles * (OUTPUTS // pool) * kernels + lanes
    copied = (tiles // lanes + 1) * lanes * OUTPUTS * maps if maps <= PLANAR else 0
    scratch = copied + points * (window_rows * row_tiles * maps + _sums_held(lanes) * lanes) + row_size
    launch(
        _forward(
            maps, kernels, kernel_rows, taps, pool, CODES[activation], lanes, tuple(full_block), rest_width, group,
            tuple(rest_block),
        ),
        out,
        argmax if pool > 1 else workspace.array("no argmax", (1, 1, 1, 1), np.uint8),
        x,
        weight.reshape(kernels, kernel_rows, taps * maps),
        _weights_transform(taps),
        bias,
        *padding,
        _F(slope),
        height,
        columns,
        tiles,
        blocks,
        rest_blocks,
        row_tiles,
        workspace.per_thread("frames", height * columns * maps if framed else 0),
        workspace.per_thread("tiles of rows", scratch),
        workspace.per_thread("rows of tiles", window_rows, np.int32),
        workspace.per_thread("places of a row", row_size, np.uint8),
        workspace.array("packed weights", (-(-kernels // lanes) * lanes * points * maps * kernel_rows,)),
        workspace.array("weights side by side", (maps, taps * lanes)),
        workspace.array("bias row", (out.shape[2] * kernels,)),
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------ weights' gradient
#
# The transpose: at each point the gradients of the outputs, transformed by A', meet what the photo's rows are there,
# and G' makes weights' gradients of their sums.


@compiled(parallel=True)
def _unpack(
    dweight: Array, sums: Array, transform: Array, totals: Array, maps: int, first: int, lanes: int, group: int
) -> None:
    """dweight[first + k, row, j * maps + c] = sum over p, g of transform[p, j] * (the sum over chunks, in order, of
    sums[chunk, ((p * maps + c) * rows + row) * lanes + k * group + g])."""
    kernels, rows, _ = dweight.shape
    points, taps = transform.shape
    size = rows * lanes
    for place in prange(points * maps):
        own = totals[place * size : (place + 1) * size]
        for i in range(size):
            own[i] = _ZERO
        for chunk in range(sums.shape[0]):
            added = sums[chunk, place * size : (place + 1) * size]
            for i in range(size):
                own[i] += added[i]
    for k in prange(min(kernels - first, lanes // group)):
        for row in range(rows):
            for j in range(taps):
                for c in range(maps):
                    total = _ZERO
                    for p in range(points):
                        at_point = _ZERO
                        for g in range(group):
                            at_point += totals[((p * maps + c) * rows + row) * lanes + k * group + g]
                        total += transform[p, j] * at_point
                    dweight[first + k, row, j * maps + c] = total


def _points_at_once(maps: int, kernel_rows: int, points: int, lanes: int) -> int:
    """Points whose sums are in registers at the same time, so that no sum waits for itself."""
    held = _sums_held(lanes)
    sums = min(maps * kernel_rows, held)
    return max(some for some in range(1, points + 1) if points % some == 0 and some * sums <= held)


@cache
def _backward_weight(
    maps: int, kernels: int, kernel_rows: int, taps: int, pool: int, code: int, lanes: int, rest_width: int, group: int
) -> Any:
    """Each chunk of photos has sums of its own, which are added in order."""
    outputs = OUTPUTS
    points = outputs + taps - 1
    full, rest = kernels // lanes, kernels % lanes
    rests, valid = min(rest, 1), max(rest, 1)
    window_rows = kernel_rows + pool - 1
    weights = maps * kernel_rows
    planar = maps <= PLANAR
    tile_length, rest_length = (1, group) if planar else (maps, maps)
    bias_tile = bias_tile_of(kernels)
    at_once, rest_at_once = (_points_at_once(maps, kernel_rows, points, width) for width in (lanes, rest_width))
    copied = lanes * outputs * maps if planar else 0
    few_maps, width_of_maps = min(maps, PLANAR), lanes if maps % lanes == 0 else lanes // 2

    @compiled(parallel=True)
    def backward(
        dweight: Array, dbias: Array, dout: Array, out: Array, argmax: Array, x: Array, transform: Array, top: int,
        left: int, slope: Any, height: int, columns: int, tiles: int, row_tiles: int, frames: Array, scratch: Array,
        starts: Array, deltas: Array, places: Array, sums: Array, bias_sums: Array, totals: Array,
    ) -> None:  # fmt: skip
        # dweight (K, R, S C), dbias (K,), the rest as in forward; deltas and places (threads, at least row_tiles *
        # windows * K), sums (chunks, packs * points * C * R * lanes), bias_sums (chunks, bias_tile), totals the same
        photos, rows = out.shape[0], out.shape[1]
        numbers, chunks = out.shape[2] * kernels, sums.shape[0]
        row_length, point_length = columns * maps, row_tiles * maps
        first_point = (tiles // lanes + 1) * copied
        first_gradient = first_point + window_rows * points * point_length
        for chunk in prange(chunks):
            thread = thread_number()
            own, own_sums, own_bias, own_starts = scratch[thread], sums[chunk], bias_sums[chunk], starts[thread]
            delta, place = deltas[thread], places[thread]
            for i in range(bias_tile):
                own_bias[i] = _ZERO
            for i in range(len(own_sums)):
                own_sums[i] = _ZERO
            for i in range(numbers, len(delta)):
                delta[i] = _ZERO
            for n in range(photos * chunk // chunks, photos * (chunk + 1) // chunks):
                if frames.shape[1] > 0:
                    photo = frames[thread]
                    fill_frame(photo, x[n], top, left, height, columns)
                else:
                    photo = x[n].reshape(-1)
                d, o = dout[n].reshape(-1), out[n].reshape(-1)
                won = argmax[n if pool > 1 else 0].reshape(-1)
                transformed = 0
                for row in range(rows):
                    for y in range(transformed, row * pool + window_rows):
                        _transform_row(
                            own, first_point + y % window_rows * points * point_length, point_length, row_tiles, photo,
                            y, row_length, height, tiles, pool, maps, few_maps, outputs, taps, lanes, width_of_maps,
                        )  # fmt: skip
                    transformed = row * pool + window_rows
                    for i in range(window_rows):
                        own_starts[i] = (row * pool + i) % window_rows * points * point_length
                    start = row * numbers
                    own_d, own_o = d[start : start + numbers], o[start : start + numbers]
                    for i in range(numbers):
                        delta[i] = own_d[i] * derivative(own_o[i], code, slope)
                    if pool > 1:
                        own_won = won[start : start + numbers]
                        for i in range(numbers):
                            place[i] = own_won[i]
                    for first_of_tile in range(0, numbers, bias_tile):
                        tile = delta[first_of_tile : min(first_of_tile + bias_tile, numbers)]
                        for i in range(len(tile)):
                            own_bias[i] += tile[i]
                    map_length = row_tiles if planar else 1
                    for pack in range(full):
                        transform_gradient(
                            own, first_gradient, pool * tiles * lanes, tiles * lanes, delta, pack * lanes, place, tiles,
                            won, start + numbers,
                            kernels, lanes, pool, outputs, taps, 1, lanes,
                        )  # fmt: skip
                        for p in range(0, points, at_once):
                            ahead = d if p // at_once % 2 == 0 else o
                            add_points(
                                own_sums, (pack * points + p) * weights * lanes,
                                own, first_gradient + p * pool * tiles * lanes, pool * tiles * lanes, tiles * lanes,
                                own, first_point + p * point_length, point_length, map_length, own_starts, tiles,
                                ahead, start + numbers + p // at_once // 2 * tiles * 16,
                                maps, kernel_rows, pool, tile_length, at_once, 1, lanes,
                            )  # fmt: skip
                    for _ in range(rests):
                        vectors_of_tiles = (tiles + group - 1) // group
                        length = vectors_of_tiles * rest_width
                        transform_gradient(
                            own, first_gradient, pool * length, length, delta, full * lanes, place, vectors_of_tiles,
                            won, start + numbers,
                            kernels, valid, pool, outputs, taps, group, rest_width,
                        )  # fmt: skip
                        for p in range(0, points, rest_at_once):
                            ahead = d if p // rest_at_once % 2 == 0 else o
                            add_points(
                                own_sums, full * points * weights * lanes + p * weights * rest_width,
                                own, first_gradient + p * pool * length, pool * length, length,
                                own, first_point + p * point_length, point_length, map_length, own_starts,
                                vectors_of_tiles, ahead,
                                start + numbers + p // rest_at_once // 2 * vectors_of_tiles * 16,
                                maps, kernel_rows, pool, rest_length, rest_at_once, group, rest_width,
                            )  # fmt: skip
        for pack in range(full):
            start, stop = pack * points * weights * lanes, (pack + 1) * points * weights * lanes
            _unpack(dweight, sums[:, start:stop], transform, totals, maps, pack * lanes, lanes, 1)
        for _ in range(rests):
            start = full * points * weights * lanes
            _unpack(dweight, sums[:, start:], transform, totals, maps, full * lanes, rest_width, group)
        add_bias_chunks(dbias, bias_sums)

    return backward


def conv_backward_weight(
    dweight: Array, dbias: Array, dout: Array, out: Array, argmax: Array, x: Array, padding: tuple[int, int],
    activation: Activation, slope: float, pool: int, workspace: Workspace, lanes: int,
) -> None:  # fmt: skip
    """dweight[k, t, c] = sum over photos and positions p of delta[p, k] * x[p + t, c]; dbias[k] = sum of delta."""
    kernels, kernel_rows, taps, maps = dweight.shape
    points, window_rows = OUTPUTS + taps - 1, kernel_rows + pool - 1
    tiles = _tiles(out, pool)
    height, columns, framed = _frame(out, x, dweight, padding, pool)
    full, rest = kernels // lanes, kernels % lanes
    rest_width, group = _rest_vector(maps, max(rest, 1), lanes)
    row_tiles = -(-tiles // lanes) * lanes
    row_size = (row_tiles + group) * (OUTPUTS // pool) * kernels + lanes
    copied = (tiles // lanes + 1) * lanes * OUTPUTS * maps if maps <= PLANAR else 0
    scratch = copied + points * (window_rows * row_tiles * maps + pool * (row_tiles + group) * lanes)
    weights = points * maps * kernel_rows
    chunks = min(CHUNKS, len(x))
    launch(
        _backward_weight(maps, kernels, kernel_rows, taps, pool, CODES[activation], lanes, rest_width, group),
        dweight.reshape(kernels, kernel_rows, taps * maps),
        dbias,
        dout,
        out,
        argmax if pool > 1 else workspace.array("no argmax", (1, 1, 1, 1), np.uint8),
        x,
        _weights_transform(taps),
        *padding,
        _F(slope),
        height,
        columns,
        tiles,
        row_tiles,
        workspace.per_thread("frames", height * columns * maps if framed else 0),
        workspace.per_thread("tiles of rows", scratch),
        workspace.per_thread("rows of tiles", window_rows, np.int32),
        workspace.per_thread("deltas", row_size),
        workspace.per_thread("places of a row", row_size, np.uint8),
        workspace.array("chunk sums", (chunks, (full * lanes + (rest_width if rest else 0)) * weights)),
        workspace.array("chunk sums of the bias", (chunks, bias_tile_of(kernels))),
        workspace.array("sums of points", (lanes * weights,)),
    )  # fmt: skip
