"""Batch normalisation per map or unit.

x (M, C) is processed in tiles of columns, as in ``columns``. The statistics of a column take two launches: the first
computes them for chunks of rows; then each block of the kernel that needs them merges the chunks of its own columns
(they are few, and in the card's cache). Where there is one chunk only, one launch does both.

Precision isn't lost where the mean is much larger than the standard deviation: each column's first number is subtracted
from all its numbers, and squared deviations are taken from the mean of a few rows in registers and merged by the
formula of Chan, Golub and LeVeque (1979).
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

from facecnn.kernels.cuda.columns import lane_sum, natural, tile
from facecnn.kernels.cuda.driver import SIMULATED, cuda, device_function, kernel, launch
from facecnn.kernels.cuda.memory import Array, Workspace
from facecnn.kernels.cuda.sizes import BLOCKS, THREADS

_F = np.float32
_ZERO, _ONE = _F(0), _F(1)
_GROUP = 2 if SIMULATED else 8
"""Rows that a thread reads at once."""
_CHUNKS = 3 if SIMULATED else 264
"""Most blocks that make partial sums, over all tiles of columns."""


@cache
def _moments(columns: int) -> Any:
    """A device function that gives all threads of a column two numbers of its rows start ... stop - 1 (at least one):
    their mean less the column's first element, and the sum of their squared deviations from the mean.

    ``values`` (THREADS,) is in shared memory.
    """
    width, lanes, _ = tile(columns)
    add_lanes = lane_sum(width, lanes)

    @device_function
    def moments(values: Any, x: Any, column: Any, c: Any, lane: Any, start: Any, stop: Any) -> Any:
        group = cuda.local.array(_GROUP, np.float32)
        mean, squares, count = _ZERO, _ZERO, _ZERO
        near = x[0, c]
        row = start + lane
        own_stop = stop if lane < lanes else start
        while row < own_stop:
            total, new = _ZERO, _ZERO
            for g in range(_GROUP):
                group[g] = _ZERO
                if row + g * lanes < stop:
                    group[g] = x[row + g * lanes, c] - near
                    new += _ONE
                total += group[g]
            own_mean = total / new
            own_squares = _ZERO
            for g in range(_GROUP):
                if row + g * lanes < stop:
                    deviation = group[g] - own_mean
                    own_squares += deviation * deviation
            share = new / (count + new)
            delta = own_mean - mean
            mean += delta * share
            squares += own_squares + delta * (delta * (count * share))
            count += new
            row += _GROUP * lanes
        whole_mean = add_lanes(values, column, count * mean) / _F(stop - start)
        delta = mean - whole_mean
        return whole_mean, add_lanes(values, column, squares + count * (delta * delta))

    return moments


@cache
def _merge_moments(columns: int) -> Any:
    """A device function that gives all threads of a column these two numbers of all its ``rows``, from partials
    (2, chunks, C): those of chunks of ``chunk`` rows."""
    width, lanes, _ = tile(columns)
    add_lanes = lane_sum(width, lanes)

    @device_function
    def merge(values: Any, partials: Any, column: Any, c: Any, lane: Any, rows: Any, chunk: Any) -> Any:
        chunks = partials.shape[1] if lane < lanes else 0
        total = _ZERO
        i = lane
        while i < chunks:
            total += _F(min(chunk, rows - i * chunk)) * partials[0, i, c]
            i += lanes
        mean = add_lanes(values, column, total) / _F(rows)
        total = _ZERO
        i = lane
        while i < chunks:
            delta = partials[0, i, c] - mean
            total += partials[1, i, c] + _F(min(chunk, rows - i * chunk)) * (delta * delta)
            i += lanes
        return mean, add_lanes(values, column, total)

    return merge


@cache
def _chunks(columns: int, numbers_of: Any) -> Any:
    width = tile(columns)[0]

    @kernel
    def chunks(partials: Array, source: Any, rows: Any, chunk: Any) -> None:
        # partials (2, chunks, C): the two numbers of each chunk of rows, by ``numbers_of``; grid: (chunks, tiles)
        values = cuda.shared.array(THREADS, np.float32)
        thread = natural(cuda.threadIdx.x)
        column, lane = thread % width, thread // width
        block = natural(cuda.blockIdx.x)
        c = natural(cuda.blockIdx.y) * width + column
        start = block * natural(chunk)
        stop = min(start + natural(chunk), natural(rows))
        first, second = numbers_of(values, source, column, min(c, columns - 1), lane, start, stop)
        if lane == 0 and c < columns:
            partials[0, block, c] = first
            partials[1, block, c] = second

    return chunks


@cache
def _forward(columns: int, whole: bool) -> Any:
    width, lanes, _ = tile(columns)
    moments, merge = _moments(columns), _merge_moments(columns)

    @kernel
    def forward(
        out: Array, mean: Array, inverse_std: Array, running_mean: Array, running_variance: Array, x: Array,
        scale: Array, shift: Array, partials: Array, chunk: Any, span: Any, momentum: Any, epsilon: Any, unbias: Any,
    ) -> None:  # fmt: skip
        # out, x (M, C); partials (2, chunks, C), not used if one block has the whole column; all others (C,)
        # grid: (spans of rows, tiles)
        values = cuda.shared.array(THREADS, np.float32)
        thread = natural(cuda.threadIdx.x)
        column, lane = thread % width, thread // width
        c = natural(cuda.blockIdx.y) * width + column
        exists = lane < lanes and c < columns
        c = min(c, columns - 1)
        rows = x.shape[0]
        if whole:
            small_mean, squares = moments(values, x, column, c, lane, 0, rows)
        else:
            small_mean, squares = merge(values, partials, column, c, lane, rows, natural(chunk))
        if exists:
            near = x[0, c]
            centre = near + small_mean
            variance = squares / _F(rows)
            inverse = _ONE / math.sqrt(variance + epsilon)
            if cuda.blockIdx.x == 0 and lane == 0:
                mean[c] = centre
                inverse_std[c] = inverse
                running_mean[c] += momentum * (centre - running_mean[c])
                running_variance[c] += momentum * (variance * unbias - running_variance[c])
            factor, offset = inverse * scale[c], shift[c]
            start = natural(cuda.blockIdx.x) * natural(span)
            row, stop = start + lane, min(start + natural(span), rows)
            while row < stop:
                out[row, c] = (x[row, c] - near - small_mean) * factor + offset
                row += lanes

    return forward


def _span(rows: int, columns: int) -> int:
    """Rows per block where nothing is summed."""
    _, lanes, tiles = tile(columns)
    return max(lanes, -(-rows // max(1, BLOCKS // tiles)))


def _in_chunks(numbers_of: Any, source: Any, shape: tuple[int, int], workspace: Workspace) -> tuple[Array, int, int]:
    """``partials`` of ``_chunks``, not filled if one chunk is all; the rows of a chunk, by the shape only; and those of
    a block of the next launch."""
    rows, columns = shape
    _, lanes, tiles = tile(columns)
    chunk = max(_GROUP * lanes, -(-rows // max(1, _CHUNKS // tiles)))
    chunks = -(-rows // chunk)
    partials = workspace.array("norm partials", (2, chunks, columns))
    if chunks == 1:
        return partials, chunk, rows
    launch(_chunks(columns, numbers_of), (chunks, tiles), THREADS, workspace, partials, source, rows, chunk)
    return partials, chunk, _span(rows, columns)


def batch_norm_forward(
    out: Array, mean: Array, inverse_std: Array, running_mean: Array, running_variance: Array, x: Array, scale: Array,
    shift: Array, momentum: float, epsilon: float, workspace: Workspace,
) -> None:  # fmt: skip
    """Batch normalisation in training, with the batch's own mean and variance; moves the running statistics."""
    rows, columns = x.shape
    partials, chunk, span = _in_chunks(_moments(columns), x, x.shape, workspace)
    forward = _forward(columns, partials.shape[1] == 1)
    launch(
        forward, (-(-rows // span), tile(columns)[2]), THREADS, workspace, out, mean, inverse_std, running_mean,
        running_variance, x, scale, shift, partials, chunk, span, float(momentum), float(epsilon),
        rows / max(rows - 1, 1),
    )  # fmt: skip


@cache
def _inference(columns: int) -> Any:
    width, lanes, _ = tile(columns)

    @kernel
    def inference(
        out: Array, x: Array, running_mean: Array, running_variance: Array, scale: Array, shift: Array, epsilon: Any,
        span: Any,
    ) -> None:  # fmt: skip
        # out, x (M, C); all others (C,); grid: (spans of rows, tiles)
        thread = natural(cuda.threadIdx.x)
        lane = thread // width
        c = natural(cuda.blockIdx.y) * width + thread % width
        if lane < lanes and c < columns:
            centre, offset = running_mean[c], shift[c]
            factor = scale[c] / math.sqrt(running_variance[c] + epsilon)
            start = natural(cuda.blockIdx.x) * natural(span)
            row, stop = start + lane, min(start + natural(span), x.shape[0])
            while row < stop:
                out[row, c] = (x[row, c] - centre) * factor + offset
                row += lanes

    return inference


def batch_norm_inference(
    out: Array, x: Array, running_mean: Array, running_variance: Array, scale: Array, shift: Array, epsilon: float,
    workspace: Workspace,
) -> None:  # fmt: skip
    """Batch normalisation with the running statistics."""
    rows, columns = x.shape
    span = _span(rows, columns)
    launch(
        _inference(columns), (-(-rows // span), tile(columns)[2]), THREADS, workspace, out, x, running_mean,
        running_variance, scale, shift, float(epsilon), span,
    )  # fmt: skip


@cache
def _products(columns: int) -> Any:
    """A device function that gives all threads of a column, over its rows start ... stop - 1, the sum of dout and the
    sum of dout * h. ``values`` (THREADS,) is in shared memory."""
    width, lanes, _ = tile(columns)
    add_lanes = lane_sum(width, lanes)

    @device_function
    def products(values: Any, source: Any, column: Any, c: Any, lane: Any, start: Any, stop: Any) -> Any:
        dout, x, mean, inverse_std = source
        centre, inverse = mean[c], inverse_std[c]
        total, product = _ZERO, _ZERO
        row = start + lane
        own_stop = stop if lane < lanes else start
        while row < own_stop:
            for g in range(_GROUP):
                if row + g * lanes < stop:
                    delta = dout[row + g * lanes, c]
                    total += delta
                    product += delta * ((x[row + g * lanes, c] - centre) * inverse)
            row += _GROUP * lanes
        return add_lanes(values, column, total), add_lanes(values, column, product)

    return products


@cache
def _backward(columns: int, whole: bool) -> Any:
    width, lanes, _ = tile(columns)
    products, add_lanes = _products(columns), lane_sum(width, lanes)

    @kernel
    def backward(
        dx: Array, dscale: Array, dshift: Array, dout: Array, x: Array, mean: Array, inverse_std: Array, scale: Array,
        partials: Array, span: Any,
    ) -> None:  # fmt: skip
        # dx, dout, x (M, C); partials (2, chunks, C), not used if one block has the whole column; all others (C,)
        # grid: (spans of rows, tiles)
        values = cuda.shared.array(THREADS, np.float32)
        thread = natural(cuda.threadIdx.x)
        column, lane = thread % width, thread // width
        c = natural(cuda.blockIdx.y) * width + column
        exists = lane < lanes and c < columns
        c = min(c, columns - 1)
        rows = x.shape[0]
        centre, inverse = mean[c], inverse_std[c]
        if whole:
            total, product = products(values, (dout, x, mean, inverse_std), column, c, lane, 0, rows)
        else:
            total, product = _ZERO, _ZERO
            i = lane
            while lane < lanes and i < partials.shape[1]:
                total += partials[0, i, c]
                product += partials[1, i, c]
                i += lanes
            total = add_lanes(values, column, total)
            product = add_lanes(values, column, product)
        if exists:
            if cuda.blockIdx.x == 0 and lane == 0:
                dshift[c] = total
                dscale[c] = product
            mean_delta, mean_product = total / _F(rows), product / _F(rows)
            factor = scale[c] * inverse
            start = natural(cuda.blockIdx.x) * natural(span)
            row, stop = start + lane, min(start + natural(span), rows)
            while row < stop:
                h = (x[row, c] - centre) * inverse
                dx[row, c] = factor * (dout[row, c] - mean_delta - h * mean_product)
                row += lanes

    return backward


def batch_norm_backward(
    dx: Array, dscale: Array, dshift: Array, dout: Array, x: Array, mean: Array, inverse_std: Array, scale: Array,
    workspace: Workspace,
) -> None:  # fmt: skip
    """dx, dscale and dshift of ``batch_norm_forward``."""
    rows, columns = x.shape
    partials, _, span = _in_chunks(_products(columns), (dout, x, mean, inverse_std), x.shape, workspace)
    backward = _backward(columns, partials.shape[1] == 1)
    launch(
        backward, (-(-rows // span), tile(columns)[2]), THREADS, workspace, dx, dscale, dshift, dout, x, mean,
        inverse_std, scale, partials, span,
    )  # fmt: skip
