"""The reference's backward functions against central differences in float64, with a random upstream delta."""

from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest

from common.differences import central_differences
from facecnn.kernels import reference
from facecnn.kernels.protocol import FUSED_ACTIVATIONS, Activation

Array = npt.NDArray[np.float64]
WORKSPACE = reference.Workspace()


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng([seed, *shape]).normal(size=shape)


def agree(analytic: Array, loss: Callable[[], float], array: Array) -> None:
    numeric = central_differences(loss, array)
    error = np.linalg.norm(analytic - numeric) / max(1e-12, np.linalg.norm(numeric))
    assert error < 1e-6


@pytest.mark.parametrize("activation", ["identity", "sigmoid", "tanh", "relu", "leaky_relu"])
@pytest.mark.parametrize(
    ("shape", "kernel", "pool", "padding"),
    [
        ((2, 7, 6, 3), (4, 3, 3), 2, "same"),
        ((1, 8, 9, 2), (3, 4, 2), 3, "same"),
        ((2, 5, 4, 1), (2, 5, 4), 1, "valid"),
        ((1, 1, 1, 2), (3, 1, 1), 1, "valid"),
        ((2, 9, 6, 2), (3, 5, 3), 2, "valid"),
    ],
)
def test_conv(shape: Any, kernel: Any, pool: int, padding: str, activation: Any) -> None:
    kernels, rows, columns = kernel
    x, bias = normal(*shape), normal(kernels)
    weight = normal(kernels, rows, columns, shape[3]) / np.sqrt(rows * columns * shape[3])  # saturates nothing
    above = ((rows - 1) // 2, (columns - 1) // 2) if padding == "same" else (0, 0)
    full = shape[1:3] if padding == "same" else (shape[1] - rows + 1, shape[2] - columns + 1)
    out_shape = (shape[0], full[0] // pool, full[1] // pool, kernels)
    out, argmax, dout = np.zeros(out_shape), np.zeros(out_shape, np.uint8), normal(*out_shape, seed=1)
    block = (above, activation, 0.1, pool, WORKSPACE)

    def loss() -> float:
        reference.conv_forward(out, argmax, x, weight, bias, *block)
        return float((out * dout).sum())

    loss()
    dweight, dbias, dx = np.zeros_like(weight), np.zeros_like(bias), np.zeros_like(x)
    reference.conv_backward_weight(dweight, dbias, dout, out, argmax, x, *block)
    reference.conv_backward_input(dx, dout, out, argmax, weight, *block)
    agree(dweight, loss, weight)
    agree(dbias, loss, bias)
    agree(dx, loss, x)


@pytest.mark.parametrize("activation", ["identity", "sigmoid", "tanh", "relu", "leaky_relu"])
@pytest.mark.parametrize(
    ("shape", "kernel", "stride", "padding", "windows"),
    [
        ((2, 7, 6, 3), (4, 3, 3), (2, 2), (0, 0), (3, 2)),
        ((2, 6, 7, 2), (3, 3, 2), (1, 2), (1, 1), (6, 4)),
        ((1, 7, 8, 2), (2, 2, 2), (3, 3), (0, 0), (2, 3)),  # with gaps
        ((1, 3, 3, 2), (3, 3, 3), (2, 2), (1, 0), (3, 2)),  # over the lower and the right edge
    ],
)
def test_strided_conv(shape: Any, kernel: Any, stride: Any, padding: Any, windows: Any, activation: Any) -> None:
    x, bias = normal(*shape), normal(kernel[0])
    weight = normal(*kernel, shape[3]) / np.sqrt(kernel[1] * kernel[2] * shape[3])  # saturates nothing
    out_shape = (shape[0], *windows, kernel[0])
    out, dout = np.zeros(out_shape), normal(*out_shape, seed=1)
    block = (stride, padding, activation, 0.1, WORKSPACE)

    def loss() -> float:
        reference.strided_conv_forward(out, x, weight, bias, *block)
        return float((out * dout).sum())

    loss()
    dweight, dbias, dx = np.zeros_like(weight), np.zeros_like(bias), np.zeros_like(x)
    reference.strided_conv_backward_weight(dweight, dbias, dout, out, x, *block)
    reference.strided_conv_backward_input(dx, dout, out, weight, *block)
    agree(dweight, loss, weight)
    agree(dbias, loss, bias)
    agree(dx, loss, x)


@pytest.mark.parametrize("activation", get_args(Activation))
def test_activation(activation: Any) -> None:
    x = normal(3, 40)
    x += 0.01 * np.sign(x)  # away from the kink
    out, dx, dout = np.zeros_like(x), np.zeros_like(x), normal(3, 40, seed=1)

    def loss() -> float:
        reference.activation_forward(out, x, activation, 0.1, WORKSPACE)
        return float((out * dout).sum())

    loss()
    reference.activation_backward(dx, dout, x, out, activation, 0.1, WORKSPACE)
    agree(dx, loss, x)


def test_prelu() -> None:
    x, slope = normal(30, 4), np.array([0.25, -0.5, 0.0, 2.0])
    x += 0.01 * np.sign(x)  # away from the kink
    out, dx, dslope, dout = np.zeros_like(x), np.zeros_like(x), np.zeros(4), normal(30, 4, seed=1)

    def loss() -> float:
        reference.prelu_forward(out, x, slope, WORKSPACE)
        return float((out * dout).sum())

    reference.prelu_backward(dx, dslope, dout, x, slope, WORKSPACE)
    agree(dx, loss, x)
    agree(dslope, loss, slope)


@pytest.mark.parametrize("kind", ["max", "average"])
@pytest.mark.parametrize(
    ("size", "stride", "windows"),
    [
        ((2, 2), (2, 2), (3, 3)),
        ((3, 2), (1, 2), (4, 3)),
        ((2, 2), (3, 4), (2, 2)),
        ((6, 7), (6, 7), (1, 1)),
        ((3, 2), (2, 2), (3, 4)),  # over the edges
        ((4, 3), (5, 3), (2, 3)),
    ],
)
def test_pool(kind: Any, size: Any, stride: Any, windows: tuple[int, int]) -> None:
    x = np.random.default_rng(0).permutation(2 * 6 * 7 * 3).reshape(2, 6, 7, 3).astype(float)  # no near-ties
    shape = (2, *windows, 3)
    out, argmax, dout, dx = np.zeros(shape), np.zeros(shape, np.int32), normal(*shape), np.zeros_like(x)

    def loss() -> float:
        reference.pool_forward(out, argmax, x, kind, size, stride, WORKSPACE)
        return float((out * dout).sum())

    loss()
    reference.pool_backward(dx, dout, argmax, kind, size, stride, WORKSPACE)
    agree(dx, loss, x)


@pytest.mark.parametrize("activation", FUSED_ACTIVATIONS)
@pytest.mark.parametrize(
    ("branch", "shortcut"),
    [((2, 3, 4, 2), (2, 3, 4, 2)), ((1, 2, 2, 5), (1, 3, 3, 2)), ((2, 1, 4, 3), (2, 2, 2, 3))],
)
def test_add_maps(branch: tuple[int, ...], shortcut: tuple[int, ...], activation: Any) -> None:
    a, b, shape = normal(*branch), normal(*shortcut, seed=1), np.maximum(branch, shortcut)
    out, dout, da, db = np.zeros(shape), normal(*shape, seed=2), np.zeros_like(a), np.zeros_like(b)

    def loss() -> float:
        reference.add_maps_forward(out, a, b, activation, 0.1, WORKSPACE)
        return float((out * dout).sum())

    loss()
    reference.add_maps_backward(da, db, dout, out, activation, 0.1, WORKSPACE)
    agree(da, loss, a)
    agree(db, loss, b)


def test_unit_length() -> None:
    x, dout = normal(5, 7), normal(5, 7, seed=1)
    out, norms, dx = np.zeros_like(x), np.zeros(5), np.zeros_like(x)

    def loss() -> float:
        reference.unit_length_forward(out, x, norms, WORKSPACE)
        return float((out * dout).sum())

    loss()
    reference.unit_length_backward(dx, dout, out, norms, WORKSPACE)
    agree(dx, loss, x)


@pytest.mark.parametrize("per_kernel", [1, 3])
def test_neuron(per_kernel: int) -> None:
    x, weight, bias = normal(3, 4, 5, 2), normal(per_kernel, 4, 5, 2), normal(per_kernel, 2)
    out, dout = np.zeros((3, per_kernel, 2)), normal(3, per_kernel, 2, seed=1)

    def loss() -> float:
        reference.neuron_forward(out, x, weight, bias, WORKSPACE)
        return float((out * dout).sum())

    dweight, dbias, dx = np.zeros_like(weight), np.zeros_like(bias), np.zeros_like(x)
    reference.neuron_backward_weight(dweight, dbias, dout, x, WORKSPACE)
    reference.neuron_backward_input(dx, dout, weight, WORKSPACE)
    agree(dweight, loss, weight)
    agree(dbias, loss, bias)
    agree(dx, loss, x)


def test_dense() -> None:
    x, weight, bias = normal(3, 7), normal(4, 7), normal(4)
    out, dout = np.zeros((3, 4)), normal(3, 4, seed=1)

    def loss() -> float:
        reference.dense_forward(out, x, weight, bias, WORKSPACE)
        return float((out * dout).sum())

    dweight, dbias, dx = np.zeros_like(weight), np.zeros_like(bias), np.zeros_like(x)
    reference.dense_backward_weight(dweight, dbias, dout, x, WORKSPACE)
    reference.dense_backward_input(dx, dout, weight, WORKSPACE)
    agree(dweight, loss, weight)
    agree(dbias, loss, bias)
    agree(dx, loss, x)


@pytest.mark.parametrize("count", [3, 20])
def test_batch_norm(count: int) -> None:
    x, scale, shift = normal(count, 4), normal(4), normal(4, seed=1)
    out, dout = np.zeros_like(x), normal(count, 4, seed=2)
    mean, inverse = np.zeros(4), np.zeros(4)

    def loss() -> float:
        running = np.zeros(4), np.ones(4)
        reference.batch_norm_forward(out, mean, inverse, *running, x, scale, shift, 0.1, 1e-5, WORKSPACE)
        return float((out * dout).sum())

    loss()
    dx, dscale, dshift = np.zeros_like(x), np.zeros(4), np.zeros(4)
    reference.batch_norm_backward(dx, dscale, dshift, dout, x, mean.copy(), inverse.copy(), scale, WORKSPACE)
    agree(dx, loss, x)
    agree(dscale, loss, scale)
    agree(dshift, loss, shift)


def test_dropout() -> None:
    x, dout = normal(3, 10), normal(3, 10, seed=1)
    out, dx, photos, step = np.zeros_like(x), np.zeros_like(x), np.arange(3), np.array([2])

    def loss() -> float:
        reference.dropout(out, x, photos, 0.4, 0, 2, step, WORKSPACE)
        return float((out * dout).sum())

    reference.dropout(dx, dout, photos, 0.4, 0, 2, step, WORKSPACE)
    agree(dx, loss, x)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_softmax_cross_entropy(smoothing: float) -> None:
    logits, labels, weights = normal(5, 4), np.array([0, 3, 1, 1, 2]), np.array([0.5, 1.0, 2.0, 1.5])
    total = weights[labels].sum(keepdims=True)
    losses, objectives, probabilities, dlogits = np.zeros(5), np.zeros(5), np.zeros((5, 4)), np.zeros((5, 4))

    def loss() -> float:
        reference.softmax_cross_entropy(
            losses, objectives, probabilities, dlogits, logits, labels, weights, total, smoothing, WORKSPACE
        )
        return float(objectives.sum())

    loss()
    agree(dlogits.copy(), loss, logits)


def test_mean_squared_error() -> None:
    out, target = normal(5, 4), normal(5, 4, seed=1)
    losses, objectives, dout = np.zeros(5), np.zeros(5), np.zeros((5, 4))

    def loss() -> float:
        reference.mean_squared_error(losses, objectives, dout, out, target, np.array([5.0]), WORKSPACE)
        return float(objectives.sum())

    loss()
    agree(dout.copy(), loss, out)
