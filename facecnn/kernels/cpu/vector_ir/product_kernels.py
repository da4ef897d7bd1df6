"""The innermost work of products of matrices, written vector by vector (see ``emit``).

As for ``micro_kernels``: sizes are literals, and offsets and numbers of iterations are values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numba import types

from facecnn.kernels.cpu.vector_ir.emit import Emitter, emitted, index
from facecnn.kernels.cpu.vector_ir.lanes import registers


def tile_lines(width: int, lanes: int) -> int:
    """Lines of a tile of ``multiply_tile`` whose sums fit the registers, beside the factors of one step."""
    vectors = -(-width // lanes)
    return (registers(lanes) - vectors - 2) // vectors


@emitted
def multiply_tile(
    typing: Any,
    out: Any, out_offset: Any, a: Any, a_offset: Any, a_row: Any, rows: Any, b: Any, b_offset: Any,
    run: Any, a_step: Any, b_step: Any, out_step: Any, lines: Any, width: Any, accumulate: Any, lanes: Any,
) -> Any:  # fmt: skip
    """out[l * out_step + j] = sum over r < rows and i < run of a[l * a_step + r * a_row + i] * b[(r * run + i) * b_step
    + j], for ``lines`` l and ``width`` j; or += if ``accumulate``.

    All sums of the tile stay in registers (``tile_lines``), and are added up in order of r, then i. Reads of b may go
    past ``width`` to the end of the vector.
    """
    literals = (run, a_step, b_step, out_step, lines, width, accumulate, lanes)
    sizes = _TileSizes(*(literal.literal_value for literal in literals))
    signature = types.void(out, out_offset, a, a_offset, a_row, rows, b, b_offset, *literals)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        e = Emitter(context, builder)
        target, left, right = (e.pointer(signature.args[i], arguments[i], arguments[i + 1]) for i in (0, 2, 6))
        _multiply(e, sizes, target, left, right, arguments[4], arguments[5])
        return context.get_dummy_value()

    return signature, generate


@dataclass(frozen=True)
class _TileSizes:
    """The literals of ``multiply_tile``."""

    run: int
    a_step: int
    b_step: int
    out_step: int
    lines: int
    width: int
    accumulate: int
    lanes: int

    @property
    def vectors(self) -> list[tuple[int, int]]:
        """(start, used lanes) of the vectors of a line."""
        return [(start, min(self.lanes, self.width - start)) for start in range(0, self.width, self.lanes)]


def _multiply(e: Emitter, s: _TileSizes, target: Any, left: Any, right: Any, a_row: Any, rows: Any) -> None:
    builder = e.builder
    places = [(line * s.out_step + start, used) for line in range(s.lines) for start, used in s.vectors]

    def row(r: Any, sums: list[Any]) -> list[Any]:
        own = e.moved(left, builder.mul(r, a_row))
        factors = e.moved(right, builder.mul(r, index(s.run * s.b_step)))

        def step(i: Any, sums: list[Any]) -> list[Any]:
            here, there = e.moved(own, i), e.moved(factors, builder.mul(i, index(s.b_step)))
            vectors = [e.load(there, start, s.lanes) for start, _ in s.vectors]
            grown = []
            for line in range(s.lines):
                value = e.broadcast(e.scalar(here, line * s.a_step), s.lanes)
                own_sums = sums[line * len(vectors) : (line + 1) * len(vectors)]
                grown += [e.multiply_add(value, *pair) for pair in zip(vectors, own_sums, strict=True)]
            return grown

        return e.loop(s.run, 1, sums, step)

    if s.accumulate:
        sums = [e.load(target, place, s.lanes, used) for place, used in places]
    else:
        sums = [e.constant(0.0, s.lanes)] * len(places)
    for total, (place, used) in zip(e.loop(rows, 1, sums, row), places, strict=True):
        e.store(total, target, place, used)


@emitted
def transpose_square(
    typing: Any, out: Any, out_offset: Any, a: Any, a_offset: Any, out_step: Any, a_step: Any, lanes: Any
) -> Any:
    """out[j * out_step + i] = a[i * a_step + j], for i and j below ``lanes``."""
    width, down, along = lanes.literal_value, out_step.literal_value, a_step.literal_value
    signature = types.void(out, out_offset, a, a_offset, out_step, a_step, lanes)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        e = Emitter(context, builder)
        target, source = (e.pointer(signature.args[i], arguments[i], arguments[i + 1]) for i in (0, 2))
        rows = [e.load(source, i * along, width) for i in range(width)]
        distance = 1
        while distance < width:
            # In each square of 2 x 2 parts with sides of ``distance``, the upper right and lower left change places.
            upper = [lane if lane & distance == 0 else width + lane - distance for lane in range(width)]
            lower = [lane + distance if lane & distance == 0 else width + lane for lane in range(width)]
            for i in range(width):
                if i & distance == 0:
                    a, b = rows[i], rows[i + distance]
                    rows[i], rows[i + distance] = e.shuffle(a, upper, b), e.shuffle(a, lower, b)
            distance *= 2
        for j, row in enumerate(rows):
            e.store(row, target, j * down)
        return context.get_dummy_value()

    return signature, generate
