"""Convolution with a step between windows, forward and backward, as products of matrices (products.py).

With D = R * S * C, the numbers of a window (a patch)
    out (pixels, K) = patches (pixels, D) x weight' (D, K)
    dweight (K, D) = delta' (K, pixels) x patches (pixels, D), where delta = dout * activation'
    dx (pixels of x, C) = delta at the windows' positions (pixels of x, taps * K) x weight (taps * K, C)
No patch is stored: the factors' elements are looked up in the maps on the way to shared memory, as in cuDNN's implicit
products (Chetlur et al. 2014, arXiv:1410.0759).

A pixel of x is in the windows at some of the taps only: those with the same remainder by the stride. So there is a
launch for every remainder, which sums over its taps alone.

All sizes but the number of photos are constants of the compiled code, so that no division is slow.
"""

from __future__ import annotations

from functools import cache, partial
from math import prod
from typing import Any

import numpy as np

from facecnn.kernels.cuda.columns import natural
from facecnn.kernels.cuda.conv_patches import (
    Remainder,
    StridedShape,
    deltas_around,
    deltas_of,
    divided,
    patches_by_pixel,
    patches_of,
    remainder_of,
    shape_of,
    weights_around,
    weights_of,
)
from facecnn.kernels.cuda.conv_weight import add_partials
from facecnn.kernels.cuda.driver import SIMULATED, device_function
from facecnn.kernels.cuda.elementwise import value_of
from facecnn.kernels.cuda.memory import Array, Workspace
from facecnn.kernels.cuda.products import grid_of, launch_product, product_of, split_depth_of
from facecnn.kernels.protocol import FUSED_ACTIVATIONS, Activation

_U64 = np.uint64
_EACH = (1, 2) if SIMULATED else (1, 2, 4, 8)
"""Possible numbers of output rows, and columns, of a thread."""
_SPLITS = 6 if SIMULATED else 528
"""The weights' gradient has long sums and few tiles: the sums are split, into at most this many blocks in all ..."""
_SPLIT_SLABS = 2 if SIMULATED else 8
"""... and into parts of at least this many slabs. (``Conv.scratch`` has room for the parts.)"""


@cache
def _forward(shape: StridedShape, activation: Activation, rows_each: int, columns_each: int) -> Any:
    kernels, value_at = shape.kernels, value_of(activation)

    @device_function
    def finish(target: Any, pixel: Any, k: Any, value: Any, split: Any) -> None:
        out, bias, slope = target
        out[_U64(pixel * kernels + k)] = value_at(value + bias[k], slope)

    a, b = (patches_of(shape), True), (weights_of(shape), True)
    return product_of(rows_each, columns_each, a, b, finish, written_out=True)


def strided_conv_forward(
    out: Array, x: Array, weight: Array, bias: Array, stride: tuple[int, int], padding: tuple[int, int],
    activation: Activation, slope: float, workspace: Workspace,
) -> None:  # fmt: skip
    """Convolution, bias and activation, at every ``stride``-th position only."""
    assert activation in FUSED_ACTIVATIONS
    if out.size == 0:
        return
    shape = shape_of(x, weight, out, stride, padding)
    size, target = (out.size // shape.kernels, shape.kernels, shape.patch), (out.reshape(-1), bias, float(slope))
    product = partial(_forward, shape, activation)
    launch_product(product, _EACH, size, target, x.reshape(-1), weight.reshape(-1), workspace)


@cache
def _backward_weight(shape: StridedShape, activation: Activation, rows_each: int, columns_each: int) -> Any:
    size, weights = shape.patch, shape.kernels * shape.patch

    @device_function
    def finish(partials: Array, k: Any, d: Any, value: Any, split: Any) -> None:
        partials[split, k * size + d] = value

    @device_function
    def finish_bias(partials: Array, k: Any, total: Any, split: Any) -> None:
        partials[split, weights + k] = total

    a, b = (deltas_of(shape, activation), False), (patches_by_pixel(shape), False)
    return product_of(rows_each, columns_each, a, b, finish, finish_row=finish_bias)


def strided_conv_backward_weight(
    dweight: Array, dbias: Array, dout: Array, out: Array, x: Array, stride: tuple[int, int], padding: tuple[int, int],
    activation: Activation, slope: float, workspace: Workspace,
) -> None:  # fmt: skip
    """dweight[k, t, c] = sum over photos and positions p of delta[p, k] * x[p * stride + t - padding, c]; dbias[k] =
    sum of delta."""
    shape = shape_of(x, dweight, out, stride, padding)
    kernels, size, pixels = shape.kernels, shape.patch, out.size // shape.kernels
    _, (down, across) = grid_of(kernels, size, _EACH)
    split_depth = split_depth_of(pixels, down * across, _SPLITS, _SPLIT_SLABS)
    partials = workspace.array("partial sums", (-(-pixels // split_depth), dweight.size + kernels))
    deltas, product = (dout.reshape(-1), out.reshape(-1), float(slope)), partial(_backward_weight, shape, activation)
    launch_product(product, _EACH, (kernels, size, pixels), partials, deltas, x.reshape(-1), workspace, split_depth)
    add_partials(dweight, dbias, partials, workspace)


@cache
def _backward_input(remainder: Remainder, activation: Activation, rows_each: int, columns_each: int) -> Any:
    shape, (pixel_rows, pixel_columns) = remainder.shape, remainder.pixels
    (first_row, first_column), (down, along) = remainder.first, shape.stride
    height, width, maps = shape.height, shape.width, shape.maps

    @device_function
    def finish(dx: Array, line: Any, c: Any, value: Any, split: Any) -> None:
        row, column = divided(line, pixel_columns)
        n, row = divided(row, pixel_rows)
        y, z = natural(row) * down + first_row, natural(column) * along + first_column
        dx[_U64(((natural(n) * height + y) * width + z) * maps + c)] = value

    a, b = (deltas_around(remainder, activation), True), (weights_around(remainder), False)
    return product_of(rows_each, columns_each, a, b, finish)


def strided_conv_backward_input(
    dx: Array, dout: Array, out: Array, weight: Array, stride: tuple[int, int], padding: tuple[int, int],
    activation: Activation, slope: float, workspace: Workspace,
) -> None:  # fmt: skip
    """dx[q, c] = sum of delta[p, k] * weight[k, t, c] over the windows p, and their taps t, that lie at q."""
    shape = shape_of(dx, weight, out, stride, padding)
    deltas = (dout.reshape(-1), out.reshape(-1), float(slope))
    for y in range(min(shape.stride[0], shape.height)):
        for z in range(min(shape.stride[1], shape.width)):
            remainder = remainder_of(shape, (y, z))
            pixels, taps = len(dx) * prod(remainder.pixels), prod(remainder.taps)
            size, product = (pixels, shape.maps, taps * shape.kernels), partial(_backward_input, remainder, activation)
            launch_product(product, _EACH, size, dx.reshape(-1), deltas, weight.reshape(-1), workspace)
