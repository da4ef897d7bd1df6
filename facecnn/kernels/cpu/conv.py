"""Convolution, bias, activation and max-pooling in one block, forward and backward.

On processors with vectors that the micro-kernels are written for, ``conv_winograd`` where multiplying less pays, and
elsewhere ``conv_vectors``. On other processors ``conv_loops``, which leave the vectors to the compiler.
"""

from __future__ import annotations

import numpy as np

from facecnn.kernels.cpu import conv_loops, conv_vectors, conv_winograd, vectors
from facecnn.kernels.cpu.memory import Array, Workspace
from facecnn.kernels.protocol import FUSED_ACTIVATIONS, Activation


def conv_forward(
    out: Array,
    argmax: Array,
    x: Array,
    weight: Array,
    bias: Array,
    padding: tuple[int, int],
    activation: Activation,
    slope: float,
    pool: int,
    workspace: Workspace,
) -> None:
    """Convolution, bias, activation and max-pooling; the full map is never stored."""
    assert activation in FUSED_ACTIVATIONS
    arguments = (x, weight, bias, padding, activation, slope, pool, workspace)
    lanes = vectors.lanes()
    if lanes and conv_winograd.pays(out, weight, pool, lanes):
        conv_winograd.conv_forward(out, argmax, *arguments, lanes)
        return
    if pool > 1 and len(argmax) == 0:
        argmax = workspace.array("places nobody asks for", out.shape, np.uint8)
    if lanes:
        conv_vectors.conv_forward(out, argmax, *arguments, lanes)
    else:
        conv_loops.conv_forward(out, argmax, *arguments)


def conv_backward_weight(
    dweight: Array,
    dbias: Array,
    dout: Array,
    out: Array,
    argmax: Array,
    x: Array,
    padding: tuple[int, int],
    activation: Activation,
    slope: float,
    pool: int,
    workspace: Workspace,
) -> None:
    """dweight[k, t, c] = sum over photos and positions p of delta[p, k] * x[p + t, c]; dbias[k] = sum of delta."""
    arguments = (dweight, dbias, dout, out, argmax, x, padding, activation, slope, pool, workspace)
    lanes = vectors.lanes()
    if lanes and conv_winograd.pays_backward(out, dweight, pool, lanes):
        conv_winograd.conv_backward_weight(*arguments, lanes)
    elif lanes:
        conv_vectors.conv_backward_weight(*arguments, lanes)
    else:
        conv_loops.conv_backward_weight(*arguments)


def conv_backward_input(
    dx: Array,
    dout: Array,
    out: Array,
    argmax: Array,
    weight: Array,
    padding: tuple[int, int],
    activation: Activation,
    slope: float,
    pool: int,
    workspace: Workspace,
) -> None:
    """dx[q, c] = sum over kernels k and taps t of delta[q - t, k] * weight[k, t, c]."""
    arguments = (dx, dout, out, argmax, weight, padding, activation, slope, pool, workspace)
    if lanes := vectors.lanes():
        conv_vectors.conv_backward_input(*arguments, lanes)
    else:
        conv_loops.conv_backward_input(*arguments)
