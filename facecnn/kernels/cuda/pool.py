"""Pooling on its own, with windows of any size and stride."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from facecnn.kernels.cuda.driver import cuda, device_function, kernel
from facecnn.kernels.cuda.memory import Array, Workspace
from facecnn.kernels.cuda.sizes import STRIDE, launch_each
from facecnn.kernels.protocol import PoolKind

_F, _I, _U = np.float32, np.int32, np.uint32
_ZERO, _ONE = _F(0), _F(1)
"""Of the largest grid: a constant, so that no trip is counted by a 64-bit division. A smaller grid needs one turn."""

# Each thread makes one element at a time, neighbours those of neighbouring maps, which lie side by side. The windows'
# size and stride are constants of the compiled code; windows end at the map's edge at the latest.


@device_function
def position(element: Any, height: Any, width: Any, maps: Any) -> Any:
    """(n, row, column, map) of an element of an array (N, height, width, maps)."""
    rest = _U(element) // _U(maps)
    c = _I(_U(element) - rest * _U(maps))
    row = rest // _U(width)
    n = row // _U(height)
    return _I(n), _I(row - n * _U(height)), _I(rest - row * _U(width)), c


@device_function
def _inside(first: Any, size: Any, side: Any) -> Any:
    """Rows (or columns) of a window starting at ``first`` that lie inside a map of ``side``."""
    return size if first + size <= side else side - first


@cache
def _forward(largest: bool, size: tuple[int, int], stride: tuple[int, int]) -> Any:
    rows, columns = size
    stride_y, stride_x = stride

    @kernel
    def forward(out: Array, argmax: Array, x: Array) -> None:
        # out (N, H', W', C), argmax the same if ``largest``, x (N, H, W, C)
        o = cuda.grid(1)
        while o < out.size:
            n, i, j, c = position(o, out.shape[1], out.shape[2], out.shape[3])
            top, left = i * stride_y, j * stride_x
            value = x[n, top, left, c]
            won = top * x.shape[2] + left
            own_rows, own_columns = _inside(top, rows, x.shape[1]), _inside(left, columns, x.shape[2])
            for row in range(rows):
                for column in range(columns):
                    if row + column > 0 and row < own_rows and column < own_columns:
                        other = x[n, top + row, left + column, c]
                        if largest:
                            # The first NaN is taken wherever it stands, and nothing is larger than it afterwards.
                            if other > value or (other != other and value == value):
                                value = other
                                won = (top + row) * x.shape[2] + left + column
                        else:
                            value += other
            if largest:
                out[n, i, j, c] = value
                argmax[n, i, j, c] = won
            else:
                out[n, i, j, c] = value * (_ONE / _F(own_rows * own_columns))
            o += STRIDE

    return forward


@cache
def _backward(largest: bool, size: tuple[int, int], stride: tuple[int, int]) -> Any:
    rows, columns = size
    stride_y, stride_x = stride

    @device_function
    def windows(at: Any, size: Any, stride: Any, count: Any) -> Any:
        # Window i covers stride * i ... stride * i + size - 1: the first that covers ``at``, and the one behind the
        # last that does.
        first = _I(_U(at - size) // _U(stride)) + 1 if at >= size else 0
        behind = _I(_U(at) // _U(stride)) + 1
        return first, behind if behind < count else count

    @kernel
    def backward(dx: Array, dout: Array, argmax: Array) -> None:
        # dx (N, H, W, C), dout (N, H', W', C), argmax the same if ``largest``. Each element of dx sums the windows that
        # cover it, in order, so that no two threads add to the same element.
        o = cuda.grid(1)
        while o < dx.size:
            n, y, z, c = position(o, dx.shape[1], dx.shape[2], dx.shape[3])
            first_i, behind_i = windows(y, rows, stride_y, dout.shape[1])
            first_j, behind_j = windows(z, columns, stride_x, dout.shape[2])
            at = y * dx.shape[2] + z
            total = _ZERO
            i = first_i
            while i < behind_i:
                own_rows = _inside(i * stride_y, rows, dx.shape[1])
                j = first_j
                while j < behind_j:
                    if largest:
                        if argmax[n, i, j, c] == at:
                            total += dout[n, i, j, c]
                    else:
                        own_columns = _inside(j * stride_x, columns, dx.shape[2])
                        total += dout[n, i, j, c] * (_ONE / _F(own_rows * own_columns))
                    j += 1
                i += 1
            dx[n, y, z, c] = total
            o += STRIDE

    return backward


def pool_forward(
    out: Array, argmax: Array, x: Array, kind: PoolKind, size: tuple[int, int], stride: tuple[int, int],
    workspace: Workspace,
) -> None:  # fmt: skip
    """The largest or the average element of each window."""
    if len(argmax) == 0:
        argmax = workspace.array("unused argmax", out.shape, np.int32)
    forward = _forward(kind == "max", tuple(size), tuple(stride))
    launch_each(forward, out.size, workspace, out, argmax, x)


def pool_backward(
    dx: Array, dout: Array, argmax: Array, kind: PoolKind, size: tuple[int, int], stride: tuple[int, int],
    workspace: Workspace,
) -> None:  # fmt: skip
    """dout goes to the element that won ("max"), or in equal parts to all of the window ("average")."""
    backward = _backward(kind == "max", tuple(size), tuple(stride))
    launch_each(backward, dx.size, workspace, dx, dout, argmax)
