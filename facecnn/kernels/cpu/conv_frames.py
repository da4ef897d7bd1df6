"""What both ways of computing a convolution on the CPU have in common: frames around photos, and sums of chunks."""

from __future__ import annotations

import numpy as np
from numba import prange

from facecnn.kernels.cpu.jit import compiled
from facecnn.kernels.cpu.memory import Array

_ZERO = np.float32(0)

CHUNKS = 20
"""Groups of photos with sums of their own in the weights' gradient, however many threads there are."""


def frame_size(
    out: tuple[int, ...], x: tuple[int, ...], weight: tuple[int, ...], padding: tuple[int, int], pool: int
) -> tuple[int, int, bool]:
    """Height and width of what the windows cover, and whether it must be a copy, since they reach over the photo's
    edges; otherwise the photo's own. From the shapes of output, input and weights."""
    height, width = out[1] * pool + weight[1] - 1, out[2] * pool + weight[2] - 1
    if max(padding) > 0 or height > x[1] or width > x[2]:
        return height, width, True
    return x[1], x[2], False


@compiled()
def fill_frame(frame: Array, photo: Array, top: int, left: int, height: int, width: int) -> None:
    """frame = a map of height x width with the photo at (top, left), as far as it lies in it, and zeros around."""
    maps = photo.shape[2]
    first_x, last_x = left * maps, min(width, left + photo.shape[1]) * maps
    for y in range(height):
        row = frame[y * width * maps : (y + 1) * width * maps]
        if y < top or y >= top + photo.shape[0]:
            row[:] = _ZERO
        else:
            source = photo[y - top].reshape(-1)
            for i in range(first_x):
                row[i] = _ZERO
            for i in range(last_x - first_x):
                row[first_x + i] = source[i]
            for i in range(last_x, len(row)):
                row[i] = _ZERO


@compiled()
def cut_out(photo: Array, frame: Array, top: int, left: int, height: int, width: int) -> None:
    """photo = its part of the frame (see ``fill_frame``); zero in rows and columns that no window reaches."""
    maps = photo.shape[2]
    for y in range(photo.shape[0]):
        g = photo[y].reshape(-1)
        reached = max(0, min(photo.shape[1], width - left)) * maps if top + y < height else 0
        start = ((top + y) * width + left) * maps
        source = frame[start : start + reached]
        for i in range(reached):
            g[i] = source[i]
        for i in range(reached, len(g)):
            g[i] = _ZERO


@compiled(parallel=True)
def add_chunks(dweight: Array, dbias: Array, sums: Array, bias_sums: Array) -> None:
    """dweight (K, T) and dbias (K,) from the sums of the chunks, (chunks, K T) and (chunks, several times K), added in
    order."""
    kernels, taps = dweight.shape
    for k in prange(kernels):
        g = dweight[k]
        for i in range(taps):
            g[i] = _ZERO
        for chunk in range(sums.shape[0]):
            s = sums[chunk, k * taps : (k + 1) * taps]
            for i in range(taps):
                g[i] += s[i]
        total = _ZERO
        for chunk in range(sums.shape[0]):
            for i in range(k, bias_sums.shape[1], kernels):
                total += bias_sums[chunk, i]
        dbias[k] = total
