"""Losses and optimizers, on every backend."""

from typing import Any

import numpy as np
import pytest

from contract.cases import cases_of, family, training
from contract.harness import call, check, check_case, on_each_backend
from facecnn.kernels import cpu, cuda, reference
from facecnn.kernels.cases import Case, Inout, Out


@on_each_backend(family(training))
def test_agrees_with_the_reference(backend: Any, case: Case) -> None:
    check_case(backend, case)


def test_softmax_of_large_logits_does_not_overflow(backend: Any) -> None:
    logits = np.array([[1e4, 0.0, -1e4], [-1e30, 1e30, 0.0]])
    labels, weights, total = np.array([2, 1], np.int32), np.ones(3), np.array([2.0])
    outs = (Out((2,)), Out((2,)), Out((2, 3)), Out((2, 3)))
    losses = check(backend, "softmax_cross_entropy", *outs, logits, labels, weights, total, 0.0)[0]
    np.testing.assert_allclose(losses, [2e4, 0])


@pytest.mark.parametrize("at", range(3))
def test_a_logit_that_is_not_a_number_makes_the_loss_so(backend: Any, at: int) -> None:
    logits = np.array([[1.0, 2.0, 3.0]])
    logits[0, at] = np.nan
    outs = (Out((1,)), Out((1,)), Out((1, 3)), Out((1, 3)))
    losses, objectives, _, dlogits = call(
        backend, "softmax_cross_entropy", *outs, logits, np.array([1], np.int32), np.ones(3), np.ones(1), 0.1
    )
    assert np.isnan(losses).all()
    assert np.isnan(objectives).all()
    assert np.isnan(dlogits).all()


def test_one_hot(backend: Any) -> None:
    (out,) = check(backend, "one_hot", Out((3, 4)), np.array([3, 0, 0], np.int32))
    assert out.tolist() == [[0, 0, 0, 1], [1, 0, 0, 0], [1, 0, 0, 0]]


def test_take_batch_goes_through_an_epoch(backend: Any) -> None:
    orders = [np.random.default_rng(i).integers(0, 99, 7).astype(np.int32) for i in range(3)]
    starts, rates, cursor = np.array([0, 2, 4], np.int32), np.array([0.5, 0.25, 0.125]), np.array([1, 8], np.int32)
    for batch, count in ((1, 2), (2, 3)):
        outs = [Out((count,), np.int32)] * 3
        step = [Out((1,)), Out((1,), np.int32)]
        *taken, rate, number, cursor = check(backend, "take_batch", *outs, *step, Inout(cursor), *orders, starts, rates)
        for got, order in zip(taken, orders, strict=True):
            assert got.tolist() == order[starts[batch] : starts[batch] + count].tolist()
        assert rate[0] == rates[batch]
        assert number[0] == 7 + batch
        assert cursor.tolist() == [batch + 1, 8 + batch]


def test_totals_add_up(backend: Any) -> None:
    outputs = np.array([[1.0, 1.0, 0.0], [0.0, 2.0, 1.0], [3.0, 4.0, 5.0]])
    losses, labels = np.array([0.25, 0.5, 4.0]), np.array([0, 2, 2], np.int32)
    (totals,) = check(backend, "add_to_totals", Inout(np.array([10.0, 5.0, 3.0])), losses, outputs, labels)
    assert totals.tolist() == [14.75, 7.0, 4.0]  # of equal outputs the first counts


def test_a_loss_that_is_not_a_number_stays_in_the_totals(backend: Any) -> None:
    outputs, labels = np.zeros((3, 2)), np.zeros(3, np.int32)
    losses = np.array([1.0, np.nan, 2.0])
    (totals,) = call(backend, "add_to_totals", Inout(np.zeros(3)), losses, outputs, labels)
    assert np.isnan(totals[0])
    assert np.isnan(totals[2]) or totals[2] == 2.0


def test_lion_stays_where_nothing_pulls_and_lets_nan_through(backend: Any) -> None:
    (case,) = (case for case in cases_of("optimizer_update") if case.name == "lion, neither way")
    moved, _ = call(backend, case.kernel, *case.arguments)
    np.testing.assert_array_equal(moved, [1.0, np.nan, 3.125])


@pytest.mark.parametrize("backend", [cpu, cuda, reference], ids=["cpu", "cuda", "reference"])
@pytest.mark.parametrize(
    ("rule", "scalars", "arrays"),
    [
        ("sdg", {"weight_decay": 0.1}, 0),
        ("momentum", {"momentum": 0.9, "beta1": 0.9}, 1),
        ("momentum", {"weight_decay": 0.1}, 1),
        ("adam", {"beta1": 0.9, "beta2": 0.99, "epsilon": 1e-8}, 1),
        ("lion", {"beta1": 0.9, "beta2": 0.99}, 2),
    ],
)
def test_an_unknown_rule_and_what_it_does_not_take_are_errors(
    backend: Any, rule: str, scalars: dict[str, float], arrays: int
) -> None:
    """A name too much, one too few; too few arrays, one too many. No device is needed to find them."""
    weight, *state = (np.ones(4, np.float32) for _ in range(1 + arrays))
    with pytest.raises((KeyError, TypeError, ValueError)):
        backend.optimizer_update(
            weight, state, weight, np.array([0.125]), np.array([7], np.int32), rule, scalars, 0, backend.Workspace()
        )
    assert (weight == 1).all()


@on_each_backend(cases_of("clip_gradient", sizes=["usual"]))
def test_a_clipped_gradient_is_as_long_as_the_limit(backend: Any, case: Case) -> None:
    _, gradient, limit = case.arguments
    (clipped,) = call(backend, case.kernel, *case.arguments)
    assert np.linalg.norm(clipped) == pytest.approx(min(limit, float(np.linalg.norm(gradient))), rel=1e-5)


def test_a_gradient_of_zeros_or_with_a_nan_is_clipped_to_the_same(backend: Any) -> None:
    assert not call(backend, "clip_gradient", Out((100,)), np.zeros(100), 1e-3)[0].any()
    broken = np.where(np.arange(5000) == 4321, np.nan, 1.0)
    assert np.isnan(call(backend, "clip_gradient", Out((5000,)), broken, 1e-3)[0]).all()


def test_noise_is_normal_and_falls_on_what_is_counted_only(backend: Any) -> None:
    count = 100_000
    counts = np.full(count // 4, 4, np.uint8)
    counts[: count // 8] = 2
    step = np.array([3], np.int32)
    (noise,) = call(backend, "add_noise", Out((count,)), np.zeros(count), counts, 5, 0.5, 1.0, step)
    quads = noise.astype(np.float64).reshape(-1, 4)
    assert not quads[: count // 8, 2:].any()
    z = np.concatenate([quads[: count // 8, :2].ravel(), quads[count // 8 :].ravel()]) / (0.5 / 4)
    # Mean, variance, skewness and kurtosis of 75000 normal numbers: within four times their deviations.
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((z**power).mean() - moment) < 4 * np.sqrt(variance / z.size), power
    assert np.abs(np.corrcoef(quads[count // 8 :].T) - np.eye(4)).max() < 4 / np.sqrt(count // 8)
    assert np.abs(z).max() > 3.8
