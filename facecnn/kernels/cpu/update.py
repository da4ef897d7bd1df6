"""Optimizers over flat buffers, in blocks of fixed size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from math import cos, pi, sin, sqrt
from typing import Any

import numpy as np
from numba import prange

from facecnn.arrays import Array
from facecnn.kernels import formulas
from facecnn.kernels.cpu.elementwise import BLOCK, begin_of, end_of
from facecnn.kernels.cpu.jit import compiled, helper
from facecnn.kernels.cpu.launching import launch
from facecnn.kernels.cpu.memory import Workspace
from facecnn.kernels.cpu.random import philox
from facecnn.kernels.protocol import PURPOSE_NOISE
from facecnn.kernels.update_rules import map_tuple, store_tuple, update_rule

_F, _U64 = np.float32, np.uint64
_ZERO, _ONE = _F(0), _F(1)

_inlined = helper(inline=True)
_radius = _inlined(formulas.radius)


@_inlined
def _element(array: Array, i: int) -> Any:
    return array[i]


@_inlined
def _bias_correction(beta: float, t: float) -> Any:
    return _F(1 - beta**t)


@cache
def _update(name: str) -> Any:
    rule = update_rule(name)
    step_of, decayed, count = _inlined(rule.step), _inlined(rule.decay), len(rule.state)
    read, write = map_tuple(_inlined, _element, count), store_tuple(_inlined, count)
    corrections_of = map_tuple(_inlined, _bias_correction, len(rule.betas))
    of_rate = 1 if rule.corrects_rate else 0

    @compiled(parallel=True)
    def update(
        weight: Array, state: Any, gradient: Array, learning_rate: Array, step: Array, numbers: Any, betas: Any,
        coupled: Any, decoupled: Any, decaying: int,
    ) -> None:  # fmt: skip
        # weight, each of the state, gradient (P,); learning_rate, step (1,)
        rate = learning_rate[0]
        corrections = corrections_of(betas, float(step[0]) + 1.0)
        own_rate = rate / corrections[0] if of_rate else rate
        decoupled *= rate
        last = _U64(decaying)
        for block in prange((weight.size + BLOCK - 1) // BLOCK):
            for i in range(begin_of(block), end_of(block, weight.size)):
                decays = i < last
                w, g = decayed(weight[i], gradient[i], coupled if decays else _ZERO, decoupled if decays else _ZERO)
                new = step_of(w, g, *read(state, i), own_rate, *numbers, *corrections[of_rate:])
                weight[i] = new[0]
                write(state, i, new[1:])

    return update


def optimizer_update(
    weight: Array, state: Sequence[Array], gradient: Array, learning_rate: Array, step: Array, rule: str,
    scalars: Mapping[str, float], decaying: int, workspace: Workspace,
) -> None:  # fmt: skip
    """One step of an optimizer, in place."""
    values = update_rule(rule).values(state, scalars)
    launch(
        _update(rule), weight, tuple(state), gradient, learning_rate, step, tuple(map(_F, values.numbers)),
        tuple(map(float, values.betas)), _F(values.coupled), _F(values.decoupled), decaying,
        operations=(3 + 6 * len(state)) * weight.size,
    )  # fmt: skip


@compiled(parallel=True)
def _clip(out: Array, gradient: Array, sums: Array, limit: float) -> None:
    for block in prange(sums.size):
        squares = 0.0
        for i in range(begin_of(block), end_of(block, gradient.size)):
            squares += np.float64(gradient[i]) * np.float64(gradient[i])
        sums[block] = squares
    total = 0.0
    for part in sums:
        total += part
    factor = limit / (sqrt(total) + 1e-6)
    share = _F(factor) if not factor >= 1 else _ONE
    for block in prange(sums.size):
        for i in range(begin_of(block), end_of(block, gradient.size)):
            out[i] = share * gradient[i]


@_inlined
def _two_normals(word0: Any, word1: Any) -> Any:
    v = _F(word1 >> _U64(8)) * _F(2.0**-24)
    radius, angle = _radius(word0), _F(2 * pi) * v
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
        for i in range(begin_of(block), end_of(block, weight.size)):
            average[i] += share * (weight[i] - average[i])


@compiled(parallel=True)
def _accumulate(total: Array, x: Array, first: bool) -> None:
    for block in prange((total.size + BLOCK - 1) // BLOCK):
        for i in range(begin_of(block), end_of(block, total.size)):
            total[i] = x[i] if first else total[i] + x[i]


def clip_gradient(out: Array, gradient: Array, limit: float, workspace: Workspace) -> None:
    """out = gradient, scaled down to a 2-norm of ``limit`` if it is longer; the sum in float64."""
    sums = workspace.array("squares", (-(-gradient.size // BLOCK),), np.float64)
    launch(_clip, out, gradient, sums, float(limit), operations=4 * out.size)


def add_noise(
    out: Array, gradient: Array, counts: Array, seed: int, noise: float, noise_decay: float, step: Array,
    workspace: Workspace,
) -> None:  # fmt: skip
    """out = gradient + normal noise, which fades from step to step."""
    launch(
        _noise, out, gradient, counts, _U64(seed), _U64(PURPOSE_NOISE), float(noise), float(noise_decay), step,
        operations=100 * out.size,
    )  # fmt: skip


def average_update(average: Array, weight: Array, step: Array, decay: float, workspace: Workspace) -> None:
    """An exponential moving average that follows quickly in the first steps."""
    launch(_average, average, weight, step, float(decay), operations=3 * average.size)


def accumulate(total: Array, x: Array, first: bool, workspace: Workspace) -> None:
    """total += x, or total = x."""
    launch(_accumulate, total, x, first, operations=2 * total.size)
