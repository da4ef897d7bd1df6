"""The forward pass of a convolution of many maps by Winograd's minimal filtering along rows, as products of matrices.

As in ``winograd``, a tile of 4 outputs of a row takes 6 multiplications in place of 12, for each row of weights, map
and kernel. There each point's sums are made for a few tiles of a row of one photo, which suits few kernels and pools.
Here a point's tiles are the lines of a matrix, and its weights another one:
    products (p) (tiles, K) = sum over rows r of weights: points (p, r) (tiles, C) x weights (p, r) (C, K)
so that the tile of sums in registers is two vectors wide, which loads less for each multiplication. The matrices hold
the tiles of several photos where maps are small and kernels many: weights are then read once for all of them. Which
photos are together changes no bit of a sum.

What the arrays in scratch memory hold: points (p, row, photo, tile, map), in which the tiles that a row of weights
meets are a run, ``photos * tiles`` lines further on than those of the row before; packed weights (block of kernels, p,
row, map, kernel); products (p, row, photo, tile, kernel), of a block of kernels.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import prange

from facecnn.arrays import Array
from facecnn.kernels.cpu.conv.frames import in_frame
from facecnn.kernels.cpu.conv.products import most_lines, product_of, tile_width
from facecnn.kernels.cpu.conv.winograd_tiles import OUTPUTS, tiled_frame, tiles_of_row, weights_transform
from facecnn.kernels.cpu.elementwise import value_of
from facecnn.kernels.cpu.jit import compiled, thread_number
from facecnn.kernels.cpu.launching import launch
from facecnn.kernels.cpu.memory import Workspace
from facecnn.kernels.cpu.vector_ir.product_kernels import transpose_square
from facecnn.kernels.cpu.vector_ir.winograd_kernels import transform_lines, transform_pixels
from facecnn.kernels.protocol import Activation

_F = np.float32

_TAPS = 3
_POINTS = OUTPUTS + _TAPS - 1
_MOST_POINTS = 1 << 16
"""Floats of the points of a group of photos, which stay in the second-level cache."""
_TASKS = 8
"""Least number of tasks, if there are kernels enough to be shared out."""


def pays(out: Array, weight: Array, pool: int, lanes: int) -> bool:
    """Whether this code supports such a convolution and is faster than others, by measurement: see
    docs/PERFORMANCE.md. The number of photos doesn't count, so that a photo's output doesn't depend on it."""
    kernels, _, taps, maps = map(int, weight.shape)
    if taps != _TAPS or pool != 1 or maps % lanes or kernels % tile_width(kernels, lanes):
        return False
    return min(maps, kernels) >= 32 and out.shape[2] >= OUTPUTS - 1 and _points_of(out, weight) <= _MOST_POINTS


def _points_of(out: Array, weight: Array) -> int:
    """Floats of a photo's points."""
    return _POINTS * (int(out.shape[1]) + int(weight.shape[1]) - 1) * tiles_of_row(out, 1) * int(weight.shape[3])


@cache
def _pack(maps: int, kernels: int, kernel_rows: int, lanes: int) -> Any:
    width, of_kernel = tile_width(kernels, lanes), _POINTS * maps
    transpose = transpose_square(width, of_kernel, lanes)

    @compiled(parallel=True)
    def pack(packed: Array, weight: Array, transform: Array, scratch: Array) -> None:
        # weight (K, R, S C), packed[b, p, r, c, j] = sum over t of transform[p, t] * weight[b width + j, r, t C + c]
        for task in prange(kernels // width * kernel_rows):
            own, block, r = scratch[thread_number()], task // kernel_rows, task % kernel_rows
            for j in range(width):
                w = weight[block * width + j, r]
                first, second, third = w[:maps], w[maps : 2 * maps], w[2 * maps :]
                for p in range(_POINTS):
                    a, b, d = transform[p, 0], transform[p, 1], transform[p, 2]
                    target = own[j * of_kernel + p * maps : j * of_kernel + (p + 1) * maps]
                    for c in range(maps):
                        target[c] = a * first[c] + b * second[c] + d * third[c]
            for p in range(_POINTS):
                start = ((block * _POINTS + p) * kernel_rows + r) * maps * width
                for c in range(0, maps, lanes):
                    for j in range(0, width, lanes):
                        transpose(packed, start + c * width + j, own, j * of_kernel + p * maps + c)

    return pack


@cache
def _forward(maps: int, kernels: int, kernel_rows: int, activation: Activation, last: int, lanes: int) -> Any:
    """Each group of photos is a task, for all kernels or some. last: columns of a row's last tile."""
    width = tile_width(kernels, lanes)
    blocks, of_point, lines = kernels // width, kernel_rows * maps * width, most_lines(kernels, lanes)
    product = product_of(width, lines, maps, maps, width, 0, width, accumulate=False, lanes=lanes)
    to_points = transform_pixels(maps, OUTPUTS, _TAPS, lanes)
    to_lines = transform_lines(last, kernels, OUTPUTS, _TAPS, width, lanes)
    value_at = value_of(activation)

    @compiled(parallel=True)
    def forward(
        out: Array, x: Array, packed: Array, bias_row: Array, top: int, left: int, slope: Any, height: int,
        columns: int, tiles: int, groups: int, parts: int, frames: Array, points: Array, products: Array,
    ) -> None:  # fmt: skip
        # out (N, H', W', K), x (N, H, W, C), packed flat, bias_row (W' K,); frames (threads, height * columns * C),
        # without a column if x is used as it is; points and products (threads, ...)
        photos, rows, out_columns = out.shape[0], out.shape[1], out.shape[2]
        target = out.reshape(-1)
        for task in prange(groups * parts):
            thread, part, group = thread_number(), task % parts, task // parts
            own, own_products = points[thread], products[thread]
            first_photo, end_photo = photos * group // groups, photos * (group + 1) // groups
            line = (end_photo - first_photo) * tiles  # lines of a row
            point_length = (rows + kernel_rows - 1) * line * maps
            for n in range(first_photo, end_photo):
                photo = in_frame(frames, thread, x[n], top, left, height, columns)
                for y in range(rows + kernel_rows - 1):
                    first = (y * line + (n - first_photo) * tiles) * maps
                    to_points(own, first, point_length, photo, y * columns * maps, tiles)
            start, behind = blocks * part // parts, blocks * (part + 1) // parts
            count = max(lines, rows * line)  # of fewer lines than a tile has, some mean nothing
            for block in range(start, behind):
                for p in range(_POINTS):
                    product(
                        own_products, p * count * width, count, own, p * point_length, line * maps, kernel_rows,
                        packed, (block * _POINTS + p) * of_point, 0, 1,
                    )  # fmt: skip
                for n in range(first_photo, end_photo):
                    for row in range(rows):
                        to_lines(
                            target, (n * rows + row) * out_columns * kernels + block * width, own_products,
                            (row * line + (n - first_photo) * tiles) * width, count * width, tiles - 1,
                        )  # fmt: skip
            k, some = start * width, (behind - start) * width
            for n in range(first_photo, end_photo):
                for row in range(rows):
                    place = (n * rows + row) * out_columns * kernels
                    if parts == 1:
                        o = target[place : place + out_columns * kernels]
                        for i in range(out_columns * kernels):
                            o[i] = value_at(o[i] + bias_row[i], slope)
                    else:
                        for column in range(out_columns):
                            o = target[place + column * kernels + k : place + column * kernels + k + some]
                            b = bias_row[k : k + some]
                            for i in range(some):
                                o[i] = value_at(o[i] + b[i], slope)

    return forward


def conv_forward(
    out: Array, x: Array, weight: Array, bias: Array, padding: tuple[int, int], activation: Activation, slope: float,
    workspace: Workspace, lanes: int,
) -> None:  # fmt: skip
    """Convolution, bias and activation, without a pool."""
    kernels, kernel_rows, taps, maps = weight.shape
    photos, rows, out_columns, _ = out.shape
    width, tiles = tile_width(kernels, lanes), tiles_of_row(out, 1)
    height, columns, framed = tiled_frame(out, x, weight, padding, 1)
    of_photo, lines = _points_of(out, weight), most_lines(kernels, lanes)
    groups = -(-photos // (_MOST_POINTS // of_photo))
    parts = max(1, min(kernels // width, -(-_TASKS // groups)))
    most = -(-photos // groups)
    packed = workspace.array("packed weights", (kernels * _POINTS * kernel_rows * maps,))
    launch(
        _pack(maps, kernels, kernel_rows, lanes), packed, weight.reshape(kernels, kernel_rows, taps * maps),
        weights_transform(taps), workspace.per_thread("weights at points", width * _POINTS * maps),
    )  # fmt: skip
    bias_row = workspace.array("bias row", (out_columns * kernels,))
    launch(np.copyto, bias_row.reshape(out_columns, kernels), bias)
    launch(
        _forward(maps, kernels, kernel_rows, activation, out_columns - (tiles - 1) * OUTPUTS, lanes),
        out, x, packed, bias_row, *padding, _F(slope), height, columns, tiles, groups, parts,
        workspace.per_thread("frames", height * columns * maps if framed else 0),
        workspace.per_thread("points", most * of_photo + lines * maps),
        workspace.per_thread("products", _POINTS * max(lines, rows * most * tiles) * width),
    )  # fmt: skip
