"""Convolution, bias, activation and max-pooling in one block, forward and backward.

With AVX-512, AVX2 or NEON the forward pass is ``winograd_products``, ``winograd`` or ``direct``, whichever is faster
for the shape. The weights' gradient is ``winograd_gradient`` for some shapes on AVX-512, and otherwise ``direct``; the
input's gradient is always ``direct``. Other processors take ``plain``, whose vectorisation is left to the compiler.
"""

from __future__ import annotations

import numpy as np

from facecnn.arrays import Array
from facecnn.kernels.cpu.conv import direct, plain, winograd, winograd_gradient, winograd_products
from facecnn.kernels.cpu.memory import Workspace
from facecnn.kernels.cpu.vector_ir import lanes
from facecnn.kernels.protocol import FUSED_ACTIVATIONS, Activation


def conv_forward(
    out: Array, argmax: Array, x: Array, weight: Array, bias: Array, padding: tuple[int, int], activation: Activation,
    slope: float, pool: int, workspace: Workspace,
) -> None:  # fmt: skip
    """Convolution, bias, activation and max-pooling; the full map is never stored."""
    assert activation in FUSED_ACTIVATIONS
    arguments = (x, weight, bias, padding, activation, slope, pool, workspace)
    width = lanes.of_processor()
    if width and winograd_products.pays(out, weight, pool, width):
        winograd_products.conv_forward(out, x, weight, bias, padding, activation, slope, workspace, width)
        return
    if width and winograd.pays(out, weight, pool, width):
        winograd.conv_forward(out, argmax, *arguments, width)
        return
    if pool == 1:
        argmax = _no_argmax(workspace)
    elif len(argmax) == 0:
        argmax = workspace.array("unused argmax", out.shape, np.uint8)
    if width:
        direct.conv_forward(out, argmax, *arguments, width)
    else:
        plain.conv_forward(out, argmax, *arguments)


def conv_backward_weight(
    dweight: Array, dbias: Array, dout: Array, out: Array, argmax: Array, x: Array, padding: tuple[int, int],
    activation: Activation, slope: float, pool: int, workspace: Workspace,
) -> None:  # fmt: skip
    """dweight[k, t, c] = sum over photos and positions p of delta[p, k] * x[p + t, c]; dbias[k] = sum of delta."""
    argmax = argmax if pool > 1 else _no_argmax(workspace)
    arguments = (dweight, dbias, dout, out, argmax, x, padding, activation, slope, pool, workspace)
    width = lanes.of_processor()
    if width and winograd_gradient.pays(out, dweight, pool, width):
        winograd_gradient.conv_backward_weight(*arguments, width)
    elif width:
        direct.conv_backward_weight(*arguments, width)
    else:
        plain.conv_backward_weight(*arguments)


def conv_backward_input(
    dx: Array, dout: Array, out: Array, argmax: Array, weight: Array, padding: tuple[int, int], activation: Activation,
    slope: float, pool: int, workspace: Workspace,
) -> None:  # fmt: skip
    """dx[q, c] = sum over kernels k and taps t of delta[q - t, k] * weight[k, t, c]."""
    argmax = argmax if pool > 1 else _no_argmax(workspace)
    arguments = (dx, dout, out, argmax, weight, padding, activation, slope, pool, workspace)
    if width := lanes.of_processor():
        direct.conv_backward_input(*arguments, width)
    else:
        plain.conv_backward_input(*arguments)


def _no_argmax(workspace: Workspace) -> Array:
    """Without a pool there is none, but compiled code wants an array of its kind."""
    return workspace.array("no argmax", (1, 1, 1, 1), np.uint8)
