"""Optimizers over flat buffers, in grid-stride loops."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from facecnn.kernels import formulas
from facecnn.kernels.cuda.block import COLUMNS, add_up
from facecnn.kernels.cuda.driver import cuda, device_function, kernel, launch
from facecnn.kernels.cuda.memory import Array, Workspace
from facecnn.kernels.cuda.random import philox
from facecnn.kernels.cuda.sizes import BLOCKS, STRIDE, THREADS, blocks_for, launch_each
from facecnn.kernels.cuda.trigonometry import cosine_and_sine
from facecnn.kernels.protocol import PURPOSE_NOISE
from facecnn.kernels.update_rules import map_tuple, store_tuple, update_rule

_F, _I, _U32, _U64 = np.float32, np.int32, np.uint32, np.uint64
_ZERO, _ONE = _F(0), _F(1)
_LEAST_NORM = _F(1e-6)
_TO_24_BITS = _U64(8)
_EIGHTH, _QUARTER_BITS, _RADIANS = _I(2**21), _I(22), _F(2 * math.pi / 2**24)
"""Of a turn of 2^24."""

_PARTS: int = min(BLOCKS, THREADS)
"""Partial sums of the norm at most: one for each thread of a block."""
_PARTS_STRIDE: int = _PARTS * THREADS


_radius = device_function(formulas.radius)


# ------------------------------------------------------------------------------------------------------ optimizers


@device_function
def _element(array: Array, i: Any) -> Any:
    return array[i]


@device_function
def _bias_correction(log_beta: Any, t: Any) -> Any:
    return -math.expm1(t * log_beta)  # 1 - beta^t without loss of digits


@cache
def _update(name: str) -> Any:
    rule = update_rule(name)
    step_of, decayed, count = device_function(rule.step), device_function(rule.decay), len(rule.state)
    read, write = map_tuple(device_function, _element, count), store_tuple(device_function, count)
    corrections_of = map_tuple(device_function, _bias_correction, len(rule.betas))
    of_rate = 1 if rule.corrects_rate else 0

    @kernel
    def update(
        weight: Array, state: Any, gradient: Array, learning_rate: Array, step: Array, numbers: Any, log_betas: Any,
        coupled: Any, decoupled: Any, decaying: Any,
    ) -> None:  # fmt: skip
        # weight, each of the state, gradient (P,); learning_rate, step (1,)
        rate = learning_rate[0]
        corrections = corrections_of(log_betas, _F(step[0]) + _ONE)
        own_rate = rate / corrections[0] if of_rate else rate
        i = cuda.grid(1)
        while i < weight.size:
            w, g = weight[i], gradient[i]
            if i < decaying:
                w, g = decayed(w, g, coupled, rate * decoupled)
            new = step_of(w, g, *read(state, i), own_rate, *numbers, *corrections[of_rate:])
            weight[i] = new[0]
            write(state, i, new[1:])
            i += STRIDE

    return update


def optimizer_update(
    weight: Array, state: Sequence[Array], gradient: Array, learning_rate: Array, step: Array, rule: str,
    scalars: Mapping[str, float], decaying: int, workspace: Workspace,
) -> None:  # fmt: skip
    """One step of an optimizer, in place."""
    values = update_rule(rule).values(state, scalars)
    launch_each(
        _update(rule), weight.size, workspace, weight, tuple(state), gradient, learning_rate, step,
        tuple(map(float, values.numbers)), tuple(math.log(beta) if beta > 0 else -math.inf for beta in values.betas),
        float(values.coupled), float(values.decoupled), decaying,
    )  # fmt: skip


# --------------------------------------------------------------------------------- what is done to the gradient


@kernel
def _sum_squares(sums: Array, gradient: Array) -> None:
    # sums (blocks,): each block adds up its own elements of gradient (P,)
    values = cuda.shared.array(THREADS, _F)
    partial = cuda.shared.array(COLUMNS, _F)
    squares = _ZERO
    i = cuda.grid(1)
    while i < gradient.size:
        squares += gradient[i] * gradient[i]
        i += _PARTS_STRIDE
    squares = add_up(values, partial, squares)
    if cuda.threadIdx.x == 0:
        sums[cuda.blockIdx.x] = squares


@kernel
def _clip(out: Array, gradient: Array, sums: Array, limit: Any) -> None:
    # out, gradient (P,). Every block adds up the few partial sums once more, in the same order, so that no third
    # kernel has to.
    values = cuda.shared.array(THREADS, _F)
    partial = cuda.shared.array(COLUMNS, _F)
    thread = cuda.threadIdx.x
    squares = add_up(values, partial, sums[thread] if thread < sums.size else _ZERO)
    factor = limit / (math.sqrt(squares) + _LEAST_NORM)
    if factor >= _ONE:  # and not NaN
        factor = _ONE
    i = cuda.grid(1)
    while i < gradient.size:
        out[i] = factor * gradient[i]
        i += STRIDE


def clip_gradient(out: Array, gradient: Array, limit: float, workspace: Workspace) -> None:
    """out = gradient, scaled down to a 2-norm of ``limit`` if it is longer. (Above about
    1.8e19 the square of the norm overflows float32, and the result is 0.)"""
    parts = min(_PARTS, blocks_for(gradient.size))
    sums = workspace.array("squares", (parts,))
    launch(_sum_squares, parts, THREADS, workspace, sums, gradient)
    launch_each(_clip, gradient.size, workspace, out, gradient, sums, float(limit))


@device_function
def _two_normals(word0: Any, word1: Any) -> Any:
    """Box and Muller's. Of the angle, a number of 24 bits, whole quarter turns are taken off without rounding."""
    radius = _radius(word0)
    angle = _I(_U32(word1 >> _TO_24_BITS))
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
    out: Array, gradient: Array, counts: Array, seed: int, noise: float, noise_decay: float, step: Array,
    workspace: Workspace,
) -> None:  # fmt: skip
    """out = gradient + normal noise, which fades from step to step."""
    launch_each(
        _noise, counts.size, workspace, out, gradient, counts, _U64(seed), _U64(PURPOSE_NOISE), float(noise),
        float(noise_decay), step,
    )  # fmt: skip


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
