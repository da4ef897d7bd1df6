"""What an answer rests on, asked of the card's kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from facecnn.kernels import cuda, reference
from facecnn.kernels.protocol import AUGMENTATION_NONE, MIRROR, SHIFT_X
from facecnn.network.layers import Activate, BatchNorm, Conv, Dense, Dropout, Layer, Neuron
from facecnn.network.network import Network
from facecnn.network.sensitivity import LogOdds, prepared_inputs

pytestmark = pytest.mark.cuda

LAYERS: tuple[Layer, ...] = (
    Conv(kernels=2, size=3, pool=2),
    BatchNorm(),
    Dropout(rate=0.5),
    Neuron(activation="tanh"),
    Dense(units=3),
    Activate(name="leaky_relu", slope=0.1),
    Dense(units=3),
)


def test_log_odds_and_their_gradient_are_the_references() -> None:
    """For two views of three pictures, more than a batch holds, and the last one is not full."""
    pixels = np.random.default_rng(0).integers(0, 256, (3, 12, 12, 1), np.uint8)
    found: dict[Any, list[Any]] = {}
    for backend in (reference, cuda):
        network = Network(LAYERS, (8, 8, 1), backend, 4, keep="outputs")
        generator = np.random.default_rng(1)
        network.weights.from_host(
            {
                name: generator.uniform(0.5, 1.5, array.shape).astype(np.float32)
                if name.endswith("variance")
                else generator.normal(size=array.shape).astype(np.float32)
                for name, array in sorted(network.weights.to_host().items())
            }
        )
        views = np.stack([AUGMENTATION_NONE, AUGMENTATION_NONE])
        views[1, [MIRROR, SHIFT_X]] = True, 0.125
        inputs = prepared_inputs(network, pixels, "standardise", views)
        score = LogOdds(network, 1, temperature=1.5)
        found[backend] = [inputs, score(inputs), score.gradient(inputs)]
    for ours, theirs in zip(found[cuda], found[reference], strict=True):
        assert float(np.abs(theirs).max()) > 0.1
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)
