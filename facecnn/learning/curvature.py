"""The largest curvature of the loss, which limits the stable learning rates.

Gradient descent on a quadratic with curvature c multiplies the distance from the minimum by 1 - rate * c in each step,
which diverges unless rate < 2 / c. For a network's loss this holds near the weights at which the curvature is measured.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from facecnn.learning.full_batch import FullBatchLoss
from facecnn.learning.full_batch_optimizers import Vector
from facecnn.learning.optimizers import Momentum, Nesterov, Optimizer, Sgd
from facecnn.network.loss import CrossEntropy

DIFFERENCE = 1e-3
"""Length of the finite differences relative to the weights' norm. In float32 outputs are exact to about 1e-7; such a
difference changes them by much more."""
TOLERANCE = 0.01
"""The power iteration ends when, judged by its progress, at most this share of the curvature is missing."""


@dataclass(frozen=True)
class Curvature:
    """An estimate of the largest eigenvalue."""

    largest: float
    products: int
    """Number of matrix-vector products."""
    converged: bool


def curvature_product(loss: FullBatchLoss, w: Vector) -> Callable[[Vector], Vector]:
    """A function that gives J' L J v at ``w`` for a v of length 1: the Gauss-Newton matrix times v (Schraudolph 2002).

    J is the Jacobian of the outputs with respect to the weights; J v comes from central differences of the outputs. L
    is the Hessian of the loss with respect to the outputs, known in closed form; J' is one backward pass.

    The full Hessian has a second part, the outputs' own curvature times the errors. It could be had from differences of
    the gradient, but with relu and max-pooling the gradient jumps wherever an input crosses a kink or the maximum of a
    window moves, and a difference over length h contains such a jump divided by h: for the shipped networks in float64
    a tenth of h gave ten times the curvature. Outputs have no jumps. The two matrices are the same for a linear neuron,
    and at weights without errors.
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
    """The largest eigenvalue of a positive semidefinite matrix, by power iteration.

    The estimate rises by changes that shrink by about the same factor each time; the rest of that geometric series
    estimates what is missing. (A start with hardly any part along the eigenvector can settle at the second largest.)

    Args:
        product: multiplies the matrix by a vector (size,) of length 1.
        progress: called with (products made, ``most``).
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
    """Sum of the changes to come; infinite while they grow or aren't known yet."""
    if change == 0:
        return 0.0
    ratio = change / change_before if change_before > 0 else math.inf
    return change * ratio / (1 - ratio) if ratio < 1 else math.inf


def largest_stable_rate(curvature: float, optimizer: Optimizer | None = None) -> float | None:
    """The rate at which gradient descent, or ``optimizer``, begins to diverge on a quadratic of this curvature.

    An eigenvalue of the map from one step to the next reaches -1 at 2 / curvature; with momentum m at 2 (1 + m) /
    curvature, with Nesterov's at 2 (1 + m) / ((1 + 2 m) curvature) (Goh 2017, "Why Momentum Really Works"; Cohen et al.
    2021, "Gradient Descent on Neural Networks Typically Occurs at the Edge of Stability", theorem 1). None if there is
    no such limit: there is no curvature, or the optimizer scales the step of each weight.
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
