"""Convolution, bias, activation and max-pooling in one block, forward and backward, as plain loops.

For processors without micro-kernels. Written to be read: apart from the frame of zeros around a photo, they are the
formulas of ``facecnn.kernels.reference``. A row of a kernel's window, S columns of C maps, is a run of S * C floats of
the photo.

Kernel size, maps, pool and activation are constants of the compiled code: every set of them is compiled once.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import prange

from facecnn.arrays import Array
from facecnn.kernels.cpu.conv.frames import CHUNKS, add_chunks, cut_out, frame_size, in_frame
from facecnn.kernels.cpu.elementwise import derivative_of, value_of
from facecnn.kernels.cpu.jit import compiled, helper, thread_number
from facecnn.kernels.cpu.launching import launch
from facecnn.kernels.cpu.memory import Workspace
from facecnn.kernels.protocol import Activation

_F = np.float32
_ZERO = _F(0)


@cache
def _forward(maps: int, kernels: int, kernel_rows: int, kernel_columns: int, pool: int, activation: Activation) -> Any:
    run = kernel_columns * maps
    value_at = value_of(activation)

    @compiled(parallel=True)
    def forward(
        out: Array, argmax: Array, x: Array, weight: Array, bias: Array, top: int, left: int, slope: Any, height: int,
        width: int, frames: Array, windows: Array,
    ) -> None:  # fmt: skip
        # out (N, H', W', K), argmax the same if pool > 1, x (N, H, W, C), weight (R, S C, K); frames (threads, height *
        # width * C), without a column if x is used as it is; windows (threads, K)
        for n in prange(out.shape[0]):
            thread = thread_number()
            photo, sums = in_frame(frames, thread, x[n], top, left, height, width), windows[thread]
            for row in range(out.shape[1]):
                for column in range(out.shape[2]):
                    o = out[n, row, column]
                    for place in range(pool * pool):
                        first = ((row * pool + place // pool) * width + column * pool + place % pool) * maps
                        for k in range(kernels):
                            sums[k] = bias[k]
                        for r in range(kernel_rows):
                            for i in range(run):
                                value, w = photo[first + r * width * maps + i], weight[r, i]
                                for k in range(kernels):
                                    sums[k] += value * w[k]
                        for k in range(kernels):
                            # A NaN wins over any number; of several the last one wins.
                            if place == 0 or sums[k] > o[k] or sums[k] != sums[k]:
                                o[k] = sums[k]
                                if pool > 1:
                                    argmax[n, row, column, k] = place
                    for k in range(kernels):
                        o[k] = value_at(o[k], slope)

    return forward


def conv_forward(
    out: Array, argmax: Array, x: Array, weight: Array, bias: Array, padding: tuple[int, int], activation: Activation,
    slope: float, pool: int, workspace: Workspace,
) -> None:  # fmt: skip
    """Convolution, bias, activation and max-pooling; the full map is never stored."""
    kernels, kernel_rows, kernel_columns, maps = weight.shape
    height, width, framed = frame_size(out.shape, x.shape, weight.shape, padding, pool)
    by_kernel = workspace.array("packed weights", (kernel_rows, kernel_columns * maps, kernels))
    # Launched, so that a recorded step does it each time it is played back.
    launch(np.copyto, by_kernel, weight.reshape(kernels, kernel_rows, -1).transpose(1, 2, 0))
    launch(
        _forward(maps, kernels, kernel_rows, kernel_columns, pool, activation),
        out, argmax, x, by_kernel, bias, *padding, _F(slope), height, width,
        workspace.per_thread("frames", height * width * maps if framed else 0),
        workspace.per_thread("window sums", kernels),
    )  # fmt: skip


# Backward, only the windows that won are visited: there, delta times the window is added to the kernel's gradient, and
# delta times the kernel to the window of the photo's gradient.


@helper(inline=True)
def _winner(argmax: Array, n: int, row: int, column: int, k: int, width: int, maps: int, pool: int) -> Any:
    """Where in the photo the window begins that kernel k's output was taken from."""
    won: Any = np.int64(argmax[n, row, column, k]) if pool > 1 else 0
    return ((row * pool + won // pool) * width + column * pool + won % pool) * maps


@cache
def _backward_weight(
    maps: int, kernels: int, kernel_rows: int, kernel_columns: int, pool: int, activation: Activation
) -> Any:
    """Each chunk of photos has sums of its own, which are added in order."""
    run = kernel_columns * maps
    derivative_at = derivative_of(activation)

    @compiled(parallel=True)
    def backward(
        dweight: Array, dbias: Array, dout: Array, out: Array, argmax: Array, x: Array, top: int, left: int, slope: Any,
        height: int, width: int, frames: Array, sums: Array, bias_sums: Array,
    ) -> None:  # fmt: skip
        # dweight (K, R S C), sums (chunks, K, R S C), bias_sums (chunks, K)
        photos, rows, columns = out.shape[0], out.shape[1], out.shape[2]
        chunks = sums.shape[0]
        for chunk in prange(chunks):
            own, own_bias = sums[chunk], bias_sums[chunk]
            own[:] = _ZERO
            own_bias[:] = _ZERO
            for n in range(photos * chunk // chunks, photos * (chunk + 1) // chunks):
                photo = in_frame(frames, thread_number(), x[n], top, left, height, width)
                for row in range(rows):
                    for column in range(columns):
                        for k in range(kernels):
                            delta = dout[n, row, column, k] * derivative_at(out[n, row, column, k], slope)
                            first = _winner(argmax, n, row, column, k, width, maps, pool)
                            own_bias[k] += delta
                            for r in range(kernel_rows):
                                for i in range(run):
                                    own[k, r * run + i] += delta * photo[first + r * width * maps + i]
        add_chunks(dweight, dbias, sums.reshape(chunks, -1), bias_sums)

    return backward


def conv_backward_weight(
    dweight: Array, dbias: Array, dout: Array, out: Array, argmax: Array, x: Array, padding: tuple[int, int],
    activation: Activation, slope: float, pool: int, workspace: Workspace,
) -> None:  # fmt: skip
    """dweight[k, t, c] = sum over photos and positions p of delta[p, k] * x[p + t, c]; dbias[k] = sum of delta."""
    kernels, kernel_rows, kernel_columns, maps = dweight.shape
    height, width, framed = frame_size(out.shape, x.shape, dweight.shape, padding, pool)
    chunks = min(CHUNKS, len(x))
    launch(
        _backward_weight(maps, kernels, kernel_rows, kernel_columns, pool, activation),
        dweight.reshape(kernels, -1), dbias, dout, out, argmax, x, *padding, _F(slope), height, width,
        workspace.per_thread("frames", height * width * maps if framed else 0),
        workspace.array("chunk sums", (chunks, kernels, dweight[0].size)),
        workspace.array("chunk sums of the bias", (chunks, kernels)),
    )  # fmt: skip


@cache
def _backward_input(
    maps: int, kernels: int, kernel_rows: int, kernel_columns: int, pool: int, activation: Activation
) -> Any:
    run = kernel_columns * maps
    derivative_at = derivative_of(activation)

    @compiled(parallel=True)
    def backward(
        dx: Array, dout: Array, out: Array, argmax: Array, weight: Array, top: int, left: int, slope: Any, height: int,
        width: int, frames: Array,
    ) -> None:  # fmt: skip
        # dx (N, H, W, C), weight (K, R S C), frames (threads, height * width * C)
        for n in prange(out.shape[0]):
            photo = frames[thread_number()]
            photo[:] = _ZERO
            for row in range(out.shape[1]):
                for column in range(out.shape[2]):
                    for k in range(kernels):
                        delta = dout[n, row, column, k] * derivative_at(out[n, row, column, k], slope)
                        first = _winner(argmax, n, row, column, k, width, maps, pool)
                        for r in range(kernel_rows):
                            for i in range(run):
                                photo[first + r * width * maps + i] += delta * weight[k, r * run + i]
            cut_out(dx[n], photo, top, left, height, width)

    return backward


def conv_backward_input(
    dx: Array, dout: Array, out: Array, argmax: Array, weight: Array, padding: tuple[int, int], activation: Activation,
    slope: float, pool: int, workspace: Workspace,
) -> None:  # fmt: skip
    """dx[q, c] = sum over kernels k and taps t of delta[q - t, k] * weight[k, t, c]."""
    kernels, kernel_rows, kernel_columns, maps = weight.shape
    height, width, _ = frame_size(out.shape, dx.shape, weight.shape, padding, pool)
    launch(
        _backward_input(maps, kernels, kernel_rows, kernel_columns, pool, activation),
        dx, dout, out, argmax, weight.reshape(kernels, -1), *padding, _F(slope), height, width,
        workspace.per_thread("frames", height * width * maps),
    )  # fmt: skip
