"""The base class of layers: settings without arrays, which know their shapes and which kernels to call.

Inputs and outputs are maps (N, H, W, C) or units (N, U); shapes here leave out N. The network owns all arrays (see
``facecnn.network.network``) and passes views.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Annotated, Any, ClassVar, Literal, TypeAlias, get_args

import numpy.typing as npt
from pydantic import Field

from facecnn.arrays import Array
from facecnn.errors import UsageError
from facecnn.kernels.backend import Backend
from facecnn.kernels.protocol import Activation
from facecnn.parallel.ranks import ALONE, Ranks

Arrays: TypeAlias = Mapping[str, Array]
Shape: TypeAlias = tuple[int, ...]
Size: TypeAlias = Annotated[int, Field(ge=1, le=4096)]
Pair: TypeAlias = Annotated[tuple[Size, Size], Field(strict=False)]
Slope: TypeAlias = Annotated[float, Field(ge=0, le=1)]

ACTIVATION_NAMES = " | ".join(get_args(Activation))
KINKED = ("relu", "leaky_relu")
"""Activations with a kink at zero, where they have no derivative."""


class LayerError(UsageError):
    """A layer doesn't fit; ``index`` is its position in the config's list."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.index: int | None = None
        self.within: tuple[str | int, ...] = ()
        """The keys from there to a layer that it holds: ``("residual", "layers", 0)``."""


@dataclass(frozen=True)
class Parameter:
    """A trained array: its shape, the number of inputs that each output sums, and whether weight decay applies."""

    shape: Shape
    fan_in: int
    decays: bool
    start: Literal["random"] | float
    """Initial values: random, or this one."""
    fan_out: int = 1
    """Number of outputs that each input has a weight to; of random weights only."""
    matrices: int = 1
    """Number of matrices in it, along its last axis."""


@dataclass(frozen=True)
class Buffer:
    """An array that forward leaves for backward; ``dtype`` None: the network's."""

    shape: Shape
    dtype: npt.DTypeLike | None = None
    per_photo: bool = True
    for_backward: bool = False
    """Whether backward alone uses it: a network that isn't trained does without."""


@dataclass(frozen=True)
class Scratch:
    """Maximum bytes of scratch memory that a layer's kernels need; they need most on a card."""

    per_photo: int = 0
    fixed: int = 0


def _both(axes: Iterable[int]) -> tuple[int, int]:
    rows, columns = axes
    return rows, columns


@dataclass(frozen=True)
class Reach:
    """Receptive field of an output in a layer's input, each as (rows, columns)."""

    size: tuple[int, int] = (1, 1)
    step: tuple[int, int] = (1, 1)
    """From one output's field to the next one's."""
    first: tuple[int, int] = (0, 0)
    """Where the first output's field begins: below zero if the input is padded."""

    def then(self, later: Reach) -> Reach:
        """The receptive field of an output of a ``later`` layer in this one's input."""
        axes = range(2)
        return Reach(
            _both(self.size[i] + (later.size[i] - 1) * self.step[i] for i in axes),
            _both(self.step[i] * later.step[i] for i in axes),
            _both(self.first[i] + later.first[i] * self.step[i] for i in axes),
        )

    def union(self, other: Reach) -> Reach:
        """What an output sees in both ways, which should have the same step."""
        axes = range(2)
        first = _both(min(self.first[i], other.first[i]) for i in axes)
        size = _both(max(own.first[i] + own.size[i] for own in (self, other)) - first[i] for i in axes)
        return Reach(size, _both(max(self.step[i], other.step[i]) for i in axes), first)


@dataclass(frozen=True)
class LayerContext:
    """The arguments of a layer: its arrays for one batch of N photos, and everything else that its kernels need."""

    backend: Backend
    workspace: Any
    training: bool
    number: int
    """Index of the layer in the network."""
    seed: int
    step: Array
    """(1,) int32: number of updates made before."""
    photos: Array
    """(N,) int32: the photos' indices in the data set."""
    x: Array
    out: Array
    weights: Arrays
    """Parameters and statistics by name."""
    buffers: Arrays
    dout: Array
    """For backward: derivative of the loss with respect to ``out``."""
    dx: Array | None
    """For backward to fill; None if nothing is trained below."""
    gradient: Arrays
    """For backward to fill, one array for each parameter."""
    for_backward: bool = True
    """Whether forward must leave what backward needs."""
    ranks: Ranks = ALONE
    """The processes that share the batch, of whose photos N are here."""

    @property
    def dx_target(self) -> Array:
        """``dx`` or, for kernels that always write it, ``out``, which the layer above doesn't need any more."""
        return self.out if self.dx is None else self.dx


class Layer:
    """What a layer can be asked; the defaults suit a layer without parameters that keeps its input's shape."""

    keyword: ClassVar[str]
    shorthand: ClassVar[str | None] = None
    """The field that a plain value in the config sets: ``dropout: 0.2``."""
    has_kernels: ClassVar[bool] = False
    """Whether ``weight`` holds kernels (kernel, row, column, input map), which are drawn and watched."""
    sums_inputs: ClassVar[bool] = False
    """Whether its outputs are weighted sums of its inputs."""

    @property
    def uses_batch_statistics(self) -> bool:
        """Whether in training a photo's output depends on the others of its batch."""
        return False

    def expand(self) -> tuple[Layer, ...]:
        """This layer as layers for which kernels exist."""
        return (self,)

    def frozen_layers(self) -> int:
        """How many of the layers that it expands to, from the first, keep their weights."""
        return 0

    def check_input(self, shape: Shape, is_first: bool) -> None:
        """Raise LayerError if the layer, before it is expanded, can't follow maps or units of ``shape``;
        ``is_first``: these are the picture."""

    def inner(self, shape: Shape) -> tuple[Stage, ...]:
        """The layers that this one holds, for an input of ``shape``; their arrays are among its own, as
        ``conv1.weight``."""
        return ()

    def inner_contexts(self, context: LayerContext) -> tuple[LayerContext, ...]:
        """The contexts of ``inner``, with views of the arrays in ``context``."""
        return ()

    def last(self) -> Layer | None:
        """What a layer that holds others does last, as a layer; None if it holds none."""
        return None

    def output_shape(self, shape: Shape) -> Shape:
        """Shape of the output for an input of ``shape``. Raises LayerError if the layer doesn't fit."""
        return shape

    def parameters(self, shape: Shape) -> dict[str, Parameter]:
        return {}

    def statistics(self, shape: Shape) -> dict[str, Parameter]:
        """Arrays that are learned without gradients: batch norm's running mean and variance."""
        return {}

    def buffers(self, shape: Shape) -> dict[str, Buffer]:
        return {}

    def scratch(self, shape: Shape) -> Scratch:
        """Maximum scratch memory."""
        return Scratch()

    def multiply_adds(self, shape: Shape) -> int:
        """Multiplications with a weight in one photo's forward pass."""
        return 0

    def reach(self, shape: Shape) -> Reach:
        """Receptive field of an output in an input of ``shape``."""
        return Reach()

    def gain(self) -> float | None:
        """Factor by which weights before this activation must be larger to keep the variance; None if it isn't one."""
        return None

    @property
    def activates_with(self) -> Activation:
        """The activation of its output."""
        return "identity"

    def with_outputs(self, outputs: int) -> Layer:
        """The layer with ``units: people`` replaced by the number that the data needs."""
        return self

    def without_randomness(self) -> Layer:
        """The layer without any random effect."""
        return self

    def for_whole_set(self) -> Layer:
        """The layer for batches of the whole training set, whose statistics need no running mean."""
        return self

    # For gradient checks

    def small(self, count: int) -> Layer:
        """The layer with about ``count`` kernels, neurons or units, if it has more."""
        return self

    def fused(self) -> list[str]:
        """What is fused into it, in words: ``["relu", "pool of 2x2"]``."""
        return []

    def sums_only(self) -> Layer:
        """The layer without what is fused into it."""
        return self

    def kinks(self, x: Array, sums: Array) -> Iterator[Array]:
        """Distances of an input ``x`` from where the layer has no derivative; ``sums``: output of ``sums_only`` for
        x."""
        yield from ()

    def sides(self, x: Array, out: Array) -> Array | None:
        """Which side of its activation's kink each element is on; None if there is none."""
        return out > 0 if self.activates_with in KINKED else None

    def forward(self, context: LayerContext) -> None:
        """Fill ``out`` from ``x`` and, if ``for_backward``, the buffers that backward needs."""
        raise NotImplementedError

    def backward(self, context: LayerContext) -> None:
        """Fill ``gradient``, and ``dx`` unless it is None. May overwrite ``out``."""
        raise NotImplementedError


@dataclass(frozen=True)
class Stage:
    """A layer at its position in the network, or in a layer that holds it."""

    name: str
    """``conv1``, ``conv2``, ``batch_norm1``: the layer's keyword and its number among those of its kind. Behind a dot,
    if a layer holds it: ``residual1.conv1``."""
    index: int
    """Position in the config's list, which layers share that were split because there is no fused kernel."""
    layer: Layer
    shape: Shape
    """Of the input, without the batch."""
    out_shape: Shape
    number: int = 0
    """Number of layers before it, those that layers hold counted too: a key of its random numbers."""
    keeps_weights: bool = False
    """Whether its weights are never trained, whatever ``train.freeze`` says."""

    @property
    def parameters(self) -> dict[str, Parameter]:
        return self.layer.parameters(self.shape)

    @property
    def statistics(self) -> dict[str, Parameter]:
        return self.layer.statistics(self.shape)

    @property
    def inner(self) -> tuple[Stage, ...]:
        """The layers that its layer holds."""
        return self.layer.inner(self.shape)

    @property
    def count(self) -> int:
        """Number of layers in it, which is 1 if its layer holds none."""
        return sum(stage.count for stage in self.inner) or 1

    def is_trained(self, freeze: int) -> bool:
        """Whether its weights are trained if the config's first ``freeze`` layers keep theirs."""
        return self.index >= freeze and not self.keeps_weights


def line_up(layers: Iterable[Layer], shape: Shape, stages: list[Stage]) -> None:
    """Split layers into those for which kernels exist, and append these to ``stages``, with names and shapes.

    Raises LayerError where one doesn't fit; the error has its position in ``layers``, and ``stages`` those before it.
    """
    counts: Counter[str] = Counter()
    for index, given in enumerate(layers):
        try:
            given.check_input(shape, not stages)
            for place, layer in enumerate(given.expand()):
                out_shape = layer.output_shape(shape)
                counts[layer.keyword] += 1
                name = f"{layer.keyword}{counts[layer.keyword]}"
                number = stages[-1].number + stages[-1].count if stages else 0
                frozen = place < given.frozen_layers()
                stages.append(Stage(name, index, layer, shape, out_shape, number, frozen))
                shape = out_shape
        except LayerError as error:
            error.index = index
            raise


def gain_of(activation: Activation, slope: float) -> float:
    """Gain of He et al. (2015), sqrt(2 / (1 + slope^2)), for the relu family and its smooth relatives, else 1."""
    if activation == "leaky_relu":
        return sqrt(2 / (1 + slope**2))
    return 1.0 if activation in ("identity", "sigmoid", "tanh") else sqrt(2)


def flat(array: Array) -> Array:
    return array.reshape(array.shape[0], -1)


def by_last(array: Array) -> Array:
    *_, maps = array.shape
    return array.reshape(-1, maps)


def maps_of(shape: Shape, name: str) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise LayerError(f"{name} needs maps (rows, columns, maps), but its input is {shape_text(shape)}")
    return shape[0], shape[1], shape[2]


def shape_text(shape: Shape) -> str:
    """``16x16, 8 maps`` or ``96 units``."""
    if len(shape) == 3:
        return f"{shape[0]}x{shape[1]}, {shape[2]} map{'s' if shape[2] > 1 else ''}"
    return f"{shape[0]} unit{'s' if shape[0] > 1 else ''}"


def pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size
