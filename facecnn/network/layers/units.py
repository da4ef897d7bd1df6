"""Layers of units: neurons that see one map each, and fully connected layers."""

from dataclasses import replace
from math import prod
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from facecnn.arrays import Array
from facecnn.kernels.protocol import Activation
from facecnn.network.layers.base import (
    ACTIVATION_NAMES,
    Buffer,
    Layer,
    LayerContext,
    LayerError,
    Parameter,
    Scratch,
    Shape,
    Size,
    Slope,
    flat,
    maps_of,
    shape_text,
)
from facecnn.network.layers.elementwise import Activate
from facecnn.settings import SETTINGS

# Limits of how finely kernels for a card split long sums: see neuron.py and dense.py there.
_MOST_MAP_PARTS, _MAP_PART = 64, 64
_DENSE_PART = 128


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class Neuron(Layer):
    """Neurons that each see the whole of one map: ``per_kernel`` for every map, with weights of their own.

    Output: M * C units, starting with the first neuron of every map.
    """

    keyword: ClassVar[str] = "neuron"
    shorthand: ClassVar[str | None] = "per_kernel"
    sums_inputs: ClassVar[bool] = True

    per_kernel: Size = Field(default=1, description="neurons for each kernel's map")
    activation: Activation = Field(default="identity", description=ACTIVATION_NAMES)
    slope: Slope = Field(default=0.01, description="of leaky_relu below zero")

    def expand(self) -> tuple[Layer, ...]:
        return _with_activation(self, self.activation, self.slope)

    def output_shape(self, shape: Shape) -> Shape:
        return (self.per_kernel * maps_of(shape, "neuron")[2],)

    def parameters(self, shape: Shape) -> dict[str, Parameter]:
        rows, columns, maps = shape
        size = rows * columns
        return {
            "weight": Parameter(
                (self.per_kernel, rows, columns, maps), size, True, "random", fan_out=self.per_kernel, matrices=maps
            ),
            "bias": Parameter((self.per_kernel, maps), size, False, 0.0),
        }

    def small(self, count: int) -> Layer:
        return replace(self, per_kernel=min(self.per_kernel, count))

    def scratch(self, shape: Shape) -> Scratch:
        """Each map is summed in parts."""
        parts = min(_MOST_MAP_PARTS, -(-prod(shape[:2]) // _MAP_PART))
        return Scratch(4 * parts * prod(self.output_shape(shape)))

    def multiply_adds(self, shape: Shape) -> int:
        return self.per_kernel * prod(shape)

    def _by_neuron(self, array: Array) -> Array:
        return array.reshape(array.shape[0], self.per_kernel, -1)

    def forward(self, context: LayerContext) -> None:
        weight, bias = context.weights["weight"], context.weights["bias"]
        context.backend.neuron_forward(self._by_neuron(context.out), context.x, weight, bias, context.workspace)

    def backward(self, context: LayerContext) -> None:
        dout, dweight, dbias = self._by_neuron(context.dout), context.gradient["weight"], context.gradient["bias"]
        context.backend.neuron_backward_weight(dweight, dbias, dout, context.x, context.workspace)
        if context.dx is not None:
            context.backend.neuron_backward_input(context.dx, dout, context.weights["weight"], context.workspace)


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class Dense(Layer):
    """A fully connected layer; maps are flattened row by row, column by column, map by map."""

    keyword: ClassVar[str] = "dense"
    shorthand: ClassVar[str | None] = "units"
    sums_inputs: ClassVar[bool] = True

    units: Annotated[int, Field(ge=1, le=1_000_000)] | Literal["people"] = Field(
        description="outputs; people: as many as the data needs (one more when there is an unknown/ folder)"
    )
    activation: Activation = Field(default="identity", description=ACTIVATION_NAMES)
    slope: Slope = Field(default=0.01, description="of leaky_relu below zero")

    def expand(self) -> tuple[Layer, ...]:
        return _with_activation(self, self.activation, self.slope)

    def output_shape(self, shape: Shape) -> Shape:
        if self.units == "people":
            raise LayerError("the number of people is not known here: give units as a number")
        return (self.units,)

    def parameters(self, shape: Shape) -> dict[str, Parameter]:
        (units,) = self.output_shape(shape)
        return {
            "weight": Parameter((units, prod(shape)), prod(shape), True, "random", fan_out=units),
            "bias": Parameter((units,), prod(shape), False, 0.0),
        }

    def with_outputs(self, outputs: int) -> Layer:
        return replace(self, units=outputs) if self.units == "people" else self

    def small(self, count: int) -> Layer:
        return replace(self, units=min(int(self.units), count + 1))

    def scratch(self, shape: Shape) -> Scratch:
        """Long sums are made in parts."""
        return Scratch(4 * -(-prod(shape) // _DENSE_PART) * prod(self.output_shape(shape)))

    def multiply_adds(self, shape: Shape) -> int:
        return prod(shape) * self.output_shape(shape)[0]

    def forward(self, context: LayerContext) -> None:
        weight, bias = context.weights["weight"], context.weights["bias"]
        context.backend.dense_forward(context.out, flat(context.x), weight, bias, context.workspace)

    def backward(self, context: LayerContext) -> None:
        dweight, dbias = context.gradient["weight"], context.gradient["bias"]
        context.backend.dense_backward_weight(dweight, dbias, context.dout, flat(context.x), context.workspace)
        if context.dx is not None:
            context.backend.dense_backward_input(
                flat(context.dx), context.dout, context.weights["weight"], context.workspace
            )


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class UnitLength(Layer):
    """Divides each photo's units by their Euclidean length, so that a dot product of two is the cosine between them."""

    keyword: ClassVar[str] = "unit_length"

    def output_shape(self, shape: Shape) -> Shape:
        if len(shape) != 1:
            raise LayerError(f"unit_length needs units, but its input is {shape_text(shape)}: put dense before it")
        return shape

    def buffers(self, shape: Shape) -> dict[str, Buffer]:
        return {"norms": Buffer(())}

    def forward(self, context: LayerContext) -> None:
        context.backend.unit_length_forward(context.out, context.x, context.buffers["norms"], context.workspace)

    def backward(self, context: LayerContext) -> None:
        if context.dx is not None:
            norms = context.buffers["norms"]
            context.backend.unit_length_backward(context.dx, context.dout, context.out, norms, context.workspace)


def _with_activation(layer: Neuron | Dense, activation: Activation, slope: float) -> tuple[Layer, ...]:
    if activation == "identity":
        return (layer,)
    return replace(layer, activation="identity"), Activate(name=activation, slope=slope)
