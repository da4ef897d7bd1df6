"""Full-batch optimizers, which look at the whole training set and may try several points before they move.

They work on float64 vectors on the host, and only need ``evaluate(w) -> loss, gradient``. One ``iterate`` is an epoch.
All that an optimizer remembers between iterations is in a ``Memory``, which is saved with everything else, so that
resumed training ends with the same bits.

Each is a class of settings with ``weight_decay`` (half of it times the sum of squared weights, without biases, is added
to the loss), ``state_names`` (the vectors that its memory may hold) and ``iterate``, which returns a better point, or
the start itself if it found none, and puts the step's length into ``memory.numbers``.
"""

from collections.abc import Callable
from dataclasses import dataclass as plain_dataclass
from dataclasses import field
from typing import ClassVar, Literal, TypeAlias, get_args

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from facecnn.arrays import Float64Array
from facecnn.settings import SETTINGS

Vector: TypeAlias = Float64Array
Evaluate: TypeAlias = Callable[[Vector], tuple[float, Vector]]

_DECAY = "half of it times the squared weights is added to the loss"
_SUFFICIENT = "share of the predicted decrease that is required"


@plain_dataclass
class Point:
    """Weights, with the loss and its gradient there."""

    w: Vector
    loss: float
    gradient: Vector


@plain_dataclass
class Memory:
    """What an optimizer remembers between iterations."""

    vectors: dict[str, Vector] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class LineSearch:
    """Gradient descent with a backtracking line search: no learning rate to choose.

    The step t along -gradient is halved until the loss falls by at least ``sufficient`` * t * |gradient|^2 (Armijo
    1966). Each iteration starts with twice the last good step. If ``sufficient`` is tiny, steps of nearly 2 /
    curvature, which only change sides, are accepted again and again; with 0.1 such a step leaves at most 0.8 of the
    distance to the minimum of a quadratic.
    """

    name: Literal["line_search"] = "line_search"
    first_step: float = Field(default=1.0, gt=0, description="length of the first move, in the weights' own unit")
    sufficient: float = Field(default=0.1, gt=0, lt=1, description=_SUFFICIENT)
    tries: int = Field(default=20, ge=1, le=100, description="halvings before it gives up")
    weight_decay: float = Field(default=0.0, ge=0, description=_DECAY)
    state_names: ClassVar[tuple[str, ...]] = ()

    def iterate(self, evaluate: Evaluate, start: Point, memory: Memory) -> Point:
        """One iteration from ``start``."""
        slope = float(start.gradient @ start.gradient)
        if slope == 0:
            return start
        last = memory.numbers.get("step_length")
        step = self.first_step / float(np.sqrt(slope)) if last is None else 2 * last
        for _ in range(self.tries):
            w = start.w - step * start.gradient
            loss, gradient = evaluate(w)
            if loss <= start.loss - self.sufficient * step * slope:
                memory.numbers["step_length"] = step
                return Point(w, loss, gradient)
            step /= 2
        memory.numbers["step_length"] = step
        return start


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class Lbfgs:
    """L-BFGS (Liu and Nocedal 1989): estimates the curvature from the last moves and changes of the gradient.

    The step along the direction satisfies the strong Wolfe conditions (Nocedal and Wright 2006, algorithms 3.5, 3.6).
    """

    name: Literal["lbfgs"] = "lbfgs"
    history: int = Field(default=10, ge=1, le=100, description="moves that are remembered")
    sufficient: float = Field(default=1e-4, gt=0, lt=0.5, description=_SUFFICIENT)
    curvature: float = Field(
        default=0.9, gt=0, lt=1, description="share of the slope that may be left at the new point"
    )
    tries: int = Field(default=25, ge=2, le=100, description="evaluations in one line search at most")
    weight_decay: float = Field(default=0.0, ge=0, description=_DECAY)

    @property
    def state_names(self) -> tuple[str, ...]:
        return tuple(f"{kind}{i}" for i in range(self.history) for kind in ("move", "change"))

    def iterate(self, evaluate: Evaluate, start: Point, memory: Memory) -> Point:
        """One iteration from ``start``."""
        count = int(memory.numbers.get("moves", 0))
        pairs = [(memory.vectors[f"move{i}"], memory.vectors[f"change{i}"]) for i in range(count)]
        direction = -two_loops(start.gradient, pairs)
        slope = float(direction @ start.gradient)
        if not slope < 0:  # the memory is spoilt by rounding
            pairs, direction = [], -start.gradient
            slope = float(direction @ start.gradient)
            if slope == 0:
                return start
        first = 1.0 if pairs else min(1.0, 1 / float(np.abs(start.gradient).sum()))
        found, step = strong_wolfe(evaluate, start, direction, first, self.sufficient, self.curvature, self.tries)
        memory.numbers["step_length"] = step
        move, change = found.w - start.w, found.gradient - start.gradient
        if float(move @ change) > 1e-10 * float(change @ change):
            pairs = [*pairs, (move, change)][-self.history :]
        elif found is start:
            pairs = []  # start again along the gradient
        memory.vectors = {
            f"{kind}{i}": vector
            for i, pair in enumerate(pairs)
            for kind, vector in zip(("move", "change"), pair, strict=True)
        }
        memory.numbers["moves"] = len(pairs)
        return found


def two_loops(gradient: Vector, pairs: list[tuple[Vector, Vector]]) -> Vector:
    """The estimated inverse of the Hessian times ``gradient`` (Nocedal and Wright 2006, algorithm 7.4).

    ``pairs``: moves and changes of the gradient, oldest first.
    """
    q = gradient.copy()
    shares = []
    for move, change in reversed(pairs):
        share = float(move @ q) / float(move @ change)
        q -= share * change
        shares.append(share)
    if pairs:
        move, change = pairs[-1]
        q *= float(move @ change) / float(change @ change)
    for (move, change), share in zip(pairs, reversed(shares), strict=True):
        q += (share - float(change @ q) / float(move @ change)) * move
    return q


def strong_wolfe(
    evaluate: Evaluate, start: Point, direction: Vector, first: float, sufficient: float, curvature: float, tries: int
) -> tuple[Point, float]:
    """Line search along ``direction`` for the strong Wolfe conditions.

    Returns a point with loss <= start + sufficient * step * slope and |slope there| <= curvature * |slope|, and the
    step to it; after ``tries`` evaluations the best point with a sufficient decrease, or ``start`` and 0.
    """
    slope = float(direction @ start.gradient)
    best, best_step = start, 0.0
    # Growing steps find an interval that holds such a point; then it is narrowed. Its ends are (step, loss, slope).
    low: tuple[float, float, float] = (0.0, start.loss, slope)
    high: tuple[float, float, float] | None = None
    step = first
    for attempt in range(tries):
        w = start.w + step * direction
        point = Point(w, *evaluate(w))
        there = float(direction @ point.gradient)
        falls_enough = point.loss <= start.loss + sufficient * step * slope
        if falls_enough and point.loss < best.loss:
            best, best_step = point, step
        if falls_enough and abs(there) <= -curvature * slope:
            return point, step
        end = (step, point.loss, there)
        if not falls_enough or (attempt > 0 and point.loss >= low[1]):
            high = end
        elif high is None and not there >= 0:
            low, step = end, 2 * step
            continue
        else:
            if high is None or there * (high[0] - low[0]) >= 0:
                high = low
            low = end
        step = _between(low, high)
        if abs(high[0] - low[0]) < 1e-12 * max(1.0, abs(low[0])):
            break
    return best, best_step


def _between(low: tuple[float, float, float], high: tuple[float, float, float]) -> float:
    """Minimum of the cubic through two ends (position, loss, slope), kept off the ends; the middle if there is none
    (Nocedal and Wright 2006, equation 3.59)."""
    (a, fa, ga), (b, fb, gb) = low, high
    middle = 0.5 * (a + b)
    if not np.isfinite([fa, ga, fb, gb]).all() or a == b:
        return middle
    d1 = ga + gb - 3 * (fa - fb) / (a - b)
    square = d1 * d1 - ga * gb
    if square < 0:
        return middle
    d2 = np.copysign(np.sqrt(square), b - a)
    below = gb - ga + 2 * d2
    if below == 0:
        return middle
    minimum = b - (b - a) * (gb + d2 - d1) / below
    margin = 0.1 * abs(b - a)
    return float(np.clip(minimum, min(a, b) + margin, max(a, b) - margin))


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class NewtonCg:
    """Newton's method with conjugate gradients in a trust region (Steihaug 1983).

    Products of the Hessian with a vector are differences of gradients, (g(w + h v) - g(w - h v)) / 2h, so no layer
    needs second derivatives. Along negative curvature a move goes to the edge of the region.
    """

    name: Literal["newton_cg"] = "newton_cg"
    radius: float = Field(default=1.0, gt=0, description="length of the longest move at the start")
    largest_radius: float = Field(default=100.0, gt=0, description="length of the longest move ever")
    products: int = Field(default=10, ge=1, le=1000, description="products with the Hessian in one iteration at most")
    difference: float = Field(
        default=5e-3, gt=0, description="length of the difference, as a share of the weights' norm"
    )
    weight_decay: float = Field(default=0.0, ge=0, description=_DECAY)
    state_names: ClassVar[tuple[str, ...]] = ()

    def iterate(self, evaluate: Evaluate, start: Point, memory: Memory) -> Point:
        """One iteration from ``start``."""
        radius = memory.numbers.get("radius", self.radius)
        norm = float(np.linalg.norm(start.gradient))
        if norm == 0:
            return start

        def product(v: Vector) -> Vector:
            h = self.difference * max(1.0, float(np.linalg.norm(start.w))) / float(np.linalg.norm(v))
            above, below = evaluate(start.w + h * v)[1], evaluate(start.w - h * v)[1]
            return (above - below) / (2 * h)

        # An exact solution only pays near the end (Nocedal and Wright 2006, section 7.1).
        tolerance = min(0.5, float(np.sqrt(norm))) * norm
        move, predicted = steihaug(product, start.gradient, radius, tolerance, self.products)
        loss, gradient = evaluate(start.w + move)
        ratio = (start.loss - loss) / predicted if predicted > 0 else -1.0
        length = float(np.linalg.norm(move))
        if not ratio >= 0.25:
            radius = 0.25 * length
        elif ratio > 0.75 and length > 0.99 * radius:
            radius = min(2 * radius, self.largest_radius)
        memory.numbers["radius"] = radius
        accepted = ratio > 1e-4
        memory.numbers["step_length"] = length if accepted else 0.0
        return Point(start.w + move, loss, gradient) if accepted else start


def steihaug(
    product: Callable[[Vector], Vector], gradient: Vector, radius: float, tolerance: float, most: int
) -> tuple[Vector, float]:
    """The move p, |p| <= radius, that roughly minimises gradient'p + p'Hp / 2, and the decrease that this predicts
    (Nocedal and Wright 2006, algorithm 7.2)."""
    p, hp = np.zeros_like(gradient), np.zeros_like(gradient)
    residual, direction = gradient.copy(), -gradient
    for _ in range(most):
        hd = product(direction)
        curvature = float(direction @ hd)
        square = float(residual @ residual)
        step = square / curvature if curvature > 0 else np.inf
        if curvature <= 0 or float(np.linalg.norm(p + step * direction)) >= radius:
            step = _step_to_edge(p, direction, radius)
            p, hp = p + step * direction, hp + step * hd
            break
        p, hp = p + step * direction, hp + step * hd
        residual = residual + step * hd
        if float(np.linalg.norm(residual)) <= tolerance:
            break
        direction = -residual + float(residual @ residual) / square * direction
    return p, -float(gradient @ p) - 0.5 * float(p @ hp)


def _step_to_edge(p: Vector, direction: Vector, radius: float) -> float:
    """The step t > 0 with |p + t direction| = radius."""
    a, b, c = float(direction @ direction), 2 * float(p @ direction), float(p @ p) - radius * radius
    return float((-b + np.sqrt(max(0.0, b * b - 4 * a * c))) / (2 * a))


FullBatchOptimizer = LineSearch | Lbfgs | NewtonCg
FULL_BATCH_OPTIMIZERS: dict[str, type[FullBatchOptimizer]] = {kind.name: kind for kind in get_args(FullBatchOptimizer)}
"""Full-batch optimizers by their names in the config."""
