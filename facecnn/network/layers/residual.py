"""The residual block: a layer that holds layers.

Its buffers hold those of its layers, their outputs, and the gradients of these. Two buffers take turns for the
gradients, as in the network: that of a layer's output is only needed until that of its input is there.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from math import prod
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field, GetCoreSchemaHandler, GetPydanticSchema
from pydantic.dataclasses import dataclass
from pydantic_core import core_schema

from facecnn.arrays import Array
from facecnn.kernels.protocol import FUSED_ACTIVATIONS, Activation
from facecnn.network.layers.base import (
    ACTIVATION_NAMES,
    KINKED,
    Buffer,
    Layer,
    LayerContext,
    LayerError,
    Parameter,
    Reach,
    Scratch,
    Shape,
    Slope,
    Stage,
    line_up,
    maps_of,
)
from facecnn.network.layers.elementwise import Activate
from facecnn.network.layers.pool import Pool, PoolSettings
from facecnn.settings import SETTINGS

SHORTCUT = "shortcut"
"""Name of the shortcut's pool among the layers of a block."""
_MOST_LAYERS = 1000
_OUT, _SHORTCUT_GRADIENT = "out", "shortcut_gradient"
_GRADIENTS = ("gradient1", "gradient2")


def _any_layer(_: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
    from facecnn.network.layers import layer_schema  # which knows this class, too

    return layer_schema(handler)


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class Residual(Layer):
    """A residual block (He et al. 2016, arXiv:1512.03385): activation(branch(x) + shortcut(x)).

    The branch is a list of layers. The shortcut is x itself, or x pooled. Where the two differ in rows, columns or maps
    the smaller one is padded with zeros at the end, as in dlib's face network.
    """

    keyword: ClassVar[str] = "residual"

    layers: Annotated[tuple[Annotated[Layer, GetPydanticSchema(_any_layer)], ...], Field(strict=False)] = Field(
        min_length=1, description="the branch: layers that give maps"
    )
    shortcut: PoolSettings | None = Field(
        default=None, description="pool of what goes past the branch, where that makes maps smaller; null: none"
    )
    activation: Activation = Field(default="relu", description=f"{ACTIVATION_NAMES}; of the sum")
    slope: Slope = Field(default=0.01, description="of leaky_relu below zero")
    repeat: Annotated[int, Field(ge=1, le=100)] = Field(default=1, description="number of such blocks in a row")

    def expand(self) -> tuple[Layer, ...]:
        if (count := _count(self)) > _MOST_LAYERS:
            raise LayerError(f"its blocks have {count:,} layers, but may have {_MOST_LAYERS:,} at most: repeat less")
        within = tuple(part for layer in self.layers for part in layer.expand())
        one = replace(self, layers=within, repeat=1)
        if self.activation in FUSED_ACTIVATIONS:
            return (one,) * self.repeat
        one = replace(one, activation="identity")
        return (one, Activate(name=self.activation, slope=self.slope)) * self.repeat

    def inner(self, shape: Shape) -> tuple[Stage, ...]:
        return _inner(self, shape)

    def last(self) -> Layer:
        return Activate(name=self.activation, slope=self.slope)

    @property
    def activates_with(self) -> Activation:
        return self.activation

    @property
    def uses_batch_statistics(self) -> bool:
        return any(layer.uses_batch_statistics for layer in self.layers)

    def with_outputs(self, outputs: int) -> Layer:
        return replace(self, layers=tuple(layer.with_outputs(outputs) for layer in self.layers))

    def without_randomness(self) -> Layer:
        return replace(self, layers=tuple(layer.without_randomness() for layer in self.layers))

    def for_whole_set(self) -> Layer:
        return replace(self, layers=tuple(layer.for_whole_set() for layer in self.layers))

    def small(self, count: int) -> Layer:
        # Neighbours get different counts, as in the network.
        within = tuple(layer.small(count + number % 2) for number, layer in enumerate(self.layers))
        return replace(self, layers=within)

    def _ends(self, shape: Shape) -> tuple[Shape, Shape]:
        """Shapes of the two summands."""
        stages = self.inner(shape)
        return stages[-1].out_shape, stages[0].out_shape if self.shortcut is not None else shape

    def output_shape(self, shape: Shape) -> Shape:
        return tuple(max(sides) for sides in zip(*self._ends(shape), strict=True))

    def parameters(self, shape: Shape) -> dict[str, Parameter]:
        return {f"{stage.name}.{name}": p for stage in self.inner(shape) for name, p in stage.parameters.items()}

    def statistics(self, shape: Shape) -> dict[str, Parameter]:
        return {f"{stage.name}.{name}": p for stage in self.inner(shape) for name, p in stage.statistics.items()}

    def buffers(self, shape: Shape) -> dict[str, Buffer]:
        buffers: dict[str, Buffer] = {}
        for stage in self.inner(shape):
            own = {_OUT: Buffer(stage.out_shape), **stage.layer.buffers(stage.shape)}
            buffers |= {f"{stage.name}.{name}": buffer for name, buffer in own.items()}
        # The gradient of a pooled shortcut's input is put into one of them, too.
        largest = max(prod(one) for stage in self.inner(shape) for one in (stage.shape, stage.out_shape))
        buffers |= {name: Buffer((largest,), for_backward=True) for name in _GRADIENTS}
        buffers[_SHORTCUT_GRADIENT] = Buffer(self._ends(shape)[1], for_backward=True)
        return buffers

    def scratch(self, shape: Shape) -> Scratch:
        parts = [stage.layer.scratch(stage.shape) for stage in self.inner(shape)]
        return Scratch(sum(part.per_photo for part in parts), sum(part.fixed for part in parts))

    def multiply_adds(self, shape: Shape) -> int:
        return sum(stage.layer.multiply_adds(stage.shape) for stage in self.inner(shape))

    def reach(self, shape: Shape) -> Reach:
        """What an output sees by the branch or by the shortcut."""
        ways: dict[bool, Reach] = {True: Reach(), False: Reach()}
        for stage in self.inner(shape):
            is_shortcut = stage.name == SHORTCUT
            ways[is_shortcut] = ways[is_shortcut].then(stage.layer.reach(stage.shape))
        return ways[False].union(ways[True])

    def fused(self) -> list[str]:
        return [] if self.activation == "identity" else [self.activation]

    def sums_only(self) -> Layer:
        return replace(self, activation="identity")

    def kinks(self, x: Array, sums: Array) -> Iterator[Array]:
        """Of the sum's activation alone: the layers within have their own."""
        if self.activation in KINKED:
            yield np.abs(sums)

    def inner_contexts(self, context: LayerContext) -> tuple[LayerContext, ...]:
        contexts = []
        x = context.x
        for stage in self.inner(context.x.shape[1:]):
            buffers = _below(stage.name, context.buffers)
            out = buffers.pop(_OUT)
            contexts.append(
                replace(
                    context,
                    number=context.number + stage.number,
                    x=context.x if stage.name == SHORTCUT else x,
                    out=out,
                    weights=_below(stage.name, context.weights),
                    buffers=buffers,
                    dout=out,
                    dx=None,
                    gradient=_below(stage.name, context.gradient),
                )
            )
            x = context.x if stage.name == SHORTCUT else out
        return tuple(contexts)

    def forward(self, context: LayerContext) -> None:
        stages, contexts = self.inner(context.x.shape[1:]), self.inner_contexts(context)
        for stage, inner in zip(stages, contexts, strict=True):
            stage.layer.forward(inner)
        shortcut = context.x if self.shortcut is None else contexts[0].out
        context.backend.add_maps_forward(
            context.out, contexts[-1].out, shortcut, self.activation, self.slope, context.workspace
        )

    def backward(self, context: LayerContext) -> None:
        stages, contexts = self.inner(context.x.shape[1:]), self.inner_contexts(context)
        here, other = _GRADIENTS
        dout, dshortcut = _gradient(context, here, contexts[-1].out.shape), context.buffers[_SHORTCUT_GRADIENT]
        context.backend.add_maps_backward(
            dout, dshortcut, context.dout, context.out, self.activation, self.slope, context.workspace
        )
        first = 0 if self.shortcut is None else 1
        for number in reversed(range(first, len(stages))):
            inner = contexts[number]
            dx = context.dx if number == first else _gradient(context, other, inner.x.shape)
            stages[number].layer.backward(replace(inner, dout=dout, dx=dx))
            if dx is not None:
                here, other, dout = other, here, dx
        if context.dx is None:
            return
        if self.shortcut is not None:
            pooled, dshortcut = dshortcut, _gradient(context, here, context.x.shape)
            stages[0].layer.backward(replace(contexts[0], dout=pooled, dx=dshortcut))
        own, more = context.dx.reshape(context.dx.size), dshortcut.reshape(dshortcut.size)
        context.backend.accumulate(own, more, False, context.workspace)


def _count(layer: Layer) -> int:
    """Number of layers that a layer expands to, about; without expanding it."""
    return layer.repeat * sum(map(_count, layer.layers)) if isinstance(layer, Residual) else 1


@lru_cache(maxsize=4096)
def _inner(block: Residual, shape: Shape) -> tuple[Stage, ...]:
    """The layers of a block: the shortcut's pool, if there is one, and the branch. Raises LayerError."""
    maps_of(shape, block.keyword)
    stages: list[Stage] = []
    try:
        line_up(block.layers, shape, stages)
        for stage in stages:
            if len(stage.out_shape) != 3:
                error = LayerError("gives units, and the layers of a residual block must give maps")
                error.index = stage.index
                raise error
    except LayerError as error:
        index = error.index or 0
        place = f"layers[{index}] {block.layers[index].keyword}"
        outer = LayerError(f"{place}: {error}" if not error.within else f"{place}.{error}")
        outer.within = (block.keyword, "layers", index, *error.within)
        raise outer from None
    if block.shortcut is None:
        return tuple(stages)
    settings = block.shortcut
    pool = Pool(size=settings.size, stride=settings.stride, kind=settings.kind, edges=settings.edges)
    try:
        first = Stage(SHORTCUT, 0, pool, shape, pool.output_shape(shape))
    except LayerError as error:
        outer = LayerError(f"{SHORTCUT}: {error}")
        outer.within = (block.keyword, SHORTCUT)
        raise outer from None
    return first, *(replace(stage, number=stage.number + 1) for stage in stages)


def _below(name: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The arrays of one of the block's layers, by their names there."""
    start = f"{name}."
    return {whole.removeprefix(start): array for whole, array in arrays.items() if whole.startswith(start)}


def _gradient(context: LayerContext, name: str, shape: Shape) -> Array:
    """An array of ``shape``, the photos first, in one of the two buffers of gradients."""
    buffer = context.buffers[name]
    return buffer.reshape(buffer.size)[: prod(shape)].reshape(shape)
