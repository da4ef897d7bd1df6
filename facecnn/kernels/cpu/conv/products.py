"""Products of matrices on micro-kernels of vectors, tile by tile, or on plain loops where there are none.

A tile has all its sums in registers. Each sum is added up in the same order whatever the tile that it is in.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import prange

from facecnn.arrays import Array
from facecnn.kernels.cpu.jit import compiled, helper
from facecnn.kernels.cpu.vector_ir.product_kernels import TileSizes, multiply_tile, tile_lines, transpose_square

_ZERO = np.float32(0)
_PLAIN_WIDTH, _PLAIN_LINES = 64, 8
"""Columns and lines of a tile where there are no vectors that the micro-kernels are written for."""


def _plain_tile(sizes: TileSizes) -> Any:
    """``multiply_tile`` as plain loops, for processors without micro-kernels."""
    run, a_step, b_step, out_step, lines, width, accumulate, _ = sizes

    @helper()
    def multiply(
        out: Array, out_offset: int, a: Array, a_offset: int, a_row: int, rows: int, b: Array, b_offset: int
    ) -> None:
        for line in range(lines):
            start = out_offset + line * out_step
            o = out[start : start + width]
            if not accumulate:
                for j in range(width):
                    o[j] = _ZERO
            for r in range(rows):
                for i in range(run):
                    value = a[a_offset + line * a_step + r * a_row + i]
                    first = b_offset + (r * run + i) * b_step
                    factors = b[first : first + width]
                    for j in range(width):
                        o[j] += value * factors[j]

    return multiply


def tile_width(columns: int, lanes: int) -> int:
    """Columns of a product that a tile has: two vectors, or one if they fit it."""
    most = _PLAIN_WIDTH if lanes == 0 else 2 * lanes if columns > lanes else lanes
    return min(most, columns)


def most_lines(columns: int, lanes: int) -> int:
    """Lines that a tile of a product may have."""
    return tile_lines(tile_width(columns, lanes), lanes) if lanes else _PLAIN_LINES


@cache
def product_of(
    columns: int, lines: int, run: int, a_step: int, b_step: int, b_block: int, out_step: int, accumulate: bool,
    lanes: int,
) -> Any:  # fmt: skip
    """A helper ``product(out, out_offset, count, a, a_offset, a_row, rows, b, b_offset, start, stop)``: ``count`` lines
    of ``multiply_tile`` (at least ``lines``, those of a tile), blocks ``start`` to ``stop`` of their columns.

    Blocks of b are ``b_block`` floats apart. The last tile of a block ends at the last line, so it may repeat some
    lines of the one before; if it is to ``accumulate``, ``count`` has to be a multiple of ``lines``.
    """
    width = tile_width(columns, lanes)
    full, rest = columns // width, columns % width or width
    sizes = TileSizes(run, a_step, b_step, out_step, lines, width, accumulate, lanes)
    tile_of = multiply_tile if lanes else _plain_tile
    multiply, multiply_rest = tile_of(sizes), tile_of(sizes._replace(width=rest))

    @helper()
    def product(
        out: Array, out_offset: int, count: int, a: Array, a_offset: int, a_row: int, rows: int, b: Array,
        b_offset: int, start: int, stop: int,
    ) -> None:  # fmt: skip
        for block in range(start, stop):
            target, factors = out_offset + block * width, b_offset + block * b_block
            for tile in range((count + lines - 1) // lines):
                line = min(tile * lines, count - lines)
                if block < full:
                    multiply(
                        out, target + line * out_step, a, a_offset + line * a_step, a_row, rows, b, factors
                    )  # fmt: skip
                else:
                    multiply_rest(
                        out, target + line * out_step, a, a_offset + line * a_step, a_row, rows, b, factors
                    )  # fmt: skip

    return product


def largest_divisor(number: int, most: int) -> int:
    """The largest divisor of a number that isn't above ``most``."""
    return next(divisor for divisor in range(min(number, most), 0, -1) if number % divisor == 0)


def _plain_square(out_step: int, a_step: int, lanes: int) -> Any:
    """``transpose_square`` as plain loops."""

    @helper()
    def transpose(out: Array, out_offset: int, a: Array, a_offset: int) -> None:
        for i in range(lanes):
            for j in range(lanes):
                out[out_offset + j * out_step + i] = a[a_offset + i * a_step + j]

    return transpose


@cache
def pack_of(size: int, width: int, lanes: int) -> Any:
    side = lanes or _PLAIN_LINES
    transpose = (transpose_square if lanes else _plain_square)(width, size, side)

    @compiled(parallel=True)
    def pack(packed: Array, weight: Array, kernels: int) -> None:
        # packed (blocks, D, width), weight (K, D), both flat: packed[b, d, j] = weight[b * width + j, d], or zero
        strips = (size + side - 1) // side
        for part in prange(((kernels + width - 1) // width) * strips):
            first_kernel, first = part // strips * width, part % strips * side
            target, stop = (first_kernel * size) + first * width, min(size, first + side)
            for j in range(0, width, side):
                k = first_kernel + j
                if k + side <= kernels and j + side <= width and first + side <= size:
                    transpose(packed, target + j, weight, k * size + first)
                else:
                    for d in range(first, stop):
                        for i in range(j, min(j + side, width)):
                            value = weight[(first_kernel + i) * size + d] if first_kernel + i < kernels else _ZERO
                            packed[target + (d - first) * width + i] = value

    return pack
