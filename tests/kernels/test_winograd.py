"""The matrices of minimal filtering, and what is done with them."""

from fractions import Fraction
from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facecnn.kernels.cpu.vector_ir.filtering import Matrix, filtering
from facecnn.kernels.cpu.vector_ir.winograd_gradient_kernels import transform_gradient

SIZES = [(2, 3), (4, 3), (2, 5), (4, 5), (3, 4), (2, 7), (1, 2)]


def times(matrix: Matrix, vector: list[Fraction]) -> list[Fraction]:
    return [sum((a * b for a, b in zip(row, vector, strict=True)), Fraction(0)) for row in matrix]


@given(size=st.sampled_from(SIZES), numbers=st.lists(st.integers(-99, 99), min_size=15, max_size=15))
def test_give_every_output_exactly(size: tuple[int, int], numbers: list[int]) -> None:
    outputs, taps = size
    plan = filtering(outputs, taps)
    weights = [Fraction(number) for number in numbers[:taps]]
    row = [Fraction(number) for number in numbers[taps : taps + outputs + taps - 1]]
    products = [a * b for a, b in zip(times(plan.weights, weights), times(plan.input, row), strict=True)]
    wanted = [sum(weights[j] * row[i + j] for j in range(taps)) for i in range(outputs)]
    assert times(plan.output, products) == wanted


@pytest.mark.parametrize("size", SIZES)
def test_opposite_points_follow_each_other(size: tuple[int, int]) -> None:
    """What the transforms share between two of them rests on this."""
    points = filtering(*size).points
    assert points[0] == 0
    assert all(points[i] == -points[i + 1] for i in range(1, len(points), 2))


@pytest.mark.parametrize("size", [(2, 4), (8, 3), (0, 1)])
def test_other_numbers_of_points_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="points"):
        filtering(*size)


def test_a_gradient_is_that_of_the_place_that_won_its_window() -> None:
    """Of a tile of two windows of 2 x 2; kernel k's gradient is in window k // 4, at place k % 4."""

    emitted = transform_gradient(8, 8, 2, 4, 3, 1, 8)

    @numba.njit
    def transform(points: Any, delta: Any, places: Any) -> None:
        emitted(points, 0, 16, 8, delta, 0, places, 0, 1, places, 0)

    points = np.zeros((6, 2, 8), np.float32)  # (point, row of the windows, kernel)
    delta = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1], np.float32)
    transform(points.reshape(-1), delta, np.tile(np.arange(4, dtype=np.uint8), 4))
    # Of a row's four columns the first point, 0, takes the first, the second, 1, their sum, and the last the last.
    assert points[0].tolist() == [[1, 0, 0, 0, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0, 0, 0]]
    assert points[1].tolist() == [[1, 1, 0, 0, 1, 1, 0, 0], [0, 0, 1, 1, 0, 0, 1, 1]]
    assert points[5].tolist() == [[0, 0, 0, 0, 0, 1, 0, 0], [0, 0, 0, 0, 0, 0, 0, 1]]
