"""Convolution with a step between windows, forward and backward, as products of matrices.

A window is unfolded into a line of R * S * C numbers, a patch, with zeros where it reaches over the photo's edges
(Chellapilla et al. 2006, "High performance convolutional neural networks for document processing"). With D = R * S * C
    out (pixels, K) = patches (pixels, D) x weight' (D, K)
    dweight (K, D) = sum over pixels of delta' (K, pixels) x patches (pixels, D)
    patches' gradient (pixels, D) = delta (pixels, K) x weight (K, D), which is added to the windows of dx
Patches are unfolded a block at a time, into a thread's own scratch, so they stay in its cache. A block may hold pixels
of several photos: where maps are small and kernels many, weights are read once for all of them. Wide rows of windows
within the photo need no unfolding: there a photo's rows are read as they are.

Kernel size, maps, stride, activation and the tile are constants of the compiled code: every set of them is compiled
once.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import prange

from facecnn.arrays import Array
from facecnn.kernels.cpu.conv.frames import CHUNKS, add_chunks
from facecnn.kernels.cpu.conv.patches import windows_of
from facecnn.kernels.cpu.conv.products import largest_divisor, most_lines, pack_of, product_of, tile_width
from facecnn.kernels.cpu.elementwise import derivative_of, value_of
from facecnn.kernels.cpu.jit import compiled, helper, thread_number
from facecnn.kernels.cpu.launching import launch
from facecnn.kernels.cpu.memory import Workspace
from facecnn.kernels.cpu.vector_ir import lanes as vectors
from facecnn.kernels.protocol import FUSED_ACTIVATIONS, Activation

_F = np.float32
_ZERO = _F(0)

_BLOCK = 1 << 16
"""Floats of a block of patches: a part of the second-level cache."""
_TASKS = 8
"""Least number of tasks forward, if there are kernels enough to be shared out."""
_WIDE = 12
"""Columns of an output whose rows are long enough for tiles of their own."""


@helper(inline=True)
def _deltas(delta: Array, dout: Array, out: Array, first: int, slope: Any, derivative_at: Any, count: int) -> None:
    """delta = dout * activation' of ``count`` numbers from ``first`` on; the last but one argument is a constant."""
    d, o = dout[first : first + count], out[first : first + count]
    for i in range(count):
        delta[i] = d[i] * derivative_at(o[i], slope)


def _block_pixels(size: int) -> int:
    """Pixels of a block of patches of ``size`` floats."""
    return max(16, _BLOCK // size)


# -------------------------------------------------------------------------------------------------------- forward


@helper(inline=True)
def _activate(out: Array, bias: Array, slope: Any, value_at: Any) -> None:
    """out (kernels,) = activation(out + bias)."""
    for k in range(len(out)):
        out[k] = value_at(out[k] + bias[k], slope)


@cache
def _forward_rows(
    maps: int, kernels: int, kernel_rows: int, kernel_columns: int, stride: tuple[int, int], activation: Activation,
    lines: int, lanes: int,
) -> Any:  # fmt: skip
    """For windows within the photo. Each photo is a task."""
    down, along = stride
    run, width = kernel_columns * maps, tile_width(kernels, lanes)
    blocks = -(-kernels // width)
    product = product_of(
        kernels, lines, run, along * maps, width, kernel_rows * run * width, kernels, accumulate=False, lanes=lanes
    )
    value_at = value_of(activation)

    @compiled(parallel=True)
    def forward(out: Array, x: Array, packed: Array, bias: Array, slope: Any) -> None:
        # out (N, H', W', K), x (N, H, W, C), packed flat
        rows, columns, row_length = out.shape[1], out.shape[2], x.shape[2] * maps
        for n in prange(out.shape[0]):
            photo, target = x[n].reshape(-1), out[n].reshape(-1)
            for block in range(blocks):
                for row in range(rows):
                    product(
                        target, row * columns * kernels, columns, photo, row * down * row_length, row_length,
                        kernel_rows, packed, 0, block, block + 1,
                    )  # fmt: skip
            for pixel in range(rows * columns):
                _activate(target[pixel * kernels : (pixel + 1) * kernels], bias, slope, value_at)

    return forward


@cache
def _forward_patches(
    maps: int, kernels: int, kernel_rows: int, kernel_columns: int, stride: tuple[int, int], padding: tuple[int, int],
    activation: Activation, lines: int, lanes: int,
) -> Any:  # fmt: skip
    """For windows anywhere. Each block of pixels is a task, for all kernels or some."""
    size, width = kernel_rows * kernel_columns * maps, tile_width(kernels, lanes)
    blocks = -(-kernels // width)
    product = product_of(kernels, lines, size, size, width, size * width, kernels, accumulate=False, lanes=lanes)
    unfold, _ = windows_of(kernel_rows, kernel_columns, maps, stride, padding)
    value_at = value_of(activation)

    @compiled(parallel=True)
    def forward(
        out: Array, x: Array, packed: Array, bias: Array, slope: Any, tasks: int, parts: int, patches: Array
    ) -> None:
        # out (N, H', W', K), x (N, H, W, C), packed flat, patches (threads, pixels * D)
        rows, columns = out.shape[1], out.shape[2]
        target, pixels = out.reshape(-1), out.shape[0] * rows * columns
        for task in prange(tasks * parts):
            own, part, number = patches[thread_number()], task % parts, task // parts
            first, stop = pixels * number // tasks, pixels * (number + 1) // tasks
            start, behind = blocks * part // parts, blocks * (part + 1) // parts
            unfold(own, x, first, stop, rows, columns)
            product(target, first * kernels, stop - first, own, 0, 0, 1, packed, 0, start, behind)
            k, last = start * width, min(kernels, behind * width)
            for pixel in range(first, stop):
                _activate(target[pixel * kernels + k : pixel * kernels + last], bias[k:last], slope, value_at)

    return forward


def strided_conv_forward(
    out: Array, x: Array, weight: Array, bias: Array, stride: tuple[int, int], padding: tuple[int, int],
    activation: Activation, slope: float, workspace: Workspace,
) -> None:  # fmt: skip
    """Convolution, bias and activation, at every ``stride``-th position only."""
    assert activation in FUSED_ACTIVATIONS
    lanes = vectors.of_processor()
    kernels, kernel_rows, kernel_columns, maps = weight.shape
    photos, rows, columns, _ = out.shape
    size, width, most = weight[0].size, tile_width(kernels, lanes), most_lines(kernels, lanes)
    blocks = -(-kernels // width)
    packed = workspace.array("packed weights", (blocks * size * width,))
    launch(pack_of(size, width, lanes), packed, weight.reshape(-1), kernels)
    sizes = (maps, kernels, kernel_rows, kernel_columns, stride)
    inside = all(
        (count - 1) * step + length <= side
        for count, step, length, side in zip((rows, columns), stride, weight.shape[1:3], x.shape[1:3], strict=True)
    )
    if inside and max(padding) == 0 and columns >= _WIDE:
        lines = -(-columns // -(-columns // most))
        forward = _forward_rows(*sizes, activation, lines, lanes)
        launch(forward, out, x, packed, bias, _F(slope))
        return
    pixels = photos * rows * columns
    tasks = max(1, pixels // _block_pixels(size))
    parts = max(1, min(blocks // 2, -(-_TASKS // tasks)))
    forward = _forward_patches(*sizes, padding, activation, max(1, min(most, pixels)), lanes)
    patches = workspace.per_thread("patches", -(-pixels // tasks) * size)
    launch(forward, out, x, packed, bias, _F(slope), tasks, parts, patches)


# -------------------------------------------------------------------------------------------------------- backward


@cache
def _backward_weight(
    maps: int, kernels: int, kernel_rows: int, kernel_columns: int, stride: tuple[int, int], padding: tuple[int, int],
    activation: Activation, lanes: int,
) -> Any:  # fmt: skip
    """Each chunk of photos has sums of its own, which are added in order."""
    size = kernel_rows * kernel_columns * maps
    lines, width = largest_divisor(kernels, most_lines(size, lanes)), tile_width(size, lanes)
    blocks = -(-size // width)
    product = product_of(size, lines, 1, 1, size, width, size, accumulate=True, lanes=lanes)
    unfold, _ = windows_of(kernel_rows, kernel_columns, maps, stride, padding)
    derivative_at = derivative_of(activation)

    @compiled(parallel=True)
    def backward(
        dweight: Array, dbias: Array, dout: Array, out: Array, x: Array, slope: Any, block: int, patches: Array,
        deltas: Array, sums: Array, bias_sums: Array,
    ) -> None:  # fmt: skip
        # dweight (K, D), patches (threads, block * D), deltas (threads, block * K), sums (chunks, K D), bias_sums
        # (chunks, K)
        photos, rows, columns = out.shape[0], out.shape[1], out.shape[2]
        d, o, chunks = dout.reshape(-1), out.reshape(-1), sums.shape[0]
        for chunk in prange(chunks):
            own, own_bias, patch, delta = (
                sums[chunk],
                bias_sums[chunk],
                patches[thread_number()],
                deltas[thread_number()],
            )
            for i in range(kernels * size):
                own[i] = _ZERO
            for k in range(kernels):
                own_bias[k] = _ZERO
            pixels = rows * columns
            end = photos * (chunk + 1) // chunks * pixels
            for first in range(photos * chunk // chunks * pixels, end, block):
                stop = min(end, first + block)
                unfold(patch, x, first, stop, rows, columns)
                _deltas(delta, d, o, first * kernels, slope, derivative_at, (stop - first) * kernels)
                for pixel in range(stop - first):
                    for k in range(kernels):
                        own_bias[k] += delta[pixel * kernels + k]
                product(own, 0, kernels, delta, 0, kernels, stop - first, patch, 0, 0, blocks)
        add_chunks(dweight, dbias, sums, bias_sums)

    return backward


def strided_conv_backward_weight(
    dweight: Array, dbias: Array, dout: Array, out: Array, x: Array, stride: tuple[int, int], padding: tuple[int, int],
    activation: Activation, slope: float, workspace: Workspace,
) -> None:  # fmt: skip
    """dweight[k, t, c] = sum over photos and positions p of delta[p, k] * x[p * stride + t - padding, c]; dbias[k] =
    sum of delta."""
    kernels, kernel_rows, kernel_columns, maps = dweight.shape
    size, chunks = dweight[0].size, min(CHUNKS, len(x))
    block = _block_pixels(size)
    launch(
        _backward_weight(
            maps, kernels, kernel_rows, kernel_columns, stride, padding, activation,
            vectors.of_processor(),
        ),
        dweight.reshape(kernels, size), dbias, dout, out, x, _F(slope), block,
        workspace.per_thread("patches", block * size),
        workspace.per_thread("deltas", block * kernels),
        workspace.array("chunk sums", (chunks, dweight.size)),
        workspace.array("chunk sums of the bias", (chunks, kernels)),
    )  # fmt: skip


@cache
def _backward_input(
    maps: int, kernels: int, kernel_rows: int, kernel_columns: int, stride: tuple[int, int], padding: tuple[int, int],
    activation: Activation, lines: int, lanes: int,
) -> Any:  # fmt: skip
    """Each group of photos is a task."""
    size = kernel_rows * kernel_columns * maps
    width = tile_width(size, lanes)
    blocks = -(-size // width)
    product = product_of(size, lines, kernels, kernels, size, width, size, accumulate=False, lanes=lanes)
    _, fold = windows_of(kernel_rows, kernel_columns, maps, stride, padding)
    derivative_at = derivative_of(activation)

    @compiled(parallel=True)
    def backward(
        dx: Array, dout: Array, out: Array, weight: Array, slope: Any, groups: int, parts: int, patches: Array,
        deltas: Array,
    ) -> None:  # fmt: skip
        # dx (N, H, W, C), weight flat, patches (threads, pixels of a part * D), deltas (threads, the same * K)
        photos, rows, columns = out.shape[0], out.shape[1], out.shape[2]
        target, d, o = dx.reshape(-1), dout.reshape(-1), out.reshape(-1)
        photo_size = dx.shape[1] * dx.shape[2] * maps
        for group in prange(groups):
            patch, delta = patches[thread_number()], deltas[thread_number()]
            first_photo, end_photo = photos * group // groups, photos * (group + 1) // groups
            for i in range(first_photo * photo_size, end_photo * photo_size):
                target[i] = _ZERO
            start, pixels = first_photo * rows * columns, (end_photo - first_photo) * rows * columns
            for part in range(parts):
                first, stop = start + pixels * part // parts, start + pixels * (part + 1) // parts
                _deltas(delta, d, o, first * kernels, slope, derivative_at, (stop - first) * kernels)
                product(patch, 0, stop - first, delta, 0, 0, 1, weight, 0, 0, blocks)
                fold(dx, patch, first, stop, rows, columns)

    return backward


def strided_conv_backward_input(
    dx: Array, dout: Array, out: Array, weight: Array, stride: tuple[int, int], padding: tuple[int, int],
    activation: Activation, slope: float, workspace: Workspace,
) -> None:  # fmt: skip
    """dx[q, c] = sum of delta[p, k] * weight[k, t, c] over the windows p, and their taps t, that lie at q."""
    lanes = vectors.of_processor()
    kernels, kernel_rows, kernel_columns, maps = weight.shape
    size, block = weight[0].size, _block_pixels(weight[0].size)
    photos, of_photo = len(dx), out.shape[1] * out.shape[2]
    groups = max(1, photos // -(-most_lines(size, lanes) // of_photo))
    least, largest = photos // groups * of_photo, -(-photos // groups) * of_photo
    parts = max(1, least // block)
    pixels = -(-largest // parts)
    launch(
        _backward_input(
            maps, kernels, kernel_rows, kernel_columns, stride, padding, activation,
            min(least, most_lines(size, lanes)), lanes,
        ),
        dx, dout, out, weight.reshape(-1), _F(slope), groups, parts,
        workspace.per_thread("patches", pixels * size),
        workspace.per_thread("deltas", pixels * kernels),
    )  # fmt: skip
