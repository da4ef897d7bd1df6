"""The formulas of the compiled backends, number by number, each written once.

All are plain functions of float32 numbers. ``cpu`` compiles them into its loops over blocks, ``cuda`` into its
grid-stride loops; called from Python they run in Python. None calls another one, and constants are float32, so that
nothing is widened to float64. ``facecnn.kernels.reference`` doesn't use them: they are tested against it.

An optimizer that is added here, with a row in its table, exists on both backends; so does an activation, with its
name in ``protocol.Activation``, in the same order.
"""

from __future__ import annotations

from collections.abc import Callable
from math import erf, exp, log, pi, sqrt, tanh
from typing import Any, NamedTuple

import numpy as np

from facecnn.kernels.protocol import Activation

Formula = Callable[..., Any]

_F, _U32, _U64 = np.float32, np.uint32, np.uint64
_ZERO, _HALF, _ONE, _TWO, _MINUS_TWO = _F(0), _F(0.5), _F(1), _F(2), _F(-2)

# ---------------------------------------------------------------------------------------------------- activations

# activation(z) and its derivative; ``slope`` counts for leaky_relu only. NaN stays NaN.

_SQRT_HALF, _DENSITY_0 = _F(sqrt(0.5)), _F(1 / sqrt(2 * pi))


def identity(z: Any, slope: Any) -> Any:
    return z


def identity_derivative(out: Any, slope: Any) -> Any:
    return _ONE


def sigmoid(z: Any, slope: Any) -> Any:
    """1 / (1 + exp(-z)), in a form that never overflows."""
    return _HALF * (_ONE + _F(tanh(_HALF * z)))


def sigmoid_derivative(out: Any, slope: Any) -> Any:
    return out * (_ONE - out)


def hyperbolic_tangent(z: Any, slope: Any) -> Any:
    return _F(tanh(z))


def hyperbolic_tangent_derivative(out: Any, slope: Any) -> Any:
    return _ONE - out * out


def relu(z: Any, slope: Any) -> Any:
    return z if z > _ZERO else z * _ZERO  # and not 0: NaN stays NaN


def relu_derivative(out: Any, slope: Any) -> Any:
    return _ONE if out > _ZERO else _ZERO


def leaky_relu(z: Any, slope: Any) -> Any:
    return z if z > _ZERO else z * slope


def leaky_relu_derivative(out: Any, slope: Any) -> Any:
    return _ONE if out > _ZERO else slope


def gelu(z: Any, slope: Any) -> Any:
    """z Phi(z), with Phi the normal distribution function (Hendrycks and Gimpel 2016)."""
    return z * (_HALF * (_ONE + _F(erf(z * _SQRT_HALF))))


def gelu_derivative(z: Any, slope: Any) -> Any:
    """Phi(z) + z phi(z), with phi the normal density."""
    below = _HALF * (_ONE + _F(erf(z * _SQRT_HALF)))
    return below + z * _DENSITY_0 * _F(exp(-_HALF * z * z))


class ActivationFormulas(NamedTuple):
    """An activation."""

    value: Formula
    """activation(z) from (z, slope)."""
    derivative: Formula
    """activation'(z) from (activation(z), slope) for those of FUSED_ACTIVATIONS, from (z, slope) for others."""


ACTIVATIONS: dict[Activation, ActivationFormulas] = {
    "identity": ActivationFormulas(identity, identity_derivative),
    "sigmoid": ActivationFormulas(sigmoid, sigmoid_derivative),
    "tanh": ActivationFormulas(hyperbolic_tangent, hyperbolic_tangent_derivative),
    "relu": ActivationFormulas(relu, relu_derivative),
    "leaky_relu": ActivationFormulas(leaky_relu, leaky_relu_derivative),
    "gelu": ActivationFormulas(gelu, gelu_derivative),
}

# ----------------------------------------------------------------------------------------------------- optimizers


def either_decay(w: Any, g: Any, coupled: Any, decoupled: Any) -> Any:
    """Apply weight decay to a weight and its gradient. ``coupled`` is L2 regularisation, added to the gradient;
    ``decoupled`` is already multiplied by the learning rate."""
    return w - decoupled * w, g + coupled * w


def decoupled_decay(w: Any, g: Any, coupled: Any, decoupled: Any) -> Any:
    return w - decoupled * w, g


# One step of each optimizer for one weight: (w, g, *state, rate, *numbers) -> (w, *state). ``update_rules`` reads the
# parameters' names and passes the arguments by them: those between g and the rate are the state, those after it are
# settings. ``corrected_rate`` is rate / (1 - beta1^t) at step t, ``one_minus_beta1`` is 1 - beta1, and
# ``bias_correction1`` is 1 - beta1^t; bias corrections come last.


def sgd(w: Any, g: Any, rate: Any) -> Any:
    return (w - rate * g,)


def momentum(w: Any, g: Any, velocity: Any, rate: Any, momentum: Any) -> Any:
    v = momentum * velocity + g
    return w - rate * v, v


def nesterov(w: Any, g: Any, velocity: Any, rate: Any, momentum: Any) -> Any:
    v = momentum * velocity + g
    return w - rate * (g + momentum * v), v


def rmsprop(w: Any, g: Any, second_moment: Any, rate: Any, beta2: Any, one_minus_beta2: Any, epsilon: Any) -> Any:
    v = beta2 * second_moment + one_minus_beta2 * g * g
    return w - rate * g / (_F(sqrt(v)) + epsilon), v


def adagrad(w: Any, g: Any, squares: Any, rate: Any, initial_squares: Any, epsilon: Any) -> Any:
    total = squares + g * g
    return w - rate * g / (_F(sqrt(initial_squares + total)) + epsilon), total


def adam(
    w: Any, g: Any, mean: Any, second_moment: Any, corrected_rate: Any, one_minus_beta1: Any, beta2: Any,
    one_minus_beta2: Any, epsilon: Any, bias_correction2: Any,
) -> Any:  # fmt: skip
    m = mean + one_minus_beta1 * (g - mean)
    v = beta2 * second_moment + one_minus_beta2 * g * g
    return w - corrected_rate * m / (_F(sqrt(v / bias_correction2)) + epsilon), m, v


def lion(
    w: Any, g: Any, mean: Any, rate: Any, beta1: Any, one_minus_beta1: Any, beta2: Any, one_minus_beta2: Any
) -> Any:
    m = beta1 * mean + one_minus_beta1 * g
    sign = _F(m > _ZERO) - _F(m < _ZERO) if m == m else m  # NaN stays NaN
    return w - rate * sign, beta2 * mean + one_minus_beta2 * g


OPTIMIZERS: dict[str, tuple[Formula, Formula]] = {
    "sgd": (sgd, either_decay),
    "momentum": (momentum, either_decay),
    "nesterov": (nesterov, either_decay),
    "rmsprop": (rmsprop, either_decay),
    "adagrad": (adagrad, either_decay),
    "adam": (adam, either_decay),
    "lion": (lion, decoupled_decay),
}
"""The step, and the weight decay before it."""

# --------------------------------------------------------------------------------------------------------- losses


def target_share(is_label: Any, class_weight: Any, share: Any, smoothing: Any, total: Any) -> Any:
    """What of the weighted target with label smoothing lies on a class of this weight: the label's share, and of every
    class ``share`` = smoothing / classes; divided by the batch's ``total``."""
    q = class_weight * share
    if is_label:
        q += class_weight * (_ONE - smoothing)
    return q / total


def counts_as_larger(value: Any, largest: Any) -> Any:
    """Whether a later output counts as larger: of equal ones the first does, and as in NumPy the first NaN does."""
    return value > largest or (value != value and largest == largest)


# --------------------------------------------------------------------------------------------------- random numbers

_LOW, _SHIFT = _U64(0xFFFFFFFF), _U64(32)
_MULTIPLIER_0, _MULTIPLIER_1 = _U64(0xD2511F53), _U64(0xCD9E8D57)
_WEYL_0, _WEYL_1 = _U64(0x9E3779B9), _U64(0xBB67AE85)
_TO_24_BITS, _UNIT = _U64(8), _F(2.0**-24)
_BOX_LEAST, _BOX_MORE = _F(0.15), _F(0.3)


def philox(c0: Any, c1: Any, c2: Any, c3: Any, k0: Any, k1: Any) -> Any:
    """Philox4x32-10 (Salmon et al. 2011): four random words for counter c and key k, 32-bit words kept in uint64. (The
    compiler sees that the upper halves are 0, and multiplies 32 bits by 32.)"""
    for _ in range(10):
        p0, p1 = _MULTIPLIER_0 * c0, _MULTIPLIER_1 * c2
        c0, c1, c2, c3 = (p1 >> _SHIFT) ^ c1 ^ k0, p1 & _LOW, (p0 >> _SHIFT) ^ c3 ^ k1, p0 & _LOW
        k0, k1 = (k0 + _WEYL_0) & _LOW, (k1 + _WEYL_1) & _LOW
    return c0, c1, c2, c3


def dropped(x: Any, word: Any, threshold: Any, keep: Any) -> Any:
    """x / keep, or 0 where the random word is below the threshold."""
    return x / keep if word >= threshold else _ZERO


def radius(word: Any) -> Any:
    """The radius in Box and Muller's (1958) transform: sqrt(-2 log(u)) with u in (0, 1]."""
    u = (_F(_U32(word >> _TO_24_BITS)) + _ONE) * _UNIT
    return _F(sqrt(_MINUS_TWO * _F(log(u))))


def uniform(word: Any) -> Any:
    """In [0, 1), of a word's upper 24 bits, exactly."""
    return _F(_U32(word >> _TO_24_BITS)) * _UNIT


def augmentation(multiply: Formula, add: Formula) -> Formula:
    """A formula for a photo's parameters, in AUGMENTATION's order, from the settings and at least 15 uniform numbers u.

    ``multiply`` and ``add`` round separately, so that every device draws the same bits; 2 u - 1 is exact anyway.
    """

    def parameters(
        u: Any, mirror: Any, shift: Any, zoom: Any, rotate: Any, gamma: Any, contrast: Any, brightness: Any, blur: Any,
        erase: Any,
    ) -> Any:  # fmt: skip
        erased = u[10] < erase
        height = add(_BOX_LEAST, multiply(_BOX_MORE, u[11])) if erased else _ZERO
        width = add(_BOX_LEAST, multiply(_BOX_MORE, u[12])) if erased else _ZERO
        return (
            _ONE if mirror and u[0] < _HALF else _ZERO,
            shift * (_TWO * u[1] - _ONE),
            shift * (_TWO * u[2] - _ONE),
            add(_ONE, multiply(zoom, _TWO * u[3] - _ONE)),
            rotate * (_TWO * u[4] - _ONE),
            gamma * (_TWO * u[5] - _ONE),
            add(_ONE, multiply(contrast, _TWO * u[6] - _ONE)),
            brightness * (_TWO * u[7] - _ONE),
            _HALF + u[9] if u[8] < blur else _ZERO,
            u[13] * (_ONE - height),
            u[14] * (_ONE - width),
            height,
            width,
        )

    return parameters
