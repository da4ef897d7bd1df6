"""Step rules over flat buffers: each thread takes every so-manieth element."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

from facecnn.kernels.cuda.block import block_sum, columns_of
from facecnn.kernels.cuda.driver import cuda, device_function, kernel, launch
from facecnn.kernels.cuda.memory import Array, Workspace
from facecnn.kernels.cuda.random import philox
from facecnn.kernels.cuda.sizes import BLOCKS, STRIDE, THREADS, blocks_for, launch_each
from facecnn.kernels.cuda.trigonometry import cosine_and_sine
from facecnn.kernels.protocol import PURPOSE_NOISE

_F, _I, _U32, _U64 = np.float32, np.int32, np.uint32, np.uint64
_ZERO, _ONE, _MINUS_TWO = _F(0), _F(1), _F(-2)
_LEAST_NORM = _F(1e-6)
_UNIFORM_SHIFT, _UNIFORM_STEP = _U64(8), _F(2.0**-24)
_EIGHTH, _QUARTER_BITS, _RADIANS = _I(2**21), _I(22), _F(2 * math.pi / 2**24)
"""Of a turn of 2^24."""

_PARTS: int = min(BLOCKS, THREADS)
"""Partial sums of the norm at most: one for each thread of a block."""
_PARTS_STRIDE: int = _PARTS * THREADS


def _decays(weight_decay: float, decoupled: bool) -> tuple[float, float]:
    """The shares of a weight that are added to its gradient, and that (times the learning rate) are taken from it."""
    return (0.0, float(weight_decay)) if decoupled else (float(weight_decay), 0.0)


# ------------------------------------------------------------------------------------------------------ step rules


@kernel
def _sgd(weight: Array, gradient: Array, learning_rate: Array, weight_decay: Any, decaying: Any) -> None:
    # weight, gradient (P,); learning_rate (1,)
    rate = learning_rate[0]
    i = cuda.grid(1)
    while i < weight.size:
        w, g = weight[i], gradient[i]
        if i < decaying:
            g += weight_decay * w
        weight[i] = w - rate * g
        i += STRIDE


def sgd_update(
    weight: Array, gradient: Array, learning_rate: Array, weight_decay: float, decaying: int, workspace: Workspace
) -> None:
    """Stochastic gradient descent, in place."""
    arrays = weight, gradient, learning_rate
    launch_each(_sgd, weight.size, workspace, *arrays, float(weight_decay), decaying)


@kernel
def _momentum(
    weight: Array,
    velocity: Array,
    gradient: Array,
    learning_rate: Array,
    momentum: Any,
    nesterov: Any,
    coupled: Any,
    pull: Any,
    decaying: Any,
) -> None:
    # weight, velocity, gradient (P,); learning_rate (1,)
    rate = learning_rate[0]
    i = cuda.grid(1)
    while i < weight.size:
        w, g = weight[i], gradient[i]
        if i < decaying:
            g += coupled * w
            w -= rate * pull * w
        v = momentum * velocity[i] + g
        velocity[i] = v
        if nesterov:
            v = g + momentum * v
        weight[i] = w - rate * v
        i += STRIDE


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
    launch_each(
        _momentum,
        weight.size,
        workspace,
        weight,
        velocity,
        gradient,
        learning_rate,
        float(momentum),
        bool(nesterov),
        *_decays(weight_decay, decoupled),
        decaying,
    )


@kernel
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
    decaying: Any,
) -> None:
    # weight, variance, gradient (P,); learning_rate (1,)
    rate = learning_rate[0]
    i = cuda.grid(1)
    while i < weight.size:
        w, g = weight[i], gradient[i]
        if i < decaying:
            g += coupled * w
            w -= rate * pull * w
        v = keep2 * variance[i] + pull2 * g * g
        variance[i] = v
        weight[i] = w - rate * g / (math.sqrt(v) + epsilon)
        i += STRIDE


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
    launch_each(
        _rmsprop,
        weight.size,
        workspace,
        weight,
        variance,
        gradient,
        learning_rate,
        float(beta2),
        1.0 - beta2,
        float(epsilon),
        *_decays(weight_decay, decoupled),
        decaying,
    )


@kernel
def _adagrad(
    weight: Array,
    squares: Array,
    gradient: Array,
    learning_rate: Array,
    initial: Any,
    epsilon: Any,
    coupled: Any,
    pull: Any,
    decaying: Any,
) -> None:
    # weight, squares, gradient (P,); learning_rate (1,)
    rate = learning_rate[0]
    i = cuda.grid(1)
    while i < weight.size:
        w, g = weight[i], gradient[i]
        if i < decaying:
            g += coupled * w
            w -= rate * pull * w
        total = squares[i] + g * g
        squares[i] = total
        weight[i] = w - rate * g / (math.sqrt(initial + total) + epsilon)
        i += STRIDE


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
    launch_each(
        _adagrad,
        weight.size,
        workspace,
        weight,
        squares,
        gradient,
        learning_rate,
        float(initial),
        float(epsilon),
        *_decays(weight_decay, decoupled),
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
    coupled: Any,
    pull: Any,
    decaying: Any,
) -> None:
    # all arrays (P,), but learning_rate and step (1,); 1 - beta^t = -expm1(t log(beta)) without loss of digits
    t = _F(step[0]) + _ONE
    rate = learning_rate[0]
    scaled_rate = rate / -math.expm1(t * log_beta1)
    unbias2 = -math.expm1(t * log_beta2)
    i = cuda.grid(1)
    while i < weight.size:
        w, g = weight[i], gradient[i]
        if i < decaying:
            g += coupled * w
            w -= rate * pull * w
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
    decoupled: bool,
    decaying: int,
    workspace: Workspace,
) -> None:
    """Adam, and with ``decoupled`` weight decay AdamW, in place."""
    launch_each(
        _adam,
        weight.size,
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
        *_decays(weight_decay, decoupled),
        decaying,
    )


@kernel
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
    decaying: Any,
) -> None:
    # weight, mean, gradient (P,); learning_rate (1,)
    rate = learning_rate[0]
    i = cuda.grid(1)
    while i < weight.size:
        w, g = weight[i], gradient[i]
        if i < decaying:
            w -= rate * weight_decay * w
        m = keep1 * mean[i] + pull1 * g
        if m > _ZERO:
            m = _ONE
        elif m < _ZERO:
            m = -_ONE  # and neither 0 nor NaN
        mean[i] = keep2 * mean[i] + pull2 * g
        weight[i] = w - rate * m
        i += STRIDE


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
    launch_each(
        _lion,
        weight.size,
        workspace,
        weight,
        mean,
        gradient,
        learning_rate,
        float(beta1),
        1.0 - beta1,
        float(beta2),
        1.0 - beta2,
        float(weight_decay),
        decaying,
    )


# --------------------------------------------------------------------------------- what is done to the gradient


@cache
def _sum_squares(threads: int) -> Any:
    columns = columns_of(threads)
    add_up = block_sum(threads)

    @kernel
    def sum_squares(sums: Array, gradient: Array) -> None:
        # sums (blocks,): each block adds up its own elements of gradient (P,)
        values = cuda.shared.array(threads, _F)
        partial = cuda.shared.array(columns, _F)
        squares = _ZERO
        i = cuda.grid(1)
        while i < gradient.size:
            squares += gradient[i] * gradient[i]
            i += _PARTS_STRIDE
        squares = add_up(values, partial, squares)
        if cuda.threadIdx.x == 0:
            sums[cuda.blockIdx.x] = squares

    return sum_squares


@cache
def _clip(threads: int) -> Any:
    columns = columns_of(threads)
    add_up = block_sum(threads)

    @kernel
    def clip(out: Array, gradient: Array, sums: Array, limit: Any) -> None:
        # out, gradient (P,). Every block adds up the few partial sums once more, in the same order, so that no third
        # kernel has to.
        values = cuda.shared.array(threads, _F)
        partial = cuda.shared.array(columns, _F)
        thread = cuda.threadIdx.x
        squares = add_up(values, partial, sums[thread] if thread < sums.size else _ZERO)
        factor = limit / (math.sqrt(squares) + _LEAST_NORM)
        if factor >= _ONE:  # and not NaN
            factor = _ONE
        i = cuda.grid(1)
        while i < gradient.size:
            out[i] = factor * gradient[i]
            i += STRIDE

    return clip


def clip_gradient(out: Array, gradient: Array, limit: float, workspace: Workspace) -> None:
    """out = gradient, scaled down to a 2-norm of ``limit`` if it is longer. (One of 1e19 or more, whose square is no
    float32, becomes 0.)"""
    parts = min(_PARTS, blocks_for(gradient.size))
    sums = workspace.array("squares", (parts,))
    launch(_sum_squares(THREADS), parts, THREADS, workspace, sums, gradient)
    launch_each(_clip(THREADS), gradient.size, workspace, out, gradient, sums, float(limit))


@device_function
def _two_normals(word0: Any, word1: Any) -> Any:
    """Box and Muller's. Of the angle, a number of 24 bits, whole quarter turns are taken off without rounding."""
    u = (_F(_U32(word0 >> _UNIFORM_SHIFT)) + _ONE) * _UNIFORM_STEP
    radius = math.sqrt(_MINUS_TWO * _F(math.log(u)))
    angle = _I(_U32(word1 >> _UNIFORM_SHIFT))
    turned = (angle + _EIGHTH) >> _QUARTER_BITS
    cosine, sine = cosine_and_sine(turned, _F(angle - (turned << _QUARTER_BITS)) * _RADIANS)
    return radius * cosine, radius * sine


@kernel
def _noise(
    out: Array, gradient: Array, counts: Array, seed: Any, purpose: Any, noise: Any, decay: Any, step: Array
) -> None:
    # out, gradient (P,), counts (P / 4,): a thread makes the four normal numbers of one counter; step (1,)
    deviation = noise * math.exp(-decay * math.log(_ONE + _F(step[0])))
    t = _U64(_U32(step[0]))
    b = cuda.grid(1)
    while b < counts.size:
        w0, w1, w2, w3 = philox(_U64(_U32(b)), _U64(0), t, _U64(0), seed, purpose)
        z0, z1 = _two_normals(w0, w1)
        z2, z3 = _two_normals(w2, w3)
        at, count = 4 * b, counts[b]
        out[at] = gradient[at] + (deviation if count > 0 else _ZERO) * z0
        out[at + 1] = gradient[at + 1] + (deviation if count > 1 else _ZERO) * z1
        out[at + 2] = gradient[at + 2] + (deviation if count > 2 else _ZERO) * z2
        out[at + 3] = gradient[at + 3] + (deviation if count > 3 else _ZERO) * z3
        b += STRIDE


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
    launch_each(
        _noise,
        counts.size,
        workspace,
        out,
        gradient,
        counts,
        _U64(seed),
        _U64(PURPOSE_NOISE),
        float(noise),
        float(noise_decay),
        step,
    )


# ------------------------------------------------------------------------------------------------------- and sums


@kernel
def _average(average: Array, weight: Array, step: Array, decay: Any) -> None:
    t = _F(step[0])
    growing = (_ONE + t) / (_F(10) + t)
    share = _ONE - (decay if decay < growing else growing)
    i = cuda.grid(1)
    while i < weight.size:
        average[i] += share * (weight[i] - average[i])
        i += STRIDE


def average_update(average: Array, weight: Array, step: Array, decay: float, workspace: Workspace) -> None:
    """An exponential moving average that follows quickly in the first steps."""
    if weight.size:
        launch_each(_average, weight.size, workspace, average, weight, step, float(decay))


@kernel
def _accumulate(total: Array, x: Array, first: Any) -> None:
    i = cuda.grid(1)
    while i < total.size:
        total[i] = x[i] if first else total[i] + x[i]
        i += STRIDE


def accumulate(total: Array, x: Array, first: bool, workspace: Workspace) -> None:
    """total += x, or total = x."""
    launch_each(_accumulate, total.size, workspace, total, x, bool(first))
