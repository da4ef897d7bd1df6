"""The matrices of minimal filtering."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facecnn.kernels.cpu.winograd import Matrix, filtering

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
