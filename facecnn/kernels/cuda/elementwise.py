"""Activations on their own, element by element."""

from __future__ import annotations

from functools import cache
from typing import Any

from facecnn.kernels.cuda.activations import activate, derivative, gelu_derivative
from facecnn.kernels.cuda.driver import cuda, kernel
from facecnn.kernels.cuda.memory import Array, Workspace
from facecnn.kernels.cuda.sizes import STRIDE, launch_each
from facecnn.kernels.protocol import CODES, GELU, Activation

"""Of the largest grid: a constant, so that no trip is counted by a 64-bit division. A smaller grid needs one turn."""


@cache
def _forward(code: int) -> Any:
    activation = activate(code)

    @kernel
    def forward(out: Array, x: Array, slope: Any) -> None:
        # both flat
        i = cuda.grid(1)
        while i < out.size:
            out[i] = activation(x[i], slope)
            i += STRIDE

    return forward


@cache
def _backward(code: int) -> Any:
    slope_at = derivative(code)

    @kernel
    def backward(dx: Array, dout: Array, out: Array, slope: Any) -> None:
        # all flat
        i = cuda.grid(1)
        while i < dx.size:
            dx[i] = dout[i] * slope_at(out[i], slope)
            i += STRIDE

    return backward


@kernel
def _backward_gelu(dx: Array, dout: Array, x: Array) -> None:
    # all flat
    i = cuda.grid(1)
    while i < dx.size:
        dx[i] = dout[i] * gelu_derivative(x[i])
        i += STRIDE


def activation_forward(out: Array, x: Array, activation: Activation, slope: float, workspace: Workspace) -> None:
    """out = activation(x), element by element."""
    arrays = (array.reshape(array.size) for array in (out, x))
    launch_each(_forward(CODES[activation]), out.size, workspace, *arrays, float(slope))


def activation_backward(
    dx: Array, dout: Array, x: Array, out: Array, activation: Activation, slope: float, workspace: Workspace
) -> None:
    """dx = dout * activation'(x), from ``out``; for gelu from ``x``."""
    code = CODES[activation]
    if code == GELU:
        arrays = (array.reshape(array.size) for array in (dx, dout, x))
        launch_each(_backward_gelu, dx.size, workspace, *arrays)
    else:
        arrays = (array.reshape(array.size) for array in (dx, dout, out))
        launch_each(_backward(code), dx.size, workspace, *arrays, float(slope))
