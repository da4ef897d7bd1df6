"""The classes of the settings file, which pydantic checks, and their JSON Schema."""

from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from functools import cache
from typing import Annotated, Any

from pydantic import ConfigDict, Field, GetCoreSchemaHandler, GetPydanticSchema, TypeAdapter, WithJsonSchema
from pydantic.dataclasses import dataclass
from pydantic_core import core_schema

from facecnn.learning.calibration import CalibrationSettings
from facecnn.learning.full_batch_optimizers import FULL_BATCH_OPTIMIZERS, FullBatchOptimizer
from facecnn.learning.optimizers import OPTIMIZERS, AdamW, AnyOptimizer, ClassMeans
from facecnn.learning.schedules import SCHEDULES, Constant, Schedule
from facecnn.learning.settings import TrainSettings
from facecnn.network.layers import LAYERS, AnyLayer
from facecnn.network.loss import LOSSES, CrossEntropy, Loss
from facecnn.photos.preparation import PhotoSettings
from facecnn.settings import SETTINGS

VERSION = 1
"""Version of the file format."""


def _named(choices: Mapping[str, type[Any]], default: str) -> GetPydanticSchema:
    """A section whose ``name`` selects the class, ``default`` if there is none."""

    def check(value: Any, check_choice: Callable[[Any], Any]) -> Any:
        if is_dataclass(value):
            return value
        return check_choice({"name": default, **value} if isinstance(value, dict) else value)

    def schema(_: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        classes = {name: handler.generate_schema(choice) for name, choice in choices.items()}
        return core_schema.no_info_wrap_validator_function(check, core_schema.tagged_union_schema(classes, "name"))

    return GetPydanticSchema(schema)


def expand_layer(layer: Any) -> Any:
    """A layer's short form, ``batch_norm`` or ``dropout: 0.2``, as a mapping of its keyword to its settings; also of
    the layers that it holds."""
    if isinstance(layer, str):
        return {layer: {}}
    if isinstance(layer, dict) and len(layer) == 1:
        ((keyword, value),) = layer.items()
        shorthand = LAYERS[keyword].shorthand if keyword in LAYERS else None
        if shorthand is not None and value is not None and not isinstance(value, dict):
            return {keyword: {shorthand: value}}
        if keyword in LAYERS and isinstance(value, dict) and isinstance(value.get("layers"), list):
            return {keyword: {**value, "layers": [*map(expand_layer, value["layers"])]}}
    return layer


@dataclass(frozen=True, kw_only=True, config=ConfigDict(**SETTINGS, title="facecnn's settings file"))
class Settings:
    """All settings of a training run."""

    version: Annotated[int, WithJsonSchema({"const": VERSION})] = Field(
        default=VERSION, ge=VERSION, le=VERSION, description="of this file's format"
    )
    photos: PhotoSettings = Field(default=PhotoSettings(), description="where the photos are and how they are prepared")
    network: tuple[AnyLayer, ...] = Field(min_length=1, description="the layers, from the picture to the people")
    loss: Annotated[Loss, _named(LOSSES, "cross_entropy")] = Field(
        default=CrossEntropy(), description="what training minimises"
    )
    optimizer: Annotated[
        AnyOptimizer | FullBatchOptimizer | ClassMeans,
        _named(OPTIMIZERS | FULL_BATCH_OPTIMIZERS | {"class_means": ClassMeans}, "adamw"),
    ] = Field(default=AdamW(), description="how a gradient changes the weights")
    schedule: Annotated[Schedule, _named(SCHEDULES, "constant")] = Field(
        default=Constant(), description="how the learning rate changes over the training"
    )
    train: TrainSettings = Field(default=TrainSettings(), description="how long to train, and in which batches")
    calibration: CalibrationSettings = Field(
        default=CalibrationSettings(), description="how held-out photos set the threshold for strangers"
    )


ADAPTER = TypeAdapter(Settings)


@cache
def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of the settings file, for editors."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **ADAPTER.json_schema()}
    del schema["required"]  # a file without a network takes that of default.yaml
    sections, classes = schema["properties"], schema["$defs"]
    for section in sections.values():
        if "discriminator" in section:
            names = section["discriminator"]["mapping"]
            for option in section["oneOf"]:
                if option["$ref"] != names[section["default"]["name"]]:
                    option["required"] = ["name"]
    for layers in (sections["network"], classes["Residual"]["properties"]["layers"]):
        layers["items"] = _with_short_forms(layers["items"], classes)
    return schema


def _with_short_forms(layer: dict[str, Any], classes: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of a layer that may also be written in short: see ``expand_layer``."""
    layer |= {"minProperties": 1, "maxProperties": 1}
    for keyword, layer_class in LAYERS.items():
        if layer_class.shorthand is not None:
            short = classes[layer_class.__name__]["properties"][layer_class.shorthand]
            layer["properties"][keyword] = {"anyOf": [layer["properties"][keyword], short]}
    bare = [keyword for keyword, layer_class in LAYERS.items() if "required" not in classes[layer_class.__name__]]
    return {"anyOf": [layer, {"enum": bare}]}
