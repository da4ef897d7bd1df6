"""Every layer, the shipped networks and the optimizers against PyTorch's autograd and torch.optim.

PyTorch is no dependency; these tests are marked ``parity`` and fail where it can't be imported.

Layouts: maps are NHWC here and NCHW there; convolution weights (K, R, S, C) here, (K, C, R, S) there; a dense layer
takes maps row by row, column by column, map by map. A neuron layer is a grouped convolution by kernels as large as the
map: its output M here, map by map there, neuron by neuron here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from facecnn.config import load
from facecnn.kernels import cpu, reference
from facecnn.learning.optimizers import (
    OPTIMIZERS,
    Adagrad,
    Adam,
    AdamW,
    Lion,
    Momentum,
    Nesterov,
    Optimizer,
    RMSprop,
    Sgd,
)
from facecnn.network.layers import (
    Activate,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    Layer,
    Neuron,
    Pool,
    PoolSettings,
    PRelu,
    with_outputs,
)
from facecnn.network.loss import CrossEntropy, MeanSquaredError

from .nets import ACTIVATIONS, Array, Case, Run, assert_close, first_away_from_kinks

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def torch() -> Any:
    try:
        import torch
    except ImportError as error:
        pytest.fail(f"PyTorch can't be imported ({error}): pip install torch==2.13.0, or leave parity tests out")
    return torch


def pair(size: Any) -> Any:
    return (size, size) if isinstance(size, int) else size


class Twin:
    """The same network in PyTorch, in float64, from the layers as they are in the config: nothing is split or fused."""

    def __init__(self, torch: Any, run: Run) -> None:
        self.torch, self.run = torch, run
        self.parameters = {
            name: torch.tensor(np.array(array, np.float64), requires_grad=True)
            for name, array in run.network.weights.parameters.named.items()
        }
        self.statistics = {
            name: torch.tensor(np.array(array, np.float64))
            for name, array in run.network.weights.statistics.named.items()
        }
        self.x = torch.tensor(np.array(run.network.input[: run.case.count], np.float64))

    def forward(self, training: bool, dropout_factors: Sequence[Array] = ()) -> Any:
        factors = iter(dropout_factors)
        x = self.x.permute(0, 3, 1, 2) if self.x.ndim == 4 else self.x
        for index, layer in enumerate(self.run.case.layers):
            stage = next(stage for stage in self.run.network.stages if stage.index == index)
            x = self.layer(layer, stage.name, x, training, factors)
        return x

    def activation(self, name: str, slope: float, x: Any) -> Any:
        functional = self.torch.nn.functional
        if name == "leaky_relu":
            return functional.leaky_relu(x, slope)
        return x if name == "identity" else {"gelu": functional.gelu, "relu": functional.relu}.get(
            name, getattr(self.torch, name, None)
        )(x)  # fmt: skip

    def pool(self, pool: Pool | PoolSettings, x: Any) -> Any:
        functional = self.torch.nn.functional
        size = tuple(x.shape[2:]) if pool.size == "global" else pair(pool.size)
        function = functional.max_pool2d if pool.kind == "max" else functional.avg_pool2d
        stride = size if pool.stride is None else pair(pool.stride)
        return function(x, size, stride, ceil_mode=pool.edges == "keep")

    def layer(self, layer: Layer, name: str, x: Any, training: bool, factors: Any) -> Any:
        functional, p = self.torch.nn.functional, self.parameters
        if isinstance(layer, Conv):
            weight = p[f"{name}.weight"].permute(0, 3, 1, 2)
            z = functional.conv2d(x, weight, p[f"{name}.bias"], pair(layer.stride), layer.padding)
            out = self.activation(layer.activation, layer.slope, z)
            if layer.pool is None:
                return out
            pool = PoolSettings(size=layer.pool) if isinstance(layer.pool, int) else layer.pool
            return self.pool(pool, out)
        if isinstance(layer, Activate):
            return self.activation(layer.name, layer.slope, x)
        if isinstance(layer, Pool):
            return self.pool(layer, x)
        if isinstance(layer, PRelu):
            return functional.prelu(x, p[f"{name}.slope"])
        if isinstance(layer, Neuron):
            neurons, rows, columns, maps = p[f"{name}.weight"].shape
            weight = p[f"{name}.weight"].permute(3, 0, 1, 2).reshape(maps * neurons, 1, rows, columns)
            bias = p[f"{name}.bias"].T.reshape(-1)
            out = functional.conv2d(x, weight, bias, groups=maps)
            out = out.reshape(len(x), maps, neurons).permute(0, 2, 1).reshape(len(x), -1)
            return self.activation(layer.activation, layer.slope, out)
        if isinstance(layer, Dense):
            flat = x.permute(0, 2, 3, 1).reshape(len(x), -1) if x.ndim == 4 else x
            out = functional.linear(flat, p[f"{name}.weight"], p[f"{name}.bias"])
            return self.activation(layer.activation, layer.slope, out)
        if isinstance(layer, Dropout):
            if not training:
                return x
            kept = self.torch.tensor(np.array(next(factors), np.float64))
            if x.ndim == 4:
                photos, maps, rows, columns = x.shape
                kept = kept.reshape(photos, rows, columns, maps).permute(0, 3, 1, 2)
            return x * kept.reshape(x.shape)
        assert isinstance(layer, BatchNorm)
        running = [self.statistics[f"{name}.{what}"] for what in ("running_mean", "running_variance")]
        return functional.batch_norm(
            x, *running, p[f"{name}.scale"], p[f"{name}.shift"], training, layer.momentum, layer.epsilon
        )

    def gradients(self) -> dict[str, Array]:
        return {name: p.grad.numpy() for name, p in self.parameters.items()}


def compare(torch: Any, case: Case, backend: Any, dtype: npt.DTypeLike, tolerance: float) -> None:
    """Forward in both modes, and all gradients, relative to the largest element of each array."""
    run = Run(case, backend, dtype)
    twin = Twin(torch, run)
    with torch.no_grad():
        expected = twin.forward(training=False).numpy()
    assert_close(run.forward(training=False), expected, tolerance, "output in evaluation")
    out = run.forward()
    expected = twin.forward(True, run.watching.dropout_factors)
    assert_close(out, expected.detach().numpy(), tolerance, "output in training")
    for name, array in run.network.weights.statistics.named.items():
        assert_close(array, twin.statistics[name].numpy(), tolerance, name)
    expected.backward(torch.tensor(run.dout.astype(np.float64)))
    compare_gradients(run.backward(), twin.gradients(), tolerance)


def compare_gradients(found: dict[str, Array], expected: dict[str, Array], tolerance: float) -> None:
    largest = max(float(np.abs(array).max()) for array in expected.values())
    assert largest > 0
    for name, array in expected.items():
        # Right below batch norm a bias has no gradient but rounding, which is held against the others'.
        assert_close(found[name], array, tolerance, name, least=largest / 10)


# Each over a convolution, whose gradient shows the error that is passed down, and below a dense layer.
EACH: list[Layer] = [
    *(Conv(kernels=3, size=3, activation=name, slope=0.2, pool=2) for name in ACTIVATIONS),
    *(Activate(name=name, slope=0.2) for name in ACTIVATIONS),
    Conv(kernels=2, size=(2, 3), padding="same", activation="tanh", pool=3),
    Conv(kernels=2, size=4, padding="same", activation="sigmoid"),
    Conv(kernels=2, size=(7, 6), activation="identity"),
    Conv(kernels=3, size=3, stride=2, activation="leaky_relu", slope=0.2),
    Conv(kernels=2, size=(2, 3), stride=(3, 1), activation="tanh", pool=2),
    Conv(kernels=2, size=1, activation="relu", pool=PoolSettings(size=3, stride=2)),
    Conv(kernels=2, size=2, activation="tanh", pool=PoolSettings(size=(2, 3), stride=1, kind="average")),
    Pool(size=2),
    Pool(size=(3, 2), stride=(1, 2)),
    Pool(size=2, stride=3, kind="average"),
    Pool(size=3, stride=1, kind="average"),
    Pool(size="global"),
    Pool(size="global", kind="average"),
    Pool(size=(3, 4), stride=(2, 4), edges="keep"),
    Pool(size=4, stride=(5, 3), kind="average", edges="keep"),
    Conv(kernels=2, size=2, activation="relu", pool=PoolSettings(size=4, edges="keep")),
    PRelu(),
    Neuron(),
    Neuron(per_kernel=3, activation="gelu"),
    Dense(units=4, activation="tanh"),
    Dropout(rate=0.4),
    BatchNorm(momentum=0.3),
]
PRECISIONS = pytest.mark.parametrize(
    ("backend", "dtype", "tolerance"),
    [(reference, np.float64, 1e-10), (cpu, np.float32, 1e-5)],
    ids=["reference-float64", "cpu-float32"],
)


@PRECISIONS
@pytest.mark.parametrize("layer", EACH, ids=repr)
def test_each_layer(torch: Any, layer: Layer, backend: Any, dtype: npt.DTypeLike, tolerance: float) -> None:
    layers = (Conv(kernels=2, size=1, activation="identity"), layer, Dense(units=3))
    compare(torch, first_away_from_kinks(lambda seed: Case(layers, (7, 6, 2), 3, seed)), backend, dtype, tolerance)


@PRECISIONS
@pytest.mark.parametrize("layer", [BatchNorm(), Dropout(rate=0.4), Activate(name="gelu"), PRelu()], ids=repr)
def test_each_layer_over_units(torch: Any, layer: Layer, backend: Any, dtype: npt.DTypeLike, tolerance: float) -> None:
    compare(torch, Case((Dense(units=6), layer, Dense(units=3)), (4, 3, 2), 5), backend, dtype, tolerance)


@PRECISIONS
# Batch norm over a handful of numbers magnifies float32's roundings: default has 12 photos, since with 6 its neurons'
# gradients are off by 1.2e-5.
@pytest.mark.parametrize(
    ("name", "side", "count"), [("seed", 20, 4), ("default", 16, 12), ("smoke", 12, 3), ("deep", 40, 2)]
)
def test_whole_networks(
    torch: Any, name: str, side: int, count: int, backend: Any, dtype: npt.DTypeLike, tolerance: float
) -> None:
    loaded = load(name).settings
    layers, maps = with_outputs(loaded.network, 2), 3 if loaded.photos.colour == "rgb" else 1
    case = first_away_from_kinks(lambda seed: Case(layers, (side, side, maps), count, seed))
    compare(torch, case, backend, dtype, tolerance)


LOGITS = (Dense(units=4),)
LABELS = np.array([0, 3, 1, 1, 2], np.int32)
CLASS_WEIGHTS = np.array([0.5, 2.0, 1.0, 0.25])


@PRECISIONS
@pytest.mark.parametrize("loss", [CrossEntropy(), CrossEntropy(label_smoothing=0.15), MeanSquaredError()], ids=repr)
def test_losses(torch: Any, loss: Any, backend: Any, dtype: npt.DTypeLike, tolerance: float) -> None:
    run = Run(Case(LOGITS, (6,), 5), backend, dtype)
    run.network.objective = loss
    logits = Twin(torch, run).forward(True).detach().requires_grad_()
    if isinstance(loss, MeanSquaredError):
        expected = torch.nn.functional.mse_loss(logits, torch.tensor(np.eye(4)[LABELS]))
    else:
        expected = torch.nn.functional.cross_entropy(
            logits, torch.tensor(LABELS).long(), torch.tensor(CLASS_WEIGHTS), label_smoothing=loss.label_smoothing
        )
    expected.backward()
    run.forward()
    to_device = backend.to_device
    run.network.loss(5, to_device(LABELS), to_device(CLASS_WEIGHTS.astype(dtype)))
    assert float(run.network.objectives.sum(dtype=np.float64)) == pytest.approx(expected.item(), rel=tolerance)
    run.network.backward(5, run.photos, run.step)
    # d loss / d bias is the sum over the photos of d loss / d logits, and the weights show each of them.
    dlogits = logits.grad.numpy()
    x = np.array(run.network.input, np.float64)
    compare_gradients(run.gradients(), {"dense1.bias": dlogits.sum(axis=0), "dense1.weight": dlogits.T @ x}, tolerance)


RULES: list[Optimizer] = [
    Sgd(),
    Sgd(weight_decay=0.1),
    Momentum(weight_decay=0.01),
    Momentum(momentum=0.0),
    Momentum(weight_decay=0.1, decoupled=True),
    Nesterov(),
    Nesterov(momentum=0.5, weight_decay=0.1),
    Nesterov(weight_decay=0.1, decoupled=True),
    RMSprop(),
    RMSprop(beta2=0.5, epsilon=1e-3, weight_decay=0.1),
    RMSprop(weight_decay=0.1, decoupled=True),
    Adagrad(),
    Adagrad(initial_squares=0.3, epsilon=1e-3, weight_decay=0.1),
    Adagrad(weight_decay=0.1, decoupled=True),
    Adam(),
    Adam(weight_decay=0.1),
    Adam(beta1=0.7, beta2=0.9, epsilon=1e-3, weight_decay=0.1),
    AdamW(weight_decay=0.1),
    AdamW(beta1=0.7, beta2=0.9, epsilon=1e-3, weight_decay=0.0),
    Lion(weight_decay=0.0),
    Lion(beta1=0.6, beta2=0.8, weight_decay=0.1),
]
COUNT, DECAYING = 50, 30


class FormulaOfLion:
    """Algorithm 2 of Chen et al. 2023 number by number, in the form of a PyTorch optimizer: PyTorch has none."""

    def __init__(self, torch: Any, groups: Any, rule: Lion) -> None:
        self.torch, self.param_groups, self.rule = torch, groups, rule
        self.m = [[0.0] * len(group["params"][0]) for group in groups]

    def step(self) -> None:
        b1, b2 = self.rule.beta1, self.rule.beta2
        for group, m in zip(self.param_groups, self.m, strict=True):
            theta = group["params"][0]
            for i, g in enumerate(theta.grad.tolist()):
                c = b1 * m[i] + (1 - b1) * g
                m[i] = b2 * m[i] + (1 - b2) * g
                step = (c > 0) - (c < 0) + group["weight_decay"] * theta.data[i]
                theta.data[i] = theta.data[i] - group["lr"] * step


def in_torch(torch: Any, groups: Any, rule: Any) -> Any:
    """The optimizer that a rule stands for. Of those without decoupled decay in PyTorch, without any."""
    optim = torch.optim
    if isinstance(rule, Lion):
        return FormulaOfLion(torch, groups, rule)
    if isinstance(rule, Adam | AdamW):
        kind = optim.Adam if isinstance(rule, Adam) else optim.AdamW
        return kind(groups, lr=1.0, betas=(rule.beta1, rule.beta2), eps=rule.epsilon)
    if isinstance(rule, RMSprop):
        return optim.RMSprop(groups, lr=1.0, alpha=rule.beta2, eps=rule.epsilon)
    if isinstance(rule, Adagrad):
        return optim.Adagrad(groups, lr=1.0, initial_accumulator_value=rule.initial_squares, eps=rule.epsilon)
    if isinstance(rule, Momentum | Nesterov):
        return optim.SGD(groups, lr=1.0, momentum=rule.momentum, nesterov=isinstance(rule, Nesterov))
    return optim.SGD(groups, lr=1.0)


def test_every_rule_has_a_twin() -> None:
    assert {type(rule) for rule in RULES} == set(OPTIMIZERS.values())


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_optimizers_over_twenty_steps(torch: Any, rule: Any) -> None:
    """The same trajectory with a rate that changes, of which the first 30 weights decay."""
    apart = getattr(rule, "decoupled", False) and not isinstance(rule, AdamW)
    generator = np.random.default_rng(0)
    weight = generator.standard_normal(COUNT)
    state = {name: np.zeros(COUNT) for name in rule.state_names}
    parts = slice(DECAYING), slice(DECAYING, None)
    parameters = [torch.tensor(weight[part].copy(), requires_grad=True) for part in parts]
    decays = 0.0 if apart else rule.weight_decay, 0.0
    groups = [{"params": [p], "weight_decay": decay} for p, decay in zip(parameters, decays, strict=True)]
    optimizer = in_torch(torch, groups, rule)
    for step in range(20):
        gradient = generator.standard_normal(COUNT) * 10.0 ** generator.integers(-3, 2)
        rate = 0.05 / (1 + step)
        rule.update(
            backend=reference,
            weight=weight,
            state=state,
            gradient=gradient.copy(),
            learning_rate=np.array([rate]),
            step=np.array([step], np.int32),
            decaying=DECAYING,
            workspace=reference.Workspace(),
        )
        for parameter, part in zip(parameters, parts, strict=True):
            parameter.grad = torch.tensor(gradient[part])
        for group in optimizer.param_groups:
            group["lr"] = rate
        if apart:
            parameters[0].data *= 1 - rate * rule.weight_decay
        optimizer.step()
        expected = np.concatenate([parameter.detach().numpy() for parameter in parameters])
        assert_close(weight, expected, 1e-8, f"weights after step {step}")


@PRECISIONS
@pytest.mark.parametrize("limit", [1e-3, 2.0, 1e6])
def test_clipping(torch: Any, limit: float, backend: Any, dtype: npt.DTypeLike, tolerance: float) -> None:
    """Over all parameters together, which are two arrays there and one buffer here."""
    gradient = np.random.default_rng(1).standard_normal(9000).astype(dtype)
    parts = gradient[:4000], gradient[4000:]
    parameters = [torch.zeros_like(torch.tensor(part)) for part in parts]
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.grad = torch.tensor(part)
    torch.nn.utils.clip_grad_norm_(parameters, limit)
    out = backend.empty(gradient.shape, dtype)
    backend.clip_gradient(out, backend.to_device(gradient), limit, backend.Workspace())
    assert_close(out, np.concatenate([p.grad.numpy() for p in parameters]), tolerance, "clipped gradient")
