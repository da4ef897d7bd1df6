"""Activations, pooling, neurons, dense layers, batch norm and dropout, on every backend."""

from typing import Any, get_args

import numpy as np
import pytest

from contract.harness import Inout, Out, call, check, integers, random
from facecnn.kernels import cpu
from facecnn.kernels.protocol import PURPOSE_DROPOUT, Activation
from facecnn.network.layers import Pool


@pytest.mark.parametrize("activation", get_args(Activation))
@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (5, 1000)])
def test_activation(backend: Any, activation: Any, shape: tuple[int, int]) -> None:
    x = 3 * random(*shape)
    (out,) = check(backend, "activation_forward", Out(shape), x, activation, 0.1)
    out = out.astype(np.float32).astype(np.float64)
    check(backend, "activation_backward", Out(shape), random(*shape, seed=1), x, out, activation, 0.1)


@pytest.mark.parametrize("activation", get_args(Activation))
def test_activation_of_extreme_numbers(backend: Any, activation: Any) -> None:
    x = np.array([[-1e30, -200, -0.0, 0.0, 200, 1e30, np.nan]])
    check(backend, "activation_forward", Out(x.shape), x, activation, 0.1)


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (5000, 3), (700, 64), (100, 100)])
def test_prelu(backend: Any, shape: tuple[int, int]) -> None:
    x, slope = random(*shape), random(shape[1], seed=2)
    assert shape[1] == 1 or (slope.min() < 0 < slope.max())
    check(backend, "prelu_forward", Out(shape), x, slope)
    check(backend, "prelu_backward", Out(shape), Out(slope.shape), random(*shape, seed=1), x, slope)


def test_prelu_of_extreme_numbers(backend: Any) -> None:
    x = np.array([[-1e30, -200, -0.0, 0.0, 200, 1e30, np.nan]])
    slope = np.array([-2.0, 0.0, 0.25, 0.25, 0.25, 1.0, 0.25])
    check(backend, "prelu_forward", Out(x.shape), x, slope)
    check(backend, "prelu_backward", Out(x.shape), Out(slope.shape), np.ones(x.shape), x, slope)


# (photos, height, width, maps), size, stride
POOLS = [
    ((1, 1, 1, 1), (1, 1), (1, 1)),
    ((2, 7, 6, 3), (2, 2), (2, 2)),
    ((2, 7, 9, 8), (3, 3), (2, 2)),
    ((1, 9, 8, 33), (2, 3), (4, 3)),
    ((3, 5, 4, 2), (5, 4), (5, 4)),
    ((2, 4, 4, 16), (4, 4), (4, 4)),
]


@pytest.mark.parametrize(("shape", "size", "stride"), POOLS)
@pytest.mark.parametrize("kind", ["max", "average"])
@pytest.mark.parametrize("edges", ["drop", "keep"])
def test_pool(backend: Any, shape: Any, size: Any, stride: Any, kind: Any, edges: Any) -> None:
    out_shape = (shape[0], *Pool(size=size, stride=stride, edges=edges).output_shape(shape[1:]))
    argmax: Any = Out(out_shape, np.int32) if kind == "max" else np.zeros(out_shape, np.int32)
    for x in (random(*shape), integers(*shape, low=0, high=2)):
        won = (*check(backend, "pool_forward", Out(out_shape), argmax, x, kind, size, stride), argmax)[1]
        check(backend, "pool_backward", Out(shape), random(*out_shape, seed=1), won, kind, size, stride)


def test_nan_wins_in_a_pool(backend: Any) -> None:
    for at in range(4):
        x = np.arange(4.0).reshape(1, 2, 2, 1)
        x.reshape(-1)[at] = np.nan
        out, argmax = call(
            backend, "pool_forward", Out((1, 1, 1, 1)), Out((1, 1, 1, 1), np.int32), x, "max", (2, 2), (2, 2)
        )
        assert np.isnan(out).all()
        assert argmax.item() == at


def test_what_of_a_window_lies_inside_counts(backend: Any) -> None:
    x = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [-7.0, -8.0, -9.0]]).reshape(1, 3, 3, 1)
    two = ((2, 2), (2, 2))
    out, argmax = call(backend, "pool_forward", Out((1, 2, 2, 1)), Out((1, 2, 2, 1), np.int32), x, "max", *two)
    assert out.reshape(2, 2).tolist() == [[5, 6], [-7, -9]]
    assert argmax.reshape(2, 2).tolist() == [[4, 5], [6, 8]]
    (out,) = call(backend, "pool_forward", Out((1, 2, 2, 1)), np.zeros((1, 2, 2, 1), np.int32), x, "average", *two)
    assert out.reshape(2, 2).tolist() == [[3, 4.5], [-7.5, -9]]


@pytest.mark.parametrize("per_kernel", [1, 8])
@pytest.mark.parametrize(
    "shape",
    [
        (1, 1, 1, 1),
        pytest.param((3, 6, 6, 64), marks=pytest.mark.slow),
        (2, 5, 7, 3),
        (23, 9, 4, 8),
        (2, 1, 3, 100),
    ],
)
def test_neuron(backend: Any, shape: Any, per_kernel: int) -> None:
    x, weight, bias = random(*shape), random(per_kernel, *shape[1:]), random(per_kernel, shape[3])
    units = (shape[0], per_kernel, shape[3])
    check(backend, "neuron_forward", Out(units), x, weight, bias)
    dout = random(*units, seed=1)
    check(backend, "neuron_backward_weight", Out(weight.shape), Out(bias.shape), dout, x)
    check(backend, "neuron_backward_input", Out(shape), dout, weight)


@pytest.mark.parametrize(
    ("photos", "inputs", "units"), [(1, 1, 1), (5, 13, 3), (16, 512, 96), (6, 2100, 9), (61, 96, 2)]
)
def test_dense(backend: Any, photos: int, inputs: int, units: int) -> None:
    x, weight, bias = random(photos, inputs), random(units, inputs), random(units)
    check(backend, "dense_forward", Out((photos, units)), x, weight, bias)
    dout = random(photos, units, seed=1)
    check(backend, "dense_backward_weight", Out(weight.shape), Out(bias.shape), dout, x)
    check(backend, "dense_backward_input", Out(x.shape), dout, weight)


def test_a_photos_answer_does_not_depend_on_its_batch() -> None:
    """Not so on the reference, where NumPy's BLAS chooses its way by the batch's size."""
    x, weight, bias = random(7, 130), random(9, 130), random(9)
    together = call(cpu, "dense_forward", Out((7, 9)), x, weight, bias)[0]
    for n in range(7):
        alone = call(cpu, "dense_forward", Out((1, 9)), x[n : n + 1], weight, bias)[0]
        np.testing.assert_array_equal(alone[0], together[n])


@pytest.mark.parametrize("count", [1, 2, 6, 3001])
@pytest.mark.parametrize("columns", [1, 3, 16, 96])
def test_batch_norm(backend: Any, count: int, columns: int) -> None:
    x = 2 * random(count, columns) + 3
    scale, shift, mean, variance = (random(columns, seed=seed) for seed in range(1, 5))
    variance = np.abs(variance) + 0.5
    # A batch of two can lie arbitrarily close together: with a larger epsilon its deviation is well conditioned.
    epsilon = 1e-5 if count > 2 else 0.1
    statistics = [Out((columns,)), Out((columns,)), Inout(mean), Inout(variance)]
    batch_mean, inverse = check(
        backend, "batch_norm_forward", Out(x.shape), *statistics, x, scale, shift, 0.1, epsilon, tolerance=3e-5
    )[1:3]
    check(backend, "batch_norm_inference", Out(x.shape), x, mean, variance, scale, shift, epsilon)
    check(
        backend, "batch_norm_backward", Out(x.shape), Out((columns,)), Out((columns,)), random(*x.shape, seed=9), x,
        batch_mean, inverse, scale, tolerance=3e-5,
    )  # fmt: skip


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.9])
@pytest.mark.parametrize("features", [1, 4, 21])
def test_dropout(backend: Any, rate: float, features: int) -> None:
    photos, step = np.array([0, 3, 2**31 - 1], np.int32), np.array([7], np.int32)
    x = random(3, features)
    check(backend, "dropout", Out(x.shape), x, photos, rate, 11, PURPOSE_DROPOUT, step)


def test_dropout_drops_its_share_and_keeps_the_mean(backend: Any) -> None:
    photos, step = np.arange(20, dtype=np.int32), np.array([3], np.int32)
    (out,) = call(backend, "dropout", Out((20, 1000)), np.ones((20, 1000)), photos, 0.3, 5, PURPOSE_DROPOUT, step)
    assert 0.28 < (out == 0).mean() < 0.32
    assert 0.97 < out.mean() < 1.03
    assert len({row.tobytes() for row in out}) == 20


def test_dropout_of_a_photo_does_not_depend_on_its_batch(backend: Any) -> None:
    photos, step = np.array([4, 9, 2], np.int32), np.array([3], np.int32)
    x = random(3, 30)
    (together,) = call(backend, "dropout", Out(x.shape), x, photos, 0.5, 5, PURPOSE_DROPOUT, step)
    (alone,) = call(backend, "dropout", Out((1, 30)), x[1:2], photos[1:2], 0.5, 5, PURPOSE_DROPOUT, step)
    np.testing.assert_array_equal(alone[0], together[1])
    for seed, purpose, at in [
        (6, PURPOSE_DROPOUT, step),
        (5, PURPOSE_DROPOUT + 1, step),
        (5, PURPOSE_DROPOUT, step + 1),
    ]:
        (other,) = call(backend, "dropout", Out(x.shape), x, photos, 0.5, seed, purpose, at)
        assert not np.array_equal(other == 0, together == 0)
