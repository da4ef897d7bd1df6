"""The gradient of a convolution block's weights by Winograd's minimal filtering: the transpose of ``winograd``.

At each point the gradients of the outputs, transformed by A', are multiplied by the transformed rows of the photo; G'
turns the sums into the weights' gradient.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import prange

from facecnn.arrays import Array
from facecnn.kernels.cpu.conv import winograd
from facecnn.kernels.cpu.conv.frames import CHUNKS, add_bias_chunks, add_to_bias, bias_tile_of, in_frame
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
from facecnn.kernels.cpu.elementwise import derivative_of
from facecnn.kernels.cpu.jit import compiled, helper, thread_number
from facecnn.kernels.cpu.launching import launch
from facecnn.kernels.cpu.memory import Workspace
from facecnn.kernels.cpu.vector_ir.winograd_gradient_kernels import add_points, transform_gradient
from facecnn.kernels.protocol import Activation

_F = np.float32
_ZERO = _F(0)


def pays(out: Array, weight: Array, pool: int, lanes: int) -> bool:
    """Only on AVX-512 with up to PLANAR maps, where the forward pass uses it too. Elsewhere visiting only the windows'
    winners (``direct``) is at least as fast."""
    return lanes == 16 and weight.shape[3] <= PLANAR and winograd.pays(out, weight, pool, lanes)


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


def _row_adder(
    maps: int, kernels: int, kernel_rows: int, taps: int, pool: int, row_tiles: int, valid: int, group: int, lanes: int
) -> Any:
    """The helper ``add_row``: what a strip's row of outputs adds to a vector of kernels, in ``tiles`` vectors.

    From ``ahead`` on, the next row's dout, out and argmax are fetched meanwhile. See ``transform_gradient`` and
    ``add_points``.
    """
    points, weights = OUTPUTS + taps - 1, maps * kernel_rows
    at_once = points_at_once(points, weights, lanes)
    point_length, tile_length, map_length = lengths_of(maps, row_tiles, group)
    transform = transform_gradient(kernels, valid, pool, OUTPUTS, taps, group, lanes)
    add = add_points(maps, kernel_rows, pool, tile_length, at_once, group, lanes)

    @helper(inline=True)
    def add_row(
        sums: Array, sums_start: int, scratch: Array, first_gradient: int, first_point: int, starts: Array,
        delta: Array, delta_start: int, places: Array, tiles: int, dout: Array, out: Array, argmax: Array, ahead: int,
    ) -> None:  # fmt: skip
        of_row = tiles * lanes
        of_point = pool * of_row
        transform(
            scratch, first_gradient, of_point, of_row, delta, delta_start, places, delta_start, tiles, argmax, ahead
        )
        for p in range(0, points, at_once):
            call = p // at_once
            next_row = dout if call % 2 == 0 else out
            add(
                sums, sums_start + p * weights * lanes, scratch, first_gradient + p * of_point, of_point, of_row,
                scratch, first_point + p * point_length, point_length, map_length, starts, 0, tiles,
                next_row, ahead + call // 2 * of_row,
            )  # fmt: skip

    return add_row


@cache
def _backward_weight(
    maps: int, kernels: int, kernel_rows: int, taps: int, pool: int, activation: Activation, lanes: int,
    rest_width: int, group: int, row_tiles: int,
) -> Any:  # fmt: skip
    """Each chunk of photos has sums of its own, which are added in order."""
    points = OUTPUTS + taps - 1
    full, rest = kernels // lanes, kernels % lanes
    rests = min(rest, 1)
    of_row = (kernel_rows + pool - 1) * points * row_tiles * maps
    of_kernels = points * maps * kernel_rows * lanes
    windows, bias_tile = OUTPUTS // pool, bias_tile_of(kernels)
    sizes = (maps, kernels, kernel_rows, taps, pool, row_tiles)
    transform_rows = rows_to_points(maps, kernel_rows, taps, pool, row_tiles, lanes)
    add_full, add_rest = _row_adder(*sizes, lanes, 1, lanes), _row_adder(*sizes, max(rest, 1), group, rest_width)
    derivative_at = derivative_of(activation)

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
        first_gradient = first_point + of_row
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
                        left_column = first * OUTPUTS
                        transform_rows(own, own_starts, row, first_point, photo, height, row_length, left_column, here)
                        start = (row * out_columns + first_column) * kernels
                        later = start + out_columns * kernels
                        own_d, own_o = d[start : start + numbers], o[start : start + numbers]
                        for i in range(numbers):
                            delta[i] = own_d[i] * derivative_at(own_o[i], slope)
                        if pool > 1:
                            own_won = won[start : start + numbers]
                            for i in range(numbers):
                                place[i] = own_won[i]
                        add_to_bias(own_bias, delta, numbers, bias_tile)
                        for pack in range(full):
                            add_full(
                                own_sums, pack * of_kernels, own, first_gradient, first_point, own_starts, delta,
                                pack * lanes, place, here, d, o, won, later,
                            )  # fmt: skip
                        for _ in range(rests):
                            add_rest(
                                own_sums, full * of_kernels, own, first_gradient, first_point, own_starts, delta,
                                full * lanes, place, (here + group - 1) // group, d, o, won, later,
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
    tiles = tiles_of_row(out, pool)
    height, columns, framed = tiled_frame(out, x, dweight, padding, pool)
    full, rest = kernels // lanes, kernels % lanes
    rest_width, group = rest_vector(maps, max(rest, 1), lanes)
    strip = tiles_of_strip(tiles, maps, window_rows, points, group)
    row_tiles = tiles_with_room(strip, lanes)
    row_size = row_tiles * (OUTPUTS // pool) * kernels + lanes
    first_point = copied_row(strip, maps, lanes)
    scratch = first_point + points * (window_rows * row_tiles * maps + pool * row_tiles * lanes)
    weights = points * maps * kernel_rows
    chunks = min(CHUNKS, len(x))
    launch(
        _backward_weight(
            maps, kernels, kernel_rows, taps, pool, activation, lanes, rest_width, group, row_tiles
        ),
        dweight.reshape(kernels, kernel_rows, taps * maps),
        dbias,
        dout,
        out,
        argmax,
        x,
        weights_transform(taps),
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
