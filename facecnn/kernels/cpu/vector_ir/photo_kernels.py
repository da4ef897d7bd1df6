"""The innermost work on photos and frames (blurring, warping, normalising, copying), written vector by vector.

As for ``micro_kernels``: sizes are literals, and offsets, counts and factors are values.
"""

from __future__ import annotations

from typing import Any

from numba import types

from facecnn.kernels.cpu.vector_ir.emit import Emitter, emitted, index
from facecnn.kernels.cpu.vector_ir.lanes import of_processor

LANES = of_processor()
"""Floats in a vector of this processor, 0 where there are none that this is written for."""

VECTOR = max(LANES, 4)
"""The same for what is compiled wherever it runs: where there are no vectors it is not called, but has to be valid."""


@emitted
def weigh_neighbours(
    typing: Any,
    out: Any, out_offset: Any, x: Any, x_offset: Any, weights: Any, radius: Any, distance: Any,
    vectors: Any, lanes: Any,
) -> Any:  # fmt: skip
    """out[i] = w[r] x[i] + sum of w[r + t] (x[i - t distance] + x[i + t distance]) over t = 1 ... radius r, for
    ``vectors`` consecutive vectors of i."""
    count, width = vectors.literal_value, lanes.literal_value
    signature = types.void(out, out_offset, x, x_offset, weights, radius, distance, vectors, lanes)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        e = Emitter(context, builder)
        kinds = signature.args
        target = e.pointer(kinds[0], arguments[0], arguments[1])
        middle = e.pointer(kinds[2], arguments[2], arguments[3])
        factors = e.pointer(kinds[4], arguments[4], arguments[5])

        def pair(t: Any, totals: list[Any]) -> list[Any]:
            step = builder.mul(t, arguments[6])
            before, after = e.moved(middle, builder.neg(step)), e.moved(middle, step)
            factor = e.broadcast(e.scalar(factors, t), width)
            return [
                e.multiply_add(e.add(e.load(before, v * width, width), e.load(after, v * width, width)), factor, total)
                for v, total in enumerate(totals)
            ]

        factor, zero = e.broadcast(e.scalar(factors), width), e.constant(0.0, width)
        totals = [e.multiply_add(e.load(middle, v * width, width), factor, zero) for v in range(count)]
        for v, total in enumerate(e.loop(builder.add(arguments[5], index(1)), 1, totals, pair, start=1)):
            e.store(total, target, v * width)
        return context.get_dummy_value()

    return signature, generate


@emitted
def mix_squares(
    typing: Any,
    out: Any, out_offset: Any, x: Any, first: Any, row: Any, share: Any, down: Any, factor: Any, offset: Any,
    height: Any, pixels: Any, maps: Any, mirrored: Any, lanes: Any,
) -> Any:  # fmt: skip
    """out (height, pixels, maps), from ``out_offset`` on, each number between four of x, the photo from ``first`` on,
    whose rows are ``row`` numbers apart: ``share`` of the way to the next pixel and ``down`` to the next row; times
    factor, plus offset. At least ``lanes`` pixels; of a ``mirrored`` row the last one comes first. x holds floats or
    bytes.

    Strips as wide as a vector are followed from row to row: each row of the photo is read once, and mixed once along
    itself. As many rows further down are fetched meanwhile: the next band of the photo."""
    c, reverse, width = maps.literal_value, mirrored.literal_value, lanes.literal_value
    signature = types.void(
        out, out_offset, x, first, row, share, down, factor, offset, height, pixels, maps, mirrored, lanes
    )  # fmt: skip
    backwards = [(width - 1 - place // c) * c + place % c for place in range(c * width)]

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        e = Emitter(context, builder)
        kinds = signature.args
        target = e.pointer(kinds[0], arguments[0], arguments[1])
        source = e.pointer(kinds[2], arguments[2], arguments[3])
        right, below, scale, plus = (e.broadcast(arguments[i], width) for i in (5, 6, 7, 8))
        left = e.subtract(e.constant(1.0, width), right)
        lower = e.multiply(below, scale)
        upper = e.multiply(e.subtract(e.constant(1.0, width), below), scale)
        load = e.load_bytes if kinds[2].dtype == types.uint8 else e.load
        last = builder.sub(arguments[10], index(width))
        out_row = builder.mul(arguments[10], index(c))

        def strip(column: Any) -> None:
            here = e.moved(source, builder.mul(column, index(c)))
            there = e.moved(target, builder.mul(builder.sub(last, column) if reverse else column, index(c)))

            def mixed(number: Any) -> list[Any]:
                """The strip's part of the row that is ``number`` rows further down."""
                line = e.moved(here, builder.mul(number, arguments[4]))
                pairs = ([load(line, v * width + beside, width) for beside in (0, c)] for v in range(c))
                vectors = [e.multiply_add(b, right, e.multiply(a, left)) for a, b in pairs]
                if reverse:
                    vectors = [e.gather(vectors, backwards[v * width : (v + 1) * width]) for v in range(c)]
                return vectors

            def one_row(number: Any, above: list[Any]) -> list[Any]:
                following = mixed(builder.add(number, index(1)))
                e.prefetch(e.moved(here, builder.mul(builder.add(number, arguments[9]), arguments[4])), 0)
                line = e.moved(there, builder.mul(number, out_row))
                for v, (a, b) in enumerate(zip(above, following, strict=True)):
                    e.store(e.multiply_add(b, lower, e.multiply_add(a, upper, plus)), line, v * width)
                return following

            e.loop(arguments[9], 1, mixed(index(0)), one_row)

        e.cover(arguments[10], width, strip)
        return context.get_dummy_value()

    return signature, generate


@emitted
def mix_rows(
    typing: Any,
    out: Any, out_offset: Any, x: Any, upper: Any, lower: Any, share: Any, factor: Any, offset: Any, count: Any,
    lanes: Any,
) -> Any:  # fmt: skip
    """out[i] = ((1 - share) x[upper + i] + share x[lower + i]) factor + offset, for i < count; count >= lanes."""
    width = lanes.literal_value
    signature = types.void(out, out_offset, x, upper, lower, share, factor, offset, count, lanes)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        e = Emitter(context, builder)
        kinds = signature.args
        target = e.pointer(kinds[0], arguments[0], arguments[1])
        above, below = (e.pointer(kinds[2], arguments[2], arguments[i]) for i in (3, 4))
        share, factor, offset = (e.broadcast(arguments[i], width) for i in (5, 6, 7))
        down = e.multiply(share, factor)
        up = e.multiply(e.subtract(e.constant(1.0, width), share), factor)

        def vector(first: Any) -> None:
            a, b = (e.load(e.moved(row, first), 0, width) for row in (above, below))
            e.store(e.multiply_add(b, down, e.multiply_add(a, up, offset)), e.moved(target, first), 0)

        e.cover(arguments[8], width, vector)
        return context.get_dummy_value()

    return signature, generate


@emitted
def copy_run(typing: Any, out: Any, out_offset: Any, x: Any, x_offset: Any, count: Any, lanes: Any) -> Any:
    """So many floats that follow each other, at least ``lanes``."""
    width = lanes.literal_value
    signature = types.void(out, out_offset, x, x_offset, count, lanes)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        e = Emitter(context, builder)
        kinds = signature.args
        target = e.pointer(kinds[0], arguments[0], arguments[1])
        source = e.pointer(kinds[2], arguments[2], arguments[3])

        def vector(first: Any) -> None:
            e.store(e.load(e.moved(source, first), 0, width), e.moved(target, first), 0)

        e.cover(arguments[4], width, vector)
        return context.get_dummy_value()

    return signature, generate


WRITTEN_SOON = 256
"""Prefetch distance of written cache lines, in floats: a line must be in the cache before a part of it is written."""


@emitted
def scale_run(typing: Any, out: Any, x: Any, centre: Any, factor: Any, count: Any, lanes: Any) -> Any:
    """out[i] = (x[i] - centre) * factor for ``count`` i, at least ``lanes``; two arrays."""
    width = lanes.literal_value
    signature = types.void(out, x, centre, factor, count, lanes)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        e = Emitter(context, builder)
        kinds = signature.args
        target, source = (e.pointer(kinds[i], arguments[i], index(0)) for i in (0, 1))
        centre, factor = (e.broadcast(arguments[i], width) for i in (2, 3))

        def vector(first: Any) -> None:
            there = e.moved(target, first)
            e.prefetch(there, WRITTEN_SOON, to_write=True)
            e.store(e.multiply(e.subtract(e.load(e.moved(source, first), 0, width), centre), factor), there, 0)

        e.cover(arguments[4], width, vector)
        return context.get_dummy_value()

    return signature, generate


SUMMED_AT_ONCE = 32
"""Vectors that are summed in float32 before their sums are added in float64."""


@emitted
def sum_distances(typing: Any, totals: Any, x: Any, near: Any, vectors: Any, lanes: Any) -> Any:
    """totals (2 * lanes,) float64: lane by lane, the sums of x - near and of its square, over ``vectors`` of x.

    In a fixed order, which LLVM isn't free to change as it is in loops over numbers (see ``jit.compiled``).
    """
    width = lanes.literal_value
    signature = types.void(totals, x, near, vectors, lanes)
    beside = 4

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        e = Emitter(context, builder)
        kinds = signature.args
        target, source = (e.pointer(kinds[i], arguments[i], index(0)) for i in (0, 1))
        centre = e.broadcast(arguments[2], width)
        blocks = builder.sdiv(arguments[3], index(SUMMED_AT_ONCE))

        def added(sums: list[Any], place: Any, count: int) -> list[Any]:
            """The sums of ``count`` chains, each taken one vector further."""
            here = e.moved(source, builder.mul(place, index(width)))
            distances = [e.subtract(e.load(here, v * width, width), centre) for v in range(count)]
            plain = [e.add(total, distance) for total, distance in zip(sums[:count], distances, strict=True)]
            squares = [
                e.multiply_add(distance, distance, total)
                for total, distance in zip(sums[count:], distances, strict=True)
            ]
            return [*plain, *squares]

        def block(number: Any, totals: list[Any]) -> list[Any]:
            first = builder.mul(number, index(SUMMED_AT_ONCE))
            sums = e.loop(
                SUMMED_AT_ONCE,
                beside,
                [e.constant(0.0, width)] * (2 * beside),
                lambda v, sums: added(sums, builder.add(first, v), beside),
            )
            halves = [sums[:beside], sums[beside:]]
            of_block = [e.add(e.add(a, b), e.add(c, d)) for a, b, c, d in halves]
            return [e.add(total, e.to_doubles(own)) for total, own in zip(totals, of_block, strict=True)]

        def single(place: Any, totals: list[Any]) -> list[Any]:
            own = added([e.constant(0.0, width)] * 2, place, 1)
            return [e.add(total, e.to_doubles(sums)) for total, sums in zip(totals, own, strict=True)]

        totals = e.loop(blocks, 1, [e.no_doubles(width)] * 2, block)
        totals = e.loop(arguments[3], 1, totals, single, start=builder.mul(blocks, index(SUMMED_AT_ONCE)))
        for v, total in enumerate(totals):
            e.store(total, target, v * width)
        return context.get_dummy_value()

    return signature, generate
