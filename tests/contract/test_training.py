"""Losses and optimizers, on every backend."""

from typing import Any

import numpy as np
import pytest

from contract.harness import Inout, Out, call, check, random, rule_state
from facecnn.kernels import cpu, cuda, reference


@pytest.mark.parametrize(("photos", "units"), [(1, 1), (5, 2), (60, 33)])
@pytest.mark.parametrize("smoothing", [0.0, 0.05, 0.5])
def test_softmax_cross_entropy(backend: Any, photos: int, units: int, smoothing: float) -> None:
    labels = (np.arange(photos) * 7 % units).astype(np.int32)
    class_weights = np.linspace(0.5, 2, units)
    per_photo, per_unit = Out((photos,)), Out((photos, units))
    logits = 5 * random(photos, units)
    check(
        backend, "softmax_cross_entropy", per_photo, per_photo, per_unit, per_unit, logits, labels, class_weights,
        np.array([7.5]), smoothing,
    )  # fmt: skip


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


@pytest.mark.parametrize("shape", [(1, 1), (7, 3)])
def test_mean_squared_error(backend: Any, shape: tuple[int, int]) -> None:
    photos = Out(shape[:1])
    check(
        backend,
        "mean_squared_error",
        photos,
        photos,
        Out(shape),
        random(*shape),
        random(*shape, seed=1),
        np.array([9.0]),
    )


@pytest.mark.parametrize("photos", [1, 70])
def test_label_weight(backend: Any, photos: int) -> None:
    labels = (np.arange(photos) * 7 % 5).astype(np.int32)
    check(backend, "label_weight", Out((1,)), labels, np.linspace(0.5, 2, 5))


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


@pytest.mark.parametrize("first", [False, True])
def test_accumulate(backend: Any, first: bool) -> None:
    check(backend, "accumulate", Inout(random(9001)), random(9001, seed=1), first)


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


SIZES = [(1, 0), (100, 100), (9001, 5000)]


RATE = np.array([0.125])


def update(rule: str, size: int, scalars: dict[str, float], decaying: int, step: int = 7) -> tuple[Any, ...]:
    steps = np.array([step], np.int32)
    return Inout(random(size)), rule_state(rule, size), random(size, seed=9), RATE, steps, rule, scalars, decaying


def decayed(decay: float, decoupled: bool, **settings: float) -> dict[str, float]:
    return {**settings, "decoupled_weight_decay" if decoupled else "weight_decay": decay}


STEP = np.array([7], np.int32)


@pytest.mark.parametrize(("size", "decaying"), SIZES)
def test_sgd_update(backend: Any, size: int, decaying: int) -> None:
    scalars = decayed(0.01, False)
    check(backend, "optimizer_update", *update("sgd", size, scalars, decaying))


@pytest.mark.parametrize(("size", "decaying"), SIZES)
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("decoupled", [False, True])
def test_momentum_update(backend: Any, size: int, decaying: int, nesterov: bool, decoupled: bool) -> None:
    rule, scalars = "nesterov" if nesterov else "momentum", decayed(0.01, decoupled, momentum=0.9)
    check(backend, "optimizer_update", *update(rule, size, scalars, decaying))


@pytest.mark.parametrize(("size", "decaying"), SIZES)
@pytest.mark.parametrize("decoupled", [False, True])
def test_rmsprop_update(backend: Any, size: int, decaying: int, decoupled: bool) -> None:
    scalars = decayed(0.05, decoupled, beta2=0.9, epsilon=1e-3)
    check(backend, "optimizer_update", *update("rmsprop", size, scalars, decaying))


@pytest.mark.parametrize(("size", "decaying"), SIZES)
@pytest.mark.parametrize("decoupled", [False, True])
def test_adagrad_update(backend: Any, size: int, decaying: int, decoupled: bool) -> None:
    scalars = decayed(0.05, decoupled, initial_squares=0.5, epsilon=1e-3)
    check(backend, "optimizer_update", *update("adagrad", size, scalars, decaying))


@pytest.mark.parametrize(("size", "decaying"), SIZES)
@pytest.mark.parametrize("step", [0, 1000])
@pytest.mark.parametrize("decoupled", [False, True])
def test_adam_update(backend: Any, size: int, decaying: int, step: int, decoupled: bool) -> None:
    scalars = decayed(0.05, decoupled, beta1=0.9, beta2=0.999, epsilon=1e-8)
    check(backend, "optimizer_update", *update("adam", size, scalars, decaying, step))


@pytest.mark.parametrize(("size", "decaying"), SIZES)
def test_lion_update(backend: Any, size: int, decaying: int) -> None:
    scalars = decayed(0.05, True, beta1=0.9, beta2=0.99)
    check(backend, "optimizer_update", *update("lion", size, scalars, decaying))


def test_lion_stays_where_nothing_pulls_and_lets_nan_through(backend: Any) -> None:
    weight, mean, gradient = Inout(np.array([1.0, 2.0, 3.0])), Inout(np.zeros(3)), np.array([0.0, np.nan, -1e-30])
    scalars = decayed(0.0, True, beta1=0.9, beta2=0.99)
    moved, _ = check(backend, "optimizer_update", weight, (mean,), gradient, RATE, STEP, "lion", scalars, 0)
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
        backend.optimizer_update(weight, state, weight, RATE, STEP, rule, scalars, 0, backend.Workspace())
    assert (weight == 1).all()


@pytest.mark.parametrize("size", [1, 100, 9001, 300_001])
@pytest.mark.parametrize("limit", [0.5, 1e6])
def test_clip_gradient(backend: Any, size: int, limit: float) -> None:
    gradient = random(size)
    (clipped,) = check(backend, "clip_gradient", Out((size,)), gradient, limit)
    assert np.linalg.norm(clipped) == pytest.approx(min(limit, float(np.linalg.norm(gradient))), rel=1e-5)


def test_a_gradient_of_zeros_or_with_a_nan_is_clipped_to_the_same(backend: Any) -> None:
    assert not call(backend, "clip_gradient", Out((100,)), np.zeros(100), 1e-3)[0].any()
    broken = np.where(np.arange(5000) == 4321, np.nan, 1.0)
    assert np.isnan(call(backend, "clip_gradient", Out((5000,)), broken, 1e-3)[0]).all()


@pytest.mark.parametrize("size", [4, 100, 90_004])
@pytest.mark.parametrize(("step", "noise_decay"), [(0, 0.55), (2000, 0.55), (2**31 - 2, 0.0)])
def test_add_noise(backend: Any, size: int, step: int, noise_decay: float) -> None:
    counts = (np.arange(size // 4) * 7 % 5).astype(np.uint8)
    steps = np.array([step], np.int32)
    check(backend, "add_noise", Out((size,)), random(size), counts, 2**32 - 1, 0.25, noise_decay, steps)


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


@pytest.mark.parametrize("step", [0, 10**6])
def test_average_update(backend: Any, step: int) -> None:
    steps = np.array([step], np.int32)
    check(backend, "average_update", Inout(random(5000)), random(5000, seed=1), steps, 0.99)
