"""The innermost work of convolutions and neurons, written vector by vector (see ``emit``).

Sizes are literals: each set of them is code of its own, in which every loop over them is written out. Only offsets,
numbers of turns and the photo's row length are values. Nothing is written outside of what is described, and nothing
that is read there shows: vectors of x and dx may reach beyond a window's row, by less than a vector (arrays have a
tail).
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from math import gcd
from typing import Any

from numba import types

from facecnn.kernels.cpu.vector_ir.emit import Emitter, emitted, index
from facecnn.kernels.cpu.vector_ir.lanes import registers


def taps_held(lanes: int) -> int:
    """Weights of a row of the kernel that ``convolve_row`` holds in registers beside the sums."""
    return registers(lanes) // 5


def _group_step(e: Emitter, x: Any, offset: int, group: int, count: int, lanes: int) -> Any:
    """``count`` values that follow each other, ``group`` places for them (the last fills the rest), over and over."""
    if count == 1:
        return e.broadcast(e.scalar(x, offset), lanes)
    loaded = e.load(x, offset, group, count)
    return e.shuffle(loaded, [min(lane % group, count - 1) for lane in range(lanes)])


@emitted
def convolve_row(
    typing: Any,
    out: Any, out_offset: Any, argmax: Any, x: Any, x_offset: Any, row_length: Any, packed: Any, packed_offset: Any,
    tiles: Any, shorter_tiles: Any,
    maps: Any, kernels: Any, kernel_rows: Any, kernel_columns: Any, pool: Any, lanes: Any, group: Any, values: Any,
    count: Any, outputs: Any, mixed: Any, rows_at_once: Any,
) -> Any:  # fmt: skip
    """The sums of a row of the output, for ``count`` kernels; of each window the largest. The row is worked on in
    ``tiles`` of ``outputs`` neighbours and, if it is ``mixed``, ``shorter_tiles`` of one less after them.

    A window's row is a run of kernel_columns * maps values of the photo. A vector's lanes are kernels x ``group``
    values that follow each other in the photo: as many of the run (``values`` = group), where lane k * group + g holds
    the sum over values g, g + group ... of it, and in the end a kernel's lanes are added; or one for each of as many
    windows beside each other (``values`` = 1, only where maps = 1). Then ``group`` outputs share a vector. All sums of
    a tile stay in registers: ``rows_at_once`` (1 or all) of the ``pool`` rows of each window.

    out, argmax: from ``out_offset`` on, pixel after pixel, ``kernels`` numbers each; argmax: the place in the window in
    row order, not written with pool 1. x: the row's first window begins at ``x_offset``; its rows are ``row_length``
    floats apart. packed: from ``packed_offset`` on, for each row and each ``values`` of a run, ``lanes`` weights.
    """
    literals = (
        maps, kernels, kernel_rows, kernel_columns, pool, lanes, group, values, count, outputs, mixed, rows_at_once,
    )  # fmt: skip
    c, all_kernels, rows, columns, p, width, g, in_run, valid, most, both, at_once = (
        literal.literal_value for literal in literals
    )
    signature = types.void(
        out, out_offset, argmax, x, x_offset, row_length, packed, packed_offset, tiles, shorter_tiles, *literals
    )
    run = columns * c
    steps = [min(in_run, run - start) for start in range(0, run, in_run)]
    whole, beside = run // in_run, g // in_run
    # A value that is read serves all windows that it lies in: what a step meets in one, the step that is ``apart`` from
    # it meets in the one ``shift`` columns before. So steps go by what they leave when divided by ``apart``: the first
    # few of them, of which there is one more in the run, and the others.
    apart, shift = c // gcd(c, in_run), in_run // gcd(c, in_run)
    both_kinds = [(whole // apart + 1, 0, whole % apart), (whole // apart, whole % apart, apart)]
    both_kinds = [(taps, first, stop) for taps, first, stop in both_kinds if taps and first < stop]
    each = width // g
    # Where windows lie beside each other: of ``group`` outputs, in as many vectors as a window has places.
    windows = [[t * p + s for t in range(g)] for s in range(p)]
    places_beside = [
        [w // g * width + k * g + w % g for w in windows_of_place for k in range(each)] for windows_of_place in windows
    ]

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        e = Emitter(context, builder)
        kinds = signature.args
        row_target = e.pointer(kinds[0], arguments[0], arguments[1])
        row_places = e.pointer(kinds[2], arguments[2], arguments[1]) if p > 1 else None
        row_photo = e.pointer(kinds[3], arguments[3], arguments[4])
        weights = e.pointer(kinds[6], arguments[6], arguments[7])
        row_length = arguments[5]

        def of_place(sums: list[Any], s: int) -> list[Any]:
            """Vectors of ``group`` outputs' sums each, an output's kernels side by side, at place ``s`` of the rows of
            their windows, which ``sums`` has all places of."""
            if beside > 1:
                return [e.gather(sums[v : v + p], places_beside[s]) for v in range(0, len(sums), p)]
            sums, distance = sums[s::p], 1
            while distance < g:
                pairs = zip(sums[::2], [*sums[1::2], sums[-1]], strict=False)
                sums = [e.add_pairs(a, b) for a, b in pairs]
                distance *= 2
            return sums

        def tile(n: int, first_column: Any, number: Any, _: list[Any]) -> list[Any]:
            """Tile ``number`` of those of ``n`` outputs that begin at ``first_column``."""
            in_row, vectors = -(-n * p // beside), -(-n // g)
            column = builder.add(first_column, builder.mul(number, index(n)))
            offset = builder.mul(column, index(all_kernels))
            target, places = e.moved(row_target, offset), e.moved(row_places, offset) if p > 1 else None
            photo = e.moved(row_photo, builder.mul(column, index(p * c)))

            def window_rows(first: Any, best: list[Any]) -> list[Any]:
                """A turn over ``at_once`` rows of the windows, from ``first`` on; best: largest sums so far, then their
                places."""
                base = e.moved(photo, builder.mul(first, row_length))

                def kernel_row(i: Any, sums: list[Any]) -> list[Any]:
                    starts = [e.moved(base, builder.mul(builder.add(i, index(r)), row_length)) for r in range(at_once)]
                    own = e.moved(weights, builder.mul(i, index(len(steps) * width)))

                    def add(taps: list[int], values: int, first: Any, sums: list[Any]) -> list[Any]:
                        """Steps first + tap * apart."""
                        sums = list(sums)
                        own_first = e.moved(own, builder.mul(first, index(width)))
                        held = [(tap, e.load(own_first, tap * apart * width, width)) for tap in taps]
                        e.keep_apart()
                        value_rows = [e.moved(start, builder.mul(first, index(in_run))) for start in starts]
                        for place in range(taps[0] * shift, in_row * beside + taps[-1] * shift):
                            met = [(divmod(place - tap * shift, beside), weight) for tap, weight in held]
                            met = [(at, weight) for (at, off), weight in met if 0 <= at < in_row and off == 0]
                            if not met:
                                continue
                            for r, row in enumerate(value_rows):
                                value = _group_step(e, row, place * c, g, values, width)
                                for at, weight in met:
                                    own_sum = r * in_row + at
                                    sums[own_sum] = e.multiply_add(value, weight, sums[own_sum])
                        return sums

                    for taps, first, stop in both_kinds:
                        for some in _in_groups(list(range(taps)), taps_held(width)):
                            sums = e.loop(stop, 1, sums, partial(add, some, g), start=first)
                    if whole < len(steps):
                        sums = add([0], steps[-1], index(whole), sums)
                    return sums

                sums = e.loop(rows, 1, [e.constant(0.0, width)] * (at_once * in_row), kernel_row)
                by_place = [of_place(sums[r * in_row : (r + 1) * in_row], s) for r in range(at_once) for s in range(p)]
                if p == 1:
                    return by_place[0]
                if best:
                    largest, where = best[:vectors], best[vectors:]
                else:
                    largest, where = by_place[0], [e.integers(0, width)] * vectors
                row = builder.trunc(builder.mul(first, index(p)), e.int32)
                for number, totals in enumerate(by_place):
                    if number == 0 and not best:
                        continue
                    place = builder.add(e.broadcast(row, width), e.integers(number, width))
                    for v, total in enumerate(totals):
                        larger = e.larger_or_nan(total, largest[v])
                        largest[v] = e.select(larger, total, largest[v])
                        where[v] = e.select(larger, place, where[v])
                return [*largest, *where]

            if at_once == p:
                best = window_rows(index(0), [])
            else:
                start = [e.constant(float("-inf"), width)] * vectors + [e.integers(0, width)] * vectors
                best = e.loop(p, 1, start, window_rows)
            for v in range(vectors):
                here = min(g, n - v * g)
                e_bytes = e.to_bytes(best[vectors + v]) if p > 1 else None
                if here * each == here * valid == here * all_kernels:
                    e.store(best[v], target, v * g * all_kernels, here * each)
                    if p > 1:
                        e.store(e_bytes, places, v * g * all_kernels, here * each)
                    continue
                for t in range(here):
                    own = range(t * each, (t + 1) * each)
                    e.store(e.shuffle(best[v], own), target, (v * g + t) * all_kernels, valid)
                    if p > 1:
                        e.store(e.shuffle(e_bytes, own), places, (v * g + t) * all_kernels, valid)
            return []

        e.loop(arguments[8], 1, [], partial(tile, most, index(0)))
        if both:
            e.loop(arguments[9], 1, [], partial(tile, most - 1, builder.mul(arguments[8], index(most))))
        return context.get_dummy_value()

    return signature, generate


def window_parts(run: int, lanes: int) -> list[tuple[int, int, int]]:
    """A run of floats as vectors: (start, lanes, floats of it); the last as short as may be."""
    parts = []
    for start in range(0, run, lanes):
        rest = min(lanes, run - start)
        width = lanes
        while width > 4 and width // 2 >= rest:
            width //= 2
        parts.append((start, width, rest))
    return parts


def _in_groups(items: list[Any], most: int) -> list[list[Any]]:
    """As few groups as may be, of nearly the same size."""
    groups = -(-len(items) // most)
    bounds = [len(items) * number // groups for number in range(groups + 1)]
    return [items[start:stop] for start, stop in pairwise(bounds)]


@emitted
def add_windows(
    typing: Any,
    sums: Any, sums_offset: Any, delta: Any, windows: Any, winners_offset: Any, winners: Any, x: Any, x_offset: Any,
    row_length: Any,
    maps: Any, kernels: Any, kernel_rows: Any, kernel_columns: Any, together: Any, lanes: Any,
) -> Any:  # fmt: skip
    """sums[k, r, i] += delta[j, k] * x[windows[j, k] + r * row_length + i], over ``winners`` j, for ``together`` k.

    The sums stay in registers, as many at once as there are; x is read again for each such group.

    sums: the first kernel's begin at ``sums_offset``, kernel_rows * kernel_columns * maps each, as weights lie. delta,
    windows (float32, int32): from ``winners_offset`` on, ``kernels`` numbers for each winner.
    """
    literals = (maps, kernels, kernel_rows, kernel_columns, together, lanes)
    c, all_kernels, rows, columns, count, width = (literal.literal_value for literal in literals)
    signature = types.void(
        sums, sums_offset, delta, windows, winners_offset, winners, x, x_offset, row_length, *literals
    )
    run = columns * c
    slots = [(k, r, *part) for k in range(count) for r in range(rows) for part in window_parts(run, width)]

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        e = Emitter(context, builder)
        kinds = signature.args
        target = e.pointer(kinds[0], arguments[0], arguments[1])
        deltas = e.pointer(kinds[2], arguments[2], arguments[4])
        places = e.pointer(kinds[3], arguments[3], arguments[4])
        photo = e.pointer(kinds[6], arguments[6], arguments[7])
        row_starts = [builder.mul(index(r), arguments[8]) for r in range(rows)]

        for group in _in_groups(slots, registers(width) - 5):
            kernels_here = sorted({k for k, *_ in group})

            def winner(j: Any, totals: list[Any], group: Any = group, kernels_here: Any = kernels_here) -> list[Any]:
                at = builder.mul(j, index(all_kernels))
                factors, windows_here = {}, {}
                for k in kernels_here:
                    own = builder.add(at, index(k))
                    scalar = e.scalar(deltas, own)
                    factors.update({(k, lanes): e.broadcast(scalar, lanes) for lanes in {slot[3] for slot in group}})
                    windows_here[k] = e.moved(photo, e.as_index(e.scalar(places, own)))
                return [
                    e.multiply_add(
                        factors[k, lanes], e.load(e.moved(windows_here[k], row_starts[r]), start, lanes), total
                    )
                    for total, (k, r, start, lanes, _) in zip(totals, group, strict=True)
                ]

            at = [(k * rows + r) * run + start for k, r, start, _, _ in group]
            totals = [e.load(target, a, lanes, valid) for a, (*_, lanes, valid) in zip(at, group, strict=True)]
            totals = e.loop(arguments[5], 1, totals, winner)
            for total, a, (*_, valid) in zip(totals, at, group, strict=True):
                e.store(total, target, a, valid)
        return context.get_dummy_value()

    return signature, generate


@emitted
def spread_windows(
    typing: Any,
    dx: Any, dx_offset: Any, row_length: Any, delta: Any, windows: Any, winners_offset: Any, winners: Any, weight: Any,
    weight_offset: Any,
    maps: Any, kernels: Any, kernel_rows: Any, kernel_columns: Any, stride: Any, lanes: Any,
) -> Any:  # fmt: skip
    """dx[windows[j] + r * row_length + i] += delta[j] * weight[r, i], over ``winners`` j, for one kernel.

    The weights stay in registers, as many at once as there are. Winners are visited in the order 0, stride, 2 stride
    ... 1, 1 + stride ..., so that windows which overlap don't follow each other: the processor waits when it reads
    what was just written at other bounds.

    weight: the kernel's, from ``weight_offset`` on; the rest as in ``add_windows``.
    """
    literals = (maps, kernels, kernel_rows, kernel_columns, stride, lanes)
    c, all_kernels, rows, columns, apart, width = (literal.literal_value for literal in literals)
    signature = types.void(
        dx, dx_offset, row_length, delta, windows, winners_offset, winners, weight, weight_offset, *literals
    )
    run = columns * c
    # Windows begin at multiples of c floats: where those are no whole vectors, halves of them don't lie across lines of
    # the cache, which would make reading and writing slower than the second half does.
    parts = window_parts(run, width // 2 if c % width == width // 2 else width)
    slots = [(r, *part) for r in range(rows) for part in parts]

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        e = Emitter(context, builder)
        kinds = signature.args
        photo = e.pointer(kinds[0], arguments[0], arguments[1])
        deltas = e.pointer(kinds[3], arguments[3], arguments[5])
        places = e.pointer(kinds[4], arguments[4], arguments[5])
        weights = e.pointer(kinds[7], arguments[7], arguments[8])
        row_starts = [builder.mul(index(r), arguments[2]) for r in range(rows)]

        for group in _in_groups(slots, registers(width) - 5):
            held = [e.load(weights, r * run + start, lanes, valid) for r, start, lanes, valid in group]

            def winner(j: Any, _: Any, group: Any = group, held: Any = held) -> list[Any]:
                at = builder.mul(j, index(all_kernels))
                scalar = e.scalar(deltas, at)
                factors = {lanes: e.broadcast(scalar, lanes) for lanes in {slot[2] for slot in group}}
                window = e.moved(photo, e.as_index(e.scalar(places, at)))
                for own, (r, start, lanes, valid) in zip(held, group, strict=True):
                    row = e.moved(window, row_starts[r])
                    grown = e.multiply_add(factors[lanes], own, e.load(row, start, lanes))
                    e.store(grown, row, start, valid)
                return []

            def turn(first: Any, _: Any, winner: Any = winner) -> list[Any]:
                return e.loop(arguments[6], apart, [], winner, start=first)

            e.loop(apart, 1, [], turn)
        return context.get_dummy_value()

    return signature, generate


@emitted
def sum_products(
    typing: Any,
    out: Any, out_offset: Any, x: Any, x_offset: Any, x_stride: Any, factors: Any, factors_offset: Any,
    factors_stride: Any, count: Any,
    size: Any, lanes: Any,
) -> Any:  # fmt: skip
    """out[i] = sum over ``count`` n of x[n * x_stride + i] * factors[n * factors_stride + i], for ``size`` i, which are
    whole vectors and stay in registers."""
    length, width = size.literal_value, lanes.literal_value
    literals = (size, lanes)
    signature = types.void(
        out, out_offset, x, x_offset, x_stride, factors, factors_offset, factors_stride, count, *literals
    )
    places = range(0, length, width)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        e = Emitter(context, builder)
        kinds = signature.args
        target, source, weights = (e.pointer(kinds[i], arguments[i], arguments[i + 1]) for i in (0, 2, 5))

        def add(n: Any, sums: list[Any]) -> list[Any]:
            here, own = (e.moved(a, builder.mul(n, arguments[i])) for a, i in ((source, 4), (weights, 7)))
            return [
                e.multiply_add(e.load(here, place, width), e.load(own, place, width), total)
                for place, total in zip(places, sums, strict=True)
            ]

        sums = e.loop(arguments[8], 1, [e.constant(0.0, width)] * len(places), add)
        for place, total in zip(places, sums, strict=True):
            e.store(total, target, place)
        return context.get_dummy_value()

    return signature, generate
