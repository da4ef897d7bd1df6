"""Activations, element by element: on their own, and as helpers of the convolution."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import prange

from facecnn.arrays import Array
from facecnn.kernels import formulas
from facecnn.kernels.cpu.jit import compiled, helper
from facecnn.kernels.cpu.launching import launch
from facecnn.kernels.cpu.memory import Workspace
from facecnn.kernels.protocol import FUSED_ACTIVATIONS, Activation

BLOCK = 4096
"""Elements of a flat array in one block, for any number of threads, so that the vector loop and its scalar remainder
always cover the same elements."""

_F, _U64 = np.float32, np.uint64


@helper(inline=True)
def begin_of(block: int) -> Any:
    """A block's first element, without a sign: a number below 0 would count from an array's end, and where it might be
    one, a loop isn't vectorised."""
    return _U64(block * BLOCK)


@helper(inline=True)
def end_of(block: int, size: int) -> Any:
    """The end of a block of ``size`` elements' blocks."""
    return _U64(min(size, (block + 1) * BLOCK))


@cache
def value_of(activation: Activation) -> Any:
    """The helper ``value_at(z, slope)``: activation(z)."""
    return helper(inline=True)(formulas.ACTIVATIONS[activation].value)


@cache
def derivative_of(activation: Activation) -> Any:
    """The helper ``derivative_at(source, slope)``: activation'(z), where source is activation(z) for those of
    FUSED_ACTIVATIONS and z for others."""
    return helper(inline=True)(formulas.ACTIVATIONS[activation].derivative)


@cache
def _forward(activation: Activation) -> Any:
    value_at = value_of(activation)

    @compiled(parallel=True)
    def forward(out: Array, x: Array, slope: Any) -> None:
        for block in prange((out.size + BLOCK - 1) // BLOCK):
            for i in range(begin_of(block), end_of(block, out.size)):
                out[i] = value_at(x[i], slope)

    return forward


@cache
def _backward(activation: Activation) -> Any:
    derivative_at = derivative_of(activation)

    @compiled(parallel=True)
    def backward(dx: Array, dout: Array, source: Array, slope: Any) -> None:
        for block in prange((dx.size + BLOCK - 1) // BLOCK):
            for i in range(begin_of(block), end_of(block, dx.size)):
                dx[i] = dout[i] * derivative_at(source[i], slope)

    return backward


def _cost(activation: Activation) -> int:
    """Approximate number of operations per element."""
    return 2 if activation in ("identity", "relu", "leaky_relu") else 60


def activation_forward(out: Array, x: Array, activation: Activation, slope: float, workspace: Workspace) -> None:
    """out = activation(x), element by element."""
    launch(_forward(activation), out.reshape(-1), x.reshape(-1), _F(slope), operations=_cost(activation) * x.size)


def activation_backward(
    dx: Array, dout: Array, x: Array, out: Array, activation: Activation, slope: float, workspace: Workspace
) -> None:
    """dx = dout * activation'(x), from ``out`` where that is enough, else from ``x``."""
    source = out if activation in FUSED_ACTIVATIONS else x
    launch(
        _backward(activation), dx.reshape(-1), dout.reshape(-1), source.reshape(-1), _F(slope),
        operations=_cost(activation) * x.size,
    )  # fmt: skip
