"""The leaky relu whose slopes are learned, one for each map or unit."""

from __future__ import annotations

import numpy as np
from numba import prange

from facecnn.arrays import Array
from facecnn.kernels.cpu.columns import add_up, chunks_and_tile, repeat
from facecnn.kernels.cpu.jit import compiled
from facecnn.kernels.cpu.launching import launch
from facecnn.kernels.cpu.memory import Workspace

_ZERO = np.float32(0)


@compiled(parallel=True)
def _forward(out: Array, x: Array, slope: Array, chunks: int, slopes: Array) -> None:
    # out, x (M C,); slope (C,); slopes (tile,)
    tile = slopes.shape[0]
    tiles = (x.shape[0] + tile - 1) // tile
    repeat(slopes, slope)
    for chunk in prange(chunks):
        for t in range(tiles * chunk // chunks, tiles * (chunk + 1) // chunks):
            a, o = x[t * tile : (t + 1) * tile], out[t * tile : (t + 1) * tile]
            for i in range(len(a)):
                o[i] = a[i] if a[i] > _ZERO else a[i] * slopes[i]


@compiled(parallel=True)
def _backward(dx: Array, dslope: Array, dout: Array, x: Array, slope: Array, sums: Array, slopes: Array) -> None:
    # dx, dout, x (M C,); dslope, slope (C,); sums (chunks, tile); slopes (tile,)
    chunks, tile = sums.shape
    tiles = (x.shape[0] + tile - 1) // tile
    repeat(slopes, slope)
    for chunk in prange(chunks):
        own = sums[chunk]
        for i in range(tile):
            own[i] = _ZERO
        for t in range(tiles * chunk // chunks, tiles * (chunk + 1) // chunks):
            a, d, g = x[t * tile : (t + 1) * tile], dout[t * tile : (t + 1) * tile], dx[t * tile : (t + 1) * tile]
            for i in range(len(a)):
                above = a[i] > _ZERO
                own[i] += _ZERO if above else d[i] * a[i]
                g[i] = d[i] if above else d[i] * slopes[i]
    add_up(dslope, sums)


def prelu_forward(out: Array, x: Array, slope: Array, workspace: Workspace) -> None:
    """out = x where x > 0, else slope[c] * x."""
    chunks, tile = chunks_and_tile(x)
    launch(
        _forward, out.reshape(-1), x.reshape(-1), slope, chunks, workspace.array("slopes", (tile,)),
        operations=2 * x.size,
    )  # fmt: skip


def prelu_backward(dx: Array, dslope: Array, dout: Array, x: Array, slope: Array, workspace: Workspace) -> None:
    """dx and dslope of ``prelu_forward``."""
    shape = chunks_and_tile(x)
    sums, slopes = workspace.array("slope sums", shape), workspace.array("slopes", shape[1:])
    launch(
        _backward, dx.reshape(-1), dslope, dout.reshape(-1), x.reshape(-1), slope, sums, slopes, operations=5 * x.size
    )
