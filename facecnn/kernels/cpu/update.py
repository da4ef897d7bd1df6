"""Step rules over flat buffers, in blocks of fixed size."""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np
from numba import prange

from facecnn.kernels.cpu.elementwise import BLOCK
from facecnn.kernels.cpu.jit import compiled
from facecnn.kernels.cpu.memory import Array, Workspace

_F = np.float32
_ZERO = _F(0)


@compiled(parallel=True)
def _momentum(
    weight: Array,
    velocity: Array,
    gradient: Array,
    learning_rate: Array,
    momentum: Any,
    nesterov: bool,
    weight_decay: Any,
    decaying: int,
) -> None:
    rate = learning_rate[0]
    for block in prange((weight.size + BLOCK - 1) // BLOCK):
        for i in range(block * BLOCK, min(weight.size, (block + 1) * BLOCK)):
            g = gradient[i] + (weight_decay if i < decaying else _ZERO) * weight[i]
            v = momentum * velocity[i] + g
            velocity[i] = v
            weight[i] -= rate * (g + momentum * v if nesterov else v)


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
    weight_decay: Any,
    decaying: int,
) -> None:
    t = float(step[0]) + 1.0
    rate = learning_rate[0]
    decay = rate * weight_decay
    pull1, keep2, pull2 = _F(1 - beta1), _F(beta2), _F(1 - beta2)
    scaled_rate, unbias2 = rate / _F(1 - beta1**t), _F(1 - beta2**t)
    for block in prange((weight.size + BLOCK - 1) // BLOCK):
        for i in range(block * BLOCK, min(weight.size, (block + 1) * BLOCK)):
            g = gradient[i]
            w = weight[i] - (decay if i < decaying else _ZERO) * weight[i]
            m = mean[i] + pull1 * (g - mean[i])
            v = keep2 * variance[i] + pull2 * g * g
            mean[i] = m
            variance[i] = v
            weight[i] = w - scaled_rate * m / (_F(sqrt(v / unbias2)) + epsilon)


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


def momentum_update(
    weight: Array,
    velocity: Array,
    gradient: Array,
    learning_rate: Array,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
    decaying: int,
    workspace: Workspace,
) -> None:
    """Stochastic gradient descent with momentum, in place."""
    _momentum(weight, velocity, gradient, learning_rate, _F(momentum), nesterov, _F(weight_decay), decaying)


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
    decaying: int,
    workspace: Workspace,
) -> None:
    """Adam with decoupled weight decay, in place."""
    _adam(
        weight,
        mean,
        variance,
        gradient,
        learning_rate,
        step,
        float(beta1),
        float(beta2),
        _F(epsilon),
        _F(weight_decay),
        decaying,
    )


def average_update(average: Array, weight: Array, step: Array, decay: float, workspace: Workspace) -> None:
    """An exponential moving average that follows quickly in the first steps."""
    _average(average, weight, step, float(decay))


def accumulate(total: Array, x: Array, first: bool, workspace: Workspace) -> None:
    """total += x, or total = x."""
    _accumulate(total, x, first)
