"""Rows divided by their Euclidean length: a block for each row, whose threads loop over the units with a stride."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from facecnn.kernels.cuda.block import COLUMNS, add_up
from facecnn.kernels.cuda.driver import cuda, device_function, kernel, launch
from facecnn.kernels.cuda.memory import Array, Workspace
from facecnn.kernels.cuda.sizes import THREADS
from facecnn.kernels.protocol import LEAST_LENGTH

_F = np.float32
_ZERO, _LEAST = _F(0), _F(LEAST_LENGTH)


@device_function
def _product_of_rows(a: Array, b: Array, n: Any) -> Any:
    """The scalar product of the block's row n of a and of b (N, U), for each of its threads."""
    values = cuda.shared.array(THREADS, _F)
    partial = cuda.shared.array(COLUMNS, _F)
    total = _ZERO
    u = cuda.threadIdx.x
    while u < a.shape[1]:
        total += a[n, u] * b[n, u]
        u += THREADS
    return add_up(values, partial, total)


@kernel
def _forward(out: Array, x: Array, norms: Array) -> None:
    # out, x (N, U), norms (N,)
    n = cuda.blockIdx.x
    norm = _F(math.sqrt(_product_of_rows(x, x, n)))
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
    n = cuda.blockIdx.x
    along = _product_of_rows(dout, out, n)
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
