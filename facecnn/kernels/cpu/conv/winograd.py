"""The forward pass of the convolution block by Winograd's minimal filtering along rows; ``winograd_gradient`` has the
weights' gradient.

A row of outputs is cut into tiles of 4. For 5 columns of weights a tile takes 8 multiplications in place of 20, for 3
columns 6 in place of 12, for each row of weights, map and kernel. Transforms are only along rows: so the photo's are
shared by all kernels and rows of weights, and numbers stay exact enough. They differ from exact sums by two to four
times as much as those that ``direct`` adds one by one; of windows that only differ by that, any may win.

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
from numba import prange

from facecnn.arrays import Array
from facecnn.kernels.cpu.conv.frames import in_frame
from facecnn.kernels.cpu.conv.winograd_tiles import (
    OUTPUTS,
    PLANAR,
    copied_row,
    lengths_of,
    points_at_once,
    rest_vector,
    rows_to_points,
    tiled_frame,
    tiles_of_row,
    tiles_of_strip,
    tiles_with_room,
    weights_transform,
)
from facecnn.kernels.cpu.elementwise import value_of
from facecnn.kernels.cpu.jit import compiled, helper, thread_number
from facecnn.kernels.cpu.launching import launch
from facecnn.kernels.cpu.memory import Workspace
from facecnn.kernels.cpu.vector_ir.winograd_kernels import multiply_points, sums_held, transform_output
from facecnn.kernels.protocol import Activation

_F = np.float32
_ZERO = _F(0)

_TAPS = (3, 5)
_POOLS = (1, 2, 4)


def pays(out: Array, weight: Array, pool: int, lanes: int) -> bool:
    """Whether this code supports such a block and is faster than ``direct``, by measurement: see docs/PERFORMANCE.md.
    The number of photos doesn't count, so that a photo's output doesn't depend on it."""
    kernels, kernel_rows, taps, maps = map(int, weight.shape)
    if taps not in _TAPS or pool not in _POOLS:
        return False
    tiles = tiles_of_row(out, pool)
    if maps > PLANAR:
        return maps % 8 == 0 and kernels >= lanes and tiles >= 3
    saved = kernel_rows * maps * (taps - (OUTPUTS + taps - 1) / OUTPUTS)
    return kernels >= 8 and pool > 1 and tiles >= 7 and saved > 12


def _packer(maps: int, kernels: int, kernel_rows: int, taps: int, lanes: int, group: int) -> Any:
    """The helper ``pack``: packed[start + ((p * maps + c) * rows + row) * lanes + k * group + g] = sum over j of
    transform[p, j] * weight[first + k, row, j * maps + c], or zero where there is no such kernel. own: scratch memory,
    taps * lanes."""
    points = OUTPUTS + taps - 1

    @helper(inline=True)
    def pack(packed: Array, start: int, weight: Array, transform: Array, first: int, c: int, own: Array) -> None:
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

    return pack


@cache
def _block(strip: int, group: int, pool: int, points: int, lanes: int) -> tuple[int, int]:
    """Vectors of tiles that are worked on together, and points at once: as many as their sums fit into registers. Fewer
    vectors if less of a strip's last ones is left over: a block's beginning takes about as long as half a vector."""
    count = -(-strip // group)
    blocks = min(
        range(-(-count * pool // sums_held(lanes)), count + 1), key=lambda number: number * (-(-count // number) + 0.5)
    )
    together = -(-count // blocks)
    return together, points_at_once(points, together * pool, lanes)


def _row_convolver(
    maps: int, kernels: int, kernel_rows: int, taps: int, pool: int, row_tiles: int, block: tuple[int, int], valid: int,
    group: int, lanes: int,
) -> Any:  # fmt: skip
    """The helper ``convolve_row``: a strip's row of outputs of a vector of kernels, block by block of its tiles.

    What lies from ``later_start`` on is fetched, to be written next. See ``multiply_points`` and ``transform_output``.
    """
    together, at_once = block
    points, of_point = OUTPUTS + taps - 1, pool * together * lanes
    point_length, tile_length, map_length = lengths_of(maps, row_tiles, group)
    of_block, weights_of_point = together * group * (OUTPUTS // pool) * kernels, maps * kernel_rows * lanes
    multiply = multiply_points(maps, kernel_rows, pool, together, tile_length, at_once, group, lanes)
    sizes = (kernels, valid, pool, OUTPUTS, taps, group, lanes)
    transform, transform_with_places = transform_output(*sizes, False), transform_output(*sizes, True)

    @helper(inline=True)
    def convolve_row(
        scratch: Array, out_start: int, argmax: Array, argmax_start: int, first_product: int, first_point: int,
        starts: Array, packed: Array, packed_start: int, blocks: int, later: Array, later_start: int, with_places: bool,
    ) -> None:  # fmt: skip
        for block in range(blocks):
            for p in range(0, points, at_once):
                multiply(
                    scratch, first_product + p * of_point, of_point,
                    scratch, first_point + p * point_length + block * together * tile_length, point_length, map_length,
                    starts, 0, packed, packed_start + p * weights_of_point,
                )  # fmt: skip
            place = block * of_block
            if with_places:
                transform_with_places(
                    scratch, out_start + place, argmax, argmax_start + place, scratch, first_product, of_point,
                    together, later, later_start + place,
                )  # fmt: skip
            else:
                transform(
                    scratch, out_start + place, argmax, argmax_start + place, scratch, first_product, of_point,
                    together, later, later_start + place,
                )  # fmt: skip

    return convolve_row


@cache
def _forward(
    maps: int, kernels: int, kernel_rows: int, taps: int, pool: int, activation: Activation, lanes: int,
    full_block: tuple[int, int], rest_width: int, group: int, rest_block: tuple[int, int], row_tiles: int,
) -> Any:  # fmt: skip
    """Vectors full of kernels first; then one for what is left of them."""
    points = OUTPUTS + taps - 1
    full, rest = kernels // lanes, kernels % lanes
    rests = min(rest, 1)
    (together, _), (rest_together, _) = full_block, rest_block
    window_rows = kernel_rows + pool - 1
    of_kernels = points * maps * kernel_rows * lanes
    windows, products = OUTPUTS // pool, points * sums_held(lanes) * lanes
    sizes = (maps, kernels, kernel_rows, taps)
    pack_full, pack_rest = _packer(*sizes, lanes, 1), _packer(*sizes, rest_width, group)
    transform_rows = rows_to_points(maps, kernel_rows, taps, pool, row_tiles, lanes)
    convolve_full = _row_convolver(*sizes, pool, row_tiles, full_block, lanes, 1, lanes)
    convolve_rest = _row_convolver(*sizes, pool, row_tiles, rest_block, max(rest, 1), group, rest_width)
    value_at = value_of(activation)

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
                pack_full(packed, pack * of_kernels, weight, transform, pack * lanes, c, tap_rows[c])
            for _ in range(rests):
                pack_rest(packed, full * of_kernels, weight, transform, full * lanes, c, tap_rows[c])
        for i in range(len(bias_row)):
            bias_row[i] = bias[i % kernels]
        row_length = columns * maps
        first_product = first_point + window_rows * points * row_tiles * maps
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
                    transform_rows(own, own_starts, row, first_point, photo, height, row_length, first * OUTPUTS, here)
                    start = (row * out_columns + first_column) * kernels
                    later = start + out_columns * kernels
                    for pack in range(full):
                        convolve_full(
                            own, first_found + pack * lanes, own_argmax, pack * lanes, first_product, first_point,
                            own_starts, packed, pack * of_kernels, blocks, target, later + pack * lanes, with_places,
                        )  # fmt: skip
                    for _ in range(rests):
                        convolve_rest(
                            own, first_found + full * lanes, own_argmax, full * lanes, first_product, first_point,
                            own_starts, packed, full * of_kernels, rest_blocks, target, later + full * lanes,
                            with_places,
                        )  # fmt: skip
                    o = target[start : start + numbers]
                    for i in range(numbers):
                        o[i] = value_at(found[i] + bias_row[i], slope)
                    if with_places:
                        won = places[start : start + numbers]
                        for i in range(numbers):
                            won[i] = own_argmax[i]

    return forward


def conv_forward(
    out: Array, argmax: Array, x: Array, weight: Array, bias: Array, padding: tuple[int, int], activation: Activation,
    slope: float, pool: int, workspace: Workspace, lanes: int,
) -> None:  # fmt: skip
    """Convolution, bias, activation and max-pooling; the full map is never stored."""
    with_places = pool > 1 and len(argmax) > 0
    kernels, kernel_rows, taps, maps = weight.shape
    points, window_rows = OUTPUTS + taps - 1, kernel_rows + pool - 1
    tiles = tiles_of_row(out, pool)
    height, columns, framed = tiled_frame(out, x, weight, padding, pool)
    rest = kernels % lanes
    rest_width, group = rest_vector(maps, max(rest, 1), lanes)
    strip = tiles_of_strip(tiles, maps, window_rows, points, group)
    full_block, rest_block = _block(strip, 1, pool, points, lanes), _block(strip, group, pool, points, rest_width)
    row_tiles = tiles_with_room(strip, lanes, full_block[0], rest_block[0] * group)
    row_size = row_tiles * (OUTPUTS // pool) * kernels + lanes
    first_point = copied_row(strip, maps, lanes)
    scratch = first_point + points * (window_rows * row_tiles * maps + sums_held(lanes) * lanes) + row_size
    launch(
        _forward(
            maps, kernels, kernel_rows, taps, pool, activation, lanes, full_block, rest_width, group, rest_block,
            row_tiles,
        ),
        out,
        argmax if with_places else workspace.array("no argmax", (1, 1, 1, 1), np.uint8),
        x,
        weight.reshape(kernels, kernel_rows, taps * maps),
        weights_transform(taps),
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
