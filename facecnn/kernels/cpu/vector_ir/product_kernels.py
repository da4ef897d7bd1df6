"""The innermost work of products of matrices, written vector by vector (see ``emit``).

As for ``micro_kernels``: sizes are known when a function is made, offsets and numbers of iterations when it runs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from facecnn.kernels.cpu.vector_ir.emit import Emitter, Pointer, emitted, index
from facecnn.kernels.cpu.vector_ir.lanes import registers


def tile_lines(width: int, lanes: int) -> int:
    """Lines of a tile of ``multiply_tile`` whose sums fit the registers, beside the factors of one step."""
    vectors = -(-width // lanes)
    return (registers(lanes) - vectors - 2) // vectors


class TileSizes(NamedTuple):
    """The sizes of ``multiply_tile``."""

    run: int
    a_step: int
    b_step: int
    out_step: int
    lines: int
    width: int
    accumulate: bool
    lanes: int

    @property
    def vectors(self) -> list[tuple[int, int]]:
        """(start, used lanes) of the vectors of a line."""
        return [(start, min(self.lanes, self.width - start)) for start in range(0, self.width, self.lanes)]


@emitted
def multiply_tile(s: TileSizes) -> Callable[..., None]:
    """out[l * out_step + j] = sum over r < rows and i < run of a[l * a_step + r * a_row + i] * b[(r * run + i) * b_step
    + j], for ``lines`` l and ``width`` j; or += if ``accumulate``.

    All sums of the tile stay in registers (``tile_lines``), and are added up in order of r, then i. Reads of b may go
    past ``width`` to the end of the vector.
    """
    places = [(line * s.out_step + start, used) for line in range(s.lines) for start, used in s.vectors]

    def emit(e: Emitter, out: Pointer, a: Pointer, a_row: Any, rows: Any, b: Pointer) -> None:
        def row(r: Any, sums: list[Any]) -> list[Any]:
            own = e.moved(a, e.mul(r, a_row))
            factors = e.moved(b, e.mul(r, index(s.run * s.b_step)))
            return e.loop(s.run, 1, sums, partial(_step, e, s, own, factors))

        if s.accumulate:
            sums = [e.load(out, place, s.lanes, used) for place, used in places]
        else:
            sums = [e.constant(0.0, s.lanes)] * len(places)
        for total, (place, used) in zip(e.loop(rows, 1, sums, row), places, strict=True):
            e.store(total, out, place, used)

    return emit


def _step(e: Emitter, s: TileSizes, own: Any, factors: Any, i: Any, sums: list[Any]) -> list[Any]:
    """What the numbers at place ``i`` of a run add to the sums of a tile."""
    here, there = e.moved(own, i), e.moved(factors, e.mul(i, index(s.b_step)))
    vectors = [e.load(there, start, s.lanes) for start, _ in s.vectors]
    grown = []
    for line in range(s.lines):
        value = e.broadcast(e.scalar(here, line * s.a_step), s.lanes)
        own_sums = sums[line * len(vectors) : (line + 1) * len(vectors)]
        grown += [e.multiply_add(value, *pair) for pair in zip(vectors, own_sums, strict=True)]
    return grown


@emitted
def transpose_square(out_step: int, a_step: int, lanes: int) -> Callable[..., None]:
    """out[j * out_step + i] = a[i * a_step + j], for i and j below ``lanes``."""

    def emit(e: Emitter, out: Pointer, a: Pointer) -> None:
        rows = [e.load(a, i * a_step, lanes) for i in range(lanes)]
        distance = 1
        while distance < lanes:
            # In each square of 2 x 2 parts with sides of ``distance``, the upper right and lower left change places.
            upper = [lane if lane & distance == 0 else lanes + lane - distance for lane in range(lanes)]
            lower = [lane + distance if lane & distance == 0 else lanes + lane for lane in range(lanes)]
            for i in range(lanes):
                if i & distance == 0:
                    first, second = rows[i], rows[i + distance]
                    rows[i], rows[i + distance] = e.shuffle(first, upper, second), e.shuffle(first, lower, second)
            distance *= 2
        for j, row in enumerate(rows):
            e.store(row, out, j * out_step)

    return emit
