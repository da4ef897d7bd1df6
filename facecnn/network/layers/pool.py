"""Pooling, as a layer and at the end of a convolution."""

from collections.abc import Iterator
from math import prod
from typing import ClassVar, Literal, TypeAlias

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from facecnn.arrays import Array
from facecnn.kernels.protocol import PoolKind
from facecnn.network.layers.base import (
    Buffer,
    Layer,
    LayerContext,
    LayerError,
    Pair,
    Reach,
    Shape,
    Size,
    maps_of,
    pair,
    shape_text,
)
from facecnn.settings import SETTINGS

Edges: TypeAlias = Literal["drop", "keep"]
EDGES = "windows that reach beyond the right or bottom edge: drop | keep (what is inside counts)"


def lead(maps: Array, size: tuple[int, int], stride: tuple[int, int]) -> Array:
    """Lead of the largest element over the second largest, in each window of maps (N, H, W, C)."""
    windows = np.lib.stride_tricks.sliding_window_view(maps, size, axis=(1, 2))[:, :: stride[0], :: stride[1]]
    ordered = np.sort(windows.reshape(*windows.shape[:4], -1), axis=-1)
    return np.asarray(ordered[..., -1] - ordered[..., -2])


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class PoolSettings:
    """Pooling at the end of a conv layer."""

    size: Size | Pair = Field(default=2, description="rows and columns of a window: one number or [rows, columns]")
    stride: Size | Pair | None = Field(default=None, description="step from window to window; null: the window's size")
    kind: PoolKind = Field(default="max", description="max | average")
    edges: Edges = Field(default="drop", description=EDGES)


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
        """Size and stride, each as (rows, columns), of windows on maps of ``shape``. Raises LayerError."""
        rows, columns, _ = maps_of(shape, "pool")
        size = (rows, columns) if self.size == "global" else pair(self.size)
        if size[0] > rows or size[1] > columns:
            raise LayerError(f"a pool of {size[0]}x{size[1]} does not fit its input of {shape_text(shape)}")
        return size, size if self.stride is None else pair(self.stride)

    def output_shape(self, shape: Shape) -> Shape:
        rows, columns = (self._windows(*side) for side in zip(shape, *self.window(shape), strict=False))
        return rows, columns, shape[2]

    def _windows(self, side: int, size: int, stride: int) -> int:
        """Number of windows along a side. With ``keep`` they cover all of it, and each must start inside (PyTorch's
        ``ceil_mode``)."""
        if self.edges == "drop":
            return (side - size) // stride + 1
        return min(-(-(side - size) // stride), (side - 1) // stride) + 1

    def reach(self, shape: Shape) -> Reach:
        return Reach(*self.window(shape))

    def buffers(self, shape: Shape) -> dict[str, Buffer]:
        return {"argmax": Buffer(self.output_shape(shape), np.int32)}

    def kinks(self, x: Array, sums: Array) -> Iterator[Array]:
        (size, stride), out_shape = self.window(x.shape[1:]), self.output_shape(x.shape[1:])
        if self.kind == "max" and prod(size) > 1:
            # There is nothing beyond the edges.
            over = [max(0, (out_shape[axis] - 1) * stride[axis] + size[axis] - x.shape[1 + axis]) for axis in (0, 1)]
            yield lead(np.pad(x, ((0, 0), (0, over[0]), (0, over[1]), (0, 0)), constant_values=-np.inf), size, stride)

    def forward(self, context: LayerContext) -> None:
        window = self.window(context.x.shape[1:])
        argmax = context.buffers["argmax"] if context.for_backward else context.buffers["argmax"][:0]
        context.backend.pool_forward(context.out, argmax, context.x, self.kind, *window, context.workspace)

    def backward(self, context: LayerContext) -> None:
        if context.dx is not None:
            window = self.window(context.x.shape[1:])
            context.backend.pool_backward(
                context.dx, context.dout, context.buffers["argmax"], self.kind, *window, context.workspace
            )
