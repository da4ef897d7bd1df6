"""The layers of a network in order, with their names and shapes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from facecnn.errors import UsageError
from facecnn.network.layers import Layer, LayerError, Parameter, Shape, shape_text


@dataclass(frozen=True)
class Stage:
    """A layer at its position in the network."""

    name: str
    """``conv1``, ``conv2``, ``batch_norm1``: the layer's keyword and its number among those of its kind."""
    index: int
    """Position in the config's list, which layers share that were split because there is no fused kernel."""
    layer: Layer
    shape: Shape
    """Of the input, without the batch."""
    out_shape: Shape

    @property
    def parameters(self) -> dict[str, Parameter]:
        return self.layer.parameters(self.shape)

    @property
    def statistics(self) -> dict[str, Parameter]:
        return self.layer.statistics(self.shape)


def plan(layers: Sequence[Layer], shape: Shape) -> tuple[Stage, ...]:
    """Split layers into those for which kernels exist, and give them names and shapes.

    Raises:
        LayerError: one doesn't fit; the message has its position in ``layers``, its name and its input's shape.
    """
    stages: list[Stage] = []
    counts: Counter[str] = Counter()
    for index, given in enumerate(layers):
        for layer in given.expand():
            try:
                out_shape = layer.output_shape(shape)
            except LayerError as error:
                error.index = index
                error.args = (f"network[{index}] {given.keyword}: {error}\n{_shapes_so_far(stages)}",)
                raise
            counts[layer.keyword] += 1
            stages.append(Stage(f"{layer.keyword}{counts[layer.keyword]}", index, layer, shape, out_shape))
            shape = out_shape
    if not stages:
        raise UsageError("network: there are no layers in it")
    return tuple(stages)


def _shapes_so_far(stages: Sequence[Stage]) -> str:
    if not stages:
        return "It is the first layer."
    lines = [f"  {stage.name:14} {shape_text(stage.shape)} -> {shape_text(stage.out_shape)}" for stage in stages]
    return "\n".join(["The layers before it:", *lines])
