"""Batch norm of a batch that several ranks have parts of is that of the whole batch."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from facecnn.arrays import Array
from facecnn.kernels import reference
from facecnn.network.layers import BatchNorm, Conv, Dense
from facecnn.network.network import Network
from facecnn.parallel.ranks import ALONE, Ranks
from parallel.threads import on_ranks

SHAPE = (3, 2, 4)
NORM = BatchNorm(momentum=0.3, epsilon=1e-3)
LAYERS = (Conv(kernels=4, size=1, activation="identity"), NORM, Dense(units=2))
"""A layer below, so that the norm's input has a gradient."""
NAMES = ("running_mean", "running_variance")


def passed(ranks: Ranks, x: Array, dout: Array) -> dict[str, Any]:
    """What the norm makes of rows ``x``, and of ``dout`` on the way back."""
    network = Network(LAYERS, SHAPE, reference, len(x), dtype=np.float64)
    network.ranks = ranks
    network.initialise(3)
    context = network.context(1, len(x), training=True)
    generator = np.random.default_rng(5)
    for array in context.weights.values():
        array[...] = generator.uniform(0.5, 2, array.shape)
    context.x[...] = x
    NORM.forward(context)
    made = {"out": context.out.copy(), **{name: context.weights[name].copy() for name in NAMES}}
    back = replace(network.context(1, len(x), training=True), dout=dout)
    NORM.backward(back)
    assert back.dx is not None
    return {**made, "dx": back.dx.copy(), **{name: array.copy() for name, array in back.gradient.items()}}


@pytest.mark.parametrize("bounds", [[0, 4, 8], [0, 1, 8], [0, 3, 4, 8]], ids=str)
@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_unequal_parts_give_what_the_whole_gives(bounds: list[int], offset: float) -> None:
    generator = np.random.default_rng(1)
    x, dout = offset + generator.normal(size=(8, *SHAPE)) * [1, 3, 0.1, 1e-3], generator.normal(size=(8, *SHAPE))
    whole = passed(ALONE, x, dout)
    parts = [slice(*pair) for pair in itertools.pairwise(bounds)]
    found = on_ranks(len(parts), lambda ranks: passed(ranks, x[parts[ranks.rank]], dout[parts[ranks.rank]]))
    for name in ("out", "dx"):
        together = np.concatenate([part[name] for part in found])
        np.testing.assert_allclose(together, whole[name], rtol=1e-7, atol=1e-7, err_msg=name)
    for name in NAMES:
        for part in found:
            np.testing.assert_allclose(part[name], whole[name], rtol=1e-9, err_msg=name)
    for name in ("scale", "shift"):  # the gradient is added up with that of all other layers
        np.testing.assert_allclose(sum(part[name] for part in found), whole[name], rtol=1e-8, atol=1e-8, err_msg=name)
