"""Trainings on the card's kernels follow those on the reference, and go on where another device stopped."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from facecnn.kernels import cpu, cuda, reference
from facecnn.kernels.cuda import memory
from facecnn.learning.optimizers import AdamW, Momentum, RMSprop
from facecnn.network.layers import Activate, BatchNorm, Conv, Dense, Dropout, Layer, Neuron, Pool, PRelu
from facecnn.network.loss import MeanSquaredError
from facecnn.parallel.ranks import Alone
from learning.trainings import PLAIN, Recorder, photos_of, trained
from learning.trainings import make_trainer as make

pytestmark = pytest.mark.cuda

TINY: tuple[Layer, ...] = (
    Conv(kernels=3, size=3, pool=2),
    BatchNorm(),
    Conv(kernels=2, size=2, padding="same", activation="gelu"),
    Pool(size=3, stride=2, kind="average"),
    Dropout(rate=0.25),
    Neuron(per_kernel=2, activation="tanh"),
    Dense(units=3),
    Activate(name="leaky_relu", slope=0.1),
    Dense(units=2),
)
OTHER: tuple[Layer, ...] = (
    Conv(kernels=2, size=3),
    PRelu(),
    Pool(size=3, stride=2, edges="keep"),
    Neuron(activation="sigmoid"),
    PRelu(),
    Dense(units=2),
)
SHORT: tuple[Layer, ...] = (Conv(kernels=2, size=3, pool=4), Dropout(rate=0.25), Dense(units=2))


def make_trainer(backend: Any, layers: tuple[Layer, ...] = SHORT, **changes: Any) -> Any:
    """Two steps of two or three photos: in the simulator each takes seconds."""
    train = {"epochs": 1, "batch_size": 3, "average_weights": 0.9, **changes.pop("train", {})}
    arguments: dict[str, Any] = {
        "photos": photos_of(np.arange(5) % 2),
        "validation": photos_of(np.arange(1), seed=3),
        "augment": replace(PLAIN, shift=0.1, gamma=0.2),
    }
    return make(layers, backend=backend, train=train, **arguments | changes)


class Weights(Recorder):
    """Keeps the weights after every step."""

    def __init__(self, trainer: Any) -> None:
        super().__init__()
        self._trainer = trainer
        self.weights: list[dict[str, Any]] = []

    def step(self, step: Any) -> None:
        super().step(step)
        self.weights.append(self._trainer.network.weights.to_host())


def follow(backend: Any, *arguments: Any, **changes: Any) -> Weights:
    trainer = make_trainer(backend, *arguments, **changes)
    recorder = Weights(trainer)
    assert trainer.run(recorder)
    return recorder


@pytest.mark.parametrize(
    ("layers", "changes"),
    [
        (TINY, {"optimizer": Momentum(learning_rate=0.05, clip=0.5, noise=0.05)}),
        (TINY, {"optimizer": AdamW(learning_rate=0.01), "train": {"epochs": 2}}),
        (
            OTHER,
            {
                "optimizer": RMSprop(learning_rate=0.01, weight_decay=0.1),
                "loss": MeanSquaredError(),
                "normalise": "local_contrast",
            },
        ),
    ],
    ids=["momentum", "adamw", "other layers, rmsprop, squared error"],
)
def test_it_follows_the_reference_step_by_step(layers: tuple[Layer, ...], changes: dict[str, Any]) -> None:
    expected, found = (follow(backend, layers, **changes) for backend in (reference, cuda))
    assert len(found.weights) == len(expected.weights) == 2 * changes.get("train", {}).get("epochs", 1)
    for step, (wanted, got) in enumerate(zip(expected.weights, found.weights, strict=True)):
        for name, array in wanted.items():
            np.testing.assert_allclose(
                got[name], array, atol=2e-4 * max(1.0, np.abs(array).max()), err_msg=f"{name}, step {step + 1}"
            )
    for wanted_step, got_step in zip(expected.steps, found.steps, strict=True):
        assert got_step.loss == pytest.approx(wanted_step.loss, rel=1e-3)
        assert got_step.accuracy == wanted_step.accuracy
    assert found.epochs[-1]["validation_loss"] == pytest.approx(expected.epochs[-1]["validation_loss"], rel=1e-3)


class _Twin(Alone):
    """One of two ranks that have the same photos, so that no other process is needed."""

    size = 2

    def add_up(self, array: Any) -> None:
        array *= 2

    def stack(self, array: Any) -> Any:
        return np.array([array, array])

    def gather(self, value: Any) -> list[Any]:
        return [value, value]


def test_a_part_of_each_batch_follows_the_reference() -> None:
    held_out = photos_of(np.arange(2), seed=3)
    expected, found = (
        follow(backend, TINY, ranks=_Twin(), train={"batch_size": 5}, validation=held_out)
        for backend in (reference, cuda)
    )
    for name, array in expected.weights[-1].items():
        np.testing.assert_allclose(found.weights[-1][name], array, atol=2e-4 * max(1.0, np.abs(array).max()))


@pytest.fixture(scope="module")
def whole() -> Recorder:
    return trained(make_trainer(cuda))


def alike(found: Recorder, expected: Recorder) -> None:
    assert found.saved is not None
    assert expected.saved is not None
    assert found.saved[0].keys() == expected.saved[0].keys()
    for name, array in expected.saved[0].items():
        np.testing.assert_allclose(found.saved[0][name], array, atol=1e-4 * max(1.0, np.abs(array).max()), err_msg=name)


def test_photos_sent_batch_by_batch_give_the_same_bits(whole: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda: 100)
    trainer = make_trainer(cuda)
    assert trainer.step.streamed
    assert trained(trainer).lasts == whole.lasts


def test_a_batch_in_parts_gives_the_same_gradient(whole: Recorder) -> None:
    alike(trained(make_trainer(cuda, micro_batch_size=2)), whole)


@pytest.mark.parametrize("devices", [(cpu, cuda), (cuda, cpu)], ids=["cpu to cuda", "cuda to cpu"])
def test_a_training_goes_on_on_another_device(devices: tuple[Any, Any], whole: Recorder) -> None:
    trainer = make_trainer(devices[0])
    recorder = Recorder()
    assert not trainer.run(recorder, stop=lambda: trainer.progress.step == 1)
    assert recorder.saved is not None
    resumed = make_trainer(devices[1])
    resumed.restore(*recorder.saved)
    assert resumed.progress.step == 1
    alike(trained(resumed), whole)


def test_a_profile_has_every_kernel() -> None:
    places = trained(make_trainer(cuda, profile=True)).epochs[-1]["milliseconds"]
    assert {"conv1 forward", "conv1 backward_weight", "dense1 backward", "augmentation", "update"} < set(places)


def test_initial_weights_are_tried_as_on_the_reference() -> None:
    train = {"restarts": 2, "restart_epochs": 1}
    expected, found = (trained(make_trainer(backend, train=train)) for backend in (reference, cuda))
    assert found.trials == pytest.approx(expected.trials, rel=1e-3)
    assert found.start == expected.start
    alike(found, expected)
