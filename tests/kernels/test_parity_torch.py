"""Forward and gradients against PyTorch: the reference in float64 to 1e-10, the cpu in float32 to 1e-5.

PyTorch is no dependency; ``pytest -m parity`` needs it and fails without it.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from contract.cases import cases_of, conv, strided
from contract.harness import EXCEPTIONS
from facecnn.arrays import Array
from facecnn.kernels import open_device
from facecnn.kernels.cases import Case

pytestmark = pytest.mark.parity

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

    def same(self, ours: Array, theirs: Any, case: Case | None = None) -> None:
        wanted = theirs.detach().numpy()
        assert ours.shape == wanted.shape
        # What cancels out to nearly nothing, as a bias' gradient may, is held against the case's least scale.
        scale = max(1e-12 if case is None else case.least_scale, float(np.abs(wanted).max()))
        tolerance = self.tolerance if case is None or self.dtype == np.float64 else case.tolerance
        np.testing.assert_allclose(ours, wanted, rtol=0, atol=tolerance * scale)


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


def pairs(forward: str, *backward: str) -> list[Any]:
    """The table's cases of a kernel, each with those of the same name that go back from it: PyTorch is told of no NaN,
    and not where sums are equal, so of these there are none."""
    more = [{case.name: case for case in cases_of(kernel)} for kernel in backward]
    found = [(case, *(of.get(case.name) for of in more)) for case in cases_of(forward) if _is_usual(case)]
    return [pytest.param(*cases, id=str(cases[0])) for cases in found if None not in cases]


def _is_usual(case: Case) -> bool:
    """The large ones are no different, and some are too hard for float32."""
    arrays = [argument for argument in case.arguments if isinstance(argument, np.ndarray)]
    if case.size == "large" or str(case) in EXCEPTIONS:
        return False
    return all(np.isfinite(array).all() for array in arrays) and "ties" not in case.name


CONVOLUTIONS = {str(one) for one in [*conv.USUAL, conv.USUAL_FORWARD, *conv.WITH_PYTORCH]}
"""Names of cases: each other one would be compiled for the CPU alone."""


@pytest.mark.parametrize(
    ("case", "back_to_weight", "back_to_input"),
    [pair for pair in pairs(*conv.KERNELS) if pair.values[0].name in CONVOLUTIONS],
)
def test_conv(backend: Backend, case: Case, back_to_weight: Case, back_to_input: Case) -> None:
    torch, functional = backend.torch, backend.torch.nn.functional
    out, argmax, *_, padding, activation, slope, pool = case.arguments
    x, weight, bias = map(backend.device, case.arguments[2:5])
    dout = backend.device(back_to_weight.arguments[2])
    tx, tw, tb = backend.tensor(x), backend.tensor(weight), backend.tensor(bias)
    # As much padding below and to the right as windows need.
    sides = zip(padding, x.shape[1:3], weight.shape[1:3], out.shape[1:3], strict=True)
    below = [max(0, pool * windows + size - 1 - before - length) for before, length, size, windows in sides]
    padded = functional.pad(nchw(tx), (padding[1], below[1], padding[0], below[0]))
    z = functional.conv2d(padded, nchw(tw), tb)[:, :, : pool * out.shape[1], : pool * out.shape[2]]
    expected = nhwc(functional.max_pool2d(torch_activation(torch, activation, slope)(z), pool))
    expected.backward(torch.tensor(np.asarray(dout, np.float64)))

    block = (padding, activation, slope, pool, backend.workspace)
    found, won = backend.zeros(*out.shape), backend.zeros(*argmax.shape, dtype=np.uint8)
    dweight, dbias, dx = backend.zeros(*weight.shape), backend.zeros(*bias.shape), backend.zeros(*x.shape)
    backend.kernels.conv_forward(found, won, x, weight, bias, *block)
    backend.kernels.conv_backward_weight(dweight, dbias, dout, found, won, x, *block)
    backend.kernels.conv_backward_input(dx, dout, found, won, weight, *block)
    for ours, theirs in ((found, expected), (dweight, tw.grad), (dbias, tb.grad), (dx, tx.grad)):
        backend.same(ours, theirs, case)


@pytest.mark.parametrize(
    ("case", "back_to_weight", "back_to_input"),
    [pair for pair in pairs(*strided.KERNELS) if pair.values[0].name in set(map(str, strided.USUAL))],
)
def test_strided_conv(backend: Backend, case: Case, back_to_weight: Case, back_to_input: Case) -> None:
    torch, functional = backend.torch, backend.torch.nn.functional
    out, *_, stride, padding, activation, slope = case.arguments
    x, weight, bias = map(backend.device, case.arguments[1:4])
    dout = backend.device(back_to_weight.arguments[2])
    tx, tw, tb = backend.tensor(x), backend.tensor(weight), backend.tensor(bias)
    z = functional.conv2d(nchw(tx), nchw(tw), tb, stride, padding)
    expected = nhwc(torch_activation(torch, activation, slope)(z))
    expected.backward(torch.tensor(np.asarray(dout, np.float64)))

    block = (stride, padding, activation, slope, backend.workspace)
    found = backend.zeros(*out.shape)
    dweight, dbias, dx = backend.zeros(*weight.shape), backend.zeros(*bias.shape), backend.zeros(*x.shape)
    backend.kernels.strided_conv_forward(found, x, weight, bias, *block)
    backend.kernels.strided_conv_backward_weight(dweight, dbias, dout, found, x, *block)
    backend.kernels.strided_conv_backward_input(dx, dout, found, weight, *block)
    for ours, theirs in ((found, expected), (dweight, tw.grad), (dbias, tb.grad), (dx, tx.grad)):
        backend.same(ours, theirs, case)


@pytest.mark.parametrize(("case", "back"), pairs("activation_forward", "activation_backward"))
def test_activation(backend: Backend, case: Case, back: Case) -> None:
    _, x, activation, slope = case.arguments
    tx = backend.tensor(x)
    expected = torch_activation(backend.torch, activation, slope)(tx)
    expected.backward(backend.torch.tensor(back.arguments[1]))
    out, dx = backend.zeros(*x.shape), backend.zeros(*x.shape)
    x, dout = backend.device(x), backend.device(back.arguments[1])
    backend.kernels.activation_forward(out, x, activation, slope, backend.workspace)
    backend.kernels.activation_backward(dx, dout, x, out, activation, slope, backend.workspace)
    backend.same(out, expected, case)
    backend.same(dx, tx.grad, case)


@pytest.mark.parametrize(("case", "back"), pairs("prelu_forward", "prelu_backward"))
def test_prelu(backend: Backend, case: Case, back: Case) -> None:
    x, slope = map(backend.device, case.arguments[1:])
    dout = backend.device(back.arguments[2])
    tx, ts = backend.tensor(x), backend.tensor(slope)
    expected = backend.torch.nn.functional.prelu(tx, ts)
    expected.backward(backend.torch.tensor(np.asarray(dout, np.float64)))
    out, dx, dslope = (backend.zeros(*array.shape) for array in (x, x, slope))
    backend.kernels.prelu_forward(out, x, slope, backend.workspace)
    backend.kernels.prelu_backward(dx, dslope, dout, x, slope, backend.workspace)
    for ours, theirs in ((out, expected), (dx, tx.grad), (dslope, ts.grad)):
        backend.same(ours, theirs, case)


@pytest.mark.parametrize(("case", "back"), pairs("pool_forward", "pool_backward"))
def test_pool(backend: Backend, case: Case, back: Case) -> None:
    functional = backend.torch.nn.functional
    out, _, x, kind, window, stride = case.arguments
    tx = backend.tensor(x)
    pooling = functional.max_pool2d if kind == "max" else functional.avg_pool2d
    keeps_edges = any(size > (length - side) // step + 1 for size, length, side, step in zip(
        out.shape[1:3], x.shape[1:3], window, stride, strict=True
    ))  # fmt: skip
    expected = nhwc(pooling(nchw(tx), window, stride, ceil_mode=keeps_edges))
    expected.backward(backend.torch.tensor(back.arguments[1]))
    found, won, dx = backend.zeros(*out.shape), backend.zeros(*out.shape, dtype=np.int32), backend.zeros(*x.shape)
    dout = backend.device(back.arguments[1])
    backend.kernels.pool_forward(found, won, backend.device(x), kind, window, stride, backend.workspace)
    backend.kernels.pool_backward(dx, dout, won, kind, window, stride, backend.workspace)
    backend.same(found, expected, case)
    backend.same(dx, tx.grad, case)


@pytest.mark.parametrize(("case", "back"), pairs("add_maps_forward", "add_maps_backward"))
def test_add_maps(backend: Backend, case: Case, back: Case) -> None:
    torch, functional = backend.torch, backend.torch.nn.functional
    (out, branch, shortcut, *settings), dout = case.arguments, backend.device(back.arguments[2])
    tensors = [backend.tensor(branch), backend.tensor(shortcut)]
    padded = []
    for tensor in tensors:
        rows, columns, maps = (whole - own for whole, own in zip(out.shape[1:], tensor.shape[1:], strict=True))
        padded.append(functional.pad(tensor, (0, maps, 0, columns, 0, rows)))
    expected = torch_activation(torch, *settings)(padded[0] + padded[1])
    expected.backward(torch.tensor(np.asarray(dout, np.float64)))
    found, dbranch, dshortcut = (backend.zeros(*array.shape) for array in (out, branch, shortcut))
    a, b = backend.device(branch), backend.device(shortcut)
    backend.kernels.add_maps_forward(found, a, b, *settings, backend.workspace)
    backend.kernels.add_maps_backward(dbranch, dshortcut, dout, found, *settings, backend.workspace)
    for ours, theirs in ((found, expected), (dbranch, tensors[0].grad), (dshortcut, tensors[1].grad)):
        backend.same(ours, theirs, case)


@pytest.mark.parametrize(("case", "back"), pairs("unit_length_forward", "unit_length_backward"))
def test_unit_length(backend: Backend, case: Case, back: Case) -> None:
    x, dout = backend.device(case.arguments[1]), backend.device(back.arguments[1])
    tx = backend.tensor(x)
    expected = backend.torch.nn.functional.normalize(tx, dim=1)
    expected.backward(backend.torch.tensor(np.asarray(dout, np.float64)))
    out, norms, dx = backend.zeros(*x.shape), backend.zeros(len(x)), backend.zeros(*x.shape)
    backend.kernels.unit_length_forward(out, x, norms, backend.workspace)
    backend.kernels.unit_length_backward(dx, dout, out, norms, backend.workspace)
    backend.same(out, expected, case)
    backend.same(dx, tx.grad, case)


def check_layer(
    backend: Backend, case: Case, back_to_weight: Case, torch_layer: Callable[[Any, Any, Any], Any]
) -> None:
    """Outputs and gradients of a layer with weights are those of ``torch_layer(x, weight, bias)``."""
    layer = case.kernel.removesuffix("_forward")
    forward, backward_weight, backward_input = (
        getattr(backend.kernels, f"{layer}_{way}") for way in ("forward", "backward_weight", "backward_input")
    )
    x, weight, bias = map(backend.device, case.arguments[1:])
    dout = backend.device(back_to_weight.arguments[2])
    tx, tw, tb = backend.tensor(x), backend.tensor(weight), backend.tensor(bias)
    expected = torch_layer(tx, tw, tb)
    expected.backward(backend.torch.tensor(np.asarray(dout, np.float64)))
    out, dweight, dbias, dx = (backend.zeros(*array.shape) for array in (dout, weight, bias, x))
    forward(out, x, weight, bias, backend.workspace)
    backward_weight(dweight, dbias, dout, x, backend.workspace)
    backward_input(dx, dout, weight, backend.workspace)
    for ours, theirs in ((out, expected), (dweight, tw.grad), (dbias, tb.grad), (dx, tx.grad)):
        backend.same(ours, theirs, case)


@pytest.mark.parametrize(("case", "back_to_weight"), pairs("neuron_forward", "neuron_backward_weight"))
def test_neuron(backend: Backend, case: Case, back_to_weight: Case) -> None:
    """A neuron on each map is a convolution in groups, as large as the map."""

    def torch_layer(x: Any, weight: Any, bias: Any) -> Any:
        neurons, rows, columns, maps = weight.shape
        grouped = weight.permute(3, 0, 1, 2).reshape(maps * neurons, 1, rows, columns)  # for each map its neurons
        out = backend.torch.nn.functional.conv2d(nchw(x), grouped, bias.T.reshape(-1), groups=maps)
        return out.reshape(len(x), maps, neurons).permute(0, 2, 1)

    check_layer(backend, case, back_to_weight, torch_layer)


@pytest.mark.parametrize(("case", "back_to_weight"), pairs("dense_forward", "dense_backward_weight"))
def test_dense(backend: Backend, case: Case, back_to_weight: Case) -> None:
    check_layer(backend, case, back_to_weight, backend.torch.nn.functional.linear)


@pytest.mark.parametrize(
    ("case", "inference", "back"),
    [
        pair
        for pair in pairs("batch_norm_forward", "batch_norm_inference", "batch_norm_backward")
        if len(pair.values[0].arguments[5]) > 2  # PyTorch wants several, and of two a deviation may be nearly 0
    ],
)
def test_batch_norm(backend: Backend, case: Case, inference: Case, back: Case) -> None:
    torch, kernels = backend.torch, backend.kernels
    *_, momentum, epsilon = case.arguments
    running_mean, running_variance = before = tuple(backend.device(running.array) for running in case.arguments[3:5])
    x, scale, shift = map(backend.device, case.arguments[5:8])
    dout = backend.device(back.arguments[3])
    layer = torch.nn.BatchNorm1d(len(scale), eps=epsilon, momentum=momentum, dtype=torch.float64)
    with torch.no_grad():
        for parameter, value in zip((layer.weight, layer.bias), (scale, shift), strict=True):
            parameter.copy_(backend.tensor(value))
        for parameter, value in zip((layer.running_mean, layer.running_var), before, strict=True):
            parameter.copy_(backend.tensor(value))
    tx = backend.tensor(x)
    expected = layer(tx)
    expected.backward(torch.tensor(np.asarray(dout, np.float64)))

    out, dx = backend.zeros(*x.shape), backend.zeros(*x.shape)
    mean, inverse, dscale, dshift = (backend.zeros(len(scale)) for _ in range(4))
    kernels.batch_norm_forward(
        out, mean, inverse, running_mean, running_variance, x, scale, shift, momentum, epsilon, backend.workspace
    )
    kernels.batch_norm_backward(dx, dscale, dshift, dout, x, mean, inverse, scale, backend.workspace)
    found = [(out, expected), (dx, tx.grad), (dscale, layer.weight.grad), (dshift, layer.bias.grad)]
    found += zip(before, (layer.running_mean, layer.running_var), strict=True)
    for ours, theirs in found:
        backend.same(ours, theirs, case)
    kernels.batch_norm_inference(out, x, running_mean, running_variance, scale, shift, epsilon, backend.workspace)
    backend.same(out, layer.eval()(tx), case)


@pytest.mark.parametrize("case", pairs("softmax_cross_entropy"))
def test_softmax_cross_entropy(backend: Backend, case: Case) -> None:
    torch = backend.torch
    logits, weights = backend.device(case.arguments[4]), backend.device(case.arguments[6])
    labels, smoothing = case.arguments[5], case.arguments[8]
    tl, tt = backend.tensor(logits), torch.tensor(labels, dtype=torch.int64)
    loss = torch.nn.CrossEntropyLoss(torch.tensor(np.asarray(weights, np.float64)), label_smoothing=smoothing)(tl, tt)
    loss.backward()
    photos = len(logits)
    losses, objectives, total = backend.zeros(photos), backend.zeros(photos), backend.zeros(1)
    probabilities, dlogits = backend.zeros(*logits.shape), backend.zeros(*logits.shape)
    backend.kernels.label_weight(total, labels, weights, backend.workspace)
    backend.kernels.softmax_cross_entropy(
        losses, objectives, probabilities, dlogits, logits, labels, weights, total, smoothing, backend.workspace
    )
    backend.same(np.asarray(objectives.sum()), loss, case)
    backend.same(losses, torch.nn.functional.cross_entropy(tl, tt, reduction="none"), case)
    backend.same(probabilities, torch.softmax(tl, dim=1), case)
    backend.same(dlogits, tl.grad, case)


@pytest.mark.parametrize("case", pairs("mean_squared_error"))
def test_mean_squared_error(backend: Backend, case: Case) -> None:
    out, target = map(backend.device, case.arguments[3:5])
    photos = len(out)
    to = backend.tensor(out)
    loss = backend.torch.nn.functional.mse_loss(to, backend.tensor(target))
    loss.backward()
    losses, objectives, dout = backend.zeros(photos), backend.zeros(photos), backend.zeros(*out.shape)
    total = backend.device([photos])
    backend.kernels.mean_squared_error(losses, objectives, dout, out, target, total, backend.workspace)
    backend.same(np.asarray(objectives.sum()), loss, case)
    backend.same(dout, to.grad, case)


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
