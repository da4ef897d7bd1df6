"""The forward pass of a convolution with few kernels, as a network's first layer often has.

``conv`` lays a vector's lanes over kernels, and with 8 of them half of each vector is idle. Here the lanes lie over the
columns of the output instead. For that each photo is rearranged into planes: for each row and map, the columns of every
phase of the pool, one phase after the other. Then the sums at column s of all windows, for one kernel and one tap, are
a run of weight * x, and the largest of a window is found between runs, lane by lane.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import prange

from facecnn.kernels.cpu.elementwise import activate
from facecnn.kernels.cpu.jit import compiled, helper, thread_number
from facecnn.kernels.cpu.launching import launch
from facecnn.kernels.cpu.memory import THREADS, Array, Workspace
from facecnn.kernels.protocol import CODES, Activation

_F = np.float32
_ZERO = _F(0)
_TILE = 64
"""Columns of the output that are worked on together."""
_GROUP = 4
"""Kernels, and taps, that the innermost loop takes at once."""
_MOST_KERNELS = 12
_LEAST_COLUMNS = 24


def suits(kernels: int, columns: int) -> bool:
    """Whether this way is the faster one for so many kernels and columns of the output."""
    return kernels <= _MOST_KERNELS and columns >= _LEAST_COLUMNS


@helper()
def _planes(out: Array, photo: Array, top: int, left: int, height: int, pool: int, length: int) -> None:
    """out[y, c, s, j] (height, C, pool, length) = the photo at row y - top, column j * pool + s - left, map c, or 0."""
    maps = photo.shape[2]
    for y in range(height):
        for c in range(maps):
            for s in range(pool):
                start = ((y * maps + c) * pool + s) * length
                run = out[start : start + length]
                first = max(0, -((s - left) // pool))
                last = max(first, min(length, (photo.shape[1] - 1 - s + left) // pool + 1))
                if y < top or y >= top + photo.shape[0]:
                    last = first
                for j in range(first):
                    run[j] = _ZERO
                for j in range(first, last):
                    run[j] = photo[y - top, j * pool + s - left, c]
                for j in range(last, length):
                    run[j] = _ZERO


@helper()
def _pack(packed: Array, offsets: Array, weight: Array, length: int) -> None:
    """packed (groups, 4 taps) = the weights of four kernels, tap by tap, zero where there are none; offsets (pool,
    taps) of each tap's run from that of the window's first row, for column s of the window."""
    kernels, kernel_rows, kernel_columns, maps = weight.shape
    pool, padded = offsets.shape
    last = kernel_rows * kernel_columns * maps - 1
    for t in range(padded):
        tap = min(t, last)
        row, column, c = tap // (kernel_columns * maps), tap // maps % kernel_columns, tap % maps
        for s in range(pool):
            offsets[s, t] = ((row * maps + c) * pool + (s + column) % pool) * length + (s + column) // pool
        for k in range(packed.shape[0] * _GROUP):
            value = weight[k, row, column, c] if k < kernels and t <= last else _ZERO
            packed[k // _GROUP, t * _GROUP + k % _GROUP] = value


@cache
def _forward(maps: int, kernels: int, kernel_rows: int, kernel_columns: int, pool: int, code: int) -> Any:
    """Four kernels and four taps at once: 16 multiply-adds for four runs of x and four of sums, with 16 weights that
    stay in registers."""
    groups = -(-kernels // _GROUP)
    padded = -(-kernel_rows * kernel_columns * maps // _GROUP) * _GROUP

    @compiled(parallel=True)
    def forward(
        out: Array,
        argmax: Array,
        x: Array,
        weight: Array,
        bias: Array,
        top: int,
        left: int,
        slope: Any,
        length: int,
        planes: Array,
        packed: Array,
        offsets: Array,
        sums: Array,
        best: Array,
        best_at: Array,
    ) -> None:
        # out (N, H', W', K), argmax the same if pool > 1, x (N, H, W, C), weight (K, R, S, C); planes (threads, size);
        # sums (threads, 4 * tile), best and best_at (threads, groups, 4 * tile)
        photos, rows, columns = out.shape[0], out.shape[1], out.shape[2]
        _pack(packed, offsets, weight, length)
        for n in prange(photos):
            thread = thread_number()
            plane, a = planes[thread], sums[thread]
            _planes(plane, x[n], top, left, rows * pool + kernel_rows - 1, pool, length)
            for row in range(rows):
                for tile_start in range(0, columns, _TILE):
                    start = max(0, min(tile_start, columns - _TILE))
                    for group in range(groups):
                        b, at = best[thread, group], best_at[thread, group]
                        for place in range(pool * pool):
                            r, s = place // pool, place % pool
                            base = (row * pool + r) * maps * pool * length + start
                            for j in range(_GROUP * _TILE):
                                a[j] = _ZERO
                            for t in range(0, padded, _GROUP):
                                first = base + offsets[s, t]
                                x0 = plane[first : first + _TILE]
                                first = base + offsets[s, t + 1]
                                x1 = plane[first : first + _TILE]
                                first = base + offsets[s, t + 2]
                                x2 = plane[first : first + _TILE]
                                first = base + offsets[s, t + 3]
                                x3 = plane[first : first + _TILE]
                                w = packed[group, t * _GROUP : (t + _GROUP) * _GROUP]
                                w00, w01, w02, w03 = w[0], w[1], w[2], w[3]
                                w10, w11, w12, w13 = w[4], w[5], w[6], w[7]
                                w20, w21, w22, w23 = w[8], w[9], w[10], w[11]
                                w30, w31, w32, w33 = w[12], w[13], w[14], w[15]
                                for j in range(_TILE):
                                    v0, v1, v2, v3 = x0[j], x1[j], x2[j], x3[j]
                                    a0, a1, a2, a3 = a[j], a[_TILE + j], a[2 * _TILE + j], a[3 * _TILE + j]
                                    a[j] = a0 + v0 * w00 + v1 * w10 + v2 * w20 + v3 * w30
                                    a[_TILE + j] = a1 + v0 * w01 + v1 * w11 + v2 * w21 + v3 * w31
                                    a[2 * _TILE + j] = a2 + v0 * w02 + v1 * w12 + v2 * w22 + v3 * w32
                                    a[3 * _TILE + j] = a3 + v0 * w03 + v1 * w13 + v2 * w23 + v3 * w33
                            if place == 0:
                                for j in range(_GROUP * _TILE):
                                    b[j] = a[j]
                                    at[j] = np.uint8(0)
                            else:
                                for j in range(_GROUP * _TILE):
                                    # A NaN is taken wherever it stands, and nothing is larger than it afterwards.
                                    larger = a[j] > b[j] or a[j] != a[j]
                                    b[j] = a[j] if larger else b[j]
                                    at[j] = np.uint8(place) if larger else at[j]
                        for k in range(group * _GROUP, min(kernels, (group + 1) * _GROUP)):
                            own = b[k % _GROUP * _TILE : (k % _GROUP + 1) * _TILE]
                            for j in range(_TILE):
                                own[j] = activate(own[j] + bias[k], code, slope)
                    for column in range(min(_TILE, columns - start)):
                        o = out[n, row, start + column]
                        for k in range(kernels):
                            o[k] = best[thread, k // _GROUP, k % _GROUP * _TILE + column]
                        if pool > 1:
                            won = argmax[n, row, start + column]
                            for k in range(kernels):
                                won[k] = best_at[thread, k // _GROUP, k % _GROUP * _TILE + column]

    return forward


def conv_forward(
    out: Array,
    argmax: Array,
    x: Array,
    weight: Array,
    bias: Array,
    padding: tuple[int, int],
    activation: Activation,
    slope: float,
    pool: int,
    workspace: Workspace,
) -> None:
    """As ``conv.conv_forward``, which calls this where it ``suits``."""
    kernels, kernel_rows, kernel_columns, maps = weight.shape
    rows, columns = out.shape[1], out.shape[2]
    length = -(-(max(columns, _TILE) + (kernel_columns + pool - 2) // pool) // 16) * 16
    groups = -(-kernels // _GROUP)
    taps = -(-weight[0].size // _GROUP) * _GROUP
    launch(
        _forward(maps, kernels, kernel_rows, kernel_columns, pool, CODES[activation]),
        out,
        argmax if pool > 1 else workspace.array("no argmax", (1, 1, 1, 1), np.uint8),
        x,
        weight,
        bias,
        *padding,
        _F(slope),
        length,
        workspace.per_thread("frames", (rows * pool + kernel_rows - 1) * maps * pool * length),
        workspace.array("packed weights", (groups, taps * _GROUP)),
        workspace.array("offsets", (pool, taps), np.int64),
        workspace.array("tiles", (THREADS, _GROUP * _TILE)),
        workspace.array("largest sums", (THREADS, groups, _GROUP * _TILE)),
        workspace.array("places of the largest", (THREADS, groups, _GROUP * _TILE), np.uint8),
    )
