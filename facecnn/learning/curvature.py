"""How curved is the loss? The largest curvature says which learning rates can be stable.

Gradient descent on a quadratic with the curvature c multiplies the distance from the lowest place by 1 - rate * c in
each step, which ends anywhere but there unless rate < 2 / c. Of a network's loss this holds near the weights at which
the curvature is measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from facecnn.learning.full_batch import FullBatchLoss
from facecnn.learning.full_batch_optimizers import Vector
from facecnn.learning.optimizers import Momentum, Nesterov, Optimizer, Sgd
from facecnn.network.loss import CrossEntropy

DIFFERENCE = 1e-3
"""Length of the differences that a product is made of, as a share of the weights' norm. In float32 the outputs are good
to some 1e-7 of themselves, and such a difference changes them by much more."""
TOLERANCE = 0.01
"""The power iteration ends when no more than this share of the curvature can be missing, by its own progress."""


@dataclass(frozen=True)
class Curvature:
    """The largest eigenvalue, as far as it was found."""

    largest: float
    products: int
    """So many with the matrix were made."""
    converged: bool


def curvature_product(loss: FullBatchLoss, w: Vector) -> Callable[[Vector], Vector]:
    """A function of v, of length 1, that gives J' L J v at ``w``: the Gauss-Newton part of the Hessian times v
    (Schraudolph 2002).

    J is the derivative of the outputs by the weights, and J v is taken from central differences of the outputs; L is
    the loss's own second derivative by them, known in closed form; J' is one pass backward.

    The whole Hessian has a second part, the outputs' own curvature times the errors, and could be had from differences
    of the gradient. But with relu and max-pooling the gradient jumps wherever an input crosses a kink or another place
    of a window becomes the largest, and a difference over the length h holds such a jump divided by h: of the shipped
    networks in float64 it came out ten times as large for an h a tenth as long. The outputs have no jumps. For a linear
    neuron, and at weights without errors, both are the same.
    """
    h = DIFFERENCE * (float(np.linalg.norm(w)) or 1.0)
    is_entropy = isinstance(loss.objective, CrossEntropy)
    logits = loss.outputs(w)
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    shares = loss.shares()[:, None]

    def product(v: Vector) -> Vector:
        slope = (loss.outputs(w + h * v) - loss.outputs(w - h * v)) / (2 * h)
        bent = p * (slope - (p * slope).sum(axis=1, keepdims=True)) if is_entropy else 2 / slope.shape[1] * slope
        return loss.pull_back(w, shares * bent)

    return product


def largest_curvature(
    product: Callable[[Vector], Vector],
    size: int,
    seed: int,
    most: int = 60,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Curvature:
    """The largest eigenvalue of a matrix without negative ones, by power iteration.

    ``product`` multiplies a vector of length 1, (size,), with it; ``most`` products are made. It comes from below, by
    changes that shrink by about the same factor from product to product: what is still missing is estimated as the rest
    of that geometric series. (A start that hardly has a part along the largest eigenvalue's axis can still settle at
    the second largest.) ``progress`` is called with (products made, ``most``).
    """
    random = np.random.Generator(np.random.Philox(key=[seed, 2**33]))
    v = random.standard_normal(size)
    v /= np.linalg.norm(v)
    value = change = math.nan
    for made in range(1, most + 1):
        image = product(v)
        progress(made, most)
        length = float(np.linalg.norm(image))
        if length == 0:
            return Curvature(0.0, made, True)
        before, value, change_before = value, float(v @ image), change
        change = abs(value - before)
        if _rest(change, change_before) <= TOLERANCE * value >= change:
            return Curvature(value, made, True)
        v = image / length
    return Curvature(value, most, False)


def _rest(change: float, change_before: float) -> float:
    """What the changes to come add up to; changes that still grow, or aren't known yet, have no such sum."""
    if change == 0:
        return 0.0
    ratio = change / change_before if change_before > 0 else math.inf
    return change * ratio / (1 - ratio) if ratio < 1 else math.inf


def largest_stable_rate(curvature: float, optimizer: Optimizer | None = None) -> float | None:
    """The rate at which gradient descent, or ``optimizer``, on a quadratic of this curvature begins to diverge.

    2 / curvature; with momentum m 2 (1 + m) / curvature, with Nesterov's 2 (1 + m) / ((1 + 2 m) curvature): where an
    eigenvalue of the map from one step to the next reaches -1 (Goh 2017, "Why Momentum Really Works"; Cohen et al.
    2021, "Gradient Descent on Neural Networks Typically Occurs at the Edge of Stability", theorem 1). None where there
    is no such limit: there is no curvature, or the optimizer scales each weight's step by itself.
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
