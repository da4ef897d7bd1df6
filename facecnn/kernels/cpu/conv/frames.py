"""Shared by all convolutions on the CPU: frames around photos, and sums of chunks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from facecnn.arrays import Array
from facecnn.kernels.cpu.jit import helper
from facecnn.kernels.cpu.vector_ir.photo_kernels import LANES, VECTOR, copy_run

_ZERO = np.float32(0)

_copy_run = copy_run(VECTOR)

CHUNKS = 20
"""Groups of photos whose weights' gradients are summed separately, for any number of threads."""


def frame_size(
    out: tuple[int, ...], x: tuple[int, ...], weight: tuple[int, ...], padding: tuple[int, int], pool: int
) -> tuple[int, int, bool]:
    """Height and width of the area that the windows cover, and whether they reach over the photo's edges, so that it is
    copied into a frame; otherwise the photo's own size. Takes the shapes of output, input and weights."""
    height, width = out[1] * pool + weight[1] - 1, out[2] * pool + weight[2] - 1
    if max(padding) > 0 or height > x[1] or width > x[2]:
        return height, width, True
    return x[1], x[2], False


@helper(inline=True)
def copy(out: Array, place: int, x: Array, start: int, count: int) -> None:
    """Copy ``count`` floats. (LLVM doesn't know that they don't overlap, and NumPy's assignment is slow to find
    out.)"""
    if LANES > 0 and count >= LANES:
        _copy_run(out, place, x, start, count)
    else:
        for i in range(count):
            out[place + i] = x[start + i]


@helper(inline=True)
def _clear(out: Array, first: int, end: int) -> None:
    for i in range(first, end):
        out[i] = _ZERO


@helper()
def fill_frame(frame: Array, photo: Array, top: int, left: int, height: int, width: int) -> None:
    """frame = a map of height x width with the photo at (top, left), as far as it lies in it, and zeros around."""
    rows, columns, maps = photo.shape
    source = photo.reshape(-1)
    border, seen, size = left * maps, min(columns, width - left) * maps, width * maps
    for y in range(height):
        start = y * size
        if y < top or y >= top + rows:
            _clear(frame, start, start + size)
        else:
            _clear(frame, start, start + border)
            copy(frame, start + border, source, (y - top) * columns * maps, seen)
            _clear(frame, start + border + seen, start + size)


@helper(inline=True)
def in_frame(frames: Array, thread: int, photo: Array, top: int, left: int, height: int, width: int) -> Any:
    """The photo, flat, as windows need it: in the thread's frame, or itself where frames have no columns."""
    if frames.shape[1] > 0:
        frame = frames[thread]
        fill_frame(frame, photo, top, left, height, width)
        return frame
    return photo.reshape(-1)


@helper()
def cut_out(photo: Array, frame: Array, top: int, left: int, height: int, width: int) -> None:
    """photo = its part of the frame (see ``fill_frame``); zero in rows and columns that no window reaches."""
    rows, columns, maps = photo.shape
    target = photo.reshape(-1)
    size = columns * maps
    for y in range(rows):
        start = y * size
        reached = max(0, min(columns, width - left)) * maps if top + y < height else 0
        copy(target, start, frame, ((top + y) * width + left) * maps, reached)
        _clear(target, start + reached, start + size)


@helper(parallel=True)
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
    add_bias_chunks(dbias, bias_sums)


@helper(inline=True)
def add_to_bias(sums: Array, delta: Array, count: int, tile: int) -> None:
    """sums[i] += delta[i] + delta[tile + i] + ..., of ``count`` numbers. The last argument is a constant where it is
    called: see ``bias_tile_of``."""
    for start in range(0, count, tile):
        some = delta[start : min(start + tile, count)]
        for i in range(len(some)):
            sums[i] += some[i]


@helper()
def add_bias_chunks(dbias: Array, bias_sums: Array) -> None:
    """dbias (K,) from the sums of the chunks, (chunks, several times K), added in order."""
    kernels = len(dbias)
    for k in range(kernels):
        total = _ZERO
        for chunk in range(bias_sums.shape[0]):
            for i in range(k, bias_sums.shape[1], kernels):
                total += bias_sums[chunk, i]
        dbias[k] = total


def bias_tile_of(kernels: int) -> int:
    """Numbers in a chunk's sums of the bias: the kernels' deltas over and over, so that a loop is long enough for
    vectors."""
    return -(-64 // kernels) * kernels
