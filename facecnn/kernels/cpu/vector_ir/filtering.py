"""The matrices of Winograd's minimal filtering, along one axis.

``outputs`` neighbours of a convolution with ``taps`` weights, y_i = sum of g_j d_(i + j), take outputs + taps - 1
multiplications in place of outputs * taps: y = A ((G g) * (B d)). Multiplying the polynomials whose coefficients are y
and g, at as many points (the last is infinity), and interpolating (Toom and Cook) is the transpose of it.

S. Winograd, Arithmetic Complexity of Computations, SIAM 1980; A. Lavin and S. Gray, Fast Algorithms for Convolutional
Neural Networks, CVPR 2016.
"""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from math import lcm
from typing import NamedTuple

Matrix = tuple[tuple[Fraction, ...], ...]

_POINTS = tuple(Fraction(point) for point in ("0", "1", "-1", "2", "-2", "1/2", "-1/2"))
"""Small numbers and pairs of opposite ones: the first keep the rounding small, the second share half of the work."""


class Filtering(NamedTuple):
    """Of points 0, pairs of opposite ones, and infinity, in this order. Points are rows of ``weights`` and ``input``,
    columns of ``output``."""

    points: tuple[Fraction, ...]
    """Without infinity."""
    output: Matrix
    """A, (outputs, points)."""
    weights: Matrix
    """G, (points, taps)."""
    input: Matrix
    """B, (points, points), of integers except for the last row."""


@cache
def filtering(outputs: int, taps: int) -> Filtering:
    """For an even number of points of up to 8; raises ValueError for others."""
    count = outputs + taps - 1
    if count % 2 or not 2 <= count <= len(_POINTS) + 1:
        raise ValueError(f"{outputs} outputs of {taps} taps take {count} points")
    points = _POINTS[: count - 1]
    one, zero = Fraction(1), Fraction(0)
    output = [[*(point**i for point in points), one if i == outputs - 1 else zero] for i in range(outputs)]
    weights, rows = [], []
    for point in points:
        others = [other for other in points if other != point]
        row = [*_with_roots(others), zero]
        divisor = one
        for other in others:
            divisor *= point - other
        # Integers in the input's transform, which is made for every photo; what that takes goes to the weights'.
        scale = lcm(*(value.denominator for value in row))
        rows.append([value * scale for value in row])
        weights.append([point**j / (divisor * scale) for j in range(taps)])
    rows.append(_with_roots(points))
    weights.append([zero] * (taps - 1) + [one])
    return Filtering(points, _frozen(output), _frozen(weights), _frozen(rows))


def _with_roots(roots: list[Fraction] | tuple[Fraction, ...]) -> list[Fraction]:
    """The coefficients, lowest power first, of the polynomial that is the product of (x - root)."""
    coefficients = [Fraction(1)]
    for root in roots:
        lower = [-root * value for value in coefficients] + [Fraction(0)]
        coefficients = [a + b for a, b in zip(lower, [Fraction(0), *coefficients], strict=True)]
    return coefficients


def _frozen(rows: list[list[Fraction]]) -> Matrix:
    return tuple(tuple(row) for row in rows)
