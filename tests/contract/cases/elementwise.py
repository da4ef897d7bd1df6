"""Activations, PReLU and dropout.

In CUDA's simulator a block is 8 threads on tiles of up to 4 columns, and rows are cut into at most 3 chunks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

import numpy as np

from contract.cases.numbers import EXTREME, as_float32, random, times
from facecnn.kernels import reference
from facecnn.kernels.cases import Case, Out, Size
from facecnn.kernels.protocol import PURPOSE_DROPOUT, Activation

ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)
SLOPE = 0.1
PHOTOS = np.array([0, 3, 2**31 - 1], np.int32)
STEP = np.array([7], np.int32)


def _activation(activation: Activation, *shape: int, size: Size = "tiny") -> Iterator[Case]:
    x, dout = 3 * random(*shape), random(*shape, seed=1)
    out = np.zeros_like(x)
    reference.activation_forward(out, x, activation, SLOPE, reference.Workspace())
    name = f"{activation} of {times(*shape)}"
    yield Case("activation_forward", name, (Out(shape), x, activation, SLOPE), size)
    yield Case("activation_backward", name, (Out(shape), dout, x, as_float32(out), activation, SLOPE), size)


def _extreme(activation: Activation) -> Case:
    name = f"{activation} of extreme numbers"
    return Case("activation_forward", name, (Out(EXTREME.shape), EXTREME, activation, SLOPE))


def _prelu(rows: int, columns: int, size: Size = "tiny") -> Iterator[Case]:
    """With slopes above and below 0."""
    x, slope, dout = random(rows, columns), random(columns, seed=2), random(rows, columns, seed=1)
    assert columns < 3 or slope.min() < 0 < slope.max()
    name = times(rows, columns)
    yield Case("prelu_forward", name, (Out(x.shape), x, slope), size)
    yield Case("prelu_backward", name, (Out(x.shape), Out(slope.shape), dout, x, slope), size)


def _prelu_of_extreme_numbers() -> Iterator[Case]:
    out, slopes = Out(EXTREME.shape), Out((7,))
    slope, ones = np.array([-2.0, 0.0, 0.25, 0.25, 0.25, 1.0, 0.25]), np.ones(EXTREME.shape)
    yield Case("prelu_forward", "extreme numbers", (out, EXTREME, slope))
    yield Case("prelu_forward", "extreme numbers, other slopes", (out, EXTREME, random(7)))
    yield Case("prelu_backward", "extreme numbers", (out, slopes, ones, EXTREME, slope))
    yield Case("prelu_backward", "NaN", (out, slopes, random(1, 7), EXTREME, random(7)))


def _dropout(features: int, rate: float, name: str = "", seed: int = 11, layer: int = 0) -> Case:
    x = random(3, features)
    arguments = (Out(x.shape), x, PHOTOS, rate, seed, PURPOSE_DROPOUT + layer, STEP)
    return Case("dropout", name or f"{features} features at {rate}", arguments)


def _large() -> Iterator[Case]:
    yield from _activation("gelu", 3, 9001, size="large")
    yield from _prelu(9001, 5, "large")
    photos, step = np.arange(23, dtype=np.int32), np.array([3], np.int32)
    yield Case("dropout", "large", (Out((23, 301)), random(23, 301), photos, 0.3, 5, 2, step), "large")


CASES = [
    *_activation("identity", 1),
    *_activation("relu", 2, 3, 3, 2),
    *_activation("leaky_relu", 7, 9),
    *_activation("sigmoid", 30),
    *_activation("tanh", 30),
    *(case for activation in ACTIVATIONS for case in _activation(activation, 5, 11)),
    *(_extreme(activation) for activation in ACTIVATIONS),
    *(
        case
        for activation in ACTIVATIONS
        for shape in [(1, 1), (3, 7), (5, 300), (5, 1000)]
        for case in _activation(activation, *shape, size="usual")
    ),
    *_prelu(1, 1),
    *_prelu(3, 10),
    *_prelu(61, 1),
    *_prelu(40, 3),
    *_prelu(19, 6),
    *_prelu_of_extreme_numbers(),
    *(case for shape in [(3, 7), (300, 6), (5000, 3), (700, 64), (100, 100)] for case in _prelu(*shape, size="usual")),
    _dropout(1, 0.2, "one feature", seed=2**32 - 1),
    _dropout(71, 0.5, "several blocks a photo", layer=3),
    _dropout(7, 0.0, "nothing"),
    _dropout(64, 0.99, "nearly all"),
    *(_dropout(features, rate) for features in (1, 4, 21) for rate in (0.0, 0.2, 0.9)),
    *_large(),
]
