"""The sum of two stacks of maps at the end of a residual block: each thread makes one element of the sum at a time."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from facecnn.kernels.cuda.driver import cuda, device_function, kernel
from facecnn.kernels.cuda.elementwise import derivative_of, value_of
from facecnn.kernels.cuda.memory import Array, Workspace
from facecnn.kernels.cuda.pool import position
from facecnn.kernels.cuda.sizes import STRIDE, launch_each
from facecnn.kernels.protocol import Activation

_ZERO = np.float32(0)


@device_function
def _has(maps: Array, y: Any, x: Any, c: Any) -> Any:
    """Whether this place lies within maps (N, H, W, C)."""
    return y < maps.shape[1] and x < maps.shape[2] and c < maps.shape[3]


@cache
def _forward(activation: Activation) -> Any:
    value_at = value_of(activation)

    @kernel
    def forward(out: Array, branch: Array, shortcut: Array, slope: Any) -> None:
        # out (N, H, W, C), branch (N, H1, W1, C1), shortcut (N, H2, W2, C2)
        o = cuda.grid(1)
        while o < out.size:
            n, y, x, c = position(o, out.shape[1], out.shape[2], out.shape[3])
            total = branch[n, y, x, c] if _has(branch, y, x, c) else _ZERO
            if _has(shortcut, y, x, c):
                total += shortcut[n, y, x, c]
            out[n, y, x, c] = value_at(total, slope)
            o += STRIDE

    return forward


@cache
def _backward(activation: Activation) -> Any:
    derivative_at = derivative_of(activation)

    @kernel
    def backward(dbranch: Array, dshortcut: Array, dout: Array, out: Array, slope: Any) -> None:
        # dout, out (N, H, W, C), dbranch (N, H1, W1, C1), dshortcut (N, H2, W2, C2)
        o = cuda.grid(1)
        while o < out.size:
            n, y, x, c = position(o, out.shape[1], out.shape[2], out.shape[3])
            delta = dout[n, y, x, c] * derivative_at(out[n, y, x, c], slope)
            if _has(dbranch, y, x, c):
                dbranch[n, y, x, c] = delta
            if _has(dshortcut, y, x, c):
                dshortcut[n, y, x, c] = delta
            o += STRIDE

    return backward


def add_maps_forward(
    out: Array, branch: Array, shortcut: Array, activation: Activation, slope: float, workspace: Workspace
) -> None:
    """out = activation(branch + shortcut), both padded with zeros at the end of rows, columns and maps."""
    launch_each(_forward(activation), out.size, workspace, out, branch, shortcut, float(slope))


def add_maps_backward(
    dbranch: Array, dshortcut: Array, dout: Array, out: Array, activation: Activation, slope: float,
    workspace: Workspace,
) -> None:  # fmt: skip
    """Both get dout * activation' at their own elements."""
    launch_each(_backward(activation), out.size, workspace, dbranch, dshortcut, dout, out, float(slope))
