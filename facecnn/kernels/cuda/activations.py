"""Activations and their derivatives as functions that kernels call: one compiled function for each of them."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

from facecnn.kernels.cuda.driver import device_function
from facecnn.kernels.protocol import GELU, LEAKY_RELU, RELU, SIGMOID, TANH

_F = np.float32
_ZERO, _HALF, _ONE = _F(0), _F(0.5), _F(1)
_SQRT_HALF, _DENSITY_0 = _F(math.sqrt(0.5)), _F(1 / math.sqrt(2 * math.pi))


@cache
def activate(code: int) -> Any:
    """A device function ``value(z, slope)``: activation(z), float32; ``slope`` counts for leaky_relu only.

    NaN stays NaN. Sigmoid is 1/2 (1 + tanh(z / 2)), which never overflows.
    """

    @device_function
    def value(z: Any, slope: Any) -> Any:
        if code == RELU:
            return z if z > _ZERO else z * _ZERO  # and not 0: NaN stays NaN
        if code == LEAKY_RELU:
            return z if z > _ZERO else z * slope
        if code == SIGMOID:
            return _HALF * (_ONE + _F(math.tanh(_HALF * z)))
        if code == TANH:
            return _F(math.tanh(z))
        if code == GELU:
            return z * (_HALF * (_ONE + _F(math.erf(z * _SQRT_HALF))))
        return z

    return value


@cache
def derivative(code: int) -> Any:
    """A device function ``value(out, slope)``: activation'(z) from out = activation(z), float32; there is none for
    gelu, which isn't monotone: see ``gelu_derivative``."""
    assert code != GELU

    @device_function
    def value(out: Any, slope: Any) -> Any:
        if code == RELU:
            return _ONE if out > _ZERO else _ZERO
        if code == LEAKY_RELU:
            return _ONE if out > _ZERO else slope
        if code == SIGMOID:
            return out * (_ONE - out)
        if code == TANH:
            return _ONE - out * out
        return _ONE

    return value


@device_function
def gelu_derivative(z: Any) -> Any:
    """d/dz of z Phi(z): Phi(z) + z phi(z), with Phi and phi the normal distribution and its density."""
    below = _HALF * (_ONE + _F(math.erf(z * _SQRT_HALF)))
    return below + z * _DENSITY_0 * _F(math.exp(-_HALF * z * z))
