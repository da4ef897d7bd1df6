"""Results of the cpu kernels don't depend on the number of threads, down to the last bit."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from contract.harness import Inout, Out, call, random, rule_state
from facecnn.kernels import available_threads, cpu
from facecnn.kernels.protocol import AUGMENTATION

PHOTOS = np.arange(23, dtype=np.int32)
STEP = np.array([3], np.int32)
RATE = np.array([0.125])
CONV = ((23, 12, 13, 1), (16, 3, 3, 1), (23, 6, 6, 16))
TILED, TILED_WITH_A_REST = (5, 4, 30, 8), (5, 4, 148, 20)
BLOCK = ((1, 1), "leaky_relu", 0.1, 2)
ARGMAX = np.random.default_rng(0).integers(0, 4, CONV[2]).astype(np.uint8)
PARAMETERS = np.random.default_rng(0).uniform(0, 0.3, (23, len(AUGMENTATION))).astype(np.float32) + 0.7
PIXELS = np.random.default_rng(0).integers(0, 256, (23, 20, 20, 1), dtype=np.uint8)


def update(rule: str, **scalars: float) -> tuple[Any, ...]:
    state = rule_state(rule, 9001)
    return Inout(random(9001)), state, random(9001, seed=9), RATE, STEP, rule, scalars, 5000


CALLS: dict[str, tuple[Any, ...]] = {
    "conv_forward": (Out(CONV[2]), Out(CONV[2], np.uint8), random(*CONV[0]), random(*CONV[1]), random(16), *BLOCK),
    "conv_forward, few kernels": (
        Out((5, 6, 40, 8)), Out((5, 6, 40, 8), np.uint8), random(5, 12, 80, 1), random(8, 3, 3, 1), random(8), *BLOCK,
    ),
    "conv_forward, in tiles": (
        Out(TILED), Out(TILED, np.uint8), random(5, 12, 64, 1), random(8, 5, 5, 1), random(8),
        (0, 0), *BLOCK[1:],
    ),
    "conv_backward_weight, in tiles": (
        Out((8, 5, 5, 1)), Out((8,)), random(*TILED), random(*TILED, seed=1),
        np.random.default_rng(0).integers(0, 4, TILED).astype(np.uint8), random(5, 12, 64, 1),
        (0, 0), *BLOCK[1:],
    ),
    "conv_forward, in tiles with a rest": (
        Out(TILED_WITH_A_REST), Out(TILED_WITH_A_REST, np.uint8), random(5, 12, 301, 3), random(20, 5, 5, 3),
        random(20), (0, 0), *BLOCK[1:],
    ),
    "conv_backward_weight, in tiles with a rest": (
        Out((20, 5, 5, 3)), Out((20,)), random(*TILED_WITH_A_REST), random(*TILED_WITH_A_REST, seed=1),
        np.random.default_rng(0).integers(0, 4, TILED_WITH_A_REST).astype(np.uint8), random(5, 12, 301, 3),
        (0, 0), *BLOCK[1:],
    ),
    "conv_backward_weight": (
        Out(CONV[1]), Out((16,)), random(*CONV[2]), random(*CONV[2], seed=1), ARGMAX, random(*CONV[0]), *BLOCK,
    ),
    "conv_backward_input": (
        Out(CONV[0]), random(*CONV[2]), random(*CONV[2], seed=1), ARGMAX, random(*CONV[1]), *BLOCK,
    ),
    "pool_forward": (
        Out((23, 6, 6, 3)), Out((23, 6, 6, 3), np.int32), random(23, 13, 13, 3), "max", (3, 3), (2, 2),
    ),
    "pool_backward": (
        Out((23, 13, 13, 3)), random(23, 6, 6, 3), np.zeros((23, 6, 6, 3), np.int32), "average", (3, 3), (2, 2),
    ),
    "pool_backward, over the edges": (
        Out((23, 13, 12, 3)), random(23, 7, 6, 3), np.zeros((23, 7, 6, 3), np.int32), "average", (2, 3), (2, 2),
    ),
    "prelu_forward": (Out((9001, 5)), random(9001, 5), random(5)),
    "prelu_backward": (Out((9001, 5)), Out((5,)), random(9001, 5), random(9001, 5, seed=1), random(5)),
    "activation_forward": (Out((3, 9001)), random(3, 9001), "gelu", 0.1),
    "activation_backward": (Out((3, 9001)), random(3, 9001), random(3, 9001), random(3, 9001), "gelu", 0.1),
    "neuron_forward": (Out((23, 8, 5)), random(23, 7, 9, 5), random(8, 7, 9, 5), random(8, 5)),
    "neuron_backward_weight": (Out((8, 7, 9, 5)), Out((8, 5)), random(23, 8, 5), random(23, 7, 9, 5)),
    "neuron_backward_input": (Out((23, 7, 9, 5)), random(23, 8, 5), random(8, 7, 9, 5)),
    "dense_forward": (Out((23, 50)), random(23, 2100), random(50, 2100), random(50)),
    "dense_backward_weight": (Out((50, 2100)), Out((50,)), random(23, 50), random(23, 2100)),
    "dense_backward_input": (Out((23, 2100)), random(23, 50), random(50, 2100)),
    "batch_norm_forward": (
        Out((9001, 5)), Out((5,)), Out((5,)), Inout(random(5)), Inout(random(5, seed=1)), random(9001, 5), random(5),
        random(5), 0.1, 1e-5,
    ),
    "batch_norm_inference": (
        Out((9001, 5)), random(9001, 5), random(5), np.ones(5), random(5), random(5), 1e-5,
    ),
    "batch_norm_backward": (
        Out((9001, 5)), Out((5,)), Out((5,)), random(9001, 5), random(9001, 5, seed=1), random(5), random(5), random(5),
    ),
    "dropout": (Out((23, 301)), random(23, 301), PHOTOS, 0.3, 5, 2, STEP),
    "optimizer_update, sgd": update("sgd", weight_decay=0.01),
    "optimizer_update, momentum": update("momentum", momentum=0.9, weight_decay=0.01),
    "optimizer_update, nesterov": update("nesterov", momentum=0.9, weight_decay=0.01),
    "optimizer_update, rmsprop": update("rmsprop", beta2=0.9, epsilon=1e-8, weight_decay=0.05),
    "optimizer_update, adagrad": update("adagrad", initial_squares=0.1, epsilon=1e-8, weight_decay=0.05),
    "optimizer_update, adam": update("adam", beta1=0.9, beta2=0.999, epsilon=1e-8, decoupled_weight_decay=0.05),
    "optimizer_update, lion": update("lion", beta1=0.9, beta2=0.99, decoupled_weight_decay=0.05),
    "clip_gradient": (Out((90_001,)), random(90_001), 2.0),
    "add_noise": (Out((9004,)), random(9004), np.full(2251, 4, np.uint8), 5, 0.1, 0.55, STEP),
    "average_update": (Inout(random(9001)), random(9001, seed=1), STEP, 0.99),
    "prepare_photos": (Out((23, 12, 12, 1)), PIXELS, PHOTOS, PARAMETERS, "local_contrast"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _all_threads_afterwards() -> Iterator[None]:
    yield
    cpu.set_threads(available_threads())


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if "a rest" in name else name for name in CALLS]
)
def test_the_same_bits_for_any_number_of_threads(name: str) -> None:
    if available_threads() < 2:
        pytest.skip("this process may use one processor only")
    outputs = []
    for threads in (1, 2, available_threads()):
        cpu.set_threads(threads)
        outputs.append([array.tobytes() for array in call(cpu, name.split(",")[0], *CALLS[name])])
    assert outputs[0] == outputs[1] == outputs[2]
