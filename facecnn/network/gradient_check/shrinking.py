"""Shrinks a network, so that every element can be checked."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from facecnn.network.layers import Layer, LayerError, Shape, with_outputs
from facecnn.network.stages import Stage, all_layers, plan

PEOPLE = 3
"""Outputs of a shrunk network. With two, the loss's derivatives would only differ in their signs."""
_MAPS = ((2, 3), (1, 2), (1, 1))
"""Minimum rows and columns of every map; the next pair is used if that makes the picture too large."""
_LARGEST_PICTURE = 1600


@dataclass(frozen=True)
class Shrunk:
    """A network with the config's layers, small enough to check every element."""

    layers: tuple[Layer, ...]
    """With few kernels and units."""
    full: tuple[Layer, ...]
    """With all kernels and units, for the same picture."""
    shape: Shape
    """The picture: rows, columns, maps."""
    photos: int

    @property
    def stages(self) -> tuple[Stage, ...]:
        return plan(self.layers, self.shape)


def shrink(layers: Sequence[Layer], shape: Shape) -> Shrunk:
    """The same layers with two or three kernels, neurons and units each, on the smallest picture that makes sense.

    Its maps have at least 2x3 elements, or 1x2 or 1x1 if that would need a large picture. Kernel sizes, pools, padding
    and activations stay.

    ``shape``: the config's picture (rows, columns, maps). Raises LayerError where a layer doesn't fit.
    """
    given = with_outputs(layers, PEOPLE)
    stages = plan(given, shape)
    if len(stages[-1].out_shape) != 1:
        error = LayerError("the network's last layer must give units: end it with `- dense: {units: people}`")
        error.index = len(layers) - 1
        raise error
    # Of a network that is given by a name each layer is made small by itself, and its frozen weights are checked, too.
    full = tuple(part for layer in given for part in (layer.expand() if layer.frozen_layers() else (layer,)))
    small: list[Layer] = []
    for layer in full:
        # Neighbours get different counts, so that exchanged input and output maps are noticed.
        summing = sum(before.sums_inputs for before in small)
        small.append(layer.small(2 + summing % 2))
    norm = any(layer.uses_batch_statistics for layer in layers)
    return Shrunk(tuple(small), full, smallest_picture(small, shape), 4 if norm else 2)


def smallest_picture(layers: Sequence[Layer], shape: Shape) -> Shape:
    """The smallest picture with maps of the sizes in ``_MAPS``, or of the original size if that is smaller."""
    original = plan(layers, shape)
    for least in _MAPS:
        sides = []
        for axis in (0, 1):

            def is_enough(side: int, axis: int = axis, least: int = least[axis]) -> bool:
                picture = (*shape[:axis], side, *shape[axis + 1 :])
                try:
                    stages = plan(layers, picture)
                except LayerError:
                    return False
                return all(
                    len(now) == 1 or now[axis] >= min(least, before[axis])
                    for stage, whole in zip(all_layers(stages), all_layers(original), strict=True)
                    for now, before in ((stage.shape, whole.shape), (stage.out_shape, whole.out_shape))
                )

            sides.append(1 + bisect_left(range(1, shape[axis]), True, key=is_enough))
        if sides[0] * sides[1] <= _LARGEST_PICTURE:
            break
    return (*sides, shape[2])
