"""Batch normalisation per map or unit."""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np
from numba import prange

from facecnn.arrays import Array
from facecnn.kernels.cpu.columns import add_up, chunks_and_tile, repeat
from facecnn.kernels.cpu.jit import compiled
from facecnn.kernels.cpu.launching import launch
from facecnn.kernels.cpu.memory import Workspace

_ZERO, _ONE = np.float32(0), np.float32(1)


@compiled(parallel=True)
def _forward(
    out: Array, mean: Array, inverse_std: Array, running_mean: Array, running_variance: Array, x: Array, scale: Array,
    shift: Array, momentum: Any, epsilon: Any, sums: Array, squares: Array, repeated: Array,
) -> None:  # fmt: skip
    # out, x (M C,); sums, squares (chunks, tile); repeated (5, tile), 3 rows are used; all others (C,)
    chunks, tile = sums.shape
    columns = mean.shape[0]
    count = x.shape[0] // columns
    tiles = (x.shape[0] + tile - 1) // tile
    for chunk in prange(chunks):
        own = sums[chunk]
        for i in range(tile):
            own[i] = _ZERO
        for t in range(tiles * chunk // chunks, tiles * (chunk + 1) // chunks):
            a = x[t * tile : (t + 1) * tile]
            for i in range(len(a)):
                own[i] += a[i]
    add_up(mean, sums)
    for c in range(columns):
        mean[c] /= np.float32(count)
    centre = repeated[0]
    repeat(centre, mean)
    for chunk in prange(chunks):
        own = squares[chunk]
        for i in range(tile):
            own[i] = _ZERO
        for t in range(tiles * chunk // chunks, tiles * (chunk + 1) // chunks):
            a = x[t * tile : (t + 1) * tile]
            for i in range(len(a)):
                d = a[i] - centre[i]
                own[i] += d * d
    add_up(inverse_std, squares)
    for c in range(columns):
        variance = inverse_std[c] / np.float32(count)
        inverse_std[c] = _ONE / np.float32(sqrt(variance + epsilon))
        unbiased = variance * np.float32(count / max(count - 1, 1))
        running_mean[c] += momentum * (mean[c] - running_mean[c])
        running_variance[c] += momentum * (unbiased - running_variance[c])
        for i in range(c, tile, columns):
            repeated[1, i] = inverse_std[c] * scale[c]
            repeated[2, i] = shift[c]
    factor, offset = repeated[1], repeated[2]
    for chunk in prange(chunks):
        for t in range(tiles * chunk // chunks, tiles * (chunk + 1) // chunks):
            a, o = x[t * tile : (t + 1) * tile], out[t * tile : (t + 1) * tile]
            for i in range(len(a)):
                o[i] = (a[i] - centre[i]) * factor[i] + offset[i]


@compiled(parallel=True)
def _inference(
    out: Array, x: Array, running_mean: Array, running_variance: Array, scale: Array, shift: Array, epsilon: Any,
    chunks: int, repeated: Array,
) -> None:  # fmt: skip
    tile = repeated.shape[1]
    columns = running_mean.shape[0]
    tiles = (x.shape[0] + tile - 1) // tile
    for c in range(columns):
        factor = scale[c] / np.float32(sqrt(running_variance[c] + epsilon))
        for i in range(c, tile, columns):
            repeated[0, i] = running_mean[c]
            repeated[1, i] = factor
            repeated[2, i] = shift[c]
    for chunk in prange(chunks):
        for t in range(tiles * chunk // chunks, tiles * (chunk + 1) // chunks):
            a, o = x[t * tile : (t + 1) * tile], out[t * tile : (t + 1) * tile]
            for i in range(len(a)):
                o[i] = (a[i] - repeated[0, i]) * repeated[1, i] + repeated[2, i]


@compiled(parallel=True)
def _backward(
    dx: Array, dscale: Array, dshift: Array, dout: Array, x: Array, mean: Array, inverse_std: Array, scale: Array,
    sums: Array, products: Array, repeated: Array,
) -> None:  # fmt: skip
    # dx, dout, x (M C,); sums, products (chunks, tile); repeated (5, tile); all others (C,)
    chunks, tile = sums.shape
    columns = mean.shape[0]
    count = x.shape[0] // columns
    tiles = (x.shape[0] + tile - 1) // tile
    centre, inverse = repeated[0], repeated[1]
    repeat(centre, mean)
    repeat(inverse, inverse_std)
    for chunk in prange(chunks):
        own, own_products = sums[chunk], products[chunk]
        for i in range(tile):
            own[i] = _ZERO
            own_products[i] = _ZERO
        for t in range(tiles * chunk // chunks, tiles * (chunk + 1) // chunks):
            a, d = x[t * tile : (t + 1) * tile], dout[t * tile : (t + 1) * tile]
            for i in range(len(a)):
                own[i] += d[i]
                own_products[i] += d[i] * ((a[i] - centre[i]) * inverse[i])
    add_up(dshift, sums)
    add_up(dscale, products)
    for c in range(columns):
        for i in range(c, tile, columns):
            repeated[2, i] = dshift[c] / np.float32(count)
            repeated[3, i] = dscale[c] / np.float32(count)
            repeated[4, i] = scale[c] * inverse_std[c]
    mean_delta, mean_product, factor = repeated[2], repeated[3], repeated[4]
    for chunk in prange(chunks):
        for t in range(tiles * chunk // chunks, tiles * (chunk + 1) // chunks):
            a, d, g = x[t * tile : (t + 1) * tile], dout[t * tile : (t + 1) * tile], dx[t * tile : (t + 1) * tile]
            for i in range(len(a)):
                h = (a[i] - centre[i]) * inverse[i]
                g[i] = factor[i] * (d[i] - mean_delta[i] - h * mean_product[i])


def batch_norm_forward(
    out: Array, mean: Array, inverse_std: Array, running_mean: Array, running_variance: Array, x: Array, scale: Array,
    shift: Array, momentum: float, epsilon: float, workspace: Workspace,
) -> None:  # fmt: skip
    """Batch normalisation in training, with the batch's own mean and variance; moves the running statistics."""
    shape = chunks_and_tile(x)
    launch(
        _forward, out.reshape(-1), mean, inverse_std, running_mean, running_variance, x.reshape(-1), scale, shift,
        np.float32(momentum), np.float32(epsilon), workspace.array("norm sums", shape),
        workspace.array("norm products", shape), workspace.array("norm factors", (5, shape[1])), operations=6 * x.size,
    )  # fmt: skip


def batch_norm_inference(
    out: Array, x: Array, running_mean: Array, running_variance: Array, scale: Array, shift: Array, epsilon: float,
    workspace: Workspace,
) -> None:  # fmt: skip
    """Batch normalisation with the running statistics."""
    chunks, tile = chunks_and_tile(x)
    repeated = workspace.array("norm factors", (5, tile))
    launch(
        _inference, out.reshape(-1), x.reshape(-1), running_mean, running_variance, scale, shift, np.float32(epsilon),
        chunks, repeated, operations=2 * x.size,
    )  # fmt: skip


def batch_norm_backward(
    dx: Array, dscale: Array, dshift: Array, dout: Array, x: Array, mean: Array, inverse_std: Array, scale: Array,
    workspace: Workspace,
) -> None:  # fmt: skip
    """dx, dscale and dshift of ``batch_norm_forward``."""
    shape = chunks_and_tile(x)
    launch(
        _backward, dx.reshape(-1), dscale, dshift, dout.reshape(-1), x.reshape(-1), mean, inverse_std, scale,
        workspace.array("norm sums", shape), workspace.array("norm products", shape),
        workspace.array("norm factors", (5, shape[1])), operations=10 * x.size,
    )  # fmt: skip
