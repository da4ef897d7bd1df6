"""The convolution block, forward and its weights' gradient, by Winograd's minimal filtering along rows (``winograd``).

A row of outputs is cut into tiles of 4. Of 5 columns of weights a tile takes 8 multiplications in place of 20, of 3
columns 6 in place of 12, for each row of weights, map and kernel. Transforms are only along rows: so the photo's are
shared by all kernels and rows of weights, and numbers stay exact enough. They differ from exact sums by two to four
times as much as those that ``conv_vectors`` adds one by one; of windows that are equal but for that, any may win.

A photo of few maps is gone through in strips of tiles from top to bottom, narrow enough for what belongs to a strip's
windows to stay in the first cache. Its rows are transformed once each, when they are first needed, into as many rows of
scratch memory as windows have. Then each point's products are summed up over maps and rows of weights, in registers,
and transformed back.

What the arrays in scratch memory hold: points (row, p, tile, map) or, for few maps, (row, p, map, tile), as vectors of
them are loaded; packed weights (vector of kernels, p, map, row, lane); products (p, row of the window, vector of tiles,
lane). In a vector are as many kernels as it has lanes, or fewer for a ``group`` of neighbouring tiles each.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import literally, prange  # type: ignore[attr-defined]

from facecnn.kernels.cpu.conv_frames import (
    CHUNKS,
    add_bias_chunks,
    add_to_bias,
    bias_tile_of,
    copy,
    frame_size,
    in_frame,
)
from facecnn.kernels.cpu.elementwise import activate, derivative
from facecnn.kernels.cpu.jit import compiled, helper, thread_number
from facecnn.kernels.cpu.launching import launch
from facecnn.kernels.cpu.memory import Array, Workspace, to_device
from facecnn.kernels.cpu.winograd import filtering
from facecnn.kernels.cpu.winograd_kernels import (
    add_points,
    multiply_points,
    sums_held,
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

_STRIP_BYTES = 20 * 1024
"""Of the photo's transformed rows that the windows of a strip's row need."""

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
    return lanes == 16 and weight.shape[3] <= PLANAR and pays(out, weight, pool, lanes)


def _at_once(points: int, sums: int, lanes: int) -> int:
    """So many points at once that divide all, whose sums, so many each, stay in registers; at least one."""
    return max(
        some for some in range(1, points + 1) if points % some == 0 and (some == 1 or some * sums <= sums_held(lanes))
    )


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


@helper(inline=True)
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


def _strip(tiles: int, maps: int, window_rows: int, points: int, group: int) -> int:
    """Tiles of a strip's row: of as many strips as it takes for what their windows need to stay in the cache. Of more
    maps, one: they take so many multiplications that strips gain nothing, and their shorter rows cost."""
    if maps > PLANAR:
        return tiles
    most = max(1, _STRIP_BYTES // (4 * points * window_rows * maps))
    strips = -(-tiles // most)
    return -(-tiles // (strips * group)) * group


@cache
def _block(strip: int, group: int, pool: int, points: int, lanes: int) -> tuple[int, int]:
    """Vectors of tiles that are worked on together, and points at once: as many as their sums fit into registers. Fewer
    vectors if less of a strip's last ones is left over: a block's beginning takes about as long as half a vector."""
    count = -(-strip // group)
    blocks = min(
        range(-(-count * pool // sums_held(lanes)), count + 1), key=lambda number: number * (-(-count // number) + 0.5)
    )
    together = -(-count // blocks)
    return together, _at_once(points, together * pool, lanes)


def _room(strip: int, *multiples: int) -> int:
    """Tiles that a strip's row of scratch memory has room for, when it is gone through by so many at once."""
    return max(-(-strip // multiple) * multiple for multiple in multiples)


@helper(inline=True)
def _transform_rows(
    points: Array, starts: Array, row: int, first: int, point_length: int, map_length: int, photo: Array,
    height: int, row_length: int, left: int, tiles: int, pool: int, window_rows: int, maps: int, few_maps: int,
    taps: int, lanes: int, width: int,
) -> None:  # fmt: skip
    """What the windows of a strip's row of outputs need, at all points: the photo's rows from the column ``left`` on,
    as far as they weren't needed before, and starts (window_rows): where they lie, from ``first`` on. Before that,
    ``points`` is scratch memory.

    The last five arguments are constants where it is called. few_maps: ``maps``, or as many as PLANAR if there are
    more, so that what isn't called is no longer code."""
    maps, few_maps = literally(maps), literally(few_maps)
    taps, lanes, width = literally(taps), literally(lanes), literally(width)
    blocks = tiles // lanes + 1  # the last tile takes columns that would be the next one's
    last = 1 if tiles % lanes > 0 else 0
    read = blocks * lanes * OUTPUTS * maps
    length = (OUTPUTS + taps - 1) * point_length
    for y in range(0 if row == 0 else row * pool + window_rows - pool, row * pool + window_rows):
        here, start = first + y % window_rows * length, y * row_length + left * maps
        if maps != few_maps:
            transform_pixels(points, here, point_length, photo, start, tiles, maps, OUTPUTS, taps, width)
        elif start + read <= height * row_length:
            transform_maps(
                points, here, point_length, map_length, photo, start, blocks - 1, last, pool * row_length,
                few_maps, OUTPUTS, taps, lanes,
            )  # fmt: skip
        else:  # so that nothing behind the photo is read
            copy(points, 0, photo, start, (tiles * OUTPUTS + taps - 1) * maps)
            transform_maps(
                points, here, point_length, map_length, points, 0, blocks - 1, last, 0, few_maps, OUTPUTS, taps, lanes
            )
    for i in range(window_rows):
        starts[i] = (row * pool + i) % window_rows * length


@helper(inline=True)
def _convolve_row(
    out: Array, out_start: int, argmax: Array, argmax_start: int, scratch: Array, first_product: int, first_point: int,
    point_length: int, map_length: int, starts: Array, packed: Array, packed_start: int, blocks: int, later: Array,
    later_start: int, with_places: bool,
    maps: int, kernels: int, kernel_rows: int, taps: int, pool: int, together: int, at_once: int, tile_length: int,
    valid: int, group: int, lanes: int,
) -> None:  # fmt: skip
    """A strip's row of outputs of a vector of kernels, block by block of its tiles. What lies from ``later_start`` on
    is fetched, to be written next. The last eleven arguments are constants where it is called; see ``multiply_points``
    and ``transform_output``."""
    maps, kernels, kernel_rows, taps = literally(maps), literally(kernels), literally(kernel_rows), literally(taps)
    pool, together, at_once = literally(pool), literally(together), literally(at_once)
    tile_length, valid, group, lanes = literally(tile_length), literally(valid), literally(group), literally(lanes)
    points, of_point = OUTPUTS + taps - 1, pool * together * lanes
    for block in range(blocks):
        for p in range(0, points, at_once):
            multiply_points(
                scratch, first_product + p * of_point, of_point,
                scratch, first_point + p * point_length + block * together * tile_length, point_length, map_length,
                starts, packed, packed_start + p * maps * kernel_rows * lanes,
                maps, kernel_rows, pool, together, tile_length, at_once, group, lanes,
            )  # fmt: skip
        place = block * together * group * (OUTPUTS // pool) * kernels
        if with_places:
            transform_output(
                out, out_start + place, argmax, argmax_start + place, scratch, first_product, of_point, together,
                later, later_start + place, kernels, valid, pool, OUTPUTS, taps, group, lanes, True,
            )  # fmt: skip
        else:
            transform_output(
                out, out_start + place, argmax, argmax_start + place, scratch, first_product, of_point, together,
                later, later_start + place, kernels, valid, pool, OUTPUTS, taps, group, lanes, False,
            )  # fmt: skip


@cache
def _forward(
    maps: int, kernels: int, kernel_rows: int, taps: int, pool: int, code: int, lanes: int, full_block: tuple[int, int],
    rest_width: int, group: int, rest_block: tuple[int, int], row_tiles: int,
) -> Any:  # fmt: skip
    """Vectors full of kernels first; then one for what is left of them."""
    points = OUTPUTS + taps - 1
    full, rest = kernels // lanes, kernels % lanes
    rests, valid = min(rest, 1), max(rest, 1)
    (together, at_once), (rest_together, rest_at_once) = full_block, rest_block
    window_rows = kernel_rows + pool - 1
    of_kernels = points * maps * kernel_rows * lanes
    planar = maps <= PLANAR
    few_maps, width = min(maps, PLANAR), _map_vector(maps, lanes)
    tile_length, rest_length = (1, group) if planar else (maps, maps)
    point_length, map_length = row_tiles * maps, row_tiles if planar else 1
    windows = OUTPUTS // pool
    products = points * sums_held(lanes) * lanes

    @compiled(parallel=True)
    def forward(
        out: Array, argmax: Array, x: Array, weight: Array, transform: Array, bias: Array, top: int, left: int,
        slope: Any, height: int, columns: int, tiles: int, strip: int, first_point: int, frames: Array, scratch: Array,
        starts: Array, row_argmax: Array, packed: Array, tap_rows: Array, bias_row: Array, with_places: bool,
    ) -> None:  # fmt: skip
        # out (N, H', W', K), argmax the same if with_places, x (N, H, W, C), weight (K, R, S C), transform G; frames
        # (threads, height * columns * C), without a column if x is used as it is; scratch and row_argmax (threads,
        # ...); starts (threads, window_rows at least); tap_rows (C, S * lanes); bias_row (a strip's row's numbers,).
        # strip: tiles of its row. first_point: where in scratch memory the rows of points begin.
        photos, rows, out_columns = out.shape[0], out.shape[1], out.shape[2]
        for c in prange(maps):
            for pack in range(full):
                _pack_map(
                    packed, pack * of_kernels, weight, transform, pack * lanes, c, tap_rows[c],
                    maps, kernels, kernel_rows, taps, points, lanes, 1,
                )  # fmt: skip
            for _ in range(rests):
                _pack_map(
                    packed, full * of_kernels, weight, transform, full * lanes, c, tap_rows[c],
                    maps, kernels, kernel_rows, taps, points, rest_width, group,
                )  # fmt: skip
        for i in range(len(bias_row)):
            bias_row[i] = bias[i % kernels]
        row_length = columns * maps
        first_product = first_point + window_rows * points * point_length
        first_found = first_product + products
        for n in prange(photos):
            thread = thread_number()
            own, own_argmax, own_starts = scratch[thread], row_argmax[thread], starts[thread]
            photo = in_frame(frames, thread, x[n], top, left, height, columns)
            target, places = out[n].reshape(-1), argmax[np.int64(n) if with_places else 0].reshape(-1)
            found = own[first_found:]
            for first in range(0, tiles, strip):
                here = min(strip, tiles - first)
                blocks = -(-here // together)
                rest_blocks = -(-here // (group * rest_together))
                first_column = first * windows
                numbers = min(here * windows, out_columns - first_column) * kernels
                for row in range(rows):
                    _transform_rows(
                        own, own_starts, row, first_point, point_length, row_tiles, photo, height, row_length,
                        first * OUTPUTS, here, pool, window_rows, maps, few_maps, taps, lanes, width,
                    )  # fmt: skip
                    start = (row * out_columns + first_column) * kernels
                    later = start + out_columns * kernels
                    for pack in range(full):
                        _convolve_row(
                            own, first_found + pack * lanes, own_argmax, pack * lanes, own, first_product,
                            first_point, point_length, map_length, own_starts, packed, pack * of_kernels, blocks,
                            target, later + pack * lanes, with_places,
                            maps, kernels, kernel_rows, taps, pool, together, at_once, tile_length, lanes, 1, lanes,
                        )  # fmt: skip
                    for _ in range(rests):
                        _convolve_row(
                            own, first_found + full * lanes, own_argmax, full * lanes, own, first_product, first_point,
                            point_length, map_length, own_starts, packed, full * of_kernels, rest_blocks, target,
                            later + full * lanes, with_places,
                            maps, kernels, kernel_rows, taps, pool, rest_together, rest_at_once, rest_length, valid,
                            group, rest_width,
                        )  # fmt: skip
                    o = target[start : start + numbers]
                    for i in range(numbers):
                        o[i] = activate(found[i] + bias_row[i], code, slope)
                    if with_places:
                        won = places[start : start + numbers]
                        for i in range(numbers):
                            won[i] = own_argmax[i]

    return forward


def _map_vector(maps: int, lanes: int) -> int:
    """Lanes of vectors of maps, where there are more than PLANAR: so many that they are whole ones."""
    return lanes if maps % lanes == 0 else lanes // 2


def _copied_row(tiles: int, maps: int, lanes: int) -> int:
    """Floats at the beginning of scratch memory for a photo's row that is copied, see ``_transform_rows``."""
    return (tiles // lanes + 1) * lanes * OUTPUTS * maps if maps <= PLANAR else 0


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
    with_places = pool > 1 and len(argmax) > 0
    kernels, kernel_rows, taps, maps = weight.shape
    points, window_rows = OUTPUTS + taps - 1, kernel_rows + pool - 1
    tiles = _tiles(out, pool)
    height, columns, framed = _frame(out, x, weight, padding, pool)
    rest = kernels % lanes
    rest_width, group = _rest_vector(maps, max(rest, 1), lanes)
    strip = _strip(tiles, maps, window_rows, points, group)
    full_block, rest_block = _block(strip, 1, pool, points, lanes), _block(strip, group, pool, points, rest_width)
    row_tiles = _room(strip, lanes, full_block[0], rest_block[0] * group)
    row_size = row_tiles * (OUTPUTS // pool) * kernels + lanes
    first_point = _copied_row(strip, maps, lanes)
    scratch = first_point + points * (window_rows * row_tiles * maps + sums_held(lanes) * lanes) + row_size
    launch(
        _forward(
            maps, kernels, kernel_rows, taps, pool, CODES[activation], lanes, full_block, rest_width, group, rest_block,
            row_tiles,
        ),
        out,
        argmax if with_places else workspace.array("no argmax", (1, 1, 1, 1), np.uint8),
        x,
        weight.reshape(kernels, kernel_rows, taps * maps),
        _weights_transform(taps),
        bias,
        *padding,
        _F(slope),
        height,
        columns,
        tiles,
        strip,
        first_point,
        workspace.per_thread("frames", height * columns * maps if framed else 0),
        workspace.per_thread("tiles of rows", scratch),
        workspace.per_thread("rows of tiles", window_rows, np.int32),
        workspace.per_thread("places of a row", row_size, np.uint8),
        workspace.array("packed weights", (-(-kernels // lanes) * lanes * points * maps * kernel_rows,)),
        workspace.array("weights side by side", (maps, taps * lanes)),
        workspace.array("bias row", (strip * (OUTPUTS // pool) * kernels,)),
        with_places,
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


@helper(inline=True)
def _add_row(
    sums: Array, sums_start: int, scratch: Array, first_gradient: int, first_point: int, point_length: int,
    map_length: int, starts: Array, delta: Array, delta_start: int, places: Array, tiles: int, dout: Array, out: Array,
    argmax: Array, ahead: int,
    maps: int, kernels: int, kernel_rows: int, taps: int, pool: int, at_once: int, tile_length: int, valid: int,
    group: int, lanes: int,
) -> None:  # fmt: skip
    """What a strip's row of outputs adds to a vector of kernels, in ``tiles`` vectors. From ``ahead`` on, the next
    row's dout, out and argmax are fetched meanwhile. The last ten arguments are constants where it is called; see
    ``transform_gradient`` and ``add_points``."""
    maps, kernels, kernel_rows, taps = literally(maps), literally(kernels), literally(kernel_rows), literally(taps)
    pool, at_once, tile_length = literally(pool), literally(at_once), literally(tile_length)
    valid, group, lanes = literally(valid), literally(group), literally(lanes)
    of_row = tiles * lanes
    of_point = pool * of_row
    transform_gradient(
        scratch, first_gradient, of_point, of_row, delta, delta_start, places, tiles, argmax, ahead,
        kernels, valid, pool, OUTPUTS, taps, group, lanes,
    )  # fmt: skip
    for p in range(0, OUTPUTS + taps - 1, at_once):
        call = p // at_once
        next_row = dout if call % 2 == 0 else out
        add_points(
            sums, sums_start + p * maps * kernel_rows * lanes, scratch, first_gradient + p * of_point, of_point, of_row,
            scratch, first_point + p * point_length, point_length, map_length, starts, tiles,
            next_row, ahead + call // 2 * of_row,
            maps, kernel_rows, pool, tile_length, at_once, group, lanes,
        )  # fmt: skip


@cache
def _backward_weight(
    maps: int, kernels: int, kernel_rows: int, taps: int, pool: int, code: int, lanes: int, rest_width: int, group: int,
    row_tiles: int,
) -> Any:  # fmt: skip
    """Each chunk of photos has sums of its own, which are added in order."""
    points = OUTPUTS + taps - 1
    full, rest = kernels // lanes, kernels % lanes
    rests, valid = min(rest, 1), max(rest, 1)
    window_rows = kernel_rows + pool - 1
    weights = maps * kernel_rows
    of_kernels = points * weights * lanes
    planar = maps <= PLANAR
    few_maps, width = min(maps, PLANAR), _map_vector(maps, lanes)
    tile_length, rest_length = (1, group) if planar else (maps, maps)
    point_length, map_length = row_tiles * maps, row_tiles if planar else 1
    windows, bias_tile = OUTPUTS // pool, bias_tile_of(kernels)
    at_once, rest_at_once = _at_once(points, weights, lanes), _at_once(points, weights, rest_width)

    @compiled(parallel=True)
    def backward(
        dweight: Array, dbias: Array, dout: Array, out: Array, argmax: Array, x: Array, transform: Array, top: int,
        left: int, slope: Any, height: int, columns: int, tiles: int, strip: int, first_point: int, frames: Array,
        scratch: Array, starts: Array, deltas: Array, places: Array, sums: Array, bias_sums: Array, totals: Array,
    ) -> None:  # fmt: skip
        # dweight (K, R, S C), dbias (K,), the rest as in forward; deltas and places (threads, at least row_tiles *
        # windows * K), sums (chunks, packs * points * C * R * lanes), bias_sums (chunks, bias_tile), totals the same
        photos, rows, out_columns, chunks = out.shape[0], out.shape[1], out.shape[2], sums.shape[0]
        row_length = columns * maps
        first_gradient = first_point + window_rows * points * point_length
        for chunk in prange(chunks):
            thread = thread_number()
            own, own_sums, own_bias, own_starts = scratch[thread], sums[chunk], bias_sums[chunk], starts[thread]
            delta, place = deltas[thread], places[thread]
            for i in range(bias_tile):
                own_bias[i] = _ZERO
            for i in range(len(own_sums)):
                own_sums[i] = _ZERO
            for n in range(photos * chunk // chunks, photos * (chunk + 1) // chunks):
                photo = in_frame(frames, thread, x[n], top, left, height, columns)
                d, o = dout[n].reshape(-1), out[n].reshape(-1)
                won = argmax[n if pool > 1 else 0].reshape(-1)
                for first in range(0, tiles, strip):
                    here = min(strip, tiles - first)
                    first_column = first * windows
                    numbers = min(here * windows, out_columns - first_column) * kernels
                    for i in range(numbers, len(delta)):
                        delta[i] = _ZERO
                    for row in range(rows):
                        _transform_rows(
                            own, own_starts, row, first_point, point_length, row_tiles, photo, height, row_length,
                            first * OUTPUTS, here, pool, window_rows, maps, few_maps, taps, lanes, width,
                        )  # fmt: skip
                        start = (row * out_columns + first_column) * kernels
                        later = start + out_columns * kernels
                        own_d, own_o = d[start : start + numbers], o[start : start + numbers]
                        for i in range(numbers):
                            delta[i] = own_d[i] * derivative(own_o[i], code, slope)
                        if pool > 1:
                            own_won = won[start : start + numbers]
                            for i in range(numbers):
                                place[i] = own_won[i]
                        add_to_bias(own_bias, delta, numbers, bias_tile)
                        for pack in range(full):
                            _add_row(
                                own_sums, pack * of_kernels, own, first_gradient, first_point, point_length, map_length,
                                own_starts, delta, pack * lanes, place, here, d, o, won, later,
                                maps, kernels, kernel_rows, taps, pool, at_once, tile_length, lanes, 1, lanes,
                            )  # fmt: skip
                        for _ in range(rests):
                            _add_row(
                                own_sums, full * of_kernels, own, first_gradient, first_point, point_length, map_length,
                                own_starts, delta, full * lanes, place, (here + group - 1) // group, d, o, won, later,
                                maps, kernels, kernel_rows, taps, pool, rest_at_once, rest_length, valid, group,
                                rest_width,
                            )  # fmt: skip
        for pack in range(full):
            own_sums = sums[:, pack * of_kernels : (pack + 1) * of_kernels]
            _unpack(dweight, own_sums, transform, totals, maps, pack * lanes, lanes, 1)
        for _ in range(rests):
            _unpack(dweight, sums[:, full * of_kernels :], transform, totals, maps, full * lanes, rest_width, group)
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
    strip = _strip(tiles, maps, window_rows, points, group)
    row_tiles = _room(strip, lanes)
    row_size = row_tiles * (OUTPUTS // pool) * kernels + lanes
    first_point = _copied_row(strip, maps, lanes)
    scratch = first_point + points * (window_rows * row_tiles * maps + pool * row_tiles * lanes)
    weights = points * maps * kernel_rows
    chunks = min(CHUNKS, len(x))
    launch(
        _backward_weight(
            maps, kernels, kernel_rows, taps, pool, CODES[activation], lanes, rest_width, group, row_tiles
        ),
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
        strip,
        first_point,
        workspace.per_thread("frames", height * columns * maps if framed else 0),
        workspace.per_thread("tiles of rows", scratch),
        workspace.per_thread("rows of tiles", window_rows, np.int32),
        workspace.per_thread("deltas", row_size),
        workspace.per_thread("places of a row", row_size, np.uint8),
        workspace.array("chunk sums", (chunks, (full * lanes + (rest_width if rest else 0)) * weights)),
        workspace.array("chunk sums of the bias", (chunks, bias_tile_of(kernels))),
        workspace.array("sums of points", (lanes * weights,)),
    )  # fmt: skip
