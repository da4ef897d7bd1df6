"""The layers: settings without arrays, which know their shapes and which kernels to call.

To add one, write a class with its shapes, forward and backward pass in a module of this folder, and add it to
``LAYERS``; ``base.Layer`` has everything else that a layer may define.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeAlias, cast

from pydantic import GetCoreSchemaHandler, GetPydanticSchema
from pydantic.dataclasses import rebuild_dataclass
from pydantic_core import core_schema

from facecnn.network.layers.base import (
    Buffer,
    Layer,
    LayerContext,
    LayerError,
    Parameter,
    Reach,
    Shape,
    Stage,
    line_up,
    shape_text,
)
from facecnn.network.layers.batch_norm import BatchNorm
from facecnn.network.layers.body import Body
from facecnn.network.layers.conv import Conv
from facecnn.network.layers.elementwise import Activate, Dropout, PRelu
from facecnn.network.layers.pool import Pool, PoolSettings
from facecnn.network.layers.residual import Residual
from facecnn.network.layers.units import Dense, Neuron, UnitLength

__all__ = [
    "LAYERS",
    "Activate",
    "AnyLayer",
    "BatchNorm",
    "Body",
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
    "Residual",
    "Shape",
    "Stage",
    "UnitLength",
    "layer_schema",
    "line_up",
    "shape_text",
    "with_outputs",
]

LAYERS: dict[str, type[Layer]] = {
    layer.keyword: layer
    for layer in (Conv, Activate, PRelu, Pool, Residual, Neuron, Dense, UnitLength, Dropout, BatchNorm, Body)
}
"""Layer classes by their names in the config."""


def layer_schema(handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
    """Pydantic's schema of a layer in the config: a mapping of its keyword to its settings."""

    def check(value: Any, check_entry: Callable[[Any], Any]) -> Any:
        if isinstance(value, Layer):
            return value
        if not isinstance(value, dict) or len(value) != 1:
            raise ValueError("not a layer")
        (layer,) = check_entry(value).values()
        return layer

    keywords = {
        keyword: core_schema.typed_dict_field(handler.generate_schema(layer), required=False)
        for keyword, layer in LAYERS.items()
    }
    return core_schema.no_info_wrap_validator_function(
        check,
        core_schema.typed_dict_schema(keywords, extra_behavior="forbid"),
        serialization=core_schema.plain_serializer_function_ser_schema(lambda layer: {layer.keyword: layer}),
    )


AnyLayer: TypeAlias = Annotated[Layer, GetPydanticSchema(lambda _, handler: layer_schema(handler))]
rebuild_dataclass(cast(Any, Residual))  # whose own layers may be of any of these classes


def with_outputs(layers: Sequence[Layer], outputs: int) -> tuple[Layer, ...]:
    """The layers with ``units: people`` replaced by the number that the data needs."""
    return tuple(layer.with_outputs(outputs) for layer in layers)
