"""Convolution, bias, activation and max-pooling in one block, forward and backward.

Maps are NHWC, so a row of a kernel's window, S columns of C maps, is a run of S * C floats of the input. Each photo is
one task. Where windows reach over the photo's edge, the photo is first copied into a frame of zeros (a thread's own
scratch, so it stays in its cache), and no inner loop knows about edges.

Kernel size, maps, pool and activation are constants of the compiled code: every set of them is compiled once.
"""

from __future__ import annotations

from functools import cache
from math import lcm
from typing import Any

import numpy as np
from numba import get_thread_id, prange

from facecnn.kernels.cpu.elementwise import CODES, activate, derivative
from facecnn.kernels.cpu.jit import compiled
from facecnn.kernels.cpu.memory import THREADS, Array, Workspace
from facecnn.kernels.protocol import FUSED_ACTIVATIONS, Activation

_F = np.float32
_U = np.uint64  # indices that Numba needn't check for being negative
_ZERO = _F(0)

_GROUP = 4
"""Pixels, and taps, that the innermost loop of the forward pass takes at once."""
_TILE = 16
"""About so many pixels of a row are summed up side by side."""
_LANES = 16
"""Runs of floats are filled up to a multiple of this. LLVM unrolls loops of fewer turns before it could vectorise them."""
_CHUNKS = 20
"""Groups of photos with sums of their own in the weights' gradient, however many threads there are."""


def _round_up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple


@compiled()
def _frame(out: Array, photo: Array, top: int, left: int, height: int, width: int) -> None:
    """out = a map of height x width with the photo at (top, left), as far as it lies in it, and zeros around."""
    maps = photo.shape[2]
    first_x, last_x = left * maps, min(width, left + photo.shape[1]) * maps
    for y in range(height):
        row = out[y * width * maps : (y + 1) * width * maps]
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


# ------------------------------------------------------------------------------------------------------- forward


@cache
def _forward(maps: int, kernels: int, kernel_rows: int, kernel_columns: int, pool: int, code: int) -> Any:
    """The innermost loop runs over kernels: 4 pixels x 4 taps, so 16 multiply-adds for 4 weights and 4 sums read. Sums
    of a tile of pixels lie in a small array that stays in the first-level cache, four pixels after each other:
    sums[group, pixel * lanes + kernel]. Four taps at once keep the loop's body too large for LLVM to unroll it, which
    it would otherwise do, and then fail to vectorise for fear of overlapping arrays.

    Kernels are filled up to ``lanes`` with zeros, taps to a multiple of 4 with weights of 0 on the last tap's pixel.
    """
    lanes = max(_LANES, _round_up(kernels, 8))
    taps = kernel_rows * kernel_columns * maps
    padded_taps = _round_up(taps, _GROUP)
    run = kernel_columns * maps
    maps_1, maps_2, maps_3 = _U(maps), _U(2 * maps), _U(3 * maps)

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
        tile: int,
        height: int,
        width: int,
        frames: Array,
        packed: Array,
        offsets: Array,
        bias_row: Array,
        tiles: Array,
    ) -> None:
        # out (N, H', W', K), argmax the same if pool > 1, x (N, H, W, C), weight (K, R S C); frames (threads, height *
        # width * C), without a column if x is used as it is; packed (taps * lanes,); tiles (threads, tile / 4, 4 * lanes)
        photos, rows, columns = out.shape[0], out.shape[1], out.shape[2]
        for t in range(padded_taps):
            tap = min(t, taps - 1)
            offsets[t] = (tap // run) * width * maps + tap % run
            for k in range(lanes):
                packed[t * lanes + k] = weight[k, t] if k < kernels and t < taps else _ZERO
        for p in range(columns):
            for k in range(kernels):
                bias_row[p * kernels + k] = bias[k]

        for n in prange(photos):
            thread = get_thread_id()
            sums = tiles[thread]
            flat = sums.reshape(-1)
            groups = tile // _GROUP
            if frames.shape[1] > 0:
                _frame(frames[thread], x[n], top, left, height, width)
                photo = frames[thread]
            else:
                photo = x[n].reshape(-1)
            for row in range(rows):
                for tile_start in range(0, columns * pool, tile):
                    start = max(0, min(tile_start, columns * pool - tile))
                    first = start // pool
                    count = min(tile // pool, columns - first)
                    for r in range(pool):
                        base = ((row * pool + r) * width + start) * maps
                        for i in range(len(flat)):
                            flat[i] = _ZERO
                        for t in range(0, padded_taps, _GROUP):
                            w = packed[t * lanes : (t + _GROUP) * lanes]
                            for group in range(groups):
                                a = sums[group]
                                pixel = _U(base + group * _GROUP * maps)
                                q = pixel + offsets[t]
                                x00, x10, x20, x30 = photo[q], photo[q + maps_1], photo[q + maps_2], photo[q + maps_3]
                                q = pixel + offsets[t + 1]
                                x01, x11, x21, x31 = photo[q], photo[q + maps_1], photo[q + maps_2], photo[q + maps_3]
                                q = pixel + offsets[t + 2]
                                x02, x12, x22, x32 = photo[q], photo[q + maps_1], photo[q + maps_2], photo[q + maps_3]
                                q = pixel + offsets[t + 3]
                                x03, x13, x23, x33 = photo[q], photo[q + maps_1], photo[q + maps_2], photo[q + maps_3]
                                for k in range(lanes):
                                    w0, w1, w2, w3 = w[k], w[lanes + k], w[2 * lanes + k], w[3 * lanes + k]
                                    a0, a1, a2, a3 = a[k], a[lanes + k], a[2 * lanes + k], a[3 * lanes + k]
                                    a[k] = a0 + x00 * w0 + x01 * w1 + x02 * w2 + x03 * w3
                                    a[lanes + k] = a1 + x10 * w0 + x11 * w1 + x12 * w2 + x13 * w3
                                    a[2 * lanes + k] = a2 + x20 * w0 + x21 * w1 + x22 * w2 + x23 * w3
                                    a[3 * lanes + k] = a3 + x30 * w0 + x31 * w1 + x32 * w2 + x33 * w3

                        for p in range(count):
                            o = out[n, row, first + p]
                            window = flat[p * pool * lanes : (p + 1) * pool * lanes]
                            if pool == 1:
                                for k in range(kernels):
                                    o[k] = window[k]
                            else:
                                where = argmax[n, row, first + p]
                                for k in range(kernels):
                                    # A NaN is taken wherever it stands, and nothing is larger than it afterwards.
                                    best, best_at = window[k], np.uint8(r * pool)
                                    for s in range(1, pool):
                                        z = window[s * lanes + k]
                                        if z > best or z != z:
                                            best, best_at = z, np.uint8(r * pool + s)
                                    if r == 0 or best > o[k] or best != best:
                                        o[k] = best
                                        where[k] = best_at
                o = out[n, row].reshape(-1)
                for i in range(columns * kernels):
                    o[i] = activate(o[i] + bias_row[i], code, slope)

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
    """Convolution, bias, activation and max-pooling; the full map is never stored."""
    assert activation in FUSED_ACTIVATIONS
    kernels, kernel_rows, kernel_columns, maps = weight.shape
    rows, columns = out.shape[1] * pool, out.shape[2] * pool
    tile = _round_up(-(-columns // max(1, round(columns / _TILE))), lcm(_GROUP, pool))
    height, width = rows + kernel_rows - 1, max(columns, tile) + kernel_columns - 1
    top, left = padding
    framed = top > 0 or left > 0 or height > x.shape[1] or width > x.shape[2]
    if not framed:
        height, width = x.shape[1], x.shape[2]
    lanes = max(_LANES, _round_up(kernels, 8))
    taps = _round_up(weight[0].size, _GROUP)
    _forward(maps, kernels, kernel_rows, kernel_columns, pool, CODES[activation])(
        out,
        argmax if pool > 1 else workspace.array("no argmax", (1, 1, 1, 1), np.uint8),
        x,
        weight.reshape(kernels, -1),
        bias,
        top,
        left,
        _F(slope),
        tile,
        height,
        width,
        workspace.per_thread("frames", height * width * maps if framed else 0),
        workspace.array("packed weights", (taps * lanes,)),
        workspace.array("offsets", (taps,), np.uint64),
        workspace.array("bias row", (out.shape[2] * kernels,)),
        workspace.array("tiles", (THREADS, tile // _GROUP, _GROUP * lanes)),
    )


# ------------------------------------------------------------------------------------------- gradient of the weights


@cache
def _backward_weight(maps: int, kernels: int, kernel_rows: int, kernel_columns: int, pool: int, code: int) -> Any:
    """Only positions that won their window are visited: at each, a kernel's gradient grows by delta times the patch of
    the input under it, R runs of S * C floats. Each chunk of photos has sums of its own, which are added in order.

    Runs are filled up to ``padded`` floats: what lies behind the patch is read, summed, and left out at the end.
    """
    run = kernel_columns * maps
    padded = _round_up(run, _LANES)

    @compiled(parallel=True)
    def backward(
        dweight: Array,
        dbias: Array,
        dout: Array,
        out: Array,
        argmax: Array,
        x: Array,
        top: int,
        left: int,
        slope: Any,
        height: int,
        width: int,
        frames: Array,
        sums: Array,
        bias_sums: Array,
    ) -> None:
        # dweight (K, R, S C), sums (chunks, K, R * padded), bias_sums (chunks, K); the rest as in forward
        photos, rows, columns = out.shape[0], out.shape[1], out.shape[2]
        chunks = sums.shape[0]
        for chunk in prange(chunks):
            thread = get_thread_id()
            own, own_bias = sums[chunk], bias_sums[chunk]
            own[:] = _ZERO
            own_bias[:] = _ZERO
            for n in range(photos * chunk // chunks, photos * (chunk + 1) // chunks):
                if frames.shape[1] > 0:
                    _frame(frames[thread], x[n], top, left, height, width)
                    photo = frames[thread]
                else:
                    photo = x[n].reshape(-1)
                for row in range(rows):
                    for column in range(columns):
                        for k in range(kernels):
                            delta = dout[n, row, column, k] * derivative(out[n, row, column, k], code, slope)
                            own_bias[k] += delta
                            y, z = row * pool, column * pool
                            if pool > 1:
                                won = np.int64(argmax[n, row, column, k])
                                y += won // pool
                                z += won % pool
                            gradient = own[k]
                            patch = _U((y * width + z) * maps)
                            for t in range(padded):
                                for r in range(kernel_rows):
                                    gradient[r * padded + t] += delta * photo[patch + _U(r * width * maps) + _U(t)]
        for k in prange(kernels):
            for r in range(kernel_rows):
                g = dweight[k, r]
                for t in range(run):
                    g[t] = sums[0, k, r * padded + t]
                for chunk in range(1, chunks):
                    s = sums[chunk, k, r * padded : (r + 1) * padded]
                    for t in range(run):
                        g[t] += s[t]
            total = bias_sums[0, k]
            for chunk in range(1, chunks):
                total += bias_sums[chunk, k]
            dbias[k] = total

    return backward


def conv_backward_weight(
    dweight: Array,
    dbias: Array,
    dout: Array,
    out: Array,
    argmax: Array,
    x: Array,
    padding: tuple[int, int],
    activation: Activation,
    slope: float,
    pool: int,
    workspace: Workspace,
) -> None:
    """dweight[k, t, c] = sum over photos and positions p of delta[p, k] * x[p + t, c]; dbias[k] = sum of delta[p, k]."""
    kernels, kernel_rows, kernel_columns, maps = dweight.shape
    height, width = out.shape[1] * pool + kernel_rows - 1, out.shape[2] * pool + kernel_columns - 1
    top, left = padding
    framed = top > 0 or left > 0 or height > x.shape[1] or width > x.shape[2]
    if not framed:
        height, width = x.shape[1], x.shape[2]
    run = kernel_columns * maps
    chunks = min(_CHUNKS, len(x))
    _backward_weight(maps, kernels, kernel_rows, kernel_columns, pool, CODES[activation])(
        dweight.reshape(kernels, kernel_rows, run),
        dbias,
        dout,
        out,
        argmax if pool > 1 else workspace.array("no argmax", (1, 1, 1, 1), np.uint8),
        x,
        top,
        left,
        _F(slope),
        height,
        width,
        workspace.per_thread("frames", height * width * maps + _LANES if framed else 0),
        workspace.array("chunk sums", (chunks, kernels, kernel_rows * _round_up(run, _LANES))),
        workspace.array("chunk sums of the bias", (chunks, kernels)),
    )


# --------------------------------------------------------------------------------------------- gradient of the input


@cache
def _backward_input(maps: int, kernels: int, kernel_rows: int, kernel_columns: int, pool: int, code: int) -> Any:
    """Every position that won adds delta times its kernel to the patch of the input's gradient under it. A photo's
    gradient is summed in a frame of its own, of which the photo's part is then copied.

    The kernel's rows are filled up to ``padded`` floats with zeros, which change nothing where they are added.
    """
    run = kernel_columns * maps
    padded = _round_up(run, _LANES)

    @compiled(parallel=True)
    def backward(
        dx: Array,
        dout: Array,
        out: Array,
        argmax: Array,
        weight: Array,
        top: int,
        left: int,
        slope: Any,
        height: int,
        width: int,
        frames: Array,
        packed: Array,
    ) -> None:
        # dx (N, H, W, C), weight (K, R, S C), packed (K, R * padded), frames (threads, height * width * C + padded)
        photos, rows, columns = out.shape[0], out.shape[1], out.shape[2]
        for k in range(kernels):
            for r in range(kernel_rows):
                for t in range(padded):
                    packed[k, r * padded + t] = weight[k, r, t] if t < run else _ZERO
        for n in prange(photos):
            frame = frames[get_thread_id()]
            frame[:] = _ZERO
            for row in range(rows):
                for column in range(columns):
                    for k in range(kernels):
                        delta = dout[n, row, column, k] * derivative(out[n, row, column, k], code, slope)
                        y, z = row * pool, column * pool
                        if pool > 1:
                            won = np.int64(argmax[n, row, column, k])
                            y += won // pool
                            z += won % pool
                        w = packed[k]
                        patch = _U((y * width + z) * maps)
                        for t in range(padded):
                            for r in range(kernel_rows):
                                frame[patch + _U(r * width * maps) + _U(t)] += delta * w[r * padded + t]
            # Rows and columns of the photo that no window reaches lie outside of the frame.
            for y in range(dx.shape[1]):
                d = dx[n, y].reshape(-1)
                reached = max(0, min(dx.shape[2], width - left)) * maps if top + y < height else 0
                if reached > 0:
                    source = frame[((top + y) * width + left) * maps : ((top + y) * width + left) * maps + reached]
                    for i in range(reached):
                        d[i] = source[i]
                for i in range(reached, len(d)):
                    d[i] = _ZERO

    return backward


def conv_backward_input(
    dx: Array,
    dout: Array,
    out: Array,
    argmax: Array,
    weight: Array,
    padding: tuple[int, int],
    activation: Activation,
    slope: float,
    pool: int,
    workspace: Workspace,
) -> None:
    """dx[q, c] = sum over kernels k and taps t of delta[q - t, k] * weight[k, t, c]."""
    kernels, kernel_rows, kernel_columns, maps = weight.shape
    height, width = out.shape[1] * pool + kernel_rows - 1, out.shape[2] * pool + kernel_columns - 1
    run = kernel_columns * maps
    padded = _round_up(run, _LANES)
    _backward_input(maps, kernels, kernel_rows, kernel_columns, pool, CODES[activation])(
        dx,
        dout,
        out,
        argmax if pool > 1 else workspace.array("no argmax", (1, 1, 1, 1), np.uint8),
        weight.reshape(kernels, kernel_rows, run),
        padding[0],
        padding[1],
        _F(slope),
        height,
        width,
        workspace.per_thread("frames", height * width * maps + padded),
        workspace.array("packed weights", (kernels, kernel_rows * padded)),
    )
