"""The convolution block."""

from collections.abc import Iterator
from dataclasses import replace
from math import prod
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from facecnn.arrays import Array
from facecnn.kernels.protocol import FUSED_ACTIVATIONS, LARGEST_FUSED_POOL, Activation
from facecnn.network.layers.base import (
    ACTIVATION_NAMES,
    KINKED,
    Buffer,
    Layer,
    LayerContext,
    LayerError,
    Pair,
    Parameter,
    Reach,
    Scratch,
    Shape,
    Size,
    Slope,
    gain_of,
    maps_of,
    pair,
    shape_text,
)
from facecnn.network.layers.elementwise import Activate
from facecnn.network.layers.pool import Pool, PoolSettings, lead
from facecnn.settings import SETTINGS

# Limit of how finely kernels for a card split the sum for the weights' gradient: see conv_weight_tiles.py there.
_BLOCKS_OF_WEIGHT_SUMS, _WEIGHT_SUMS_OF_BLOCK = 528, 2**14


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class Conv(Layer):
    """A convolution with bias, activation and pooling. Each kernel spans all input maps and sums over them."""

    keyword: ClassVar[str] = "conv"
    shorthand: ClassVar[str | None] = "kernels"
    has_kernels: ClassVar[bool] = True
    sums_inputs: ClassVar[bool] = True

    kernels: Size = Field(description="number of kernels, and so of output maps")
    size: Size | Pair = Field(default=3, description="rows and columns of a kernel: one number or [rows, columns]")
    stride: Size | Pair = Field(
        default=1, description="step of the kernel, in rows and columns: one number or [rows, columns]"
    )
    padding: Literal["valid", "same"] = Field(
        default="valid", description="valid: only where the kernel fits | same: zeros around, the map keeps its size"
    )
    activation: Activation = Field(default="leaky_relu", description=f"{ACTIVATION_NAMES}; before the pool")
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
            side = pair(pool.size)
            stride = side if pool.stride is None else pair(pool.stride)
        fused_pool = (
            side[0] == side[1] <= (LARGEST_FUSED_POOL if self._step() == (1, 1) else 1)
            and stride == side
            and (pool is None or (pool.kind == "max" and pool.edges == "drop"))
        )
        if fused_activation and fused_pool:
            return (replace(self, pool=side[0] if side[0] > 1 else None),)
        layers: list[Layer] = [replace(self, pool=None, activation=self.activation if fused_activation else "identity")]
        if not fused_activation:
            layers.append(Activate(name=self.activation, slope=self.slope))
        if pool is not None:
            layers.append(Pool(size=pool.size, stride=pool.stride, kind=pool.kind, edges=pool.edges))
        return tuple(layers)

    def _pooled(self) -> int:
        assert self.pool is None or isinstance(self.pool, int), "expand() leaves only square max-pools side by side"
        return self.pool or 1

    def _step(self) -> tuple[int, int]:
        return pair(self.stride)

    def _padding(self) -> tuple[int, int]:
        rows, columns = pair(self.size)
        return ((rows - 1) // 2, (columns - 1) // 2) if self.padding == "same" else (0, 0)

    def _full_shape(self, shape: Shape) -> Shape:
        rows, columns, _ = maps_of(shape, "conv")
        size, step = pair(self.size), self._step()
        if self.padding == "same":
            if step != (1, 1):
                raise LayerError(
                    f"padding: same keeps the map's size, which a stride of {step[0]}x{step[1]} can't: "
                    "set padding: valid, or stride: 1"
                )
            return rows, columns, self.kernels
        if size[0] > rows or size[1] > columns:
            raise LayerError(f"a kernel of {size[0]}x{size[1]} does not fit its input of {shape_text(shape)}")
        return (rows - size[0]) // step[0] + 1, (columns - size[1]) // step[1] + 1, self.kernels

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
        size = pair(self.size)
        fan_in = size[0] * size[1] * shape[2]
        return {
            "weight": Parameter(
                (self.kernels, *size, shape[2]), fan_in, True, "random", fan_out=self.kernels * prod(size)
            ),
            "bias": Parameter((self.kernels,), fan_in, False, 0.0),
        }

    def buffers(self, shape: Shape) -> dict[str, Buffer]:
        return {"argmax": Buffer(self.output_shape(shape) if self._pooled() > 1 else (0,), np.uint8)}

    def scratch(self, shape: Shape) -> Scratch:
        """The argmax in inference, and partial sums of the weights' gradient, one for each of some blocks of
        threads."""
        weights = sum(prod(parameter.shape) for parameter in self.parameters(shape).values())
        sums = max(weights, _BLOCKS_OF_WEIGHT_SUMS * min(weights, _WEIGHT_SUMS_OF_BLOCK))
        return Scratch(prod(self.output_shape(shape)) if self._pooled() > 1 else 0, 4 * sums)

    def multiply_adds(self, shape: Shape) -> int:
        return prod(self._full_shape(shape)) * prod(pair(self.size)) * shape[2]

    def reach(self, shape: Shape) -> Reach:
        pool, (rows, columns), (above, left) = self._pooled(), pair(self.size), self._padding()
        down, along = self._step()  # 1 if there is a pool
        return Reach((rows + pool - 1, columns + pool - 1), (pool * down, pool * along), (-above, -left))

    def gain(self) -> float | None:
        return None if self.activation == "identity" else gain_of(self.activation, self.slope)

    @property
    def activates_with(self) -> Activation:
        return self.activation

    def small(self, count: int) -> Layer:
        return replace(self, kernels=min(self.kernels, count))

    def fused(self) -> list[str]:
        activation = [] if self.activation == "identity" else [self.activation]
        return activation + ([] if self.pool is None else [f"pool of {self.pool}x{self.pool}"])

    def sums_only(self) -> Layer:
        return replace(self, activation="identity", pool=None)

    def kinks(self, x: Array, sums: Array) -> Iterator[Array]:
        side = pair(self._pooled())
        if self.pool is not None:
            yield lead(sums, side, side)
        if self.activation in KINKED:
            largest = np.lib.stride_tricks.sliding_window_view(sums, side, axis=(1, 2))[:, :: side[0], :: side[1]]
            yield np.abs(largest.max(axis=(-2, -1)))

    def forward(self, context: LayerContext) -> None:
        weight, bias = context.weights["weight"], context.weights["bias"]
        if self._step() != (1, 1):
            context.backend.strided_conv_forward(context.out, context.x, weight, bias, *self._strided(context))
            return
        argmax = context.buffers["argmax"] if context.for_backward else context.buffers["argmax"][:0]
        context.backend.conv_forward(context.out, argmax, context.x, weight, bias, *self._block(context))

    def backward(self, context: LayerContext) -> None:
        dweight, dbias = context.gradient["weight"], context.gradient["bias"]
        backend, weight, dx = context.backend, context.weights["weight"], context.dx
        if self._step() != (1, 1):
            deltas, strided = (context.dout, context.out), self._strided(context)
            backend.strided_conv_backward_weight(dweight, dbias, *deltas, context.x, *strided)
            if dx is not None:
                backend.strided_conv_backward_input(dx, *deltas, weight, *strided)
            return
        result = (context.dout, context.out, context.buffers["argmax"])
        backend.conv_backward_weight(dweight, dbias, *result, context.x, *self._block(context))
        if dx is not None:
            backend.conv_backward_input(dx, *result, weight, *self._block(context))

    def _block(self, context: LayerContext) -> tuple[Any, ...]:
        """The last arguments, which all three kernels share."""
        return self._padding(), self.activation, self.slope, self._pooled(), context.workspace

    def _strided(self, context: LayerContext) -> tuple[Any, ...]:
        """The same of the kernels with a stride, which have no pool."""
        return self._step(), self._padding(), self.activation, self.slope, context.workspace
