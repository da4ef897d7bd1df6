"""The layers: settings without arrays, which know their shapes and which kernels to call.

A layer's input and output are (N, H, W, C) maps or (N, U) units; the shapes here leave out N. The network owns all
arrays (see ``facecnn.network.network``) and hands out views.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass as plain_dataclass
from dataclasses import replace
from math import prod, sqrt
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import Field
from pydantic.dataclasses import dataclass

from facecnn.errors import UsageError
from facecnn.kernels.protocol import (
    FUSED_ACTIVATIONS,
    LARGEST_FUSED_POOL,
    PURPOSE_DROPOUT,
    Activation,
    Kernels,
    PoolKind,
)
from facecnn.settings import SETTINGS

Array = npt.NDArray[Any]
Arrays: TypeAlias = Mapping[str, Array]
Shape: TypeAlias = tuple[int, ...]
Size: TypeAlias = Annotated[int, Field(ge=1, le=4096)]
Pair: TypeAlias = Annotated[tuple[Size, Size], Field(strict=False)]
Slope: TypeAlias = Annotated[float, Field(ge=0, le=1)]
Edges: TypeAlias = Literal["drop", "keep"]
EDGES = "windows that reach over the right or bottom edge: drop | keep (what is inside counts)"


# How finely kernels for a card cut long sums, at most: see conv_weight_tiles.py, neuron.py and dense.py there.
_BLOCKS_OF_WEIGHT_SUMS, _WEIGHT_SUMS_OF_BLOCK = 528, 2**14
_MOST_MAP_PARTS, _MAP_PART = 64, 64
_DENSE_PART = 128


class LayerError(UsageError):
    """A layer that doesn't fit where it stands; ``index`` is its place in the list of the config."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.index: int | None = None


@plain_dataclass(frozen=True)
class Parameter:
    """A trained array: its shape, the number of inputs that each output sums, and whether weight decay applies."""

    shape: Shape
    fan_in: int
    decays: bool
    start: Literal["random"] | float
    """What training begins with: drawn, or all of this value."""


@plain_dataclass(frozen=True)
class Buffer:
    """An array that forward leaves for backward; ``dtype`` None is the network's own."""

    shape: Shape
    dtype: npt.DTypeLike | None = None
    per_photo: bool = True


@plain_dataclass(frozen=True)
class Scratch:
    """Bytes that a layer's kernels need besides its arrays while they work; on a card, where they are most."""

    per_photo: int = 0
    fixed: int = 0


@plain_dataclass(frozen=True)
class Reach:
    """Which part of a layer's input an output sees, each as (rows, columns)."""

    size: tuple[int, int] = (1, 1)
    step: tuple[int, int] = (1, 1)
    """From one output's part to the next one's."""
    first: tuple[int, int] = (0, 0)
    """Where the part of the first output begins: below zero where the input is padded."""


@plain_dataclass(frozen=True)
class Call:
    """What a layer is called with: its arrays, for one batch of N photos, and all else that its kernels need."""

    kernels: Kernels
    workspace: Any
    training: bool
    number: int
    """The layer's place in the network."""
    seed: int
    step: Array
    """(1,) int32: updates made so far."""
    photos: Array
    """(N,) int32: the photos' numbers in the data set."""
    x: Array
    out: Array
    weights: Arrays
    """Parameters and statistics by name."""
    buffers: Arrays
    dout: Array
    """For backward: the loss's derivative by ``out``."""
    dx: Array | None
    """For backward to fill; None where nothing is trained below."""
    gradient: Arrays
    """For backward to fill, one array for each parameter."""
    for_backward: bool = True
    """Whether forward leaves what backward needs."""


class Layer:
    """What every layer answers; the defaults are those of a layer without parameters that keeps its input's shape."""

    keyword: ClassVar[str]
    shorthand: ClassVar[str | None] = None
    """The field that is meant where the config gives a plain value instead of settings: ``dropout: 0.2``."""

    def expand(self) -> tuple[Layer, ...]:
        """This layer as the layers that kernels exist for."""
        return (self,)

    def output_shape(self, shape: Shape) -> Shape:
        """The output's shape for an input of ``shape``; raises LayerError where the layer doesn't fit."""
        return shape

    def parameters(self, shape: Shape) -> dict[str, Parameter]:
        return {}

    def statistics(self, shape: Shape) -> dict[str, Parameter]:
        """Arrays that are learned without a gradient: batch norm's running mean and variance."""
        return {}

    def buffers(self, shape: Shape) -> dict[str, Buffer]:
        return {}

    def scratch(self, shape: Shape) -> Scratch:
        """At most."""
        return Scratch()

    def multiply_adds(self, shape: Shape) -> int:
        """Multiplications with a weight, for one photo forward."""
        return 0

    def reach(self, shape: Shape) -> Reach:
        """What an output at one place of the maps sees of an input of ``shape``."""
        return Reach()

    def gain(self) -> float | None:
        """Factor by which the weights before this activation must be larger to keep the variance; None: not one."""
        return None

    def forward(self, call: Call) -> None:
        """Fill ``out`` from ``x`` and, if the call is ``for_backward``, the buffers that backward needs."""
        raise NotImplementedError

    def backward(self, call: Call) -> None:
        """Fill ``gradient``, and ``dx`` unless it is None. May overwrite ``out``."""
        raise NotImplementedError


def _gain(activation: Activation, slope: float) -> float:
    """He et al.'s (2015) sqrt(2 / (1 + slope^2)) for the relu family, to which gelu counts, else 1."""
    if activation == "leaky_relu":
        return sqrt(2 / (1 + slope**2))
    return sqrt(2) if activation in ("relu", "gelu") else 1.0


def _flat(array: Array) -> Array:
    return array.reshape(array.shape[0], -1)


def _by_last(array: Array) -> Array:
    *_, maps = array.shape
    return array.reshape(-1, maps)


def _maps(shape: Shape, name: str) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise LayerError(f"{name} needs maps (rows, columns, maps), but its input is {shape_text(shape)}")
    return shape[0], shape[1], shape[2]


def shape_text(shape: Shape) -> str:
    """``16x16, 8 maps`` or ``96 units``."""
    if len(shape) == 3:
        return f"{shape[0]}x{shape[1]}, {shape[2]} map{'s' if shape[2] > 1 else ''}"
    return f"{shape[0]} unit{'s' if shape[0] > 1 else ''}"


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class PoolSettings:
    """Pooling at the end of a conv layer."""

    size: Size | Pair = Field(default=2, description="rows and columns of a window: one number or [rows, columns]")
    stride: Size | Pair | None = Field(default=None, description="step from window to window; null: the window's size")
    kind: PoolKind = Field(default="max", description="max | average")
    edges: Edges = Field(default="drop", description=EDGES)


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class Activate(Layer):
    """An activation, element by element."""

    keyword: ClassVar[str] = "activation"
    shorthand: ClassVar[str | None] = "name"

    name: Activation = Field(description="identity | sigmoid | tanh | relu | leaky_relu | gelu")
    slope: Slope = Field(default=0.01, description="of leaky_relu below zero")

    def gain(self) -> float | None:
        return _gain(self.name, self.slope)

    def forward(self, call: Call) -> None:
        call.kernels.activation_forward(_flat(call.out), _flat(call.x), self.name, self.slope, call.workspace)

    def backward(self, call: Call) -> None:
        if call.dx is not None:
            dx, dout, x, out = (_flat(array) for array in (call.dx, call.dout, call.x, call.out))
            call.kernels.activation_backward(dx, dout, x, out, self.name, self.slope, call.workspace)


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class PRelu(Layer):
    """A leaky relu whose slope below zero is learned, one for each map or unit (He et al. 2015, arXiv:1502.01852).

    Slopes don't decay: that would push them to 0, and the layer to a relu. Nothing keeps them above 0.
    """

    keyword: ClassVar[str] = "prelu"
    shorthand: ClassVar[str | None] = "slope"

    slope: Slope = Field(default=0.25, description="what the slopes below zero are before training")

    def parameters(self, shape: Shape) -> dict[str, Parameter]:
        return {"slope": Parameter((shape[-1],), 1, False, self.slope)}

    def multiply_adds(self, shape: Shape) -> int:
        return prod(shape)

    def gain(self) -> float | None:
        return _gain("leaky_relu", self.slope)

    def forward(self, call: Call) -> None:
        call.kernels.prelu_forward(_by_last(call.out), _by_last(call.x), call.weights["slope"], call.workspace)

    def backward(self, call: Call) -> None:
        # Without a dx to fill, the kernel still has to put it somewhere, and the layer above is done with out.
        dx, dout, x = (_by_last(array) for array in (call.out if call.dx is None else call.dx, call.dout, call.x))
        call.kernels.prelu_backward(dx, call.gradient["slope"], dout, x, call.weights["slope"], call.workspace)


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class Pool(Layer):
    """Pooling of every map: windows of any size and stride."""

    keyword: ClassVar[str] = "pool"
    shorthand: ClassVar[str | None] = "size"

    size: Size | Pair | Literal["global"] = Field(
        default=2, description="rows and columns of a window: one number, [rows, columns], or global (the whole map)"
    )
    stride: Size | Pair | None = Field(default=None, description="step from window to window; null: the window's size")
    kind: PoolKind = Field(default="max", description="max | average")
    edges: Edges = Field(default="drop", description=EDGES)

    def window(self, shape: Shape) -> tuple[tuple[int, int], tuple[int, int]]:
        """Size and stride of the windows on maps of ``shape``, each as (rows, columns); raises LayerError."""
        rows, columns, _ = _maps(shape, "pool")
        size = (rows, columns) if self.size == "global" else _pair(self.size)
        if size[0] > rows or size[1] > columns:
            raise LayerError(f"a pool of {size[0]}x{size[1]} does not fit its input of {shape_text(shape)}")
        return size, size if self.stride is None else _pair(self.stride)

    def output_shape(self, shape: Shape) -> Shape:
        rows, columns = (self._windows(*side) for side in zip(shape, *self.window(shape), strict=False))
        return rows, columns, shape[2]

    def _windows(self, side: int, size: int, stride: int) -> int:
        """How many windows there are along a side: with ``keep`` as many as it takes to cover it, of which each must
        start inside (as PyTorch's ``ceil_mode`` has it)."""
        if self.edges == "drop":
            return (side - size) // stride + 1
        return min(-(-(side - size) // stride), (side - 1) // stride) + 1

    def reach(self, shape: Shape) -> Reach:
        return Reach(*self.window(shape))

    def buffers(self, shape: Shape) -> dict[str, Buffer]:
        return {"argmax": Buffer(self.output_shape(shape), np.int32)}

    def forward(self, call: Call) -> None:
        window = self.window(call.x.shape[1:])
        call.kernels.pool_forward(call.out, call.buffers["argmax"], call.x, self.kind, *window, call.workspace)

    def backward(self, call: Call) -> None:
        if call.dx is not None:
            window = self.window(call.x.shape[1:])
            call.kernels.pool_backward(call.dx, call.dout, call.buffers["argmax"], self.kind, *window, call.workspace)


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class Conv(Layer):
    """A convolution with bias, activation and pooling. Each kernel spans all input maps and sums over them."""

    keyword: ClassVar[str] = "conv"
    shorthand: ClassVar[str | None] = "kernels"

    kernels: Size = Field(description="number of kernels, and so of output maps")
    size: Size | Pair = Field(default=3, description="rows and columns of a kernel: one number or [rows, columns]")
    padding: Literal["valid", "same"] = Field(
        default="valid", description="valid: only where the kernel fits | same: zeros around, the map keeps its size"
    )
    activation: Activation = Field(
        default="leaky_relu", description="identity | sigmoid | tanh | relu | leaky_relu | gelu; before the pool"
    )
    slope: Slope = Field(default=0.01, description="of leaky_relu below zero")
    pool: Size | PoolSettings | None = Field(
        default=None,
        description="2 (max of each 2x2) | {size: 3, stride: 2, kind: max | average, edges: drop | keep} | null",
    )

    def expand(self) -> tuple[Layer, ...]:
        pool = PoolSettings(size=self.pool) if isinstance(self.pool, int) else self.pool
        fused_activation = self.activation in FUSED_ACTIVATIONS
        side, stride = (1, 1), (1, 1)
        if pool is not None:
            side = _pair(pool.size)
            stride = side if pool.stride is None else _pair(pool.stride)
        fused_pool = (
            side[0] == side[1] <= LARGEST_FUSED_POOL
            and stride == side
            and (pool is None or (pool.kind == "max" and pool.edges == "drop"))
        )
        if fused_activation and fused_pool:
            return (replace(self, pool=side[0] if side[0] > 1 else None),)
        layers: list[Layer] = [
            replace(self, pool=None, activation=self.activation if fused_activation else "identity"),
        ]
        if not fused_activation:
            layers.append(Activate(name=self.activation, slope=self.slope))
        if pool is not None:
            layers.append(Pool(size=pool.size, stride=pool.stride, kind=pool.kind, edges=pool.edges))
        return tuple(layers)

    def _pooled(self) -> int:
        assert self.pool is None or isinstance(self.pool, int), "expand() leaves only square max-pools side by side"
        return self.pool or 1

    def _padding(self) -> tuple[int, int]:
        rows, columns = _pair(self.size)
        return ((rows - 1) // 2, (columns - 1) // 2) if self.padding == "same" else (0, 0)

    def _full_shape(self, shape: Shape) -> Shape:
        rows, columns, _ = _maps(shape, "conv")
        size = _pair(self.size)
        if self.padding == "same":
            return rows, columns, self.kernels
        if size[0] > rows or size[1] > columns:
            raise LayerError(f"a kernel of {size[0]}x{size[1]} does not fit its input of {shape_text(shape)}")
        return rows - size[0] + 1, columns - size[1] + 1, self.kernels

    def output_shape(self, shape: Shape) -> Shape:
        rows, columns, maps = self._full_shape(shape)
        pool = self._pooled()
        if pool > rows or pool > columns:
            raise LayerError(
                f"a pool of {pool}x{pool} does not fit the convolution's map of {rows}x{columns} "
                f"(the layer's input is {shape_text(shape)})"
            )
        return rows // pool, columns // pool, maps

    def parameters(self, shape: Shape) -> dict[str, Parameter]:
        size = _pair(self.size)
        fan_in = size[0] * size[1] * shape[2]
        return {
            "weight": Parameter((self.kernels, *size, shape[2]), fan_in, True, "random"),
            "bias": Parameter((self.kernels,), fan_in, False, 0.0),
        }

    def buffers(self, shape: Shape) -> dict[str, Buffer]:
        return {"argmax": Buffer(self.output_shape(shape) if self._pooled() > 1 else (0,), np.uint8)}

    def scratch(self, shape: Shape) -> Scratch:
        """Where the largest stood, while answers are computed; and sums for the weights' gradient, of which each of
        some blocks of threads makes a part."""
        weights = sum(prod(parameter.shape) for parameter in self.parameters(shape).values())
        sums = max(weights, _BLOCKS_OF_WEIGHT_SUMS * min(weights, _WEIGHT_SUMS_OF_BLOCK))
        return Scratch(prod(self.output_shape(shape)) if self._pooled() > 1 else 0, 4 * sums)

    def multiply_adds(self, shape: Shape) -> int:
        return prod(self._full_shape(shape)) * prod(_pair(self.size)) * shape[2]

    def reach(self, shape: Shape) -> Reach:
        pool, (rows, columns), (above, left) = self._pooled(), _pair(self.size), self._padding()
        return Reach((rows + pool - 1, columns + pool - 1), (pool, pool), (-above, -left))

    def gain(self) -> float | None:
        return None if self.activation == "identity" else _gain(self.activation, self.slope)

    def forward(self, call: Call) -> None:
        weight, bias = call.weights["weight"], call.weights["bias"]
        argmax = call.buffers["argmax"] if call.for_backward else call.buffers["argmax"][:0]
        call.kernels.conv_forward(call.out, argmax, call.x, weight, bias, *self._block(call))

    def backward(self, call: Call) -> None:
        result = (call.dout, call.out, call.buffers["argmax"])
        dweight, dbias = call.gradient["weight"], call.gradient["bias"]
        call.kernels.conv_backward_weight(dweight, dbias, *result, call.x, *self._block(call))
        if call.dx is not None:
            call.kernels.conv_backward_input(call.dx, *result, call.weights["weight"], *self._block(call))

    def _block(self, call: Call) -> tuple[Any, ...]:
        """The arguments at the end that all three kernels share."""
        return self._padding(), self.activation, self.slope, self._pooled(), call.workspace


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class Neuron(Layer):
    """Neurons that each see the whole of one map: ``per_kernel`` for every map, with weights of their own.

    Output: M * C units, the first neuron of every map first.
    """

    keyword: ClassVar[str] = "neuron"
    shorthand: ClassVar[str | None] = "per_kernel"

    per_kernel: Size = Field(default=1, description="neurons for each kernel's map")
    activation: Activation = Field(
        default="identity", description="identity | sigmoid | tanh | relu | leaky_relu | gelu"
    )
    slope: Slope = Field(default=0.01, description="of leaky_relu below zero")

    def expand(self) -> tuple[Layer, ...]:
        return _with_activation(self, self.activation, self.slope)

    def output_shape(self, shape: Shape) -> Shape:
        return (self.per_kernel * _maps(shape, "neuron")[2],)

    def parameters(self, shape: Shape) -> dict[str, Parameter]:
        rows, columns, maps = shape
        return {
            "weight": Parameter((self.per_kernel, rows, columns, maps), rows * columns, True, "random"),
            "bias": Parameter((self.per_kernel, maps), rows * columns, False, 0.0),
        }

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

    units: Annotated[int, Field(ge=1, le=1_000_000)] | Literal["people"] = Field(
        description="outputs; people: as many as the data needs (one more when there is an unknown/ folder)"
    )
    activation: Activation = Field(
        default="identity", description="identity | sigmoid | tanh | relu | leaky_relu | gelu"
    )
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
            "weight": Parameter((units, prod(shape)), prod(shape), True, "random"),
            "bias": Parameter((units,), prod(shape), False, 0.0),
        }

    def scratch(self, shape: Shape) -> Scratch:
        """A long sum is made in parts."""
        return Scratch(4 * -(-prod(shape) // _DENSE_PART) * prod(self.output_shape(shape)))

    def multiply_adds(self, shape: Shape) -> int:
        return prod(shape) * self.output_shape(shape)[0]

    def forward(self, call: Call) -> None:
        weight, bias = call.weights["weight"], call.weights["bias"]
        call.kernels.dense_forward(call.out, _flat(call.x), weight, bias, call.workspace)

    def backward(self, call: Call) -> None:
        dweight, dbias = call.gradient["weight"], call.gradient["bias"]
        call.kernels.dense_backward_weight(dweight, dbias, call.dout, _flat(call.x), call.workspace)
        if call.dx is not None:
            call.kernels.dense_backward_input(_flat(call.dx), call.dout, call.weights["weight"], call.workspace)


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class Dropout(Layer):
    """Sets a random part of the elements to zero in training, and scales the others up."""

    keyword: ClassVar[str] = "dropout"
    shorthand: ClassVar[str | None] = "rate"

    rate: float = Field(ge=0, lt=1, description="share of the elements that is dropped")

    def _apply(self, call: Call, out: Array, x: Array) -> None:
        rate = self.rate if call.training else 0.0
        purpose = PURPOSE_DROPOUT + call.number
        call.kernels.dropout(_flat(out), _flat(x), call.photos, rate, call.seed, purpose, call.step, call.workspace)

    def forward(self, call: Call) -> None:
        self._apply(call, call.out, call.x)

    def backward(self, call: Call) -> None:
        if call.dx is not None:
            self._apply(call, call.dx, call.dout)


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class BatchNorm(Layer):
    """Batch normalisation per map or unit: the batch's statistics in training, running ones in evaluation."""

    keyword: ClassVar[str] = "batch_norm"

    momentum: float = Field(default=0.1, gt=0, le=1, description="share of each batch in the running statistics")
    epsilon: float = Field(default=1e-5, gt=0, le=1, description="added to the variance")

    def parameters(self, shape: Shape) -> dict[str, Parameter]:
        return {
            "scale": Parameter((shape[-1],), 1, False, 1.0),
            "shift": Parameter((shape[-1],), 1, False, 0.0),
        }

    def statistics(self, shape: Shape) -> dict[str, Parameter]:
        return {
            "running_mean": Parameter((shape[-1],), 1, False, 0.0),
            "running_variance": Parameter((shape[-1],), 1, False, 1.0),
        }

    def buffers(self, shape: Shape) -> dict[str, Buffer]:
        return {
            "mean": Buffer((shape[-1],), per_photo=False),
            "inverse_deviation": Buffer((shape[-1],), per_photo=False),
        }

    def multiply_adds(self, shape: Shape) -> int:
        return prod(shape)

    def forward(self, call: Call) -> None:
        out, x, weights, kernels = _by_last(call.out), _by_last(call.x), call.weights, call.kernels
        running = (weights["running_mean"], weights["running_variance"])
        affine = (weights["scale"], weights["shift"])
        if call.training:
            kept = (call.buffers["mean"], call.buffers["inverse_deviation"])
            kernels.batch_norm_forward(out, *kept, *running, x, *affine, self.momentum, self.epsilon, call.workspace)
        else:
            kernels.batch_norm_inference(out, x, *running, *affine, self.epsilon, call.workspace)

    def backward(self, call: Call) -> None:
        # Without a dx to fill, the kernel still has to put it somewhere, and the layer above is done with out.
        dx, dout, x = (_by_last(array) for array in (call.out if call.dx is None else call.dx, call.dout, call.x))
        if not call.training:
            self._backward_inference(dx, dout, call)
            return
        dscale, dshift = call.gradient["scale"], call.gradient["shift"]
        kept = (call.buffers["mean"], call.buffers["inverse_deviation"])
        call.kernels.batch_norm_backward(dx, dscale, dshift, dout, x, *kept, call.weights["scale"], call.workspace)

    def _backward_inference(self, dx: Array, dout: Array, call: Call) -> None:
        """dx = dout * scale / sqrt(running_variance + epsilon): the same affine map, without what it adds. Nothing is
        trained in evaluation, so ``gradient`` is left alone."""
        zero, weights = call.buffers["mean"], call.weights  # the batch's mean, which evaluation has no use for
        call.kernels.copy_to_device(zero, np.zeros(zero.shape, zero.dtype))
        affine = (weights["running_variance"], weights["scale"], zero)
        call.kernels.batch_norm_inference(dx, dout, zero, *affine, self.epsilon, call.workspace)


def _with_activation(layer: Neuron | Dense, activation: Activation, slope: float) -> tuple[Layer, ...]:
    if activation == "identity":
        return (layer,)
    return replace(layer, activation="identity"), Activate(name=activation, slope=slope)


LAYERS: dict[str, type[Layer]] = {
    layer.keyword: layer for layer in (Conv, Activate, PRelu, Pool, Neuron, Dense, Dropout, BatchNorm)
}
"""Layer classes by their names in the config."""


def with_outputs(layers: Sequence[Layer], outputs: int) -> tuple[Layer, ...]:
    """The layers with ``units: people`` replaced by the number that the data needs."""
    return tuple(
        replace(layer, units=outputs) if isinstance(layer, Dense) and layer.units == "people" else layer
        for layer in layers
    )
