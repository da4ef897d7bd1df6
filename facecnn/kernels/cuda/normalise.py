"""Normalisation of prepared photos: standardising, or local contrast normalisation."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from facecnn.kernels.cuda.block import COLUMNS, add_up
from facecnn.kernels.cuda.driver import cuda, device_function, kernel
from facecnn.kernels.cuda.erasing import erased_box, in_box
from facecnn.kernels.cuda.memory import Array
from facecnn.kernels.cuda.sizes import THREADS
from facecnn.kernels.protocol import local_contrast_weights

_F, _I, _U = np.float32, np.int32, np.uint32
_ZERO, _ONE, _HALF = _F(0), _F(1), _F(0.5)
_LEAST_CONTRAST, _MOST = _F(4 / 255), _F(4)

TURNS = 16
"""Elements that a thread scales, one after another; enough of them to be worth merging a photo's partial sums."""
ROWS_A_THREAD = 4
"""Outputs of the large blur that a thread computes below one another: each weight, and down the columns each value that
is read, is used for all of them."""


# ---------------------------------------------------------------------------------------------------- standardise


@cache
def standardise(maps: int) -> Any:
    @kernel
    def standardise(out: Array, partials: Array, parameters: Array, height: Any, pitch: Any) -> None:
        # out (N, H * W * C), in place; pitch = W * C; partials (N, 3, tiles). Blocks (N, parts), each of which merges
        # the partials for itself.
        values = cuda.shared.array(THREADS, _F)
        partial = cuda.shared.array(COLUMNS, _F)
        thread = cuda.threadIdx.x
        n = cuda.blockIdx.x
        size = out.shape[1]
        total = _ZERO
        t = thread
        while t < partials.shape[2]:
            total += partials[n, 0, t] * partials[n, 1, t]
            t += THREADS
        mean = add_up(values, partial, total) / _F(size)
        squares = _ZERO  # Chan, Golub and LeVeque 1979: deviations from a tile's mean, and that mean's from the photo's
        t = thread
        while t < partials.shape[2]:
            difference = partials[n, 1, t] - mean
            squares += partials[n, 2, t] + partials[n, 0, t] * difference * difference
            t += THREADS
        variance = add_up(values, partial, squares) / _F(size)
        scale = _ONE / max(_F(math.sqrt(variance)), _ONE / _F(math.sqrt(_F(size))))

        top, left, bottom, right = erased_box(parameters, n, height, pitch // maps)
        i = cuda.blockIdx.y * THREADS * TURNS + thread
        behind = min(size, (cuda.blockIdx.y + 1) * THREADS * TURNS)
        while i < behind:
            erased = in_box(i, pitch, maps, top, left, bottom, right)
            out[n, i] = _ZERO if erased else (out[n, i] - mean) * scale
            i += THREADS

    return standardise


# ------------------------------------------------------------------------------------------------- local contrast


@cache
def _contrast_weights(side: int) -> npt.NDArray[np.float32]:
    """The Gaussian's weights for photos with this shorter side."""
    return local_contrast_weights(side, side).astype(_F)


@cache
def blur_down(side: int, squared: bool) -> Any:
    taps = _contrast_weights(side)
    radius = len(taps) // 2
    before = ROWS_A_THREAD - 1
    inputs = -(-(len(taps) + before) // ROWS_A_THREAD) * ROWS_A_THREAD
    weights = np.concatenate([np.zeros(before), taps, np.zeros(inputs - len(taps))]).astype(_F)

    @kernel
    def blur_down(out: Array, x: Array) -> None:
        # out, x (N, H, W * C): out = x (or x squared) blurred down the columns, the border repeated. Blocks (N, parts).
        # A thread makes 4 numbers below one another, from at least 2 radius + 4 values: the weight that one of them
        # gives to a value is what the number below gives to the next value. Because of the zeros at the weights' ends
        # the first and the last values count for some of the four only.
        weight = cuda.const.array_like(weights)
        n = cuda.blockIdx.x
        height, pitch = out.shape[1], out.shape[2]
        i = cuda.blockIdx.y * THREADS + cuda.threadIdx.x
        strip = _I(_U(i) // _U(pitch))
        along = i - strip * pitch
        y = strip * ROWS_A_THREAD
        if y < height:
            a, b, c, d = _ZERO, _ZERO, _ZERO, _ZERO
            for first in range(0, inputs, ROWS_A_THREAD):
                for k in range(first, first + ROWS_A_THREAD):  # unrolled, so that four values are on their way at once
                    value = x[n, min(max(y - radius + k, 0), height - 1), along]
                    if squared:
                        value *= value
                    a += weight[k + 3] * value
                    b += weight[k + 2] * value
                    c += weight[k + 1] * value
                    d += weight[k] * value
            out[n, y, along] = a
            if y + 1 < height:
                out[n, y + 1, along] = b
            if y + 2 < height:
                out[n, y + 2, along] = c
            if y + 3 < height:
                out[n, y + 3, along] = d

    return blur_down


@cache
def _blur_along(side: int, maps: int) -> Any:
    """A device function: 4 numbers below one another of x (N, H, W * C) blurred along the rows, the border repeated."""
    weights = _contrast_weights(side)
    taps = len(weights)
    radius = taps // 2

    @device_function
    def blur_along(x: Any, n: Any, y: Any, along: Any) -> Any:
        weight = cuda.const.array_like(weights)
        last, pitch = x.shape[1] - 1, x.shape[2]
        y1, y2, y3 = min(y + 1, last), min(y + 2, last), min(y + 3, last)
        first = _I(_U(along) % _U(maps))
        a, b, c, d = _ZERO, _ZERO, _ZERO, _ZERO
        for k in range(taps):
            at = along + (k - radius) * maps
            if at < 0:
                at = first
            elif at >= pitch:
                at = pitch - maps + first
            a += weight[k] * x[n, y, at]
            b += weight[k] * x[n, y1, at]
            c += weight[k] * x[n, y2, at]
            d += weight[k] * x[n, y3, at]
        return a, b, c, d

    return blur_along


@cache
def subtract_blurred(side: int, maps: int) -> Any:
    blur_along = _blur_along(side, maps)

    @kernel
    def subtract_blurred(out: Array, x: Array) -> None:
        # out (N, H, W * C) -= x, blurred along the rows. Blocks (N, parts).
        n = cuda.blockIdx.x
        height, pitch = out.shape[1], out.shape[2]
        i = cuda.blockIdx.y * THREADS + cuda.threadIdx.x
        strip = _I(_U(i) // _U(pitch))
        along = i - strip * pitch
        y = strip * ROWS_A_THREAD
        if y < height:
            a, b, c, d = blur_along(x, n, y, along)
            out[n, y, along] -= a
            if y + 1 < height:
                out[n, y + 1, along] -= b
            if y + 2 < height:
                out[n, y + 2, along] -= c
            if y + 3 < height:
                out[n, y + 3, along] -= d

    return subtract_blurred


@cache
def root_of_blurred(side: int, maps: int) -> Any:
    blur_along = _blur_along(side, maps)

    @kernel
    def root_of_blurred(roots: Array, partials: Array, x: Array) -> None:
        # roots (N, H, W * C) = the root of x, blurred along the rows; partials (N, C, parts) each block's sum of them
        values = cuda.shared.array(THREADS, _F)
        partial = cuda.shared.array(COLUMNS, _F)
        n = cuda.blockIdx.x
        height, pitch = roots.shape[1], roots.shape[2]
        i = cuda.blockIdx.y * THREADS + cuda.threadIdx.x
        strip = _I(_U(i) // _U(pitch))
        along = i - strip * pitch
        y = strip * ROWS_A_THREAD
        total = _ZERO
        if y < height:
            a, b, c, d = blur_along(x, n, y, along)
            total = _F(math.sqrt(a))
            roots[n, y, along] = total
            if y + 1 < height:
                root = _F(math.sqrt(b))
                total += root
                roots[n, y + 1, along] = root
            if y + 2 < height:
                root = _F(math.sqrt(c))
                total += root
                roots[n, y + 2, along] = root
            if y + 3 < height:
                root = _F(math.sqrt(d))
                total += root
                roots[n, y + 3, along] = root
        own = _I(_U(along) % _U(maps))
        for c in range(maps):
            in_all = add_up(values, partial, total if own == c else _ZERO)
            if cuda.threadIdx.x == 0:
                partials[n, c, cuda.blockIdx.y] = in_all

    return root_of_blurred


@cache
def scale_by_roots(maps: int) -> Any:
    @kernel
    def scale_by_roots(out: Array, roots: Array, partials: Array, parameters: Array, height: Any, pitch: Any) -> None:
        # out, roots (N, H * W * C), out in place; pitch = W * C; partials (N, C, parts). Blocks (N, parts).
        values = cuda.shared.array(THREADS, _F)
        partial = cuda.shared.array(COLUMNS, _F)
        least = cuda.shared.array(maps, _F)
        thread = cuda.threadIdx.x
        n = cuda.blockIdx.x
        width = pitch // maps
        size = out.shape[1]
        for c in range(maps):
            total = _ZERO
            k = thread
            while k < partials.shape[2]:
                total += partials[n, c, k]
                k += THREADS
            total = add_up(values, partial, total)
            if thread == 0:
                least[c] = _HALF * total / _F(height * width)
        cuda.syncthreads()
        top, left, bottom, right = erased_box(parameters, n, height, width)
        i = cuda.blockIdx.y * THREADS * TURNS + thread
        behind = min(size, (cuda.blockIdx.y + 1) * THREADS * TURNS)
        while i < behind:
            value = out[n, i] / (max(roots[n, i], least[_I(_U(i) % _U(maps))]) + _LEAST_CONTRAST)
            erased = in_box(i, pitch, maps, top, left, bottom, right)
            out[n, i] = _ZERO if erased else min(max(value, -_MOST), _MOST)
            i += THREADS

    return scale_by_roots
