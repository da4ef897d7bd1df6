"""The largest curvature against closed forms, and the rates at which optimizers really begin to diverge."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facecnn.kernels import cpu, reference
from facecnn.learning.curvature import curvature_product, largest_curvature, largest_stable_rate
from facecnn.learning.full_batch import FullBatchLoss
from facecnn.learning.optimizers import AdamW, Momentum, Nesterov, Optimizer, Sgd
from facecnn.network.feeding import PhotoFeed
from facecnn.network.layers import Dense
from facecnn.network.loss import CrossEntropy, Loss, MeanSquaredError
from facecnn.network.network import Network

Array = npt.NDArray[np.float64]

quickly = settings(deadline=None, derandomize=True, max_examples=60)


def multiply(eigenvalues: Any, seed: int) -> tuple[Any, int]:
    """The product with a matrix of these eigenvalues and any axes, and its size."""
    axes, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((len(eigenvalues),) * 2))
    matrix = axes @ np.diag(eigenvalues) @ axes.T
    return lambda v: matrix @ v, len(eigenvalues)


@quickly
@given(
    others=st.lists(st.floats(0, 0.5), min_size=1, max_size=20),
    scale=st.floats(1e-3, 1e5),
    seed=st.integers(0, 1000),
)
def test_the_largest_eigenvalue(others: list[float], scale: float, seed: int) -> None:
    found = largest_curvature(*multiply(scale * np.array([1.0, *others]), seed), seed)
    assert found.converged
    assert found.largest == pytest.approx(scale, rel=0.02)


def test_of_a_flat_loss_it_is_0() -> None:
    found = largest_curvature(*multiply(np.zeros(5), 0), 0)
    assert (found.largest, found.converged) == (0, True)


def test_it_says_when_it_has_not_settled() -> None:
    steps: list[tuple[int, int]] = []
    product, size = multiply(np.linspace(0, 1, 200), 0)
    found = largest_curvature(product, size, 0, most=3, progress=lambda *done: steps.append(done))
    assert not found.converged
    assert found.products == 3
    assert steps == [(1, 3), (2, 3), (3, 3)]


PHOTOS, SIDE, PEOPLE = 30, 4, 3


def one_dense_layer(backend: Any, dtype: Any, part: int, loss: Loss) -> tuple[FullBatchLoss, Array]:
    """The loss of a dense layer, and its inputs (PHOTOS, SIDE^2 + 1) with a 1 for the bias, in float64."""
    pixels = np.random.default_rng(3).integers(0, 256, (PHOTOS, SIDE, SIDE, 1), np.uint8)
    network = Network(
        [Dense(units=PEOPLE)],
        (SIDE, SIDE, 1),
        backend,
        part,
        loss=loss,
        dtype=dtype,
        accumulate_gradients=part < PHOTOS,
    )
    network.initialise(0)
    rows = np.arange(PHOTOS, dtype=np.int32)
    feed = PhotoFeed(backend, pixels, rows, part)
    class_weights = backend.to_device(np.array([1, 2, 3], dtype))
    whole = FullBatchLoss(network, feed, rows % PEOPLE, class_weights, "none", 0.0)
    inputs = prepared(backend, network, pixels).reshape(PHOTOS, -1).astype(np.float64)
    return whole, np.hstack([inputs, np.ones((PHOTOS, 1))])


backends = pytest.mark.parametrize(
    ("backend", "dtype", "part"),
    [
        (reference, np.float64, PHOTOS),
        (reference, np.float64, 8),
        (cpu, np.float32, PHOTOS),
        (cpu, np.float32, 8),
    ],
    ids=["reference", "reference in parts", "cpu", "cpu in parts"],
)


def found_in(whole: FullBatchLoss) -> float:
    w = whole.here().w
    found = largest_curvature(curvature_product(whole, w), len(w), 0)
    assert found.converged
    return found.largest


@backends
def test_of_linear_neurons_under_the_squared_error(backend: Any, dtype: Any, part: int) -> None:
    """The loss is the mean over N photos and U units of (w x + b - target)^2, its Hessian for each unit 2 / (N U) times
    the sum of (x, 1)(x, 1)'."""
    whole, inputs = one_dense_layer(backend, dtype, part, MeanSquaredError())
    expected = np.linalg.eigvalsh(2 / (PHOTOS * PEOPLE) * inputs.T @ inputs)[-1]
    assert found_in(whole) == pytest.approx(expected, rel=0.01)


@backends
def test_of_linear_neurons_under_the_cross_entropy(backend: Any, dtype: Any, part: int) -> None:
    """The Hessian of softmax regression is the sum over photos of share * (diag(p) - p p') (x) (x, 1)(x, 1)'."""
    whole, inputs = one_dense_layer(backend, dtype, part, CrossEntropy(class_weights="balanced"))
    logits = whole.outputs(whole.here().w)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    shares = np.array([1, 2, 3] * (PHOTOS // PEOPLE)) / (2 * PHOTOS)
    expected = np.linalg.eigvalsh(
        sum(
            share * np.kron(np.diag(q) - np.outer(q, q), np.outer(x, x))
            for share, q, x in zip(shares, p, inputs, strict=True)
        )
    )[-1]
    assert found_in(whole) == pytest.approx(expected, rel=0.01)


def prepared(backend: Any, network: Network, pixels: Any) -> Any:
    """The photos as the network sees them."""
    from facecnn.kernels.protocol import AUGMENTATION_NONE

    out = backend.empty(pixels.shape, network.dtype)
    parameters = backend.to_device(np.tile(AUGMENTATION_NONE, (len(pixels), 1)))
    places = backend.to_device(np.arange(len(pixels), dtype=np.int32))
    backend.prepare_photos(out, backend.to_device(pixels), places, parameters, "none", network.workspace)
    return backend.to_host(out)


def distance_after(rule: Optimizer, curvature: float, rate: float, steps: int) -> float:
    """From the lowest place of a quadratic, where the start is at 1."""
    weight, velocity = np.ones(1), np.zeros(1)
    for step in range(steps):
        rule.update(
            backend=reference,  # type: ignore[arg-type]
            weight=weight,
            state=dict.fromkeys(rule.state_names, velocity),
            gradient=curvature * weight,
            learning_rate=np.array([rate]),
            step=np.array([step], np.int32),
            decaying=0,
            workspace=reference.Workspace(),
        )
    return float(np.abs(weight[0]))


@pytest.mark.slow
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
