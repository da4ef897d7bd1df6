"""Forward and gradients against PyTorch: the reference in float64 to 1e-10, the cpu in float32 to 1e-5.

PyTorch is no dependency; ``pytest -m parity`` needs it and fails without it.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from facecnn.kernels import open_device

pytestmark = pytest.mark.parity

Array = npt.NDArray[Any]
BACKENDS = [("reference", np.float64, 1e-10), ("cpu", np.float32, 1e-5)]


@pytest.fixture(params=BACKENDS, ids=lambda backend: backend[0])
def backend(request: pytest.FixtureRequest) -> "Backend":
    try:
        import torch
    except ImportError:
        pytest.fail("the parity tests need PyTorch: pip install torch==2.13.0")
    torch.set_num_threads(1)
    return Backend(torch, *request.param)


class Backend:
    """One of our backends with its dtype and tolerance, beside PyTorch in float64."""

    def __init__(self, torch: Any, name: str, dtype: Any, tolerance: float) -> None:
        self.torch, self.dtype, self.tolerance = torch, dtype, tolerance
        self.kernels = open_device(name).backend
        self.workspace = self.kernels.Workspace()

    def random(self, *shape: int, seed: int = 0) -> Array:
        """On the device; values that float32 holds exactly."""
        host = np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)
        return self.device(host)

    def device(self, host: Any) -> Array:
        return np.asarray(self.kernels.to_device(np.asarray(host, self.dtype)))

    def zeros(self, *shape: int, dtype: Any = None) -> Array:
        return np.asarray(self.kernels.to_device(np.zeros(shape, dtype or self.dtype)))

    def tensor(self, array: Array) -> Any:
        return self.torch.tensor(np.asarray(array, np.float64), requires_grad=True)

    def same(self, ours: Array, theirs: Any) -> None:
        wanted = theirs.detach().numpy()
        assert ours.shape == wanted.shape
        np.testing.assert_allclose(ours, wanted, rtol=0, atol=self.tolerance * max(1e-12, float(np.abs(wanted).max())))


def nchw(tensor: Any) -> Any:
    return tensor.permute(0, 3, 1, 2)


def nhwc(tensor: Any) -> Any:
    return tensor.permute(0, 2, 3, 1)


def torch_activation(torch: Any, name: str, slope: float) -> Any:
    functional = torch.nn.functional
    return {
        "identity": lambda z: z,
        "sigmoid": torch.sigmoid,
        "tanh": torch.tanh,
        "relu": torch.relu,
        "leaky_relu": lambda z: functional.leaky_relu(z, slope),
        "gelu": functional.gelu,
    }[name]


@pytest.mark.parametrize(
    ("padding", "pool", "activation", "kernel"),
    [
        ("same", 2, "leaky_relu", (3, 3)),
        ("valid", 2, "relu", (5, 5)),
        ("valid", 1, "tanh", (4, 3)),
        ("same", 3, "sigmoid", (2, 4)),
        ("same", 1, "identity", (1, 1)),
    ],
)
def test_conv(backend: Backend, padding: str, pool: int, activation: Any, kernel: tuple[int, int]) -> None:
    torch, kernels = backend.torch, backend.kernels
    x, weight, bias = backend.random(2, 11, 12, 3), backend.random(8, *kernel, 3), backend.random(8)
    tx, tw, tb = backend.tensor(x), backend.tensor(weight), backend.tensor(bias)
    z = torch.nn.functional.conv2d(nchw(tx), nchw(tw), tb, padding=padding)
    expected = nhwc(torch.nn.functional.max_pool2d(torch_activation(torch, activation, 0.1)(z), pool))

    above = ((kernel[0] - 1) // 2, (kernel[1] - 1) // 2) if padding == "same" else (0, 0)
    block = (above, activation, 0.1, pool, backend.workspace)
    shape = tuple(expected.shape)
    out, argmax, dout = backend.zeros(*shape), backend.zeros(*shape, dtype=np.uint8), backend.random(*shape, seed=1)
    kernels.conv_forward(out, argmax, x, weight, bias, *block)
    backend.same(out, expected)

    expected.backward(torch.tensor(np.asarray(dout, np.float64)))
    dweight, dbias, dx = backend.zeros(*weight.shape), backend.zeros(8), backend.zeros(*x.shape)
    kernels.conv_backward_weight(dweight, dbias, dout, out, argmax, x, *block)
    kernels.conv_backward_input(dx, dout, out, argmax, weight, *block)
    backend.same(dweight, tw.grad)
    backend.same(dbias, tb.grad)
    backend.same(dx, tx.grad)


@pytest.mark.parametrize("activation", ["identity", "sigmoid", "tanh", "relu", "leaky_relu", "gelu"])
def test_activation(backend: Backend, activation: Any) -> None:
    x, dout = backend.random(5, 300), backend.random(5, 300, seed=1)
    out, dx = backend.zeros(5, 300), backend.zeros(5, 300)
    tx = backend.tensor(x)
    expected = torch_activation(backend.torch, activation, 0.1)(tx)
    expected.backward(backend.torch.tensor(np.asarray(dout, np.float64)))
    backend.kernels.activation_forward(out, x, activation, 0.1, backend.workspace)
    backend.kernels.activation_backward(dx, dout, x, out, activation, 0.1, backend.workspace)
    backend.same(out, expected)
    backend.same(dx, tx.grad)


def test_prelu(backend: Backend) -> None:
    x, slope, dout = backend.random(300, 6), backend.random(6), backend.random(300, 6, seed=1)
    out, dx, dslope = backend.zeros(300, 6), backend.zeros(300, 6), backend.zeros(6)
    tx, ts = backend.tensor(x), backend.tensor(slope)
    expected = backend.torch.nn.functional.prelu(tx, ts)
    expected.backward(backend.torch.tensor(np.asarray(dout, np.float64)))
    backend.kernels.prelu_forward(out, x, slope, backend.workspace)
    backend.kernels.prelu_backward(dx, dslope, dout, x, slope, backend.workspace)
    backend.same(out, expected)
    backend.same(dx, tx.grad)
    backend.same(dslope, ts.grad)


@pytest.mark.parametrize("kind", ["max", "average"])
@pytest.mark.parametrize("keeps_edges", [False, True])
@pytest.mark.parametrize(
    ("size", "stride"), [((2, 2), (2, 2)), ((3, 3), (2, 2)), ((2, 3), (4, 1)), ((11, 12), (11, 12)), ((4, 5), (5, 6))]
)
def test_pool(backend: Backend, kind: Any, size: Any, stride: Any, keeps_edges: bool) -> None:
    functional = backend.torch.nn.functional
    x = backend.random(2, 11, 12, 3)
    tx = backend.tensor(x)
    pooling = functional.max_pool2d if kind == "max" else functional.avg_pool2d
    expected = nhwc(pooling(nchw(tx), size, stride, ceil_mode=keeps_edges))
    shape = tuple(expected.shape)
    out, argmax, dout = backend.zeros(*shape), backend.zeros(*shape, dtype=np.int32), backend.random(*shape, seed=1)
    expected.backward(backend.torch.tensor(np.asarray(dout, np.float64)))
    dx = backend.zeros(*x.shape)
    backend.kernels.pool_forward(out, argmax, x, kind, size, stride, backend.workspace)
    backend.kernels.pool_backward(dx, dout, argmax, kind, size, stride, backend.workspace)
    backend.same(out, expected)
    backend.same(dx, tx.grad)


def test_neuron(backend: Backend) -> None:
    """A neuron on each map is a convolution in groups, as large as the map."""
    x, weight, bias = backend.random(3, 5, 4, 6), backend.random(2, 5, 4, 6), backend.random(2, 6)
    tx, tw, tb = backend.tensor(x), backend.tensor(weight), backend.tensor(bias)
    grouped = tw.permute(3, 0, 1, 2).reshape(12, 1, 5, 4)  # for each map its neurons
    expected = backend.torch.nn.functional.conv2d(nchw(tx), grouped, tb.T.reshape(12), groups=6)
    expected = expected.reshape(3, 6, 2).permute(0, 2, 1)
    out, dout = backend.zeros(3, 2, 6), backend.random(3, 2, 6, seed=1)
    expected.backward(backend.torch.tensor(np.asarray(dout, np.float64)))
    dweight, dbias, dx = backend.zeros(*weight.shape), backend.zeros(2, 6), backend.zeros(*x.shape)
    backend.kernels.neuron_forward(out, x, weight, bias, backend.workspace)
    backend.kernels.neuron_backward_weight(dweight, dbias, dout, x, backend.workspace)
    backend.kernels.neuron_backward_input(dx, dout, weight, backend.workspace)
    for ours, theirs in ((out, expected), (dweight, tw.grad), (dbias, tb.grad), (dx, tx.grad)):
        backend.same(ours, theirs)


def test_dense(backend: Backend) -> None:
    x, weight, bias = backend.random(7, 300), backend.random(9, 300), backend.random(9)
    tx, tw, tb = backend.tensor(x), backend.tensor(weight), backend.tensor(bias)
    expected = backend.torch.nn.functional.linear(tx, tw, tb)
    out, dout = backend.zeros(7, 9), backend.random(7, 9, seed=1)
    expected.backward(backend.torch.tensor(np.asarray(dout, np.float64)))
    dweight, dbias, dx = backend.zeros(9, 300), backend.zeros(9), backend.zeros(7, 300)
    backend.kernels.dense_forward(out, x, weight, bias, backend.workspace)
    backend.kernels.dense_backward_weight(dweight, dbias, dout, x, backend.workspace)
    backend.kernels.dense_backward_input(dx, dout, weight, backend.workspace)
    for ours, theirs in ((out, expected), (dweight, tw.grad), (dbias, tb.grad), (dx, tx.grad)):
        backend.same(ours, theirs)


def test_batch_norm(backend: Backend) -> None:
    torch, kernels = backend.torch, backend.kernels
    x, scale, shift, dout = (
        backend.random(50, 6),
        backend.random(6),
        backend.random(6, seed=1),
        backend.random(50, 6, seed=2),
    )
    layer = torch.nn.BatchNorm1d(6, eps=1e-5, momentum=0.1, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(backend.tensor(scale))
        layer.bias.copy_(backend.tensor(shift))
    tx = backend.tensor(x)
    expected = layer(tx)
    expected.backward(torch.tensor(np.asarray(dout, np.float64)))

    out, dx, (mean, inverse, dscale, dshift) = backend.zeros(50, 6), backend.zeros(50, 6), backend.zeros(4, 6)
    running_mean, running_variance = backend.zeros(6), backend.device(np.ones(6))
    affine = (scale, shift)
    kernels.batch_norm_forward(
        out, mean, inverse, running_mean, running_variance, x, *affine, 0.1, 1e-5, backend.workspace
    )
    kernels.batch_norm_backward(dx, dscale, dshift, dout, x, mean, inverse, scale, backend.workspace)
    pairs = [(out, expected), (dx, tx.grad), (dscale, layer.weight.grad), (dshift, layer.bias.grad)]
    pairs += [(running_mean, layer.running_mean), (running_variance, layer.running_var)]
    for ours, theirs in pairs:
        backend.same(ours, theirs)
    kernels.batch_norm_inference(out, x, running_mean, running_variance, *affine, 1e-5, backend.workspace)
    backend.same(out, layer.eval()(tx))


@pytest.mark.parametrize("smoothing", [0.0, 0.05])
@pytest.mark.parametrize("weighted", [False, True])
def test_softmax_cross_entropy(backend: Backend, smoothing: float, weighted: bool) -> None:
    torch = backend.torch
    logits, labels = backend.random(9, 5), np.array([0, 1, 2, 3, 4, 0, 0, 3, 1], np.int32)
    weights = backend.device([0.5, 1, 2, 1.5, 0.25] if weighted else np.ones(5))
    tl, tt = backend.tensor(logits), torch.tensor(labels, dtype=torch.int64)
    loss = torch.nn.CrossEntropyLoss(torch.tensor(np.asarray(weights, np.float64)), label_smoothing=smoothing)(tl, tt)
    loss.backward()
    losses, objectives, probabilities, dlogits = (backend.zeros(*shape) for shape in ((9,), (9,), (9, 5), (9, 5)))
    total = backend.zeros(1)
    backend.kernels.label_weight(total, labels, weights, backend.workspace)
    backend.kernels.softmax_cross_entropy(
        losses, objectives, probabilities, dlogits, logits, labels, weights, total, smoothing, backend.workspace
    )
    backend.same(np.asarray(objectives.sum()), loss)
    backend.same(losses, torch.nn.functional.cross_entropy(tl, tt, reduction="none"))
    backend.same(probabilities, torch.softmax(tl, dim=1))
    backend.same(dlogits, tl.grad)


def test_mean_squared_error(backend: Backend) -> None:
    out, target = backend.random(9, 5), backend.random(9, 5, seed=1)
    to = backend.tensor(out)
    loss = backend.torch.nn.functional.mse_loss(to, backend.tensor(target))
    loss.backward()
    losses, objectives, dout = backend.zeros(9), backend.zeros(9), backend.zeros(9, 5)
    backend.kernels.mean_squared_error(losses, objectives, dout, out, target, backend.device([9]), backend.workspace)
    backend.same(np.asarray(objectives.sum()), loss)
    backend.same(dout, to.grad)


def _trajectory(backend: Backend, optimizer: Any, parameters: list[Any], weight: Array, update: Any) -> None:
    """Twenty steps of an optimizer; the first 30 elements decay, the others don't."""
    rate = backend.zeros(1)
    step = np.zeros(1, np.int32)
    for i in range(20):
        rate[0] = 0.05 / (1 + i)
        step[0] = i
        gradient = backend.random(50, seed=10 + i)
        for group in optimizer.param_groups:
            group["lr"] = float(rate[0])
        for parameter, part in zip(parameters, (gradient[:30], gradient[30:]), strict=True):
            parameter.grad = backend.torch.tensor(np.asarray(part, np.float64))
        optimizer.step()
        update(gradient, rate, step)
        backend.same(weight[:30], parameters[0])
        backend.same(weight[30:], parameters[1])


@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum(backend: Backend, nesterov: bool) -> None:
    weight, velocity = backend.random(50), backend.zeros(50)
    parameters = [backend.tensor(weight[:30]), backend.tensor(weight[30:])]
    groups = [{"params": [parameters[0]], "weight_decay": 0.02}, {"params": [parameters[1]], "weight_decay": 0.0}]
    optimizer = backend.torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=nesterov)
    _trajectory(
        backend, optimizer, parameters, weight,
        lambda gradient, rate, step: backend.kernels.optimizer_update(
            weight, (velocity,), gradient, rate, step, "nesterov" if nesterov else "momentum",
            {"momentum": 0.9, "weight_decay": 0.02}, 30, backend.workspace,
        ),
    )  # fmt: skip


def test_adam(backend: Backend) -> None:
    weight, mean, second_moment = backend.random(50), backend.zeros(50), backend.zeros(50)
    parameters = [backend.tensor(weight[:30]), backend.tensor(weight[30:])]
    groups = [{"params": [parameters[0]], "weight_decay": 0.05}, {"params": [parameters[1]], "weight_decay": 0.0}]
    optimizer = backend.torch.optim.AdamW(groups, lr=0.1, betas=(0.9, 0.999), eps=1e-8)
    _trajectory(
        backend, optimizer, parameters, weight,
        lambda gradient, rate, step: backend.kernels.optimizer_update(
            weight, (mean, second_moment), gradient, rate, step, "adam",
            {"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "decoupled_weight_decay": 0.05}, 30, backend.workspace,
        ),
    )  # fmt: skip
