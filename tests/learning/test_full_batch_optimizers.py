"""FullBatchOptimizer on functions whose lowest place is known."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from facecnn.learning.full_batch_optimizers import (
    Lbfgs,
    LineSearch,
    Memory,
    NewtonCg,
    Point,
    Vector,
    steihaug,
    strong_wolfe,
    two_loops,
)

ALL = [LineSearch(), Lbfgs(), NewtonCg(difference=1e-5)]


def rosenbrock(w: Vector) -> tuple[float, Vector]:
    x, y = w
    loss = (1 - x) ** 2 + 100 * (y - x * x) ** 2
    return float(loss), np.array([-2 * (1 - x) - 400 * x * (y - x * x), 200 * (y - x * x)])


def quadratic(size: int, condition: float, seed: int) -> tuple[Any, Vector, Callable[[Vector], tuple[float, Vector]]]:
    """A matrix with eigenvalues from 1 to ``condition``, the lowest place, and the function."""
    generator = np.random.default_rng(seed)
    basis = np.linalg.qr(generator.normal(size=(size, size)))[0]
    matrix = basis @ np.diag(np.geomspace(1, condition, size)) @ basis.T
    lowest = generator.normal(size=size)

    def evaluate(w: Vector) -> tuple[float, Vector]:
        gradient = matrix @ (w - lowest)
        return 0.5 * float((w - lowest) @ gradient), gradient

    return matrix, lowest, evaluate


def run(optimizer: Any, evaluate: Any, w: Any, iterations: int) -> list[Point]:
    points, memory = [Point(np.asarray(w, float), *evaluate(np.asarray(w, float)))], Memory()
    for _ in range(iterations):
        points.append(optimizer.iterate(evaluate, points[-1], memory))
    return points


@pytest.mark.parametrize("optimizer", ALL, ids=lambda m: m.name)
@settings(deadline=None, derandomize=True, max_examples=25)
@given(seed=st.integers(0, 10**6), condition=st.floats(1, 100), size=st.integers(1, 8))
@example(seed=478, condition=1.0, size=1)  # where a line search changed sides for hundreds of iterations
def test_the_loss_never_rises_and_ends_at_the_bottom_of_a_bowl(
    optimizer: Any, seed: int, condition: float, size: int
) -> None:
    _, lowest, evaluate = quadratic(size, condition, seed)
    points = run(optimizer, evaluate, lowest + np.random.default_rng(seed + 1).normal(size=size), 400)
    losses = [point.loss for point in points]
    assert all(later <= earlier for earlier, later in itertools.pairwise(losses))
    assert losses[-1] <= 1e-6 * max(1.0, losses[0])


@pytest.mark.parametrize(("optimizer", "iterations"), [(Lbfgs(), 60), (NewtonCg(difference=1e-5), 60)])
def test_curved_valleys_are_followed(optimizer: Any, iterations: int) -> None:
    points = run(optimizer, rosenbrock, [-1.2, 1.0], iterations)
    np.testing.assert_allclose(points[-1].w, [1, 1], atol=1e-4)
    slow = run(LineSearch(), rosenbrock, [-1.2, 1.0], iterations)
    assert points[-1].loss < 1e-3 * slow[-1].loss


@pytest.mark.parametrize("optimizer", [*ALL, NewtonCg(difference=1e-5, radius=100)], ids=str)
def test_a_move_that_would_raise_the_loss_is_not_made(optimizer: Any) -> None:
    """Far from the bottom of (1 + w^2)^1/2 Newton's move from w is to -w^3."""

    def evaluate(w: Vector) -> tuple[float, Vector]:
        loss = float(np.sqrt(1 + w @ w))
        return loss, w / loss

    points = run(optimizer, evaluate, [3.0], 60)
    assert all(later.loss <= earlier.loss for earlier, later in itertools.pairwise(points))
    assert points[-1].w[0] == pytest.approx(0, abs=1e-3)


def test_a_line_search_begins_with_the_step_that_was_good() -> None:
    """In a bowl of curvature 10^4 steps of about 10^-4 are good: halvings find the first, the others come at once."""
    asked = 0

    def evaluate(w: Vector) -> tuple[float, Vector]:
        nonlocal asked
        asked += 1
        return float(0.5e4 * (w @ w)), 1e4 * w

    memory, point = Memory(), Point(np.ones(3), *evaluate(np.ones(3)))
    for iteration in range(20):
        before = asked
        point = LineSearch(first_step=1000).iterate(evaluate, point, memory)
        if iteration:
            assert asked - before <= 3
            assert 1e-5 < memory.numbers["step_length"] < 2e-4
        else:
            assert asked - before > 5


def test_newton_leaves_a_saddle_and_finds_the_lower_side() -> None:
    def evaluate(w: Vector) -> tuple[float, Vector]:
        x, y = w
        return float(x**4 - x * x + y * y), np.array([4 * x**3 - 2 * x, 2 * y])

    points = run(NewtonCg(difference=1e-5), evaluate, [1e-3, 1.0], 40)  # the curvature along x is negative here
    np.testing.assert_allclose(points[-1].w, [np.sqrt(0.5), 0], atol=1e-4)


@pytest.mark.parametrize("optimizer", ALL, ids=lambda m: m.name)
def test_at_the_bottom_nothing_moves(optimizer: Any) -> None:
    _, lowest, evaluate = quadratic(3, 10, 0)
    points = run(optimizer, evaluate, lowest, 3)
    np.testing.assert_array_equal(points[-1].w, lowest)


@pytest.mark.parametrize("optimizer", ALL, ids=lambda m: m.name)
def test_a_cliff_of_infinite_or_undefined_loss_is_kept_away_from(optimizer: Any) -> None:
    def evaluate(w: Vector) -> tuple[float, Vector]:
        if w[0] <= 0:
            return float("nan"), np.full(1, np.nan)
        return float(w[0] - np.log(w[0])), 1 - 1 / w

    points = run(optimizer, evaluate, [0.01], 60)
    assert all(np.isfinite(point.loss) for point in points)
    assert points[-1].w[0] == pytest.approx(1, abs=1e-2)


def test_all_is_in_the_memory() -> None:
    """Going on from a copy of point and memory gives the same bits."""
    for optimizer in ALL:
        memory = Memory()
        point = Point(np.array([-1.2, 1.0]), *rosenbrock(np.array([-1.2, 1.0])))
        for _ in range(7):
            point = optimizer.iterate(rosenbrock, point, memory)
        names = set(optimizer.state_names)
        assert set(memory.vectors) <= names
        again = Memory({name: vector.copy() for name, vector in memory.vectors.items()}, dict(memory.numbers))
        one, other = point, Point(point.w.copy(), point.loss, point.gradient.copy())
        for _ in range(5):
            one, other = optimizer.iterate(rosenbrock, one, memory), optimizer.iterate(rosenbrock, other, again)
        np.testing.assert_array_equal(one.w, other.w)


@settings(deadline=None, derandomize=True, max_examples=50)
@given(seed=st.integers(0, 10**6), first=st.floats(1e-3, 1e3))
def test_strong_wolfe_conditions_hold(seed: int, first: float) -> None:
    _, lowest, evaluate = quadratic(4, 50, seed)
    w = lowest + np.random.default_rng(seed).normal(size=4)
    start = Point(w, *evaluate(w))
    direction = -start.gradient
    slope = float(direction @ start.gradient)
    point, step = strong_wolfe(evaluate, start, direction, first, 1e-4, 0.9, 60)
    assert step > 0
    np.testing.assert_allclose(point.w, w + step * direction)
    assert point.loss <= start.loss + 1e-4 * step * slope
    assert abs(float(direction @ point.gradient)) <= -0.9 * slope


def test_two_loops_is_the_inverse_of_a_bowl_that_was_seen_from_all_sides() -> None:
    matrix, _, evaluate = quadratic(4, 10, 1)
    # Conjugate moves: for these the formula of BFGS finds the matrix exactly.
    moves: list[Vector] = []
    for e in np.eye(4):
        move = e - sum(((e @ matrix @ m) / (m @ matrix @ m)) * m for m in moves)
        moves.append(np.asarray(move))
    pairs = [(move, matrix @ move) for move in moves]
    gradient = evaluate(np.ones(4))[1]
    np.testing.assert_allclose(two_loops(gradient, pairs), np.linalg.solve(matrix, gradient), rtol=1e-8)


def test_the_trust_region_grows_where_the_model_holds() -> None:
    """From 0.01 to a bottom some lengths of 1 away: hundreds of moves, did it stay as it is."""
    _, lowest, evaluate = quadratic(4, 10, 3)
    points = run(NewtonCg(difference=1e-5, radius=0.01), evaluate, lowest + 2.0, 25)
    np.testing.assert_allclose(points[-1].w, lowest, atol=1e-4)


def test_what_no_move_told_of_is_scaled_by_the_last_move() -> None:
    """Worked by hand: along a move of 1 the gradient changed by 2, so half of the gradient is the guess elsewhere."""
    pairs = [(np.array([1.0, 0.0]), np.array([2.0, 0.0]))]
    np.testing.assert_allclose(two_loops(np.array([2.0, 4.0]), pairs), [1.0, 2.0])


def test_lbfgs_remembers_as_many_moves_as_it_is_told_to() -> None:
    _, lowest, evaluate = quadratic(8, 1000, 5)
    memory, point = Memory(), Point(lowest + 1.0, *evaluate(lowest + 1.0))
    counts = []
    for _ in range(6):
        point = Lbfgs(history=4).iterate(evaluate, point, memory)
        counts.append(int(memory.numbers["moves"]))
    assert counts == [1, 2, 3, 4, 4, 4]


def test_steihaug_is_newtons_move_inside_and_at_the_edge_otherwise() -> None:
    matrix, _, evaluate = quadratic(5, 20, 2)
    gradient = evaluate(np.zeros(5))[1]
    exact = -np.linalg.solve(matrix, gradient)
    move, promised = steihaug(lambda v: matrix @ v, gradient, 1e3, 1e-12, 50)
    np.testing.assert_allclose(move, exact, rtol=1e-6)
    assert promised == pytest.approx(0.5 * float(gradient @ -exact), rel=1e-6)
    short, promised = steihaug(lambda v: matrix @ v, gradient, 0.1 * float(np.linalg.norm(exact)), 1e-12, 50)
    assert np.linalg.norm(short) == pytest.approx(0.1 * np.linalg.norm(exact))
    assert promised > 0
