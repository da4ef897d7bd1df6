"""Rows divided by their Euclidean length: a block for each row, whose threads loop over the units with a stride."""

from __future__ import annotations

import math

import numpy as np

from facecnn.kernels.cuda.block import COLUMNS, add_up
from facecnn.kernels.cuda.driver import cuda, kernel, launch
from facecnn.kernels.cuda.memory import Array, Workspace
from facecnn.kernels.cuda.sizes import THREADS
from facecnn.kernels.protocol import LEAST_LENGTH

_F = np.float32
_ZERO, _LEAST = _F(0), _F(LEAST_LENGTH)


@kernel
def _forward(out: Array, x: Array, norms: Array) -> None:
    # out, x (N, U), norms (N,)
    values = cuda.shared.array(THREADS, _F)
    partial = cuda.shared.array(COLUMNS, _F)
    n = cuda.blockIdx.x
    total = _ZERO
    u = cuda.threadIdx.x
    while u < x.shape[1]:
        total += x[n, u] * x[n, u]
        u += THREADS
    norm = _F(math.sqrt(add_up(values, partial, total)))
    if norm < _LEAST:  # NaN stays NaN
        norm = _LEAST
    u = cuda.threadIdx.x
    if u == 0:
        norms[n] = norm
    while u < x.shape[1]:
        out[n, u] = x[n, u] / norm
        u += THREADS


@kernel
def _backward(dx: Array, dout: Array, out: Array, norms: Array) -> None:
    # dx, dout, out (N, U), norms (N,)
    values = cuda.shared.array(THREADS, _F)
    partial = cuda.shared.array(COLUMNS, _F)
    n = cuda.blockIdx.x
    along = _ZERO
    u = cuda.threadIdx.x
    while u < dx.shape[1]:
        along += dout[n, u] * out[n, u]
        u += THREADS
    along = add_up(values, partial, along)
    u = cuda.threadIdx.x
    while u < dx.shape[1]:
        dx[n, u] = (dout[n, u] - out[n, u] * along) / norms[n]
        u += THREADS


def unit_length_forward(out: Array, x: Array, norms: Array, workspace: Workspace) -> None:
    """out = x / norm, row by row: out, x (N, U). norms (N,), at least LEAST_LENGTH, are kept for the backward pass."""
    launch(_forward, len(x), THREADS, workspace, out, x, norms)


def unit_length_backward(dx: Array, dout: Array, out: Array, norms: Array, workspace: Workspace) -> None:
    """dx = (dout - out * <dout, out>) / norm."""
    launch(_backward, len(dx), THREADS, workspace, dx, dout, out, norms)
