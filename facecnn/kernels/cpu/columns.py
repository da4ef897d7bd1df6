"""Column sums of a matrix (M, C) of many short rows.

The matrix is one run of M * C floats, processed in tiles of a multiple of C floats, so that loops over a tile are
vectorised even for few columns. Sums over the rows are computed in a fixed number of chunks, each with its own tile of
sums, which are added in order.
"""

from __future__ import annotations

from facecnn.arrays import Array
from facecnn.kernels.cpu.jit import helper

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
    columns = total.shape[0]
    for c in range(columns):
        s = 0.0
        for chunk in range(tiles.shape[0]):
            for i in range(c, tiles.shape[1], columns):
                s += tiles[chunk, i]
        total[c] = s


@helper()
def repeat(repeated: Array, values: Array) -> None:
    """repeated (tile,) = values (C,), again and again."""
    for i in range(0, repeated.shape[0], values.shape[0]):
        for c in range(values.shape[0]):
            repeated[i + c] = values[c]
