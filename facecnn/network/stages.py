"""The layers of a network in order, with their names and shapes."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from facecnn.errors import UsageError
from facecnn.network.layers import Layer, LayerError, Shape, line_up, shape_text
from facecnn.network.layers import Stage as Stage


def plan(layers: Sequence[Layer], shape: Shape) -> tuple[Stage, ...]:
    """Split layers into those for which kernels exist, and give them names and shapes.

    Raises LayerError where one doesn't fit; the message has its position in ``layers``, its name and its input's shape.
    """
    stages: list[Stage] = []
    try:
        line_up(layers, shape, stages)
    except LayerError as error:
        index = error.index or 0
        dot = "." if error.within else ": "
        error.args = (f"network[{index}] {layers[index].keyword}{dot}{error}\n{_shapes_so_far(stages)}",)
        raise
    if not stages:
        raise UsageError("network: there are no layers in it")
    return tuple(stages)


def _shapes_so_far(stages: Sequence[Stage]) -> str:
    if not stages:
        return "It is the first layer."
    lines = [f"  {stage.name:14} {shape_text(stage.shape)} -> {shape_text(stage.out_shape)}" for stage in stages]
    return "\n".join(["The layers before it:", *lines])


def all_layers(stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """The stages, with the layers that a layer holds in its place, under their whole names (``residual1.conv1``).
    Under its own name follows what it does last, if anything."""
    return tuple(_within(stages))


def _within(stages: Sequence[Stage]) -> Iterator[Stage]:
    for stage in stages:
        last = stage.layer.last()
        if last is None:
            yield stage
            continue
        for inner in _within(stage.inner):
            name, number = f"{stage.name}.{inner.name}", stage.number + inner.number
            yield replace(inner, name=name, index=stage.index, number=number, keeps_weights=stage.keeps_weights)
        yield replace(stage, layer=last, shape=stage.out_shape)


def way_to(stages: Sequence[Stage], name: str) -> tuple[Stage, ...]:
    """The stages up to ``name``, which may be the whole name of a layer that another one holds. Shortcuts aren't part
    of the way."""
    first, _, rest = name.partition(".")
    number = next(number for number, stage in enumerate(stages) if stage.name == first)
    stage = stages[number]
    if not rest:
        return tuple(stages[: number + 1])
    branch = [inner for inner in stage.inner if inner.name != "shortcut" or rest == "shortcut"]
    return (*stages[:number], *way_to(branch, rest))
