"""Batch normalisation."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import ClassVar

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from facecnn.network.layers.base import (
    Array,
    Buffer,
    Call,
    Layer,
    Parameter,
    Shape,
    by_last,
)
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
            "inverse_deviation": Buffer((shape[-1],), per_photo=False),
        }

    def multiply_adds(self, shape: Shape) -> int:
        return prod(shape)

    def forward(self, call: Call) -> None:
        out, x, weights, kernels = by_last(call.out), by_last(call.x), call.weights, call.kernels
        running = (weights["running_mean"], weights["running_variance"])
        affine = (weights["scale"], weights["shift"])
        if call.training:
            kept = (call.buffers["mean"], call.buffers["inverse_deviation"])
            kernels.batch_norm_forward(out, *kept, *running, x, *affine, self.momentum, self.epsilon, call.workspace)
        else:
            kernels.batch_norm_inference(out, x, *running, *affine, self.epsilon, call.workspace)

    def backward(self, call: Call) -> None:
        # Without a dx to fill, the kernel still has to put it somewhere, and the layer above is done with out.
        dx, dout, x = (by_last(array) for array in (call.out if call.dx is None else call.dx, call.dout, call.x))
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
