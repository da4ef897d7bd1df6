"""The sum of two stacks of maps at the end of a residual block."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import prange

from facecnn.arrays import Array
from facecnn.kernels.cpu.elementwise import derivative_of, value_of
from facecnn.kernels.cpu.jit import compiled
from facecnn.kernels.cpu.launching import launch
from facecnn.kernels.cpu.memory import Workspace
from facecnn.kernels.protocol import Activation

_F = np.float32
_ZERO = _F(0)

# Each row of a photo is a task. The innermost loops run over the maps, which lie side by side; where all shapes are
# equal, over all of a photo, as maps of a single position.


@cache
def _forward(activation: Activation) -> Any:
    value_at = value_of(activation)

    @compiled(parallel=True)
    def forward(out: Array, branch: Array, shortcut: Array, slope: Any) -> None:
        # out (N, H, W, C), branch (N, H1, W1, C1), shortcut (N, H2, W2, C2)
        height, width, maps = out.shape[1:]
        for task in prange(out.shape[0] * height):
            n, y = task // height, task % height
            for x in range(width):
                o = out[n, y, x]
                # Numbers of maps: 0 beyond the last row or column.
                ones = branch.shape[3] if y < branch.shape[1] and x < branch.shape[2] else 0
                others = shortcut.shape[3] if y < shortcut.shape[1] and x < shortcut.shape[2] else 0
                a = branch[n, min(y, branch.shape[1] - 1), min(x, branch.shape[2] - 1)]
                b = shortcut[n, min(y, shortcut.shape[1] - 1), min(x, shortcut.shape[2] - 1)]
                for c in range(min(ones, others)):
                    o[c] = value_at(a[c] + b[c], slope)
                for c in range(others, ones):
                    o[c] = value_at(a[c], slope)
                for c in range(ones, others):
                    o[c] = value_at(b[c], slope)
                for c in range(max(ones, others), maps):
                    o[c] = value_at(_ZERO, slope)

    return forward


@cache
def _backward(activation: Activation) -> Any:
    derivative_at = derivative_of(activation)

    @compiled(parallel=True)
    def backward(dmaps: Array, dout: Array, out: Array, slope: Any) -> None:
        # dmaps (N, H1, W1, C1), dout, out (N, H, W, C)
        height, width, maps = dmaps.shape[1:]
        for task in prange(dmaps.shape[0] * height):
            n, y = task // height, task % height
            for x in range(width):
                g, d, o = dmaps[n, y, x], dout[n, y, x], out[n, y, x]
                for c in range(maps):
                    g[c] = d[c] * derivative_at(o[c], slope)

    return backward


def _widened(*arrays: Array) -> tuple[Array, ...]:
    """Arrays of equal shapes with all of a photo as maps of a single position; others as they are."""
    if any(array.shape != arrays[0].shape for array in arrays):
        return arrays
    return tuple(array.reshape(len(array), 1, 1, -1) for array in arrays)


def add_maps_forward(
    out: Array, branch: Array, shortcut: Array, activation: Activation, slope: float, workspace: Workspace
) -> None:
    """out = activation(branch + shortcut), both padded with zeros at the end of rows, columns and maps."""
    launch(_forward(activation), *_widened(out, branch, shortcut), _F(slope), operations=4 * out.size)


def add_maps_backward(
    dbranch: Array, dshortcut: Array, dout: Array, out: Array, activation: Activation, slope: float,
    workspace: Workspace,
) -> None:  # fmt: skip
    """Both get dout * activation' at their own elements."""
    for dmaps in (dbranch, dshortcut):
        launch(_backward(activation), *_widened(dmaps, dout, out), _F(slope), operations=4 * dmaps.size)
