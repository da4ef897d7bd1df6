"""The innermost work on photos and frames (blurring, warping, normalising, copying), written vector by vector.

As for ``micro_kernels``: sizes are known when a function is made, offsets, counts and factors when it runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from facecnn.kernels.cpu.vector_ir.emit import Emitter, Pointer, emitted, index
from facecnn.kernels.cpu.vector_ir.lanes import of_processor

LANES = of_processor()
"""Floats in a vector of this processor, 0 where there are none that this is written for."""

VECTOR = max(LANES, 4)
"""The same for what is compiled wherever it runs: where there are no vectors it is not called, but has to be valid."""


@emitted
def weigh_neighbours(vectors: int, lanes: int) -> Callable[..., None]:
    """out[i] = w[r] x[i] + sum of w[r + t] (x[i - t distance] + x[i + t distance]) over t = 1 ... radius r, for
    ``vectors`` consecutive vectors of i. weights: from w[r] on."""

    def emit(e: Emitter, out: Pointer, x: Pointer, weights: Pointer, radius: Any, distance: Any) -> None:
        def pair(t: Any, totals: list[Any]) -> list[Any]:
            step = e.mul(t, distance)
            before, after = e.moved(x, e.neg(step)), e.moved(x, step)
            factor = e.broadcast(e.scalar(weights, t), lanes)
            return [
                e.multiply_add(e.fadd(e.load(before, v * lanes, lanes), e.load(after, v * lanes, lanes)), factor, total)
                for v, total in enumerate(totals)
            ]

        factor, zero = e.broadcast(e.scalar(weights), lanes), e.constant(0.0, lanes)
        totals = [e.multiply_add(e.load(x, v * lanes, lanes), factor, zero) for v in range(vectors)]
        for v, total in enumerate(e.loop(e.add(radius, index(1)), 1, totals, pair, start=1)):
            e.store(total, out, v * lanes)

    return emit


@emitted
def mix_squares(maps: int, mirrored: bool, lanes: int) -> Callable[..., None]:
    """out (height, pixels, maps), each number between four of the photo x, whose rows are ``row`` numbers apart:
    ``share`` of the way to the next pixel and ``down`` to the next row; times factor, plus offset. At least ``lanes``
    pixels; of a ``mirrored`` row the last one comes first. x holds floats or bytes.

    Strips as wide as a vector are followed from row to row: each row of the photo is read once, and mixed once along
    itself. As many rows further down are fetched meanwhile: the next band of the photo."""
    backwards = [(lanes - 1 - place // maps) * maps + place % maps for place in range(maps * lanes)]

    def emit(
        e: Emitter, out: Pointer, x: Pointer, row: Any, share: Any, down: Any, factor: Any, offset: Any, height: Any,
        pixels: Any,
    ) -> None:  # fmt: skip
        right, below, scale, plus = (e.broadcast(number, lanes) for number in (share, down, factor, offset))
        left = e.fsub(e.constant(1.0, lanes), right)
        lower = e.fmul(below, scale)
        upper = e.fmul(e.fsub(e.constant(1.0, lanes), below), scale)
        last = e.sub(pixels, index(lanes))
        out_row = e.mul(pixels, index(maps))

        def strip(column: Any) -> None:
            here = e.moved(x, e.mul(column, index(maps)))
            there = e.moved(out, e.mul(e.sub(last, column) if mirrored else column, index(maps)))

            def mixed(number: Any) -> list[Any]:
                """The strip's part of the row that is ``number`` rows further down."""
                line = e.moved(here, e.mul(number, row))
                pairs = ([e.load(line, v * lanes + beside, lanes) for beside in (0, maps)] for v in range(maps))
                vectors = [e.multiply_add(b, right, e.fmul(a, left)) for a, b in pairs]
                if mirrored:
                    vectors = [e.gather(vectors, backwards[v * lanes : (v + 1) * lanes]) for v in range(maps)]
                return vectors

            def one_row(number: Any, above: list[Any]) -> list[Any]:
                following = mixed(e.add(number, index(1)))
                e.prefetch(e.moved(here, e.mul(e.add(number, height), row)), 0)
                line = e.moved(there, e.mul(number, out_row))
                for v, (a, b) in enumerate(zip(above, following, strict=True)):
                    e.store(e.multiply_add(b, lower, e.multiply_add(a, upper, plus)), line, v * lanes)
                return following

            e.loop(height, 1, mixed(index(0)), one_row)

        e.cover(pixels, lanes, strip)

    return emit


@emitted
def mix_rows(lanes: int) -> Callable[..., None]:
    """out[i] = ((1 - share) upper[i] + share lower[i]) factor + offset, for i < count; count >= lanes."""

    def emit(
        e: Emitter, out: Pointer, upper: Pointer, lower: Pointer, share: Any, factor: Any, offset: Any, count: Any
    ) -> None:
        share, factor, offset = (e.broadcast(number, lanes) for number in (share, factor, offset))
        down = e.fmul(share, factor)
        up = e.fmul(e.fsub(e.constant(1.0, lanes), share), factor)

        def vector(first: Any) -> None:
            a, b = (e.load(e.moved(row, first), 0, lanes) for row in (upper, lower))
            e.store(e.multiply_add(b, down, e.multiply_add(a, up, offset)), e.moved(out, first))

        e.cover(count, lanes, vector)

    return emit


@emitted
def copy_run(lanes: int) -> Callable[..., None]:
    """So many floats that follow each other, at least ``lanes``."""

    def emit(e: Emitter, out: Pointer, x: Pointer, count: Any) -> None:
        e.cover(count, lanes, lambda first: e.store(e.load(e.moved(x, first), 0, lanes), e.moved(out, first)))

    return emit


WRITTEN_SOON = 256
"""Prefetch distance of written cache lines, in floats: a line must be in the cache before a part of it is written."""


@emitted
def scale_run(lanes: int) -> Callable[..., None]:
    """out[i] = (x[i] - centre) * factor for ``count`` i, at least ``lanes``; two arrays."""

    def emit(e: Emitter, out: Pointer, x: Pointer, centre: Any, factor: Any, count: Any) -> None:
        centre, factor = e.broadcast(centre, lanes), e.broadcast(factor, lanes)

        def vector(first: Any) -> None:
            there = e.moved(out, first)
            e.prefetch(there, WRITTEN_SOON, to_write=True)
            e.store(e.fmul(e.fsub(e.load(e.moved(x, first), 0, lanes), centre), factor), there, 0)

        e.cover(count, lanes, vector)

    return emit


SUMMED_AT_ONCE = 32
"""Vectors that are summed in float32 before their sums are added in float64."""


@emitted
def sum_distances(lanes: int) -> Callable[..., None]:
    """totals (2 * lanes,) float64: lane by lane, the sums of x - near and of its square, over ``vectors`` of x.

    In a fixed order, which LLVM isn't free to change as it is in loops over numbers (see ``jit.compiled``).
    """
    beside = 4

    def emit(e: Emitter, totals: Pointer, x: Pointer, near: Any, vectors: Any) -> None:
        centre = e.broadcast(near, lanes)
        blocks = e.sdiv(vectors, index(SUMMED_AT_ONCE))

        def added(sums: list[Any], place: Any, count: int) -> list[Any]:
            """The sums of ``count`` chains, each taken one vector further."""
            here = e.moved(x, e.mul(place, index(lanes)))
            distances = [e.fsub(e.load(here, v * lanes, lanes), centre) for v in range(count)]
            plain = [e.fadd(total, distance) for total, distance in zip(sums[:count], distances, strict=True)]
            squares = [
                e.multiply_add(distance, distance, total)
                for total, distance in zip(sums[count:], distances, strict=True)
            ]
            return [*plain, *squares]

        def block(number: Any, totals: list[Any]) -> list[Any]:
            first = e.mul(number, index(SUMMED_AT_ONCE))
            sums = e.loop(
                SUMMED_AT_ONCE,
                beside,
                [e.constant(0.0, lanes)] * (2 * beside),
                lambda v, sums: added(sums, e.add(first, v), beside),
            )
            halves = [sums[:beside], sums[beside:]]
            of_block = [e.fadd(e.fadd(a, b), e.fadd(c, d)) for a, b, c, d in halves]
            return [e.fadd(total, e.to_doubles(own)) for total, own in zip(totals, of_block, strict=True)]

        def single(place: Any, totals: list[Any]) -> list[Any]:
            own = added([e.constant(0.0, lanes)] * 2, place, 1)
            return [e.fadd(total, e.to_doubles(sums)) for total, sums in zip(totals, own, strict=True)]

        sums = e.loop(blocks, 1, [e.no_doubles(lanes)] * 2, block)
        sums = e.loop(vectors, 1, sums, single, start=e.mul(blocks, index(SUMMED_AT_ONCE)))
        for v, total in enumerate(sums):
            e.store(total, totals, v * lanes)

    return emit
