"""Shared by the forward pass and the weights' gradient of Winograd's filtering: tiles, strips, and the photo's rows at
all points. ``winograd`` describes the layout."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from facecnn.arrays import Array
from facecnn.kernels.cpu.conv.frames import copy, frame_size
from facecnn.kernels.cpu.jit import helper
from facecnn.kernels.cpu.memory import to_device
from facecnn.kernels.cpu.vector_ir.filtering import filtering
from facecnn.kernels.cpu.vector_ir.lanes import group_of
from facecnn.kernels.cpu.vector_ir.winograd_kernels import sums_held, transform_maps, transform_pixels

_F = np.float32
_ZERO = _F(0)

OUTPUTS = 4
"""Columns of outputs in a tile."""

PLANAR = 4
"""With up to this many maps, columns are split first, for vectors of tiles; more maps fill vectors by themselves."""

_STRIP_BYTES = 20 * 1024
"""Size of the transformed rows of the photo that the windows of a strip's row need."""


def tiles_of_row(out: Array, pool: int) -> int:
    """Tiles of a row of the output."""
    return -(-int(out.shape[2]) * pool // OUTPUTS)


def points_at_once(points: int, sums: int, lanes: int) -> int:
    """The largest divisor of ``points`` whose sums, ``sums`` for each point, stay in registers; at least 1."""
    return max(
        some for some in range(1, points + 1) if points % some == 0 and (some == 1 or some * sums <= sums_held(lanes))
    )


@cache
def weights_transform(taps: int) -> Array:
    """(points, taps): G."""
    return to_device(np.array([[float(value) for value in row] for row in filtering(OUTPUTS, taps).weights], _F))


def rest_vector(maps: int, rest: int, lanes: int) -> tuple[int, int]:
    """Lanes of the vector for the last ``rest`` kernels, and tiles that share it: 1, 2 or 4."""
    if maps <= PLANAR:
        return lanes, group_of(rest, lanes)
    while lanes > 4 and lanes // 2 >= rest:
        lanes //= 2
    return lanes, 1


def tiles_of_strip(tiles: int, maps: int, window_rows: int, points: int, group: int) -> int:
    """Tiles of a strip's row: few enough for the data of its windows to stay in the cache. With more than PLANAR maps
    the row is one strip: multiplications dominate, so strips gain nothing, and their shorter rows cost."""
    if maps > PLANAR:
        return tiles
    most = max(1, _STRIP_BYTES // (4 * points * window_rows * maps))
    strips = -(-tiles // most)
    return -(-tiles // (strips * group)) * group


def tiles_with_room(strip: int, *multiples: int) -> int:
    """Room for tiles in a strip's row of scratch memory, if it is processed in any of these ``multiples``."""
    return max(-(-strip // multiple) * multiple for multiple in multiples)


def map_vector(maps: int, lanes: int) -> int:
    """Lanes of vectors of maps, if there are more than PLANAR; the maps are a multiple of it."""
    return lanes if maps % lanes == 0 else lanes // 2


def lengths_of(maps: int, row_tiles: int, group: int) -> tuple[int, int, int]:
    """Floats from one point, one vector of tiles and one map to the next, in a row of scratch memory."""
    return row_tiles * maps, *((group, row_tiles) if maps <= PLANAR else (maps, 1))


def copied_row(tiles: int, maps: int, lanes: int) -> int:
    """Floats at the beginning of scratch memory for a photo's row that is copied, see ``transform_rows``."""
    return (tiles // lanes + 1) * lanes * OUTPUTS * maps if maps <= PLANAR else 0


def tiled_frame(out: Array, x: Array, weight: Array, padding: tuple[int, int], pool: int) -> tuple[int, int, bool]:
    """As ``frame_size``; also a copy where the last tile has columns that no output needs, which would be something
    else's: what they are must not show in rounding."""
    height, _, framed = frame_size(out.shape, x.shape, weight.shape, padding, pool)
    columns = tiles_of_row(out, pool) * OUTPUTS + weight.shape[2] - 1
    return (height, columns, True) if framed or columns > x.shape[2] else (height, x.shape[2], False)


@cache
def rows_to_points(maps: int, kernel_rows: int, taps: int, pool: int, row_tiles: int, lanes: int) -> Any:
    """The helper ``transform_rows``: what the windows of a strip's row of outputs need, at all points.

    These are the photo's rows from the column ``left`` on, as far as they weren't needed before, and starts (rows of a
    window): where they lie, from ``first`` on. Before that, ``points`` is scratch memory.
    """
    point_length, window_rows = row_tiles * maps, kernel_rows + pool - 1
    length = (OUTPUTS + taps - 1) * point_length
    # Of more than PLANAR maps, only so that what isn't called is no longer code.
    transform_few = transform_maps(min(maps, PLANAR), OUTPUTS, taps, lanes)
    transform_many = transform_pixels(maps, OUTPUTS, taps, map_vector(maps, lanes))

    @helper(inline=True)
    def transform_rows(
        points: Array, starts: Array, row: int, first: int, photo: Array, height: int, row_length: int, left: int,
        tiles: int,
    ) -> None:  # fmt: skip
        blocks = tiles // lanes + 1  # the last tile takes columns that would be the next one's
        last = 1 if tiles % lanes > 0 else 0
        read = blocks * lanes * OUTPUTS * maps
        for y in range(0 if row == 0 else row * pool + window_rows - pool, row * pool + window_rows):
            here, start = first + y % window_rows * length, y * row_length + left * maps
            if maps > PLANAR:
                transform_many(points, here, point_length, photo, start, tiles)
            elif start + read <= height * row_length:
                ahead = pool * row_length
                transform_few(points, here, point_length, row_tiles, photo, start, blocks - 1, last, ahead)
            else:  # so that nothing behind the photo is read
                copy(points, 0, photo, start, (tiles * OUTPUTS + taps - 1) * maps)
                transform_few(points, here, point_length, row_tiles, points, 0, blocks - 1, last, 0)
        for i in range(window_rows):
            starts[i] = (row * pool + i) % window_rows * length

    return transform_rows
