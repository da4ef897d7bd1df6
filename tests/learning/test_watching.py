"""What is watched of the kernels: how far they moved, and which get no error to learn from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from facecnn.kernels import reference
from facecnn.learning.watching import KernelWatch
from facecnn.network.layers import Conv, Dense, Layer
from facecnn.network.network import Network

LAYERS: tuple[Layer, ...] = (
    Conv(kernels=3, size=2, activation="relu"),
    Conv(kernels=2, size=2, activation="identity"),
    Dense(units=2),
)


def network(frozen: int = 0) -> Network:
    made = Network(LAYERS, (5, 5, 1), reference, 2, dtype=np.float64, frozen=frozen)
    made.initialise(0)
    made.input[...] = np.random.default_rng(0).standard_normal(made.input.shape)
    return made


def step(made: Network) -> None:
    made.forward(2, training=True)
    made.backward(2, dout=np.random.default_rng(1).standard_normal((2, 2)))


def test_kernels_that_did_not_move_changed_by_nothing() -> None:
    made = network()
    watch = KernelWatch(made)
    step(made)
    assert watch.figures()["kernel_change"] == {"conv1": 0.0, "conv2": 0.0}


def test_change_is_relative_to_the_norm_at_the_start() -> None:
    made = network()
    watch = KernelWatch(made)
    step(made)
    made.weights.by_stage["conv1"]["weight"][...] *= 1.25
    assert watch.figures()["kernel_change"] == {"conv1": pytest.approx(0.25), "conv2": 0.0}


@pytest.mark.parametrize("dead", [[], [1], [0, 2]])
def test_kernels_whose_relu_is_never_open_are_named(dead: list[int]) -> None:
    made = network()
    watch = KernelWatch(made)
    bias: Any = made.weights.by_stage["conv1"]["bias"]
    bias[...] = 100
    bias[dead] = -100
    step(made)
    assert watch.dead_kernels() == [f"conv1[{k}]" for k in dead]


def test_where_no_error_arrives_all_kernels_are_dead() -> None:
    made = network()
    watch = KernelWatch(made)
    made.weights.by_stage["dense1"]["weight"][...] = 0
    step(made)
    assert watch.dead_kernels() == ["conv1[0]", "conv1[1]", "conv1[2]", "conv2[0]", "conv2[1]"]


def test_frozen_kernels_are_not_called_dead() -> None:
    made = network(frozen=1)
    watch = KernelWatch(made)
    step(made)
    assert watch.dead_kernels() == []
