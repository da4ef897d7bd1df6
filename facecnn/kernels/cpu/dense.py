"""Dense layers: matrix products in fixed blocks, so that every element is summed in one order always.

Blocks of 4 x 4 use each number that is read four times. Rows that would lie behind the last one are the last one again:
they compute and store the same number twice, and no remainder loop is needed.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from facecnn.kernels.cpu.jit import compiled
from facecnn.kernels.cpu.memory import Array, Workspace

_ZERO = np.float32(0)
_STRIP = 1024
"""Columns of a product of rows that are worked on together: 4 + 4 strips of 4 KiB fit the first-level cache."""
_LANES = 16


@compiled(parallel=True)
def _forward(out: Array, x: Array, weight: Array, bias: Array) -> None:
    """out (N, U) = x (N, I) weight' (U, I) + bias (U,): 16 dot products at once, each in 16 interleaved sums."""
    photos, units = out.shape
    size = x.shape[1]
    unit_blocks = (units + 3) // 4
    for block in prange(((photos + 3) // 4) * unit_blocks):
        n0, u0 = block // unit_blocks * 4, block % unit_blocks * 4
        n1, n2, n3 = min(n0 + 1, photos - 1), min(n0 + 2, photos - 1), min(n0 + 3, photos - 1)
        for u in range(u0, min(u0 + 4, units)):
            w = weight[u]
            x0, x1, x2, x3 = x[n0], x[n1], x[n2], x[n3]
            s0, s1, s2, s3 = _ZERO, _ZERO, _ZERO, _ZERO
            for i in range(size):
                v = w[i]
                s0 += x0[i] * v
                s1 += x1[i] * v
                s2 += x2[i] * v
                s3 += x3[i] * v
            out[n0, u], out[n1, u], out[n2, u], out[n3, u] = s0 + bias[u], s1 + bias[u], s2 + bias[u], s3 + bias[u]


@compiled(parallel=True)
def _combine(out: Array, factors: Array, rows: Array) -> None:
    """out (A, I) = factors (A, B) rows (B, I), in strips of a row: 4 rows of out from 4 of ``rows`` at a time.

    Behind the last of ``rows`` the last one is taken again, with factors of zero.
    """
    count, size, depth = out.shape[0], out.shape[1], rows.shape[0]
    strips = (size + _STRIP - 1) // _STRIP
    for block in prange(((count + 3) // 4) * strips):
        a = block // strips * 4
        start = block % strips * _STRIP
        stop = min(size, start + _STRIP)
        a1, a2, a3 = min(a + 1, count - 1), min(a + 2, count - 1), min(a + 3, count - 1)
        for k in range(a, min(a + 4, count)):
            o = out[k, start:stop]
            for i in range(len(o)):
                o[i] = _ZERO
            for b in range(0, depth, 4):
                b1, b2, b3 = min(b + 1, depth - 1), min(b + 2, depth - 1), min(b + 3, depth - 1)
                r0, r1, r2, r3 = rows[b, start:stop], rows[b1, start:stop], rows[b2, start:stop], rows[b3, start:stop]
                f0 = factors[k, b]
                f1 = factors[k, b1] if b + 1 < depth else _ZERO
                f2 = factors[k, b2] if b + 2 < depth else _ZERO
                f3 = factors[k, b3] if b + 3 < depth else _ZERO
                for i in range(len(o)):
                    o[i] = o[i] + f0 * r0[i] + f1 * r1[i] + f2 * r2[i] + f3 * r3[i]


@compiled()
def _transpose(out: Array, x: Array, sums: Array) -> None:
    """out (U, N) = x' and sums (U,) = sum of x (N, U) over its rows, first row first."""
    for u in range(x.shape[1]):
        total = _ZERO
        for n in range(x.shape[0]):
            out[u, n] = x[n, u]
            total += x[n, u]
        sums[u] = total


def dense_forward(out: Array, x: Array, weight: Array, bias: Array, workspace: Workspace) -> None:
    """out = x weight' + bias: out (N, U), x (N, I), weight (U, I), bias (U,)."""
    _forward(out, x, weight, bias)


def dense_backward_weight(dweight: Array, dbias: Array, dout: Array, x: Array, workspace: Workspace) -> None:
    """dweight = dout' x, dbias = sum of dout over the batch."""
    transposed = workspace.array("transposed delta", (dout.shape[1], dout.shape[0]))
    _transpose(transposed, dout, dbias)
    _combine(dweight, transposed, x)


def dense_backward_input(dx: Array, dout: Array, weight: Array, workspace: Workspace) -> None:
    """dx = dout weight."""
    _combine(dx, dout, weight)
