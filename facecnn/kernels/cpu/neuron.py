"""Neurons that each see one map.

A photo's maps are one run of positions * K floats in which element i belongs to map i % K. The loops take it in tiles
of a multiple of K floats, at least 64, so that they are long enough to be vectorised however few maps there are, and
every element of a tile belongs to the same map in all tiles.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from facecnn.kernels.cpu.jit import compiled
from facecnn.kernels.cpu.launching import launch
from facecnn.kernels.cpu.memory import Array, Workspace

_ZERO = np.float32(0)
_TILE = 64


def _tile(kernels: int) -> int:
    return -(-_TILE // kernels) * kernels


@compiled(parallel=True)
def _forward(out: Array, x: Array, weight: Array, bias: Array, sums: Array) -> None:
    # out (N, M, K), x (N, P K), weight (M, P K), bias (M, K), sums (N, tile)
    kernels, tile = out.shape[2], sums.shape[1]
    for n in prange(out.shape[0]):
        own = sums[n]
        for m in range(out.shape[1]):
            for i in range(tile):
                own[i] = _ZERO
            for start in range(0, x.shape[1], tile):
                a, w = x[n, start : start + tile], weight[m, start : start + tile]
                for i in range(len(a)):
                    own[i] += a[i] * w[i]
            for k in range(kernels):
                total = own[k]
                for i in range(k + kernels, tile, kernels):
                    total += own[i]
                out[n, m, k] = total + bias[m, k]


@compiled()
def _repeat(repeated: Array, dout: Array) -> None:
    """repeated (N, M, tile): dout (N, M, K) over and over, so that the loops below need no i % K."""
    kernels = dout.shape[2]
    for n in range(dout.shape[0]):
        for m in range(dout.shape[1]):
            for start in range(0, repeated.shape[2], kernels):
                for k in range(kernels):
                    repeated[n, m, start + k] = dout[n, m, k]


@compiled(parallel=True)
def _backward_weight(dweight: Array, dbias: Array, dout: Array, x: Array, repeated: Array) -> None:
    # dweight (M, P K), dbias (M, K), dout (N, M, K), x (N, P K), repeated (N, M, tile)
    size, tile = x.shape[1], repeated.shape[2]
    for block in prange((size + tile - 1) // tile):
        start = block * tile
        stop = min(size, start + tile)
        for m in range(dweight.shape[0]):
            g = dweight[m, start:stop]
            for i in range(len(g)):
                g[i] = _ZERO
            for n in range(x.shape[0]):
                d, a = repeated[n, m], x[n, start:stop]
                for i in range(len(g)):
                    g[i] += d[i] * a[i]
    for m in range(dbias.shape[0]):
        for k in range(dbias.shape[1]):
            total = _ZERO
            for n in range(dout.shape[0]):
                total += dout[n, m, k]
            dbias[m, k] = total


@compiled(parallel=True)
def _backward_input(dx: Array, weight: Array, repeated: Array) -> None:
    # dx (N, P K), weight (M, P K), repeated (N, M, tile)
    size, tile = dx.shape[1], repeated.shape[2]
    for n in prange(dx.shape[0]):
        for start in range(0, size, tile):
            g = dx[n, start : start + tile]
            for i in range(len(g)):
                g[i] = _ZERO
            for m in range(weight.shape[0]):
                d, w = repeated[n, m], weight[m, start : start + tile]
                for i in range(len(g)):
                    g[i] += d[i] * w[i]


def _repeated(dout: Array, workspace: Workspace) -> Any:
    photos, per_kernel, kernels = dout.shape
    repeated = workspace.array("neurons' delta", (photos, per_kernel, _tile(kernels)))
    launch(_repeat, repeated, dout)
    return repeated


def neuron_forward(out: Array, x: Array, weight: Array, bias: Array, workspace: Workspace) -> None:
    """out[n, m, k] = bias[m, k] + sum over positions p of weight[m, p, k] * x[n, p, k]."""
    sums = workspace.array("neurons' sums", (len(x), _tile(out.shape[2])))
    launch(
        _forward,
        out,
        x.reshape(len(x), -1),
        weight.reshape(len(weight), -1),
        bias,
        sums,
        operations=len(weight) * x.size,
    )


def neuron_backward_weight(dweight: Array, dbias: Array, dout: Array, x: Array, workspace: Workspace) -> None:
    """dweight[m, p, k] = sum over photos of dout[n, m, k] * x[n, p, k]; dbias = sum of dout."""
    repeated = _repeated(dout, workspace)
    launch(
        _backward_weight,
        dweight.reshape(len(dweight), -1),
        dbias,
        dout,
        x.reshape(len(x), -1),
        repeated,
        operations=len(dweight) * x.size,
    )


def neuron_backward_input(dx: Array, dout: Array, weight: Array, workspace: Workspace) -> None:
    """dx[n, p, k] = sum over the map's neurons m of dout[n, m, k] * weight[m, p, k]."""
    repeated = _repeated(dout, workspace)
    launch(
        _backward_input,
        dx.reshape(len(dx), -1),
        weight.reshape(len(weight), -1),
        repeated,
        operations=len(weight) * dx.size,
    )
