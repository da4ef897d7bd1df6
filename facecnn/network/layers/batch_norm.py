"""Batch normalisation."""

from dataclasses import replace
from math import prod
from typing import ClassVar

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from facecnn.arrays import Array
from facecnn.network.layers import rank_statistics
from facecnn.network.layers.base import Buffer, Layer, LayerContext, Parameter, Shape, by_last
from facecnn.settings import SETTINGS


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class BatchNorm(Layer):
    """Batch normalisation per map or unit: the batch's statistics in training, running ones in evaluation."""

    keyword: ClassVar[str] = "batch_norm"
    uses_batch_statistics: ClassVar[bool] = True

    momentum: float = Field(default=0.1, gt=0, le=1, description="share of each batch in the running statistics")
    epsilon: float = Field(default=1e-5, gt=0, le=1, description="added to the variance")

    def for_whole_set(self) -> Layer:
        return replace(self, momentum=1.0)

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
            "inverse_std": Buffer((shape[-1],), per_photo=False),
            "of_all_ranks": Buffer((3, shape[-1]), per_photo=False, for_backward=True),
        }

    def multiply_adds(self, shape: Shape) -> int:
        return prod(shape)

    def forward(self, context: LayerContext) -> None:
        out, x, weights, backend = by_last(context.out), by_last(context.x), context.weights, context.backend
        running = (weights["running_mean"], weights["running_variance"])
        affine = (weights["scale"], weights["shift"])
        if context.training and context.ranks.size > 1:
            rank_statistics.forward(context, self.momentum, self.epsilon)
        elif context.training:
            kept = (context.buffers["mean"], context.buffers["inverse_std"])
            backend.batch_norm_forward(out, *kept, *running, x, *affine, self.momentum, self.epsilon, context.workspace)
        else:
            backend.batch_norm_inference(out, x, *running, *affine, self.epsilon, context.workspace)

    def backward(self, context: LayerContext) -> None:
        dx, dout, x = map(by_last, (context.dx_target, context.dout, context.x))
        if not context.training:
            self._backward_inference(dx, dout, context)
            return
        if context.ranks.size > 1:
            rank_statistics.backward(context)
            return
        dscale, dshift = context.gradient["scale"], context.gradient["shift"]
        kept = (context.buffers["mean"], context.buffers["inverse_std"])
        context.backend.batch_norm_backward(
            dx, dscale, dshift, dout, x, *kept, context.weights["scale"], context.workspace
        )

    def _backward_inference(self, dx: Array, dout: Array, context: LayerContext) -> None:
        """dx = dout * scale / sqrt(running_variance + epsilon): the affine map of forward without its constant. Nothing
        is trained in evaluation, so ``gradient`` stays as it is."""
        zero, weights = context.buffers["mean"], context.weights  # evaluation has no other use for this buffer
        context.backend.copy_to_device(zero, np.zeros(zero.shape, zero.dtype))
        affine = (weights["running_variance"], weights["scale"], zero)
        context.backend.batch_norm_inference(dx, dout, zero, *affine, self.epsilon, context.workspace)
