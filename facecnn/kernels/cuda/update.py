"""Step rules over flat buffers: each thread takes every so-manieth element."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from facecnn.kernels.cuda.driver import cuda, kernel, launch
from facecnn.kernels.cuda.memory import Array, Workspace
from facecnn.kernels.cuda.sizes import STRIDE, THREADS, blocks_for

_F = np.float32


@kernel
def _momentum(
    weight: Array,
    velocity: Array,
    gradient: Array,
    learning_rate: Array,
    momentum: Any,
    nesterov: Any,
    weight_decay: Any,
    decaying: Any,
) -> None:
    # weight, velocity, gradient (P,); learning_rate (1,)
    rate = learning_rate[0]
    i = cuda.grid(1)
    while i < weight.size:
        g = gradient[i]
        if i < decaying:
            g += weight_decay * weight[i]
        v = momentum * velocity[i] + g
        velocity[i] = v
        if nesterov:
            v = g + momentum * v
        weight[i] -= rate * v
        i += STRIDE


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
    launch(
        _momentum,
        blocks_for(weight.size),
        THREADS,
        workspace,
        weight,
        velocity,
        gradient,
        learning_rate,
        float(momentum),
        bool(nesterov),
        float(weight_decay),
        decaying,
    )


@kernel
def _adam(
    weight: Array,
    mean: Array,
    variance: Array,
    gradient: Array,
    learning_rate: Array,
    step: Array,
    log_beta1: Any,
    log_beta2: Any,
    pull1: Any,
    keep2: Any,
    pull2: Any,
    epsilon: Any,
    weight_decay: Any,
    decaying: Any,
) -> None:
    # all arrays (P,), but learning_rate and step (1,); 1 - beta^t = -expm1(t log(beta)) without loss of digits
    t = _F(step[0]) + _F(1)
    rate = learning_rate[0]
    scaled_rate = rate / -math.expm1(t * log_beta1)
    unbias2 = -math.expm1(t * log_beta2)
    i = cuda.grid(1)
    while i < weight.size:
        g = gradient[i]
        w = weight[i]
        if i < decaying:
            w -= rate * weight_decay * w
        m = mean[i] + pull1 * (g - mean[i])
        v = keep2 * variance[i] + pull2 * g * g
        mean[i] = m
        variance[i] = v
        weight[i] = w - scaled_rate * m / (math.sqrt(v / unbias2) + epsilon)
        i += STRIDE


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
    launch(
        _adam,
        blocks_for(weight.size),
        THREADS,
        workspace,
        weight,
        mean,
        variance,
        gradient,
        learning_rate,
        step,
        math.log(beta1) if beta1 > 0 else -math.inf,
        math.log(beta2) if beta2 > 0 else -math.inf,
        1.0 - beta1,
        float(beta2),
        1.0 - beta2,
        float(epsilon),
        float(weight_decay),
        decaying,
    )


@kernel
def _average(average: Array, weight: Array, step: Array, decay: Any) -> None:
    t = _F(step[0])
    growing = (_F(1) + t) / (_F(10) + t)
    share = _F(1) - (decay if decay < growing else growing)
    i = cuda.grid(1)
    while i < weight.size:
        average[i] += share * (weight[i] - average[i])
        i += STRIDE


def average_update(average: Array, weight: Array, step: Array, decay: float, workspace: Workspace) -> None:
    """An exponential moving average that follows quickly in the first steps."""
    if weight.size:
        launch(_average, blocks_for(weight.size), THREADS, workspace, average, weight, step, float(decay))


@kernel
def _accumulate(total: Array, x: Array, first: Any) -> None:
    i = cuda.grid(1)
    while i < total.size:
        total[i] = x[i] if first else total[i] + x[i]
        i += STRIDE


def accumulate(total: Array, x: Array, first: bool, workspace: Workspace) -> None:
    """total += x, or total = x."""
    launch(_accumulate, blocks_for(total.size), THREADS, workspace, total, x, bool(first))
