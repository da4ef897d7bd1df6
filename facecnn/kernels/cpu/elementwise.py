"""Activations, element by element: on their own, and as helpers of the convolution."""

from __future__ import annotations

from functools import cache
from math import erf, exp, pi, sqrt, tanh
from typing import Any

import numpy as np
from numba import prange

from facecnn.kernels.cpu.jit import compiled, helper
from facecnn.kernels.cpu.launching import launch
from facecnn.kernels.cpu.memory import Array, Workspace
from facecnn.kernels.protocol import CODES, GELU, LEAKY_RELU, RELU, SIGMOID, TANH, Activation

BLOCK = 4096
"""Elements of a flat array that are worked on in one piece, however many threads there are: so the vector loop and its
scalar remainder fall on the same elements always."""

_F = np.float32
_ZERO, _HALF, _ONE = _F(0), _F(0.5), _F(1)
_SQRT_HALF, _DENSITY_0 = _F(sqrt(0.5)), _F(1 / sqrt(2 * pi))


@helper(inline=True)
def activate(z: Any, code: int, slope: Any) -> Any:
    """activation(z); ``code`` is a constant where it is called, so that one branch is left of this."""
    if code == RELU:
        return z if z > _ZERO else z * _ZERO  # and not 0: NaN stays NaN
    if code == LEAKY_RELU:
        return z if z > _ZERO else z * slope
    if code == SIGMOID:
        return _HALF * (_ONE + _F(tanh(_HALF * z)))
    if code == TANH:
        return _F(tanh(z))
    if code == GELU:
        return z * (_HALF * (_ONE + _F(erf(z * _SQRT_HALF))))
    return z


@helper(inline=True)
def derivative(out: Any, code: int, slope: Any) -> Any:
    """activation'(z) from activation(z); there is none for gelu."""
    if code == RELU:
        return _ONE if out > _ZERO else _ZERO
    if code == LEAKY_RELU:
        return _ONE if out > _ZERO else slope
    if code == SIGMOID:
        return out * (_ONE - out)
    if code == TANH:
        return _ONE - out * out
    return _ONE


@cache
def _forward(code: int) -> Any:
    @compiled(parallel=True)
    def forward(out: Array, x: Array, slope: Any) -> None:
        for block in prange((out.size + BLOCK - 1) // BLOCK):
            for i in range(block * BLOCK, min(out.size, (block + 1) * BLOCK)):
                out[i] = activate(x[i], code, slope)

    return forward


@cache
def _backward(code: int) -> Any:
    @compiled(parallel=True)
    def backward(dx: Array, dout: Array, x: Array, out: Array, slope: Any) -> None:
        for block in prange((dx.size + BLOCK - 1) // BLOCK):
            for i in range(block * BLOCK, min(dx.size, (block + 1) * BLOCK)):
                if code == GELU:
                    z = x[i]
                    below = _HALF * (_ONE + _F(erf(z * _SQRT_HALF)))
                    dx[i] = dout[i] * (below + z * _DENSITY_0 * _F(exp(-_HALF * z * z)))
                else:
                    dx[i] = dout[i] * derivative(out[i], code, slope)

    return backward


def _cost(activation: Activation) -> int:
    """Operations on an element, about."""
    return 2 if activation in ("identity", "relu", "leaky_relu") else 60


def activation_forward(out: Array, x: Array, activation: Activation, slope: float, workspace: Workspace) -> None:
    """out = activation(x), element by element."""
    launch(
        _forward(CODES[activation]), out.reshape(-1), x.reshape(-1), _F(slope), operations=_cost(activation) * x.size
    )


def activation_backward(
    dx: Array, dout: Array, x: Array, out: Array, activation: Activation, slope: float, workspace: Workspace
) -> None:
    """dx = dout * activation'(x), from ``out``; for gelu from ``x``."""
    launch(
        _backward(CODES[activation]),
        dx.reshape(-1),
        dout.reshape(-1),
        x.reshape(-1),
        out.reshape(-1),
        _F(slope),
        operations=_cost(activation) * x.size,
    )
