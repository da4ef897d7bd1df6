"""Step rules over flat buffers, in blocks of fixed size."""

from __future__ import annotations

from math import cos, log, pi, sin, sqrt
from typing import Any

import numpy as np
from numba import prange

from facecnn.kernels.cpu.elementwise import BLOCK
from facecnn.kernels.cpu.jit import compiled, helper
from facecnn.kernels.cpu.launching import launch
from facecnn.kernels.cpu.memory import Array, Workspace
from facecnn.kernels.cpu.random import philox
from facecnn.kernels.protocol import PURPOSE_NOISE

_F, _U64 = np.float32, np.uint64
_ZERO, _ONE = _F(0), _F(1)


def _decays(weight_decay: float, decoupled: bool) -> tuple[Any, Any]:
    """The shares of a weight that are added to its gradient, and that (times the learning rate) are taken from it."""
    return (_ZERO, _F(weight_decay)) if decoupled else (_F(weight_decay), _ZERO)


@helper(inline=True)
def _decayed(w: Any, g: Any, coupled: Any, pull: Any, decays: bool) -> Any:
    return w - (pull if decays else _ZERO) * w, g + (coupled if decays else _ZERO) * w


@compiled(parallel=True)
def _sgd(weight: Array, gradient: Array, learning_rate: Array, weight_decay: Any, decaying: int) -> None:
    rate = learning_rate[0]
    for block in prange((weight.size + BLOCK - 1) // BLOCK):
        for i in range(block * BLOCK, min(weight.size, (block + 1) * BLOCK)):
            weight[i] -= rate * (gradient[i] + (weight_decay if i < decaying else _ZERO) * weight[i])


@compiled(parallel=True)
def _momentum(
    weight: Array,
    velocity: Array,
    gradient: Array,
    learning_rate: Array,
    momentum: Any,
    nesterov: bool,
    coupled: Any,
    pull: Any,
    decaying: int,
) -> None:
    rate = learning_rate[0]
    pull *= rate
    for block in prange((weight.size + BLOCK - 1) // BLOCK):
        for i in range(block * BLOCK, min(weight.size, (block + 1) * BLOCK)):
            w, g = _decayed(weight[i], gradient[i], coupled, pull, i < decaying)
            v = momentum * velocity[i] + g
            velocity[i] = v
            weight[i] = w - rate * (g + momentum * v if nesterov else v)


@compiled(parallel=True)
def _rmsprop(
    weight: Array,
    variance: Array,
    gradient: Array,
    learning_rate: Array,
    keep2: Any,
    pull2: Any,
    epsilon: Any,
    coupled: Any,
    pull: Any,
    decaying: int,
) -> None:
    rate = learning_rate[0]
    pull *= rate
    for block in prange((weight.size + BLOCK - 1) // BLOCK):
        for i in range(block * BLOCK, min(weight.size, (block + 1) * BLOCK)):
            w, g = _decayed(weight[i], gradient[i], coupled, pull, i < decaying)
            v = keep2 * variance[i] + pull2 * g * g
            variance[i] = v
            weight[i] = w - rate * g / (_F(sqrt(v)) + epsilon)


@compiled(parallel=True)
def _adagrad(
    weight: Array,
    squares: Array,
    gradient: Array,
    learning_rate: Array,
    initial: Any,
    epsilon: Any,
    coupled: Any,
    pull: Any,
    decaying: int,
) -> None:
    rate = learning_rate[0]
    pull *= rate
    for block in prange((weight.size + BLOCK - 1) // BLOCK):
        for i in range(block * BLOCK, min(weight.size, (block + 1) * BLOCK)):
            w, g = _decayed(weight[i], gradient[i], coupled, pull, i < decaying)
            total = squares[i] + g * g
            squares[i] = total
            weight[i] = w - rate * g / (_F(sqrt(initial + total)) + epsilon)


@compiled(parallel=True)
def _adam(
    weight: Array,
    mean: Array,
    variance: Array,
    gradient: Array,
    learning_rate: Array,
    step: Array,
    beta1: float,
    beta2: float,
    epsilon: Any,
    coupled: Any,
    pull: Any,
    decaying: int,
) -> None:
    t = float(step[0]) + 1.0
    rate = learning_rate[0]
    pull *= rate
    pull1, keep2, pull2 = _F(1 - beta1), _F(beta2), _F(1 - beta2)
    scaled_rate, unbias2 = rate / _F(1 - beta1**t), _F(1 - beta2**t)
    for block in prange((weight.size + BLOCK - 1) // BLOCK):
        for i in range(block * BLOCK, min(weight.size, (block + 1) * BLOCK)):
            w, g = _decayed(weight[i], gradient[i], coupled, pull, i < decaying)
            m = mean[i] + pull1 * (g - mean[i])
            v = keep2 * variance[i] + pull2 * g * g
            mean[i] = m
            variance[i] = v
            weight[i] = w - scaled_rate * m / (_F(sqrt(v / unbias2)) + epsilon)


@compiled(parallel=True)
def _lion(
    weight: Array,
    mean: Array,
    gradient: Array,
    learning_rate: Array,
    keep1: Any,
    pull1: Any,
    keep2: Any,
    pull2: Any,
    weight_decay: Any,
    decaying: int,
) -> None:
    rate = learning_rate[0]
    pull = rate * weight_decay
    for block in prange((weight.size + BLOCK - 1) // BLOCK):
        for i in range(block * BLOCK, min(weight.size, (block + 1) * BLOCK)):
            g = gradient[i]
            w = weight[i] - (pull if i < decaying else _ZERO) * weight[i]
            m = keep1 * mean[i] + pull1 * g
            sign = _F(m > _ZERO) - _F(m < _ZERO) if m == m else m  # NaN stays NaN
            mean[i] = keep2 * mean[i] + pull2 * g
            weight[i] = w - rate * sign


@compiled(parallel=True)
def _clip(out: Array, gradient: Array, sums: Array, limit: float) -> None:
    for block in prange(sums.size):
        squares = 0.0
        for i in range(block * BLOCK, min(gradient.size, (block + 1) * BLOCK)):
            squares += np.float64(gradient[i]) * np.float64(gradient[i])
        sums[block] = squares
    total = 0.0
    for part in sums:
        total += part
    factor = limit / (sqrt(total) + 1e-6)
    share = _F(factor) if not factor >= 1 else _ONE
    for block in prange(sums.size):
        for i in range(block * BLOCK, min(gradient.size, (block + 1) * BLOCK)):
            out[i] = share * gradient[i]


@helper(inline=True)
def _two_normals(word0: Any, word1: Any) -> Any:
    u = _F((word0 >> _U64(8)) + _U64(1)) * _F(2.0**-24)
    v = _F(word1 >> _U64(8)) * _F(2.0**-24)
    radius, angle = _F(sqrt(_F(-2) * _F(log(u)))), _F(2 * pi) * v
    return radius * _F(cos(angle)), radius * _F(sin(angle))


@compiled(parallel=True)
def _noise(
    out: Array, gradient: Array, counts: Array, seed: Any, purpose: Any, noise: float, decay: float, step: Array
) -> None:
    deviation = _F(noise / (1.0 + float(step[0])) ** decay)
    zero, t = _U64(0), _U64(step[0])
    for block in prange((counts.size + BLOCK - 1) // BLOCK):
        for b in range(block * BLOCK, min(counts.size, (block + 1) * BLOCK)):
            w0, w1, w2, w3 = philox(_U64(b), zero, t, zero, seed, purpose)
            z0, z1 = _two_normals(w0, w1)
            z2, z3 = _two_normals(w2, w3)
            for i, z in enumerate((z0, z1, z2, z3)):
                e = 4 * b + i
                out[e] = gradient[e] + (deviation if i < counts[b] else _ZERO) * z


@compiled(parallel=True)
def _average(average: Array, weight: Array, step: Array, decay: float) -> None:
    t = float(step[0])
    share = _F(1 - min(decay, (1 + t) / (10 + t)))
    for block in prange((weight.size + BLOCK - 1) // BLOCK):
        for i in range(block * BLOCK, min(weight.size, (block + 1) * BLOCK)):
            average[i] += share * (weight[i] - average[i])


@compiled(parallel=True)
def _accumulate(total: Array, x: Array, first: bool) -> None:
    for block in prange((total.size + BLOCK - 1) // BLOCK):
        for i in range(block * BLOCK, min(total.size, (block + 1) * BLOCK)):
            total[i] = x[i] if first else total[i] + x[i]


def sgd_update(
    weight: Array, gradient: Array, learning_rate: Array, weight_decay: float, decaying: int, workspace: Workspace
) -> None:
    """Stochastic gradient descent, in place."""
    launch(_sgd, weight, gradient, learning_rate, _F(weight_decay), decaying, operations=3 * weight.size)


def momentum_update(
    weight: Array,
    velocity: Array,
    gradient: Array,
    learning_rate: Array,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
    decoupled: bool,
    decaying: int,
    workspace: Workspace,
) -> None:
    """Stochastic gradient descent with momentum, in place."""
    decays = _decays(weight_decay, decoupled)
    launch(
        _momentum,
        weight,
        velocity,
        gradient,
        learning_rate,
        _F(momentum),
        nesterov,
        *decays,
        decaying,
        operations=6 * weight.size,
    )


def rmsprop_update(
    weight: Array,
    variance: Array,
    gradient: Array,
    learning_rate: Array,
    beta2: float,
    epsilon: float,
    weight_decay: float,
    decoupled: bool,
    decaying: int,
    workspace: Workspace,
) -> None:
    """RMSprop, in place."""
    numbers = _F(beta2), _F(1 - beta2), _F(epsilon), *_decays(weight_decay, decoupled)
    launch(_rmsprop, weight, variance, gradient, learning_rate, *numbers, decaying, operations=15 * weight.size)


def adagrad_update(
    weight: Array,
    squares: Array,
    gradient: Array,
    learning_rate: Array,
    initial: float,
    epsilon: float,
    weight_decay: float,
    decoupled: bool,
    decaying: int,
    workspace: Workspace,
) -> None:
    """Adagrad, in place."""
    numbers = _F(initial), _F(epsilon), *_decays(weight_decay, decoupled)
    launch(_adagrad, weight, squares, gradient, learning_rate, *numbers, decaying, operations=15 * weight.size)


def adam_update(
    weight: Array,
    mean: Array,
    variance: Array,
    gradient: Array,
    learning_rate: Array,
    step: Array,
    beta1: float,
    beta2: float,
    epsilon: float,
    weight_decay: float,
    decoupled: bool,
    decaying: int,
    workspace: Workspace,
) -> None:
    """Adam, and with ``decoupled`` weight decay AdamW, in place."""
    numbers = float(beta1), float(beta2), _F(epsilon), *_decays(weight_decay, decoupled)
    launch(
        _adam, weight, mean, variance, gradient, learning_rate, step, *numbers, decaying, operations=15 * weight.size
    )


def lion_update(
    weight: Array,
    mean: Array,
    gradient: Array,
    learning_rate: Array,
    beta1: float,
    beta2: float,
    weight_decay: float,
    decaying: int,
    workspace: Workspace,
) -> None:
    """Lion, in place."""
    numbers = _F(beta1), _F(1 - beta1), _F(beta2), _F(1 - beta2), _F(weight_decay)
    launch(_lion, weight, mean, gradient, learning_rate, *numbers, decaying, operations=10 * weight.size)


def clip_gradient(out: Array, gradient: Array, limit: float, workspace: Workspace) -> None:
    """out = gradient, scaled down to a 2-norm of ``limit`` if it is longer; the sum in float64."""
    sums = workspace.array("squares", (-(-gradient.size // BLOCK),), np.float64)
    launch(_clip, out, gradient, sums, float(limit), operations=4 * out.size)


def add_noise(
    out: Array,
    gradient: Array,
    counts: Array,
    seed: int,
    noise: float,
    noise_decay: float,
    step: Array,
    workspace: Workspace,
) -> None:
    """out = gradient + normal noise, which fades from step to step."""
    launch(
        _noise,
        out,
        gradient,
        counts,
        _U64(seed),
        _U64(PURPOSE_NOISE),
        float(noise),
        float(noise_decay),
        step,
        operations=100 * out.size,
    )


def average_update(average: Array, weight: Array, step: Array, decay: float, workspace: Workspace) -> None:
    """An exponential moving average that follows quickly in the first steps."""
    launch(_average, average, weight, step, float(decay), operations=3 * average.size)


def accumulate(total: Array, x: Array, first: bool, workspace: Workspace) -> None:
    """total += x, or total = x."""
    launch(_accumulate, total, x, first, operations=2 * total.size)
