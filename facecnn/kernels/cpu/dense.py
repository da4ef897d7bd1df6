"""Dense layers: matrix products in fixed blocks, so that every element is always summed in the same order.

Rows are taken four at a time, so that each number read is used four times. Rows beyond the last are the last one again:
the same number is computed and stored twice, and no remainder loop is needed.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from facecnn.arrays import Array
from facecnn.kernels.cpu.jit import compiled
from facecnn.kernels.cpu.launching import launch
from facecnn.kernels.cpu.memory import Workspace

_ZERO = np.float32(0)
_STRIP = 1024
"""Columns of a product of rows that are computed together: strips of 4 KiB, several of which fit the first-level
cache."""


@compiled(parallel=True, reorder=True)
def _forward(out: Array, x: Array, weight: Array, bias: Array) -> None:
    """out (N, U) = x (N, I) weight' (U, I) + bias (U,): 16 dot products at once."""
    photos, units = out.shape
    unit_blocks = (units + 3) // 4
    for block in prange(((photos + 3) // 4) * unit_blocks):
        n, u = block // unit_blocks * 4, block % unit_blocks * 4
        n1, n2, n3 = min(n + 1, photos - 1), min(n + 2, photos - 1), min(n + 3, photos - 1)
        u1, u2, u3 = min(u + 1, units - 1), min(u + 2, units - 1), min(u + 3, units - 1)
        x0, x1, x2, x3 = x[n], x[n1], x[n2], x[n3]
        w0, w1, w2, w3 = weight[u], weight[u1], weight[u2], weight[u3]
        s00, s01, s02, s03 = _ZERO, _ZERO, _ZERO, _ZERO
        s10, s11, s12, s13 = _ZERO, _ZERO, _ZERO, _ZERO
        s20, s21, s22, s23 = _ZERO, _ZERO, _ZERO, _ZERO
        s30, s31, s32, s33 = _ZERO, _ZERO, _ZERO, _ZERO
        for i in range(x.shape[1]):
            a0, a1, a2, a3 = x0[i], x1[i], x2[i], x3[i]
            b = w0[i]
            s00, s10, s20, s30 = s00 + a0 * b, s10 + a1 * b, s20 + a2 * b, s30 + a3 * b
            b = w1[i]
            s01, s11, s21, s31 = s01 + a0 * b, s11 + a1 * b, s21 + a2 * b, s31 + a3 * b
            b = w2[i]
            s02, s12, s22, s32 = s02 + a0 * b, s12 + a1 * b, s22 + a2 * b, s32 + a3 * b
            b = w3[i]
            s03, s13, s23, s33 = s03 + a0 * b, s13 + a1 * b, s23 + a2 * b, s33 + a3 * b
        c0, c1, c2, c3 = bias[u], bias[u1], bias[u2], bias[u3]
        out[n, u], out[n, u1], out[n, u2], out[n, u3] = s00 + c0, s01 + c1, s02 + c2, s03 + c3
        out[n1, u], out[n1, u1], out[n1, u2], out[n1, u3] = s10 + c0, s11 + c1, s12 + c2, s13 + c3
        out[n2, u], out[n2, u1], out[n2, u2], out[n2, u3] = s20 + c0, s21 + c1, s22 + c2, s23 + c3
        out[n3, u], out[n3, u1], out[n3, u2], out[n3, u3] = s30 + c0, s31 + c1, s32 + c2, s33 + c3


@compiled(parallel=True)
def _combine(out: Array, factors: Array, rows: Array) -> None:
    """out (A, I) = factors (A, B) rows (B, I), in strips of a row: each row of out from 4 of ``rows`` at a time.

    Behind the last of ``rows`` the last one is taken again, with factors of zero.
    """
    count, size, depth = out.shape[0], out.shape[1], rows.shape[0]
    strips = (size + _STRIP - 1) // _STRIP
    for block in prange(((count + 3) // 4) * strips):
        a = block // strips * 4
        start = block % strips * _STRIP
        stop = min(size, start + _STRIP)
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
    launch(_forward, out, x, weight, bias, operations=len(out) * weight.size)


def dense_backward_weight(dweight: Array, dbias: Array, dout: Array, x: Array, workspace: Workspace) -> None:
    """dweight = dout' x, dbias = sum of dout over the batch."""
    transposed = workspace.array("transposed delta", (dout.shape[1], dout.shape[0]))
    launch(_transpose, transposed, dout, dbias)
    launch(_combine, dweight, transposed, x, operations=len(x) * dweight.size)


def dense_backward_input(dx: Array, dout: Array, weight: Array, workspace: Workspace) -> None:
    """dx = dout weight."""
    launch(_combine, dx, dout, weight, operations=len(dx) * weight.size)
