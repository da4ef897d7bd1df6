"""Activations, element by element: on their own, and as functions that the kernels of a convolution call."""

from __future__ import annotations

from functools import cache
from typing import Any

from facecnn.kernels import formulas
from facecnn.kernels.cuda.driver import cuda, device_function, kernel
from facecnn.kernels.cuda.memory import Array, Workspace
from facecnn.kernels.cuda.sizes import STRIDE, launch_each
from facecnn.kernels.protocol import FUSED_ACTIVATIONS, Activation


@cache
def value_of(activation: Activation) -> Any:
    """The device function ``value_at(z, slope)``: activation(z)."""
    return device_function(formulas.ACTIVATIONS[activation].value)


@cache
def derivative_of(activation: Activation) -> Any:
    """The device function ``derivative_at(source, slope)``: activation'(z), where source is activation(z) for those of
    FUSED_ACTIVATIONS and z for others."""
    return device_function(formulas.ACTIVATIONS[activation].derivative)


@cache
def _forward(activation: Activation) -> Any:
    value_at = value_of(activation)

    @kernel
    def forward(out: Array, x: Array, slope: Any) -> None:
        # both flat
        i = cuda.grid(1)
        while i < out.size:
            out[i] = value_at(x[i], slope)
            i += STRIDE

    return forward


@cache
def _backward(activation: Activation) -> Any:
    derivative_at = derivative_of(activation)

    @kernel
    def backward(dx: Array, dout: Array, source: Array, slope: Any) -> None:
        # all flat
        i = cuda.grid(1)
        while i < dx.size:
            dx[i] = dout[i] * derivative_at(source[i], slope)
            i += STRIDE

    return backward


def activation_forward(out: Array, x: Array, activation: Activation, slope: float, workspace: Workspace) -> None:
    """out = activation(x), element by element."""
    arrays = (array.reshape(array.size) for array in (out, x))
    launch_each(_forward(activation), out.size, workspace, *arrays, float(slope))


def activation_backward(
    dx: Array, dout: Array, x: Array, out: Array, activation: Activation, slope: float, workspace: Workspace
) -> None:
    """dx = dout * activation'(x), from ``out`` where that is enough, else from ``x``."""
    source = out if activation in FUSED_ACTIVATIONS else x
    arrays = (array.reshape(array.size) for array in (dx, dout, source))
    launch_each(_backward(activation), dx.size, workspace, *arrays, float(slope))
