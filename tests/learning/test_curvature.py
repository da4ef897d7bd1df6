"""The largest curvature against closed forms, and the rates at which optimizers really begin to diverge."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facecnn.kernels import cpu, reference
from facecnn.learning.curvature import largest_curvature, largest_stable_rate
from facecnn.learning.step_rules import AdamW, Momentum, Nesterov, Piece, Sgd, StepRule
from facecnn.learning.whole_set import WholeSet
from facecnn.network.feeding import PhotoFeed
from facecnn.network.layers import Dense
from facecnn.network.loss import MeanSquaredError
from facecnn.network.network import Network

Vector = npt.NDArray[np.float64]

quickly = settings(deadline=None, derandomize=True, max_examples=60)


def quadratic(eigenvalues: Vector, seed: int) -> tuple[Any, Vector]:
    """The gradient of a quadratic with these eigenvalues and any axes, and a place."""
    random = np.random.default_rng(seed)
    axes, _ = np.linalg.qr(random.standard_normal((len(eigenvalues),) * 2))
    hessian = axes @ np.diag(eigenvalues) @ axes.T
    slope = random.standard_normal(len(eigenvalues))
    return lambda w: hessian @ w + slope, random.standard_normal(len(eigenvalues))


@quickly
@given(
    others=st.lists(st.floats(0, 0.5), min_size=1, max_size=20),
    scale=st.floats(1e-3, 1e5),
    seed=st.integers(0, 1000),
)
def test_the_largest_eigenvalue_of_a_quadratic(others: list[float], scale: float, seed: int) -> None:
    found = largest_curvature(*quadratic(scale * np.array([1.0, *others]), seed), seed)
    assert found.converged
    assert found.largest == pytest.approx(scale, rel=0.02)


@quickly
@given(lowest=st.floats(-10, -1.5), seed=st.integers(0, 1000))
def test_a_larger_negative_curvature_is_not_taken_for_it(lowest: float, seed: int) -> None:
    found = largest_curvature(*quadratic(np.array([1.0, 0.3, -0.2, lowest]), seed), seed)
    assert found.converged
    assert found.largest == pytest.approx(1, rel=0.03)


def test_opposite_curvatures_of_one_size_are_not_taken_for_settled() -> None:
    assert not largest_curvature(*quadratic(np.array([1.0, 0.1, -1.0]), 0), 0).converged


def test_of_a_flat_loss_it_is_0() -> None:
    found = largest_curvature(*quadratic(np.zeros(5), 0), 0)
    assert (found.largest, found.converged) == (pytest.approx(0, abs=1e-9), True)


def test_it_says_when_it_has_not_settled() -> None:
    gradient, w = quadratic(np.linspace(0, 1, 200), 0)
    steps: list[tuple[int, int]] = []
    assert not largest_curvature(gradient, w, 0, most=3, progress=lambda *done: steps.append(done)).converged
    assert steps == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    ("kernels", "dtype", "part"),
    [(reference, np.float64, 30), (reference, np.float64, 8), (cpu, np.float32, 30), (cpu, np.float32, 8)],
    ids=["reference", "reference in parts", "cpu", "cpu in parts"],
)
def test_of_a_linear_neuron_under_the_squared_error(kernels: Any, dtype: Any, part: int) -> None:
    """The loss is the mean over N photos and U units of (w x + b - target)^2, its Hessian for each unit 2 / (N U) times
    the sum of (x, 1)(x, 1)'."""
    random = np.random.default_rng(3)
    photos, side, units = 30, 4, 2
    pixels = random.integers(0, 256, (photos, side, side, 1), np.uint8)
    network = Network(
        [Dense(units=units)],
        (side, side, 1),
        kernels,
        part,
        loss=MeanSquaredError(),
        dtype=dtype,
        in_parts=part < photos,
    )
    network.initialise(0)
    rows = np.arange(photos, dtype=np.int32)
    labels = rows % units
    whole = WholeSet(
        network,
        PhotoFeed(kernels, pixels, rows, part),
        labels,
        kernels.to_device(np.ones(units, dtype)),
        "none",
        0.0,
    )
    found = largest_curvature(lambda w: whole.evaluate(w)[1], whole.here().w, 0)

    inputs = prepared(kernels, network, pixels).reshape(photos, -1).astype(np.float64)
    inputs = np.hstack([inputs, np.ones((photos, 1))])
    expected = np.linalg.eigvalsh(2 / (photos * units) * inputs.T @ inputs)[-1]
    assert found.converged
    assert found.largest == pytest.approx(expected, rel=0.01)


def prepared(kernels: Any, network: Network, pixels: Any) -> Any:
    """The photos as the network sees them."""
    from facecnn.kernels.protocol import AUGMENTATION_NONE

    out = kernels.empty(pixels.shape, network.dtype)
    parameters = kernels.to_device(np.tile(AUGMENTATION_NONE, (len(pixels), 1)))
    places = kernels.to_device(np.arange(len(pixels), dtype=np.int32))
    kernels.prepare_photos(out, kernels.to_device(pixels), places, parameters, "none", network.workspace)
    return kernels.to_host(out)


def distance_after(rule: StepRule, curvature: float, rate: float, steps: int) -> float:
    """From the lowest place of a quadratic, where the start is at 1."""
    weight, velocity = np.ones(1), np.zeros(1)
    for step in range(steps):
        rule.update(
            Piece(
                kernels=reference,  # type: ignore[arg-type]
                weight=weight,
                state=dict.fromkeys(rule.state_names, velocity),
                gradient=curvature * weight,
                learning_rate=np.array([rate]),
                step=np.array([step], np.int32),
                decaying=0,
                workspace=reference.Workspace(),
            )
        )
    return float(np.abs(weight[0]))


@quickly
@given(
    kind=st.sampled_from([Sgd, Momentum, Nesterov]),
    momentum=st.floats(0, 0.95),
    curvature=st.floats(1e-3, 1e3),
)
def test_optimizers_diverge_above_their_largest_stable_rate_and_not_below(
    kind: Any, momentum: float, curvature: float
) -> None:
    rule = kind() if kind is Sgd else kind(momentum=momentum)
    limit = largest_stable_rate(curvature, rule)
    assert limit is not None
    assert distance_after(rule, curvature, 0.98 * limit, 1500) < 1e-3
    assert distance_after(rule, curvature, 1.02 * limit, 1500) > 1e3


def test_the_limit_of_plain_gradient_descent() -> None:
    assert largest_stable_rate(14) == pytest.approx(2 / 14)
    assert largest_stable_rate(14, Momentum(momentum=0.9)) == pytest.approx(2 * 1.9 / 14)
    assert largest_stable_rate(14, Nesterov(momentum=0.9)) == pytest.approx(2 * 1.9 / (2.8 * 14))


def test_there_is_not_always_a_limit() -> None:
    assert largest_stable_rate(14, AdamW()) is None
    assert largest_stable_rate(0) is None
    assert largest_stable_rate(-1, Sgd()) is None
