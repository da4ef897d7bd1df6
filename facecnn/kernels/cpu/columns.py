"""Column sums of a matrix (M, C) of many short rows.

The matrix is one run of M * C floats, processed in tiles of a multiple of C floats, so that loops over a tile are
vectorised even for few columns. Sums over the rows are computed in a fixed number of chunks, each with its own tile of
sums, which are added in order.
"""

from __future__ import annotations

import numpy as np

from facecnn.arrays import Array
from facecnn.kernels.cpu.jit import helper

_U64 = np.uint64
_TILE = 64
_CHUNKS = 16
_SMALL = 1 << 13
"""A matrix with fewer elements than this is summed in one chunk."""


def chunks_and_tile(x: Array) -> tuple[int, int]:
    """For a matrix (M, C): the number of chunks, and the floats of a tile."""
    return 1 if x.size < _SMALL else _CHUNKS, -(-_TILE // x.shape[1]) * x.shape[1]


@helper()
def add_up(total: Array, tiles: Array) -> None:
    """total (C,) = sum of tiles (chunks, tile) over the chunks and over a tile's repetitions of the C columns."""
    columns, tile, eight = _U64(total.shape[0]), _U64(tiles.shape[1]), _U64(8)
    whole = columns // eight * eight
    for c in range(_U64(0), whole, eight):  # side by side, so that none waits for the sum before
        s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = 0.0
        for chunk in range(_U64(tiles.shape[0])):
            for i in range(c, tile, columns):
                s0 += tiles[chunk, i]
                s1 += tiles[chunk, i + _U64(1)]
                s2 += tiles[chunk, i + _U64(2)]
                s3 += tiles[chunk, i + _U64(3)]
                s4 += tiles[chunk, i + _U64(4)]
                s5 += tiles[chunk, i + _U64(5)]
                s6 += tiles[chunk, i + _U64(6)]
                s7 += tiles[chunk, i + _U64(7)]
        total[c], total[c + _U64(1)], total[c + _U64(2)], total[c + _U64(3)] = s0, s1, s2, s3
        total[c + _U64(4)], total[c + _U64(5)], total[c + _U64(6)], total[c + _U64(7)] = s4, s5, s6, s7
    for c in range(whole, columns):
        s = 0.0
        for chunk in range(tiles.shape[0]):
            for i in range(c, tile, columns):
                s += tiles[chunk, i]
        total[c] = s


@helper()
def repeat(repeated: Array, values: Array) -> None:
    """repeated (tile,) = values (C,), again and again."""
    for i in range(0, repeated.shape[0], values.shape[0]):
        for c in range(values.shape[0]):
            repeated[i + c] = values[c]
