"""Training with residual blocks: the same bits whatever happens on the way, and every way to train."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from facecnn.kernels import available_threads, cpu
from facecnn.learning.full_batch_optimizers import Lbfgs
from facecnn.network.layers import BatchNorm, Conv, Dropout, Layer, PoolSettings, Residual

from .trainings import PLAIN, SMOKE, Recorder, in_bytes, make_trainer, trained

CONV = Conv(kernels=4, size=3, padding="same", activation="leaky_relu", slope=0.1, pool=2)
BLOCKS: tuple[Layer, ...] = (
    SMOKE[0],
    Residual(layers=(CONV, BatchNorm(), Dropout(rate=0.2)), shortcut=PoolSettings(kind="average")),
    *SMOKE[2:],
)
TRAIN: dict[str, Any] = {"epochs": 4, "average_weights": 0.9}


@pytest.fixture
def threads() -> Iterator[int]:
    """Threads that there are; afterwards all are in use again."""
    count = available_threads()
    yield count
    cpu.set_threads(count)


def test_stopped_and_gone_on_with_on_fewer_threads_is_the_same(threads: int) -> None:
    whole = trained(make_trainer(BLOCKS, train=TRAIN))
    recorder = Recorder()
    first = make_trainer(BLOCKS, train=TRAIN)
    assert not first.run(recorder, lambda: first.progress.step == 5)
    cpu.set_threads(1)
    second = make_trainer(BLOCKS, train=TRAIN)
    assert recorder.saved is not None
    second.restore(*recorder.saved)
    assert second.run(recorder)
    assert recorder.lasts[-1] == whole.lasts[-1]
    assert recorder.figures() == whole.figures()


def test_frozen_blocks_keep_weights_and_statistics_to_the_bit() -> None:
    trainer = make_trainer(BLOCKS, train={**TRAIN, "freeze": 2})
    before = in_bytes(trainer.network.weights.to_host())
    trained(trainer)
    after = in_bytes(trainer.network.weights.to_host())
    assert {name for name in before if after[name] == before[name]} == {
        name for name in before if name.startswith(("conv1.", "residual1."))
    }
    assert "residual1.batch_norm1.running_mean" in before


@pytest.mark.parametrize("how", ["lsuv", "zca_patches", "orthogonal"])
def test_it_learns_from_any_initial_weights(how: str) -> None:
    losses = [epoch["train_loss"] for epoch in trained(make_trainer(BLOCKS, train={"initialisation": how})).epochs]
    assert losses[-1] < 0.9 * losses[0]


def test_a_full_batch_optimizer_goes_down() -> None:
    layers = tuple(layer.without_randomness() for layer in BLOCKS)
    recorder = trained(make_trainer(layers, optimizer=Lbfgs(), augment=PLAIN, train={"epochs": 6}))
    losses = [epoch["train_loss"] for epoch in recorder.epochs]
    assert losses[-1] < 0.5 * losses[0]


def test_kernels_within_a_block_are_watched() -> None:
    figures = trained(make_trainer(BLOCKS, train=TRAIN)).epochs[-1]
    assert set(figures["kernel_change"]) == {"conv1", "residual1.conv1"}
    assert figures["kernel_change"]["residual1.conv1"] > 0
    assert len(figures["kernels"]["residual1.conv1"]["update_ratio"]) == 4
    assert all(np.isfinite(figures["kernels"]["residual1.conv1"]["gradient_norm"]))
