"""Rows divided by their Euclidean length. Each row is a task, summed in a fixed order."""

from __future__ import annotations

import numpy as np
from numba import prange

from facecnn.arrays import Array
from facecnn.kernels.cpu.jit import compiled
from facecnn.kernels.cpu.launching import launch
from facecnn.kernels.cpu.memory import Workspace
from facecnn.kernels.protocol import LEAST_LENGTH

_ZERO, _LEAST = np.float32(0), np.float32(LEAST_LENGTH)


@compiled(parallel=True, reorder=True)
def _forward(out: Array, x: Array, norms: Array) -> None:
    for n in prange(x.shape[0]):
        a, o = x[n], out[n]
        total = _ZERO
        for u in range(len(a)):
            total += a[u] * a[u]
        length = np.sqrt(total)
        norm = _LEAST if length < _LEAST else length  # NaN stays NaN
        norms[n] = norm
        for u in range(len(a)):
            o[u] = a[u] / norm


@compiled(parallel=True, reorder=True)
def _backward(dx: Array, dout: Array, out: Array, norms: Array) -> None:
    for n in prange(dx.shape[0]):
        g, d, o = dx[n], dout[n], out[n]
        along = _ZERO
        for u in range(len(d)):
            along += d[u] * o[u]
        for u in range(len(d)):
            g[u] = (d[u] - o[u] * along) / norms[n]


def unit_length_forward(out: Array, x: Array, norms: Array, workspace: Workspace) -> None:
    """out = x / norm of each row, which is kept in ``norms``."""
    launch(_forward, out, x, norms, operations=4 * x.size)


def unit_length_backward(dx: Array, dout: Array, out: Array, norms: Array, workspace: Workspace) -> None:
    """dx = (dout - out * <dout, out>) / norm."""
    launch(_backward, dx, dout, out, norms, operations=5 * dx.size)
