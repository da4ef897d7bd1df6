"""Layers whose outputs are units: neurons that see one map, and fully connected ones."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from facecnn.kernels.protocol import Activation
from facecnn.network.layers.base import (
    ACTIVATION_NAMES,
    Array,
    Call,
    Layer,
    LayerError,
    Parameter,
    Scratch,
    Shape,
    Size,
    Slope,
    flat,
    maps_of,
)
from facecnn.network.layers.elementwise import Activate
from facecnn.settings import SETTINGS

# How finely kernels for a card cut long sums, at most: see neuron.py and dense.py there.
_MOST_MAP_PARTS, _MAP_PART = 64, 64
_DENSE_PART = 128


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class Neuron(Layer):
    """Neurons that each see the whole of one map: ``per_kernel`` for every map, with weights of their own.

    Output: M * C units, the first neuron of every map first.
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
        """Each map is summed up in parts."""
        parts = min(_MOST_MAP_PARTS, -(-prod(shape[:2]) // _MAP_PART))
        return Scratch(4 * parts * prod(self.output_shape(shape)))

    def multiply_adds(self, shape: Shape) -> int:
        return self.per_kernel * prod(shape)

    def _by_neuron(self, array: Array) -> Array:
        return array.reshape(array.shape[0], self.per_kernel, -1)

    def forward(self, call: Call) -> None:
        weight, bias = call.weights["weight"], call.weights["bias"]
        call.kernels.neuron_forward(self._by_neuron(call.out), call.x, weight, bias, call.workspace)

    def backward(self, call: Call) -> None:
        dout, dweight, dbias = self._by_neuron(call.dout), call.gradient["weight"], call.gradient["bias"]
        call.kernels.neuron_backward_weight(dweight, dbias, dout, call.x, call.workspace)
        if call.dx is not None:
            call.kernels.neuron_backward_input(call.dx, dout, call.weights["weight"], call.workspace)


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class Dense(Layer):
    """A fully connected layer; maps are laid out row by row, column by column, map by map."""

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
        """A long sum is made in parts."""
        return Scratch(4 * -(-prod(shape) // _DENSE_PART) * prod(self.output_shape(shape)))

    def multiply_adds(self, shape: Shape) -> int:
        return prod(shape) * self.output_shape(shape)[0]

    def forward(self, call: Call) -> None:
        weight, bias = call.weights["weight"], call.weights["bias"]
        call.kernels.dense_forward(call.out, flat(call.x), weight, bias, call.workspace)

    def backward(self, call: Call) -> None:
        dweight, dbias = call.gradient["weight"], call.gradient["bias"]
        call.kernels.dense_backward_weight(dweight, dbias, call.dout, flat(call.x), call.workspace)
        if call.dx is not None:
            call.kernels.dense_backward_input(flat(call.dx), call.dout, call.weights["weight"], call.workspace)


def _with_activation(layer: Neuron | Dense, activation: Activation, slope: float) -> tuple[Layer, ...]:
    if activation == "identity":
        return (layer,)
    return replace(layer, activation="identity"), Activate(name=activation, slope=slope)
