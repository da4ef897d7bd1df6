"""Trainings that begin with another model's weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from facecnn.errors import UsageError
from facecnn.learning.loop import Trainer

from .trainings import RICH, SMOKE, Recorder, in_bytes, make_trainer, trained

LAYERS = ("conv1", "batch_norm1")
"""Those that are taken."""


@pytest.fixture(scope="module")
def taken() -> dict[str, Any]:
    """Arrays of a trained model, running statistics among them."""
    trainer = make_trainer(RICH, train={"seed": 5})
    trained(trainer)
    return {name: array for name, array in trainer.step.arrays.model.to_host().items() if name.split(".")[0] in LAYERS}


def begun_with(taken: dict[str, Any], **train: Any) -> Trainer:
    return make_trainer(RICH, initial_arrays=taken, train={"epochs": 4, "average_weights": 0.9, **train})


def test_it_begins_with_them_and_with_fresh_ones_elsewhere(taken: dict[str, Any]) -> None:
    assert "batch_norm1.running_mean" in taken
    trainer, plain = begun_with(taken), make_trainer(RICH)
    begin, fresh = trainer.network.weights.to_host(), plain.network.weights.to_host()
    for name, array in begin.items():
        assert np.array_equal(array, taken.get(name, fresh[name])), name
    assert in_bytes(trainer.step.arrays.model.to_host()) == in_bytes(begin), "the moving average begins with them, too"
    assert np.array_equal(trainer.watch.start["conv1"], taken["conv1.weight"])
    assert np.array_equal(trainer.watch.start["conv2"], fresh["conv2.weight"])


def test_frozen_layers_keep_them(taken: dict[str, Any]) -> None:
    trainer = begun_with(taken, freeze=2)
    recorder = trained(trainer)
    for name, array in taken.items():
        assert np.array_equal(trainer.step.arrays.model.to_host()[name], array), name
    assert recorder.epochs[-1]["kernel_change"]["conv1"] == 0
    assert recorder.epochs[-1]["kernel_change"]["conv2"] > 0


@pytest.mark.parametrize("how", ["he", "lsuv", "zca_patches"])
@pytest.mark.parametrize("step", [1, 5])
def test_it_goes_on_to_the_same_bits_without_the_model(taken: dict[str, Any], how: str, step: int) -> None:
    whole = trained(begun_with(taken, initialisation=how))
    first, recorder = begun_with(taken, initialisation=how), Recorder()
    assert not first.run(recorder, lambda: first.progress.step == step)
    second = begun_with({}, initialisation=how)
    assert recorder.saved is not None
    second.restore(*recorder.saved)
    assert second.watch.start.keys() == first.watch.start.keys()
    assert all(np.array_equal(second.watch.start[name], array) for name, array in first.watch.start.items())
    assert second.run(recorder)
    assert recorder.lasts[-1] == whole.lasts[-1]
    assert recorder.bests[-1] == whole.bests[-1]
    assert recorder.figures() == whole.figures()


def test_lsuv_scales_what_is_fresh_to_what_is_taken() -> None:
    lsuv = {"initialisation": "lsuv"}
    plain = make_trainer(SMOKE, train=lsuv).network.weights.to_host()
    taken = {"conv1.weight": 8 * plain["conv1.weight"], "conv1.bias": plain["conv1.bias"]}
    begun = make_trainer(SMOKE, initial_arrays=taken, train=lsuv).network.weights.to_host()
    assert np.array_equal(begun["conv1.weight"], taken["conv1.weight"])
    # Its leaky relu passes the factor on, the next layer takes it away, and none is left for those after that.
    np.testing.assert_allclose(begun["conv2.weight"], plain["conv2.weight"] / 8, rtol=1e-5)
    np.testing.assert_allclose(begun["dense1.weight"], plain["dense1.weight"], rtol=1e-5)


def test_what_is_fresh_is_tried_several_times(taken: dict[str, Any]) -> None:
    trials = {"restarts": 3, "restart_epochs": 1}
    whole = trained(begun_with(taken, **trials))
    assert len(set(whole.trials)) == 3
    first, recorder = begun_with(taken, **trials), Recorder()
    assert not first.run(recorder, lambda: len(first.progress.trials) == 1)
    second = begun_with({}, **trials)
    assert recorder.saved is not None
    second.restore(*recorder.saved)
    assert second.trials_left == 2
    assert second.run(recorder)
    assert recorder.trials == whole.trials
    assert recorder.lasts[-1] == whole.lasts[-1]


def test_where_nothing_is_fresh_there_is_nothing_to_try() -> None:
    everything = make_trainer(SMOKE).network.weights.to_host()
    with pytest.raises(UsageError, match=r"train\.restarts 2: all initial weights are taken"):
        make_trainer(SMOKE, initial_arrays=everything, train={"restarts": 2, "restart_epochs": 1})
    make_trainer(SMOKE, initial_arrays=everything)
    del everything["dense1.weight"]
    make_trainer(SMOKE, initial_arrays=everything, train={"restarts": 2, "restart_epochs": 1})


def test_arrays_of_another_shape_are_refused(taken: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"conv1\.bias is of shape"):
        begun_with({**taken, "conv1.bias": np.zeros(99, np.float32)})
