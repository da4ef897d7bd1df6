"""Optimizers: what weight decay touches, how a gradient is clipped and made noisy, and that training does so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from facecnn.arrays import Array
from facecnn.config import from_dict, load, to_dict, to_yaml
from facecnn.kernels import cpu, reference
from facecnn.learning.optimizers import OPTIMIZERS, Adam, AdamW, Momentum, Optimizer, RMSprop, Sgd
from facecnn.learning.schedules import Constant
from facecnn.network.weights import ALIGNMENT
from facecnn.runs.checkpoint import load_checkpoint

from .trainings import RICH, SMOKE, Recorder, make_trainer, trained

DATA = Path(__file__).parent.parent / "data"
KINDS = list(OPTIMIZERS.values())
EITHER_DECAY = ["momentum", "nesterov", "rmsprop", "adagrad"]
numbers = st.integers(-1000, 1000).map(lambda n: n / 64)
vectors = st.lists(numbers, min_size=1, max_size=40).map(np.array)


def follow(rule: Optimizer, weight: Array, gradients: list[Array], decaying: int = 0) -> tuple[Array, dict[str, Array]]:
    """The weights after a step for each gradient, and the state, in float64."""
    weight = weight.astype(np.float64)
    state = {name: np.zeros(weight.shape) for name in rule.state_names}
    for step, gradient in enumerate(gradients):
        rule.update(
            backend=reference,
            weight=weight,
            state=state,
            gradient=gradient,
            learning_rate=np.array([rule.learning_rate]),
            step=np.array([step], np.int32),
            decaying=decaying,
            workspace=reference.Workspace(),
        )
    return weight, state


# ------------------------------------------------------------------------------------------------------------- rules


TWO_STEPS: dict[str, tuple[dict[str, float], tuple[float, float]]] = {
    # w -= 0.1 g
    "sgd": ({}, (0.8, 0.9)),
    # v = 0.9 v + g = 2, then 0.8; w -= 0.1 v
    "momentum": ({}, (0.8, 0.72)),
    # w -= 0.1 (g + 0.9 v): 3.8, then -1 + 0.72 = -0.28
    "nesterov": ({}, (0.62, 0.648)),
    # v = 0.04, then 0.0496; w -= 0.1 g / (sqrt(v) + 1)
    "rmsprop": ({"epsilon": 1.0}, (0.8333333, 0.9151188)),
    # s = 4, then 5; w -= 0.1 g / (sqrt(0.25 + s) + 1)
    "adagrad": ({"epsilon": 1.0, "initial_squares": 0.25}, (0.9346737, 0.9650569)),
    # m = 0.2, then 0.08; v = 0.004, then 0.004996; w -= 0.1 (m / a) / (sqrt(v / b) + 1),
    # a = 0.1 and b = 0.001, then 0.19 and 0.001999
    "adam": ({"epsilon": 1.0}, (0.9333333, 0.9170192)),
    # the same, and w -= 0.1 * 0.5 w before
    "adamw": ({"epsilon": 1.0, "weight_decay": 0.5}, (0.8833333, 0.8228525)),
    # m = 0.02; the signs of 0.1 * 2 and of 0.9 * 0.02 - 0.1 count
    "lion": ({}, (0.9, 1.0)),
}
"""Settings beside the rate of 0.1, and where a weight of 1 is after gradients of 2 and -1, worked by hand."""


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_two_steps_worked_by_hand(name: str) -> None:
    changes, expected = TWO_STEPS[name]
    rule = OPTIMIZERS[name](learning_rate=0.1, **{"weight_decay": 0.0, **changes})
    for count in (1, 2):
        moved, _ = follow(rule, np.ones(1), [np.array([2.0]), np.array([-1.0])][:count], decaying=1)
        assert moved[0] == pytest.approx(expected[count - 1], abs=1e-6)


def test_the_first_step_of_a_training_is_adams_first() -> None:
    """Of whatever size a gradient is, Adam's first step is as long as its rate, and no other one is."""
    training = make_trainer(optimizer=Adam(learning_rate=0.01, weight_decay=0.0), schedule=Constant())
    before = training.network.weights.to_host()
    recorder = Recorder()
    assert not training.run(recorder, lambda: training.progress.step == 1)
    after = training.network.weights.to_host()
    moved = np.concatenate([np.abs(after[name] - before[name]).ravel() for name in before])
    moved = moved[moved > 0]
    assert len(moved) > 100
    assert np.median(moved) == pytest.approx(0.01, rel=1e-3)
    assert moved.max() < 0.0101


def test_a_gradient_of_zeros_moves_nothing() -> None:
    weight = np.linspace(-2, 2, 20)
    for kind in KINDS:
        moved, state = follow(kind(weight_decay=0.0), weight, [np.zeros(20)] * 3, decaying=20)
        np.testing.assert_array_equal(moved, weight, kind.name)
        assert not any(array.any() for array in state.values()), kind.name


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_first_step_goes_against_the_gradient(kind: type[Optimizer]) -> None:
    gradient = np.array([3.0, -0.01, 0.0])
    moved, _ = follow(kind(weight_decay=0.0), np.ones(3), [gradient])
    assert (np.sign(moved - 1) == -np.sign(gradient)).all()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@settings(deadline=None, derandomize=True, max_examples=25)
@given(weight=vectors, share=st.floats(0, 1), seed=st.integers(0, 9))
def test_decay_concerns_the_decaying_part_alone(kind: type[Optimizer], weight: Array, share: float, seed: int) -> None:
    decaying = round(share * len(weight))
    gradients = list(np.random.default_rng(seed).standard_normal((3, len(weight))))
    plain, _ = follow(kind(weight_decay=0.0), weight, gradients, decaying)
    decayed, _ = follow(kind(weight_decay=0.25), weight, gradients, decaying)
    wholly, _ = follow(kind(weight_decay=0.25), weight, gradients, len(weight))
    np.testing.assert_array_equal(decayed[decaying:], plain[decaying:])
    np.testing.assert_array_equal(decayed[:decaying], wholly[:decaying])


@pytest.mark.parametrize("name", [*EITHER_DECAY, "adamw", "lion"])
def test_decoupled_decay_shrinks_every_weight_by_the_same_share(name: str) -> None:
    changes: dict[str, Any] = {"decoupled": True} if name in EITHER_DECAY else {}
    rule = OPTIMIZERS[name](learning_rate=0.5, weight_decay=0.1, **changes)
    weight = np.array([4.0, -0.5, 0.0])
    moved, state = follow(rule, weight, [np.zeros(3)] * 2, decaying=3)
    np.testing.assert_allclose(moved, weight * 0.95**2, rtol=1e-15)
    assert not any(array.any() for array in state.values())


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name not in ("adamw", "lion")])
def test_other_decay_is_the_gradient_of_the_squared_weights(name: str) -> None:
    kind = OPTIMIZERS[name]
    weight, gradient = np.array([4.0, -0.5, 2.0]), np.array([1.0, 0.25, -3.0])
    decayed, state = follow(kind(weight_decay=0.5), weight, [gradient], decaying=3)
    by_hand, same_state = follow(kind(weight_decay=0.0), weight, [gradient + 0.5 * weight])
    np.testing.assert_allclose(decayed, by_hand, rtol=1e-15)
    for one, other in zip(state.values(), same_state.values(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-15)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_rule_is_a_choice_in_the_config(kind: type[Optimizer]) -> None:
    base = load("smoke").settings
    rule = kind(learning_rate=0.02, clip=1.0, noise=0.01)
    chosen = replace(base, optimizer=rule)
    assert from_dict(to_dict(chosen)).optimizer == rule
    described = to_yaml(chosen).split("optimizer:")[1].split("schedule:")[0].splitlines()[1:]
    assert {"clip", "noise", "noise_decay", "weight_decay"} < {line.split(":")[0].strip() for line in described}
    assert all("#" in line for line in described if "name:" not in line)


@pytest.mark.parametrize("kind", [AdamW, RMSprop])
def test_a_training_that_was_saved_under_older_names_goes_on(kind: type[Optimizer]) -> None:
    """The files were written when the second moment was called variance, after five of nine steps."""
    saved = load_checkpoint(DATA / f"{kind.name}_with_variance.safetensors")
    assert b'"variance.conv1.weight"' in (DATA / f"{kind.name}_with_variance.safetensors").read_bytes()
    names = set(kind().state_names) | {"model"}
    assert {name.partition(".")[0] for name in saved.arrays} == names
    resumed, whole = (make_trainer(optimizer=kind(learning_rate=0.01)) for _ in range(2))
    resumed.restore(saved.arrays, saved.state["progress"])
    results = [trainer.arrays() for trainer in (resumed, whole) if trained(trainer)]
    for name, wanted in results[1].items():  # within what another processor rounds otherwise
        np.testing.assert_allclose(results[0][name], wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max(), err_msg=name)


# -------------------------------------------------------------------------------------------------------- clipping


def clipped(backend: Any, gradient: Array, limit: float, dtype: npt.DTypeLike) -> Array:
    out = backend.empty(gradient.shape, dtype)
    backend.clip_gradient(out, backend.to_device(gradient.astype(dtype)), limit, backend.Workspace())
    return np.asarray(backend.to_host(out), np.float64)


@pytest.mark.parametrize(("backend", "dtype"), [(reference, np.float64), (cpu, np.float32)], ids=["reference", "cpu"])
@settings(deadline=None, derandomize=True, max_examples=100)
@given(gradient=vectors, scale=st.sampled_from([1e-3, 1.0, 1e6]), limit=st.floats(1e-3, 1e3))
def test_clipping_never_lengthens_and_keeps_the_direction(
    backend: Any, dtype: npt.DTypeLike, gradient: Array, scale: float, limit: float
) -> None:
    gradient = (gradient * scale).astype(dtype).astype(np.float64)
    length = np.linalg.norm(gradient)
    assume(abs(length - limit) > 1e-5 * limit)
    out = clipped(backend, gradient, limit, dtype)
    if length < limit - 1e-6:
        np.testing.assert_array_equal(out, gradient)
    else:
        assert np.linalg.norm(out) <= limit * (1 + 1e-6)
        assert np.linalg.norm(out) >= limit * (1 - 2e-6 / limit - 1e-6)
    np.testing.assert_allclose(out * length, gradient * np.linalg.norm(out), atol=1e-6 * length * limit)


# ------------------------------------------------------------------------------------------------------------ noise


def noise_of(backend: Any = cpu, count: int = 40_000, **changes: Any) -> Array:
    """What is added to a gradient of zeros."""
    how: dict[str, Any] = {"seed": 1, "noise": 0.5, "noise_decay": 0.55, "step": 0} | changes
    out = backend.empty((count,), np.float32)
    backend.add_noise(
        out,
        backend.to_device(np.zeros(count, np.float32)),
        backend.to_device(np.full(count // 4, 4, np.uint8)),
        how["seed"],
        how["noise"],
        how["noise_decay"],
        backend.to_device(np.array([how["step"]], np.int32)),
        backend.Workspace(),
    )
    return np.asarray(backend.to_host(out), np.float64)


@settings(deadline=None, derandomize=True, max_examples=30)
@given(
    seed=st.integers(0, 2**32 - 1),
    noise=st.floats(1e-3, 10),
    noise_decay=st.floats(0, 2),
    step=st.integers(0, 10**6),
)
def test_noise_has_mean_zero_and_the_deviation_that_was_asked_for(
    seed: int, noise: float, noise_decay: float, step: int
) -> None:
    found = noise_of(seed=seed, noise=noise, noise_decay=noise_decay, step=step)
    z = found / (noise / (1 + step) ** noise_decay)
    # Each within five times its own deviation.
    assert abs(z.mean()) < 5 / np.sqrt(z.size)
    assert abs(z.var() - 1) < 5 * np.sqrt(2 / z.size)


def test_noise_is_a_function_of_seed_and_step() -> None:
    noise = noise_of(step=7)
    np.testing.assert_array_equal(noise_of(step=7), noise)
    np.testing.assert_array_equal(noise_of(step=7, count=400), noise[:400])  # not of what else is drawn
    for other in (noise_of(step=8, noise_decay=0), noise_of(step=7, seed=2, noise_decay=0)):
        assert abs(np.corrcoef(other, noise)[0, 1]) < 5 / np.sqrt(noise.size)
    np.testing.assert_allclose(noise_of(reference, step=7), noise, atol=1e-5 * np.abs(noise).max())


# ---------------------------------------------------------------------------------------------------------- training


class Gradients(Recorder):
    """Keeps, after every step, the gradient that backward found and how far the weights moved."""

    def __init__(self, trainer: Any) -> None:
        super().__init__()
        self._trainer = trainer
        self._before = self._weights()
        self.found: list[Array] = []
        self.moved: list[Array] = []

    def _weights(self) -> Array:
        return np.array(self._trainer.network.weights.parameters.flat, np.float64)

    def step(self, step: Any) -> None:
        super().step(step)
        after = self._weights()
        self.found.append(np.array(self._trainer.network.gradient.flat, np.float64))
        self.moved.append(after - self._before)
        self._before = after


def gradients_of(rule: Optimizer, layers: Any = SMOKE, **changes: Any) -> tuple[Any, Gradients]:
    trainer = make_trainer(layers, optimizer=rule, schedule=Constant(), **changes)
    recorder = Gradients(trainer)
    assert trainer.run(recorder)
    return trainer, recorder


@pytest.mark.parametrize(("freeze", "noise"), [(0, 0.0), (1, 0.0), (0, 1e-6)])
def test_a_step_is_of_the_clipped_gradient_of_all_that_is_trained(freeze: int, noise: float) -> None:
    limit = 0.05
    _, steps = gradients_of(
        Sgd(learning_rate=0.5, clip=limit, noise=noise), RICH, train={"epochs": 1, "freeze": freeze}
    )
    for found, moved in zip(steps.found, steps.moved, strict=True):
        assert np.linalg.norm(found) > 2 * limit  # the network keeps the gradient as it was found
        assert np.linalg.norm(moved) == pytest.approx(0.5 * limit, rel=1e-3)
        np.testing.assert_allclose(moved, -0.5 * limit * found / np.linalg.norm(found), atol=1e-6 + 5 * noise)


def test_noise_moves_every_trained_weight_and_no_other() -> None:
    trainer, steps = gradients_of(Sgd(learning_rate=1e-3, noise=1.0, noise_decay=0.0), RICH, train={"freeze": 1})
    is_weight = np.zeros(steps.moved[0].size, bool)
    for (stage, _), (start, shape) in trainer.network.weights.parameters.offsets.items():
        if stage != "conv1":
            is_weight[start : start + int(np.prod(shape))] = True
    assert not is_weight.all()
    assert not is_weight.reshape(-1, ALIGNMENT).all(axis=1).all()
    for found, moved in zip(steps.found, steps.moved, strict=True):
        noise = -moved / 1e-3 - found
        assert not moved[~is_weight].any()
        assert not found[~is_weight].any()
        assert moved[is_weight].all()
        assert noise[is_weight].std() == pytest.approx(1, abs=0.2)


def test_noise_is_drawn_anew_by_another_seed_and_on_any_device_alike() -> None:
    rule = Momentum(learning_rate=1e-3, clip=0.1, noise=0.5)
    weights = {}
    for key, backend, seed in (("cpu", cpu, 1), ("reference", reference, 1), ("other", cpu, 2)):
        trainer = make_trainer(optimizer=rule, backend=backend, train={"epochs": 1, "seed": seed})
        trainer.network.initialise(1)
        trained(trainer)
        weights[key] = trainer.network.weights.to_host()["dense1.weight"]
    np.testing.assert_allclose(weights["reference"], weights["cpu"], atol=1e-5)
    assert np.abs(weights["other"] - weights["cpu"]).max() > 1e-4


def test_a_kernel_without_error_is_not_hidden_by_noise() -> None:
    trainer = make_trainer(optimizer=Sgd(learning_rate=1e-12, noise=1.0), train={"epochs": 1})
    trainer.network.weights.by_stage["neuron1"]["weight"][..., 0] = 0  # nothing comes back to conv2's first kernel
    trained(trainer)
    gradient = trainer.network.gradient
    assert gradient is not None
    first, *others = (np.linalg.norm(kernel) for kernel in gradient.by_stage["conv2"]["weight"])
    assert first < 1e-6 * min(others)


def test_it_learns_with_clipping_and_noise() -> None:
    recorder = trained(make_trainer(optimizer=AdamW(learning_rate=0.01, clip=1.0, noise=0.01), train={"epochs": 15}))
    assert recorder.epochs[-1]["validation_accuracy"] == 1
