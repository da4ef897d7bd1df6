"""Neurons that each see one map.

A photo's maps are one run of positions * K floats in which element i belongs to map i % K. The loops take it in tiles
of a multiple of K floats, at least 64, so that they are long enough for vectors however few maps there are, and every
element of a tile belongs to the same map in all tiles. Each pass is a sum of products of such tiles: forward over the
tiles of a photo, backward over photos and over a map's neurons.
"""

from __future__ import annotations

from functools import cache
from math import lcm
from typing import Any

import numpy as np
from numba import prange

from facecnn.arrays import Array
from facecnn.kernels.cpu.jit import compiled, helper
from facecnn.kernels.cpu.launching import launch
from facecnn.kernels.cpu.memory import Workspace
from facecnn.kernels.cpu.vector_ir import lanes
from facecnn.kernels.cpu.vector_ir.micro_kernels import sum_products

_ZERO = np.float32(0)
_TILE = 64

_VECTORS = 10
"""The most vectors in a tile whose sums are to stay in registers."""


def _tile(kernels: int) -> tuple[int, int]:
    """Floats of a tile, and lanes of the vectors whose sums stay in registers: 1 if that takes too many of them."""
    width = lanes.of_processor()
    whole = lcm(kernels, max(width, 1))
    if width and whole <= _VECTORS * width:
        return -(-_TILE // whole) * whole, width
    return -(-_TILE // kernels) * kernels, 1


@cache
def _sums_of(tile: int, lanes: int) -> Any:
    """The helper ``sum_tiles``: out[start + i] = sum over ``count`` n of x[x_start + n * x_stride + i] *
    factors[factors_start + n * factors_stride + i], for ``size`` i: a tile, or what is left of the last one. All flat.
    ``lanes`` is 1 where sums are not in registers."""
    sum_whole_tiles = sum_products(tile, lanes)

    @helper(inline=True)
    def sum_tiles(
        out: Array, start: int, x: Array, x_start: int, x_stride: int, factors: Array, factors_start: int,
        factors_stride: int, count: int, size: int,
    ) -> None:  # fmt: skip
        if lanes > 1 and size == tile:
            sum_whole_tiles(out, start, x, x_start, x_stride, factors, factors_start, factors_stride, count)
            return
        own = out[start : start + size]
        for i in range(size):
            own[i] = _ZERO
        for n in range(count):
            a = x[x_start + n * x_stride : x_start + n * x_stride + size]
            f = factors[factors_start + n * factors_stride : factors_start + n * factors_stride + size]
            for i in range(size):
                own[i] += a[i] * f[i]

    return sum_tiles


@cache
def _forward(tile: int, lanes: int) -> Any:
    sum_tiles = _sums_of(tile, lanes)

    @compiled(parallel=True)
    def forward(out: Array, x: Array, weight: Array, bias: Array, sums: Array) -> None:
        # out (N, M, K), x (N, P K), weight (M, P K), bias (M, K), sums (N, 2 * tile)
        photos, neurons, kernels = out.shape
        size = x.shape[1]
        tiles, rest = size // tile, size % tile
        flat, w = x.reshape(-1), weight.reshape(-1)
        for n in prange(photos):
            own = sums[n]
            for m in range(neurons):
                at, of_weight = n * size, m * size
                sum_tiles(own, 0, flat, at, tile, w, of_weight, tile, tiles, tile)
                end = tiles * tile
                sum_tiles(own, tile, flat, at + end, tile, w, of_weight + end, tile, 1, rest)
                for k in range(kernels):
                    total = _ZERO
                    for i in range(k, tile + rest, kernels):
                        total += own[i]
                    out[n, m, k] = total + bias[m, k]

    return forward


@compiled()
def _repeat(repeated: Array, dout: Array) -> None:
    """repeated (N, M, tile): dout (N, M, K) over and over, so that the loops below need no i % K."""
    kernels = dout.shape[2]
    for n in range(dout.shape[0]):
        for m in range(dout.shape[1]):
            for start in range(0, repeated.shape[2], kernels):
                for k in range(kernels):
                    repeated[n, m, start + k] = dout[n, m, k]


@cache
def _backward_weight(tile: int, lanes: int) -> Any:
    sum_tiles = _sums_of(tile, lanes)

    @compiled(parallel=True)
    def backward(dweight: Array, dbias: Array, dout: Array, x: Array, repeated: Array) -> None:
        # dweight (M, P K), dbias (M, K), dout (N, M, K), x (N, P K), repeated (N, M, tile)
        photos, neurons, kernels = dout.shape
        size = x.shape[1]
        gradient, flat, d = dweight.reshape(-1), x.reshape(-1), repeated.reshape(-1)
        for block in prange((size + tile - 1) // tile):
            start = block * tile
            for m in range(neurons):
                sum_tiles(
                    gradient, m * size + start, flat, start, size, d, m * tile, neurons * tile, photos,
                    min(tile, size - start),
                )  # fmt: skip
        for m in range(neurons):
            for k in range(kernels):
                total = _ZERO
                for n in range(photos):
                    total += dout[n, m, k]
                dbias[m, k] = total

    return backward


@cache
def _backward_input(tile: int, lanes: int) -> Any:
    sum_tiles = _sums_of(tile, lanes)

    @compiled(parallel=True)
    def backward(dx: Array, weight: Array, repeated: Array) -> None:
        # dx (N, P K), weight (M, P K), repeated (N, M, tile)
        neurons, size = weight.shape
        gradient, w, d = dx.reshape(-1), weight.reshape(-1), repeated.reshape(-1)
        for n in prange(dx.shape[0]):
            for start in range(0, size, tile):
                sum_tiles(
                    gradient, n * size + start, w, start, size, d, n * neurons * tile, tile, neurons,
                    min(tile, size - start),
                )  # fmt: skip

    return backward


def _repeated(dout: Array, tile: int, workspace: Workspace) -> Any:
    photos, per_kernel, _ = dout.shape
    repeated = workspace.array("neurons' delta", (photos, per_kernel, tile))
    launch(_repeat, repeated, dout)
    return repeated


def neuron_forward(out: Array, x: Array, weight: Array, bias: Array, workspace: Workspace) -> None:
    """out[n, m, k] = bias[m, k] + sum over positions p of weight[m, p, k] * x[n, p, k]."""
    tile, lanes = _tile(out.shape[2])
    launch(
        _forward(tile, lanes), out, x.reshape(len(x), -1), weight.reshape(len(weight), -1), bias,
        workspace.array("neurons' sums", (len(x), 2 * tile)), operations=len(weight) * x.size,
    )  # fmt: skip


def neuron_backward_weight(dweight: Array, dbias: Array, dout: Array, x: Array, workspace: Workspace) -> None:
    """dweight[m, p, k] = sum over photos of dout[n, m, k] * x[n, p, k]; dbias = sum of dout."""
    tile, lanes = _tile(dout.shape[2])
    repeated = _repeated(dout, tile, workspace)
    launch(
        _backward_weight(tile, lanes), dweight.reshape(len(dweight), -1), dbias, dout, x.reshape(len(x), -1), repeated,
        operations=len(dweight) * x.size,
    )  # fmt: skip


def neuron_backward_input(dx: Array, dout: Array, weight: Array, workspace: Workspace) -> None:
    """dx[n, p, k] = sum over the map's neurons m of dout[n, m, k] * weight[m, p, k]."""
    tile, lanes = _tile(dout.shape[2])
    repeated = _repeated(dout, tile, workspace)
    launch(
        _backward_input(tile, lanes),
        dx.reshape(len(dx), -1),
        weight.reshape(len(weight), -1),
        repeated,
        operations=len(weight) * dx.size,
    )
