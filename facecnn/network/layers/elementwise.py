"""Elementwise layers: activations, with or without a trained slope, and dropout."""

from collections.abc import Iterator
from dataclasses import replace
from math import prod
from typing import ClassVar

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from facecnn.arrays import Array
from facecnn.kernels.protocol import PURPOSE_DROPOUT, Activation
from facecnn.network.layers.base import (
    ACTIVATION_NAMES,
    KINKED,
    Layer,
    LayerContext,
    Parameter,
    Shape,
    Slope,
    by_last,
    flat,
    gain_of,
)
from facecnn.settings import SETTINGS


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class Activate(Layer):
    """An activation, element by element."""

    keyword: ClassVar[str] = "activation"
    shorthand: ClassVar[str | None] = "name"

    name: Activation = Field(description=ACTIVATION_NAMES)
    slope: Slope = Field(default=0.01, description="of leaky_relu below zero")

    @property
    def activates_with(self) -> Activation:
        return self.name

    def gain(self) -> float | None:
        return None if self.name == "identity" else gain_of(self.name, self.slope)

    def kinks(self, x: Array, sums: Array) -> Iterator[Array]:
        if self.name in KINKED:
            yield np.abs(x)

    def forward(self, context: LayerContext) -> None:
        context.backend.activation_forward(flat(context.out), flat(context.x), self.name, self.slope, context.workspace)

    def backward(self, context: LayerContext) -> None:
        if context.dx is not None:
            dx, dout, x, out = (flat(array) for array in (context.dx, context.dout, context.x, context.out))
            context.backend.activation_backward(dx, dout, x, out, self.name, self.slope, context.workspace)


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class PRelu(Layer):
    """A leaky relu whose slope below zero is learned, one for each map or unit (He et al. 2015, arXiv:1502.01852).

    Slopes don't decay, which would turn the layer into a relu. Nothing keeps them above 0.
    """

    keyword: ClassVar[str] = "prelu"
    shorthand: ClassVar[str | None] = "slope"

    slope: Slope = Field(default=0.25, description="initial slope below zero")

    def parameters(self, shape: Shape) -> dict[str, Parameter]:
        return {"slope": Parameter((shape[-1],), 1, False, self.slope)}

    def multiply_adds(self, shape: Shape) -> int:
        return prod(shape)

    def gain(self) -> float | None:
        return gain_of("leaky_relu", self.slope)

    def kinks(self, x: Array, sums: Array) -> Iterator[Array]:
        yield np.abs(x)

    def sides(self, x: Array, out: Array) -> Array | None:
        return x > 0

    def forward(self, context: LayerContext) -> None:
        context.backend.prelu_forward(
            by_last(context.out), by_last(context.x), context.weights["slope"], context.workspace
        )

    def backward(self, context: LayerContext) -> None:
        dx, dout, x = map(by_last, (context.dx_target, context.dout, context.x))
        context.backend.prelu_backward(
            dx, context.gradient["slope"], dout, x, context.weights["slope"], context.workspace
        )


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class Dropout(Layer):
    """Sets a random part of the elements to zero in training, and scales up the others."""

    keyword: ClassVar[str] = "dropout"
    shorthand: ClassVar[str | None] = "rate"

    rate: float = Field(ge=0, lt=1, description="share of the elements that is dropped")

    def without_randomness(self) -> Layer:
        return replace(self, rate=0.0)

    def _apply(self, context: LayerContext, out: Array, x: Array) -> None:
        rate = self.rate if context.training else 0.0
        purpose = PURPOSE_DROPOUT + context.number
        context.backend.dropout(
            flat(out), flat(x), context.photos, rate, context.seed, purpose, context.step, context.workspace
        )

    def forward(self, context: LayerContext) -> None:
        self._apply(context, context.out, context.x)

    def backward(self, context: LayerContext) -> None:
        if context.dx is not None:
            self._apply(context, context.dx, context.dout)
