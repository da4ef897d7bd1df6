"""How curved is the loss? The largest curvature says which learning rates can be stable.

Gradient descent on a quadratic with the curvature c multiplies the distance from the lowest place by 1 - rate * c in
each step, which ends anywhere but there unless rate < 2 / c. Of a network's loss this holds near the weights at which
the curvature is measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from facecnn.learning.step_rules import Momentum, Nesterov, Sgd, StepRule

Vector: TypeAlias = npt.NDArray[np.float64]

DIFFERENCE = 1e-3
"""Length of the difference that a product is made of, as a share of the weights' norm.

In float32 the gradient is good to some 1e-6 of itself. A difference of 1e-3 changes it by a multiple of that share
wherever the curvature matters, and is about as long as a step of training: kinks of relu and max-pooling count as much
as a step would feel them.
"""
TOLERANCE = 0.01
"""The power iteration ends when no more than this share of the curvature can be missing, by its own progress."""


ALIGNED = 0.9
"""It doesn't end before the cosine of the angle between the vector and its product is this."""


@dataclass(frozen=True)
class Curvature:
    """The largest eigenvalue of the Hessian, as far as it was found."""

    largest: float
    products: int
    """So many with the Hessian were made; each takes two gradients."""
    converged: bool


def hessian_product(gradient: Callable[[Vector], Vector], w: Vector, v: Vector) -> Vector:
    """The Hessian at ``w`` times ``v``, a vector of length 1, by central differences of the gradient."""
    h = DIFFERENCE * (float(np.linalg.norm(w)) or 1.0)
    return (gradient(w + h * v) - gradient(w - h * v)) / (2 * h)


def largest_curvature(
    gradient: Callable[[Vector], Vector],
    w: Vector,
    seed: int,
    most: int = 60,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Curvature:
    """The largest eigenvalue of the Hessian at ``w`` by power iteration (von Mises and Pollaczek-Geiringer 1929).

    It comes from below, by changes that shrink by about the same factor from product to product: what is still missing
    is estimated as the rest of that geometric series. (A start that hardly has a part along the largest eigenvalue's
    axis can still settle at the second largest.) Where the eigenvalue of largest size is a negative one, it is found
    first, and taken out of the Hessian. ``most`` products are made in all. ``progress`` is called with (products made,
    ``most``).
    """
    random = np.random.Generator(np.random.Philox(key=[seed, 2**33]))
    negative: list[tuple[float, Vector]] = []
    made = 0
    while True:
        v = random.standard_normal(w.size)
        v /= np.linalg.norm(v)
        value, change, converged = math.nan, math.nan, False
        while made < most and not converged:
            hv = hessian_product(gradient, w, v)
            for taken, axis in negative:
                hv -= taken * float(axis @ v) * axis
            made += 1
            progress(made, most)
            length = float(np.linalg.norm(hv))
            if length == 0:
                return Curvature(0.0, made, True)
            before, value, change_before = value, float(v @ hv), change
            change = abs(value - before)
            # Of a mixture of two axes with eigenvalues of opposite signs, the value may stand still as well.
            settled = _rest(change, change_before) <= TOLERANCE * abs(value) >= change
            converged = settled and abs(value) >= ALIGNED * length
            v = hv / length
        if not converged or value >= 0:
            return Curvature(0.0 if math.isnan(value) else value, made, converged)
        negative.append((value, v))


def _rest(change: float, change_before: float) -> float:
    """What the changes to come add up to; changes that still grow, or aren't known yet, have no such sum."""
    if change == 0:
        return 0.0
    ratio = change / change_before if change_before > 0 else math.inf
    return change * ratio / (1 - ratio) if ratio < 1 else math.inf


def largest_stable_rate(curvature: float, optimizer: StepRule | None = None) -> float | None:
    """The rate at which gradient descent, or ``optimizer``, on a quadratic of this curvature begins to diverge.

    2 / curvature; with momentum m 2 (1 + m) / curvature, with Nesterov's 2 (1 + m) / ((1 + 2 m) curvature): where an
    eigenvalue of the map from one step to the next reaches -1 (Goh 2017, "Why Momentum Really Works"; Cohen et al.
    2021, "Gradient Descent on Neural Networks Typically Occurs at the Edge of Stability", theorem 1). None where there
    is no such limit: the curvature isn't positive, or the optimizer scales each weight's step by itself.
    """
    if curvature <= 0:
        return None
    if optimizer is None or isinstance(optimizer, Sgd):
        return 2 / curvature
    if isinstance(optimizer, Momentum):
        return 2 * (1 + optimizer.momentum) / curvature
    if isinstance(optimizer, Nesterov):
        return 2 * (1 + optimizer.momentum) / ((1 + 2 * optimizer.momentum) * curvature)
    return None
