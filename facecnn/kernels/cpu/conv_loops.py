"""Convolution, bias, activation and max-pooling in one block, forward and backward, as loops that LLVM vectorises.

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
from numba import prange

from facecnn.kernels.cpu import conv_loops_few
from facecnn.kernels.cpu.conv_frames import CHUNKS, cut_out, frame_size, in_frame
from facecnn.kernels.cpu.elementwise import activate, derivative
from facecnn.kernels.cpu.jit import compiled, helper, thread_number
from facecnn.kernels.cpu.launching import launch
from facecnn.kernels.cpu.memory import THREADS, Array, Workspace
from facecnn.kernels.protocol import CODES, FUSED_ACTIVATIONS, Activation

_F = np.float32
_U = np.uint64  # indices that Numba needn't check for being negative
_ZERO = _F(0)

_GROUP = 4
"""Pixels, and taps, that the innermost loop of the forward pass takes at once."""
_TILE = 16
"""About so many pixels of a row are summed up side by side."""
_LANES = 16
"""Runs of floats are filled up to a multiple of this: the floats of the widest vectors."""
_LEAST_RUN = 48
"""Shorter loops with little in them LLVM unrolls before it could vectorise them."""
_FIELDS = 4
"""Arrays that take turns in summing up the input's gradient."""


def _round_up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple


# ------------------------------------------------------------------------------------------------------- forward


@helper()
def _pack_forward(
    packed: Array, offsets: Array, bias_row: Array, weight: Array, bias: Array, run: int, row: int, lanes: int
) -> None:
    """packed[tap * lanes + k] = weight[k, tap] or zero; offsets[tap], from the window's first float; bias, repeated."""
    kernels, taps = weight.shape
    for t in range(offsets.size):
        tap = min(t, taps - 1)
        offsets[t] = (tap // run) * row + tap % run
        for k in range(lanes):
            packed[t * lanes + k] = weight[k, t] if k < kernels and t < taps else _ZERO
    for start in range(0, bias_row.size, kernels):
        for k in range(kernels):
            bias_row[start + k] = bias[k]


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
        # width * C), without a column if x is used as it is; packed (taps * lanes,); tiles (threads, tile / 4, 4 lanes)
        photos, rows, columns = out.shape[0], out.shape[1], out.shape[2]
        _pack_forward(packed, offsets, bias_row, weight, bias, run, width * maps, lanes)
        for n in prange(photos):
            thread = thread_number()
            sums = tiles[thread]
            flat = sums.reshape(-1)
            groups = tile // _GROUP
            photo = in_frame(frames, thread, x[n], top, left, height, width)
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
    if conv_loops_few.suits(weight.shape[0], out.shape[2]):
        conv_loops_few.conv_forward(out, argmax, x, weight, bias, padding, activation, slope, pool, workspace)
        return
    kernels, kernel_rows, kernel_columns, maps = weight.shape
    columns = out.shape[2] * pool
    tile = _round_up(-(-columns // max(1, round(columns / _TILE))), lcm(_GROUP, pool))
    covered = (*out.shape[:2], max(out.shape[2], tile // pool))
    height, width, framed = frame_size(covered, x.shape, weight.shape, padding, pool)
    lanes = max(_LANES, _round_up(kernels, 8))
    taps = _round_up(weight[0].size, _GROUP)
    launch(
        _forward(maps, kernels, kernel_rows, kernel_columns, pool, CODES[activation]),
        out,
        argmax if pool > 1 else workspace.array("no argmax", (1, 1, 1, 1), np.uint8),
        x,
        weight.reshape(kernels, -1),
        bias,
        *padding,
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


# -------------------------------------------------------------------------------------------------------- backward
#
# Only positions that won their window are visited. The windows of one output pixel, wherever its winners stand, lie in
# a field of (R + pool - 1) x (S + pool - 1) pixels. It is held in a small array with rows of ``field_row`` floats, in
# which the window of a winner is one run of ``window`` floats: R rows with gaps between them, where the field's other
# columns are. So a kernel's work at a winner is a single long loop, whatever the kernel's size.


def _field(maps: int, kernel_rows: int, kernel_columns: int, pool: int) -> tuple[int, int, int, int]:
    """Rows of a field, floats in its row, floats of a window's run, and floats of a field with room for any window."""
    rows = kernel_rows + pool - 1
    row = (kernel_columns + pool - 1) * maps
    window = max(_LEAST_RUN, _round_up(kernel_rows * row, _LANES))
    return rows, row, window, _round_up((pool - 1) * (row + maps) + window, _LANES)


@compiled(parallel=True)
def _add_chunks(dweight: Array, dbias: Array, sums: Array, bias_sums: Array, field_row: int) -> None:
    """dweight (K, R, S C) and dbias (K,) from the sums of the chunks (chunks, K, window), which are added in order."""
    for k in prange(dweight.shape[0]):
        for r in range(dweight.shape[1]):
            g = dweight[k, r]
            for i in range(len(g)):
                g[i] = _ZERO
            for chunk in range(sums.shape[0]):
                s = sums[chunk, k, r * field_row : r * field_row + len(g)]
                for i in range(len(g)):
                    g[i] += s[i]
        total = _ZERO
        for chunk in range(sums.shape[0]):
            total += bias_sums[chunk, k]
        dbias[k] = total


@cache
def _backward_weight(maps: int, kernels: int, kernel_rows: int, kernel_columns: int, pool: int, code: int) -> Any:
    """The field of the input is copied once for each output pixel; then every kernel's gradient grows by its delta
    times the window under its winner. What lies in a run's gaps is summed as well, and left out at the end.

    Each chunk of photos has sums of its own, which are added in order.
    """
    field_rows, field_row, window, _ = _field(maps, kernel_rows, kernel_columns, pool)

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
        fields: Array,
        sums: Array,
        bias_sums: Array,
    ) -> None:
        # dweight (K, R, S C), fields (threads, field_size), sums (chunks, K, window), bias_sums (chunks, K)
        photos, rows, columns = out.shape[0], out.shape[1], out.shape[2]
        chunks = sums.shape[0]
        for chunk in prange(chunks):
            thread = thread_number()
            own, own_bias, field = sums[chunk], bias_sums[chunk], fields[thread]
            for k in range(kernels):
                own_bias[k] = _ZERO
                for i in range(window):
                    own[k, i] = _ZERO
            for n in range(photos * chunk // chunks, photos * (chunk + 1) // chunks):
                photo = in_frame(frames, thread, x[n], top, left, height, width)
                for row in range(rows):
                    for column in range(columns):
                        for r in range(field_rows):
                            start = ((row * pool + r) * width + column * pool) * maps
                            source = photo[start : start + field_row]
                            target = field[r * field_row : (r + 1) * field_row]
                            for i in range(field_row):
                                target[i] = source[i]
                        d, o = dout[n, row, column], out[n, row, column]
                        for k in range(kernels):
                            delta = d[k] * derivative(o[k], code, slope)
                            own_bias[k] += delta
                            at: Any = 0
                            if pool > 1:
                                won = np.int64(argmax[n, row, column, k])
                                at = (won // pool) * field_row + (won % pool) * maps
                            gradient, patch = own[k], field[at : at + window]
                            for i in range(window):
                                gradient[i] += delta * patch[i]
        _add_chunks(dweight, dbias, sums, bias_sums, field_row)

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
    """dweight[k, t, c] = sum over photos and positions p of delta[p, k] * x[p + t, c]; dbias[k] = sum of delta."""
    kernels, kernel_rows, kernel_columns, maps = dweight.shape
    height, width, framed = frame_size(out.shape, x.shape, dweight.shape, padding, pool)
    _, _, window, field_size = _field(maps, kernel_rows, kernel_columns, pool)
    chunks = min(CHUNKS, len(x))
    launch(
        _backward_weight(maps, kernels, kernel_rows, kernel_columns, pool, CODES[activation]),
        dweight.reshape(kernels, kernel_rows, kernel_columns * maps),
        dbias,
        dout,
        out,
        argmax if pool > 1 else workspace.array("no argmax", (1, 1, 1, 1), np.uint8),
        x,
        *padding,
        _F(slope),
        height,
        width,
        workspace.per_thread("frames", height * width * maps if framed else 0),
        workspace.per_thread("field", field_size),
        workspace.array("chunk sums", (chunks, kernels, window)),
        workspace.array("chunk sums of the bias", (chunks, kernels)),
    )


@helper()
def _pack_backward(packed: Array, weight: Array, field_row: int) -> None:
    """packed (K, window) = weight (K, R, S C) with rows ``field_row`` floats apart and zeros in between."""
    for k in range(weight.shape[0]):
        for i in range(packed.shape[1]):
            packed[k, i] = _ZERO
        for r in range(weight.shape[1]):
            for t in range(weight.shape[2]):
                packed[k, r * field_row + t] = weight[k, r, t]


@cache
def _backward_input(maps: int, kernels: int, kernel_rows: int, kernel_columns: int, pool: int, code: int) -> Any:
    """Every winner adds delta times its kernel to its window in the field's gradient. The field is then added to the
    photo's gradient, which is summed in a frame of its own, of which the photo's part is copied at the end.

    In the gaps of a run the weights are zero, which changes nothing where they are added. Kernels take turns on
    _FIELDS fields: the processor waits when it reads numbers that were just written at other bounds.
    """
    field_rows, field_row, window, field_size = _field(maps, kernel_rows, kernel_columns, pool)

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
        fields: Array,
        packed: Array,
    ) -> None:
        # dx (N, H, W, C), weight (K, R, S C), packed (K, window), frames (threads, height * width * C),
        # fields (threads, _FIELDS, field_size)
        photos, rows, columns = out.shape[0], out.shape[1], out.shape[2]
        _pack_backward(packed, weight, field_row)
        for n in prange(photos):
            thread = thread_number()
            frame, own = frames[thread], fields[thread]
            for i in range(height * width * maps):
                frame[i] = _ZERO
            for f in range(_FIELDS):
                for i in range(field_size):
                    own[f, i] = _ZERO
            for row in range(rows):
                for column in range(columns):
                    d, o = dout[n, row, column], out[n, row, column]
                    for k in range(kernels):
                        delta = d[k] * derivative(o[k], code, slope)
                        at: Any = 0
                        if pool > 1:
                            won = np.int64(argmax[n, row, column, k])
                            at = (won // pool) * field_row + (won % pool) * maps
                        patch, w = own[k % _FIELDS, at : at + window], packed[k]
                        for i in range(window):
                            patch[i] += delta * w[i]
                    f0, f1, f2, f3 = own[0], own[1], own[2], own[3]
                    for r in range(field_rows):
                        start = ((row * pool + r) * width + column * pool) * maps
                        target = frame[start : start + field_row]
                        for i in range(field_row):
                            j = r * field_row + i
                            target[i] += (f0[j] + f1[j]) + (f2[j] + f3[j])
                    for f in range(_FIELDS):
                        for i in range(field_size):
                            own[f, i] = _ZERO
            cut_out(dx[n], frame, top, left, height, width)

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
    _, _, window, field_size = _field(maps, kernel_rows, kernel_columns, pool)
    launch(
        _backward_input(maps, kernels, kernel_rows, kernel_columns, pool, CODES[activation]),
        dx,
        dout,
        out,
        argmax if pool > 1 else workspace.array("no argmax", (1, 1, 1, 1), np.uint8),
        weight.reshape(kernels, kernel_rows, kernel_columns * maps),
        *padding,
        _F(slope),
        height,
        width,
        workspace.per_thread("frames", height * width * maps),
        workspace.array("fields", (THREADS, _FIELDS, field_size)),
        workspace.array("packed weights", (kernels, window)),
    )
