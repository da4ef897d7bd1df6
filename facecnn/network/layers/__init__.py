"""The layers: settings without arrays, which know their shapes and which kernels to call.

To add one, write a class with its shapes, forward and backward pass in a module of this folder, and add it to
``LAYERS``; ``base.Layer`` has everything else that a layer may define.
"""

from __future__ import annotations

from collections.abc import Sequence

from facecnn.network.layers.base import (
    Buffer,
    Layer,
    LayerContext,
    LayerError,
    Parameter,
    Reach,
    Shape,
    shape_text,
)
from facecnn.network.layers.batch_norm import BatchNorm
from facecnn.network.layers.conv import Conv
from facecnn.network.layers.elementwise import Activate, Dropout, PRelu
from facecnn.network.layers.pool import Pool, PoolSettings
from facecnn.network.layers.units import Dense, Neuron

__all__ = [
    "LAYERS",
    "Activate",
    "BatchNorm",
    "Buffer",
    "Conv",
    "Dense",
    "Dropout",
    "Layer",
    "LayerContext",
    "LayerError",
    "Neuron",
    "PRelu",
    "Parameter",
    "Pool",
    "PoolSettings",
    "Reach",
    "Shape",
    "shape_text",
    "with_outputs",
]

LAYERS: dict[str, type[Layer]] = {
    layer.keyword: layer for layer in (Conv, Activate, PRelu, Pool, Neuron, Dense, Dropout, BatchNorm)
}
"""Layer classes by their names in the config."""


def with_outputs(layers: Sequence[Layer], outputs: int) -> tuple[Layer, ...]:
    """The layers with ``units: people`` replaced by the number that the data needs."""
    return tuple(layer.with_outputs(outputs) for layer in layers)
