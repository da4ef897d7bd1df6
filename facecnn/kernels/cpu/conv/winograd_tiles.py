"""Shared by the forward pass and the weights' gradient of Winograd's filtering: tiles, strips, and the photo's rows at
all points. ``winograd`` describes the layout."""

from __future__ import annotations

from functools import cache

import numpy as np
from numba import literally  # type: ignore[attr-defined]

from facecnn.arrays import Array
from facecnn.kernels.cpu.conv.frames import copy, frame_size
from facecnn.kernels.cpu.jit import helper
from facecnn.kernels.cpu.memory import to_device
from facecnn.kernels.cpu.vector_ir.filtering import filtering
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
        group = 1
        while group < 4 and lanes // (2 * group) >= max(rest, 2):
            group *= 2
        return lanes, group
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


def copied_row(tiles: int, maps: int, lanes: int) -> int:
    """Floats at the beginning of scratch memory for a photo's row that is copied, see ``transform_rows``."""
    return (tiles // lanes + 1) * lanes * OUTPUTS * maps if maps <= PLANAR else 0


def tiled_frame(out: Array, x: Array, weight: Array, padding: tuple[int, int], pool: int) -> tuple[int, int, bool]:
    """As ``frame_size``; also a copy where the last tile has columns that no output needs, which would be something
    else's: what they are must not show in rounding."""
    height, _, framed = frame_size(out.shape, x.shape, weight.shape, padding, pool)
    columns = tiles_of_row(out, pool) * OUTPUTS + weight.shape[2] - 1
    return (height, columns, True) if framed or columns > x.shape[2] else (height, x.shape[2], False)


@helper(inline=True)
def transform_rows(
    points: Array, starts: Array, row: int, first: int, point_length: int, map_length: int, photo: Array,
    height: int, row_length: int, left: int, tiles: int, pool: int, window_rows: int, maps: int, few_maps: int,
    taps: int, lanes: int, width: int,
) -> None:  # fmt: skip
    """What the windows of a strip's row of outputs need, at all points: the photo's rows from the column ``left`` on,
    as far as they weren't needed before, and starts (window_rows): where they lie, from ``first`` on. Before that,
    ``points`` is scratch memory.

    The last five arguments are constants where it is called. few_maps: ``maps``, or as many as PLANAR if there are
    more, so that what isn't called is no longer code."""
    maps, few_maps = literally(maps), literally(few_maps)
    taps, lanes, width = literally(taps), literally(lanes), literally(width)
    blocks = tiles // lanes + 1  # the last tile takes columns that would be the next one's
    last = 1 if tiles % lanes > 0 else 0
    read = blocks * lanes * OUTPUTS * maps
    length = (OUTPUTS + taps - 1) * point_length
    for y in range(0 if row == 0 else row * pool + window_rows - pool, row * pool + window_rows):
        here, start = first + y % window_rows * length, y * row_length + left * maps
        if maps != few_maps:
            transform_pixels(points, here, point_length, photo, start, tiles, maps, OUTPUTS, taps, width)
        elif start + read <= height * row_length:
            transform_maps(
                points, here, point_length, map_length, photo, start, blocks - 1, last, pool * row_length,
                few_maps, OUTPUTS, taps, lanes,
            )  # fmt: skip
        else:  # so that nothing behind the photo is read
            copy(points, 0, photo, start, (tiles * OUTPUTS + taps - 1) * maps)
            transform_maps(
                points, here, point_length, map_length, points, 0, blocks - 1, last, 0, few_maps, OUTPUTS, taps, lanes
            )
    for i in range(window_rows):
        starts[i] = (row * pool + i) % window_rows * length
