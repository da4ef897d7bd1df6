"""The pooling layer, with windows of any size and stride."""

from __future__ import annotations

import numpy as np
from numba import prange

from facecnn.arrays import Array
from facecnn.kernels.cpu.jit import compiled
from facecnn.kernels.cpu.launching import launch
from facecnn.kernels.cpu.memory import Workspace
from facecnn.kernels.protocol import PoolKind

_ZERO, _ONE = np.float32(0), np.float32(1)

# Each photo is a task. The innermost loops run over the maps, which lie side by side. Size and stride are run-time
# values: the loops are bound by memory, so constants would gain little. Windows end at the map's edge at the latest.


@compiled(parallel=True)
def _forward(
    out: Array, argmax: Array, x: Array, largest: bool, rows: int, columns: int, stride_y: int, stride_x: int,
) -> None:  # fmt: skip
    # out (N, H', W', C), argmax the same if ``largest``, x (N, H, W, C)
    maps = out.shape[3]
    for n in prange(out.shape[0]):
        for i in range(out.shape[1]):
            for j in range(out.shape[2]):
                o = out[n, i, j]
                top, left = i * stride_y, j * stride_x
                bottom, right = min(top + rows, x.shape[1]), min(left + columns, x.shape[2])
                for c in range(maps):
                    o[c] = x[n, top, left, c]
                if largest:
                    won = argmax[n, i, j]
                    for c in range(maps):
                        won[c] = top * x.shape[2] + left
                    for y in range(top, bottom):
                        for z in range(left, right):
                            pixel = x[n, y, z]
                            at = np.int32(y * x.shape[2] + z)
                            for c in range(maps):
                                # A NaN wins over any number; of several the last one wins. Both are always written,
                                # which vectors can do.
                                value, largest_yet = pixel[c], o[c]
                                wins = value > largest_yet or value != value
                                o[c] = value if wins else largest_yet
                                won[c] = at if wins else won[c]
                else:
                    for y in range(top, bottom):
                        for z in range(left, right):
                            if y > top or z > left:
                                pixel = x[n, y, z]
                                for c in range(maps):
                                    o[c] += pixel[c]
                    share = _ONE / np.float32((bottom - top) * (right - left))
                    for c in range(maps):
                        o[c] *= share


@compiled(parallel=True)
def _largest(
    out: Array, x: Array, rows: int, columns: int, stride_y: int, stride_x: int, best: Array,
) -> None:  # fmt: skip
    """out (N, H', W', C) of x (N, H, W, C), without argmax; best (N, W C) is scratch memory.

    The innermost loop runs along a row of x, not only over the maps of a pixel, which are few in the first layers: a
    window begins at every column, and those that aren't asked for are left out at the end.
    """
    maps = out.shape[3]
    for n in prange(out.shape[0]):
        for i in range(out.shape[1]):
            top = i * stride_y
            value = best[n, : ((out.shape[2] - 1) * stride_x + 1) * maps]
            value[:] = x[n, top].reshape(-1)[: len(value)]
            for y in range(top, min(top + rows, x.shape[1])):
                for z in range(0 if y > top else 1, min(columns, x.shape[2])):
                    pixels = x[n, y].reshape(-1)[z * maps :]
                    for c in range(min(len(value), len(pixels))):
                        value[c] = np.maximum(value[c], pixels[c])
            for j in range(out.shape[2]):
                o, found = out[n, i, j], value[j * stride_x * maps : (j * stride_x + 1) * maps]
                for c in range(maps):
                    o[c] = found[c]


@compiled(parallel=True)
def _backward(
    dx: Array, dout: Array, argmax: Array, largest: bool, rows: int, columns: int, stride_y: int, stride_x: int,
) -> None:  # fmt: skip
    maps = dx.shape[3]
    for n in prange(dx.shape[0]):
        photo = dx[n].reshape(-1)
        for i in range(len(photo)):
            photo[i] = _ZERO
        for i in range(dout.shape[1]):
            for j in range(dout.shape[2]):
                d = dout[n, i, j]
                if largest:
                    for c in range(maps):
                        photo[np.uint64(argmax[n, i, j, c]) * np.uint64(maps) + np.uint64(c)] += d[c]
                else:
                    top, left = i * stride_y, j * stride_x
                    bottom, right = min(top + rows, dx.shape[1]), min(left + columns, dx.shape[2])
                    share = _ONE / np.float32((bottom - top) * (right - left))
                    for y in range(top, bottom):
                        for z in range(left, right):
                            pixel = dx[n, y, z]
                            for c in range(maps):
                                pixel[c] += d[c] * share


def pool_forward(
    out: Array, argmax: Array, x: Array, kind: PoolKind, size: tuple[int, int], stride: tuple[int, int],
    workspace: Workspace,
) -> None:  # fmt: skip
    """The largest or the average element of each window."""
    operations = size[0] * size[1] * out.size
    if kind == "max" and len(argmax) == 0:
        best = workspace.array("largest", (len(x), x.shape[2] * x.shape[3]))
        launch(_largest, out, x, *size, *stride, best, operations=operations)
        return
    launch(_forward, out, argmax, x, kind == "max", *size, *stride, operations=operations)


def pool_backward(
    dx: Array, dout: Array, argmax: Array, kind: PoolKind, size: tuple[int, int], stride: tuple[int, int],
    workspace: Workspace,
) -> None:  # fmt: skip
    """dout goes to the element that won ("max"), or in equal parts to all of the window ("average")."""
    launch(_backward, dx, dout, argmax, kind == "max", *size, *stride, operations=size[0] * size[1] * dout.size)
