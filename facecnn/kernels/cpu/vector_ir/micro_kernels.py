"""The innermost work of convolutions and neurons, written vector by vector (see ``emit``).

Sizes are literals: each set of them gets its own code, in which loops over them are unrolled. Only offsets, numbers of
iterations and the photo's row length are run-time values. Reads of x and dx may go past a window's row by less than a
vector (arrays are padded), but those values never affect results; writes never do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
    """``count`` consecutive values in ``group`` places (the last fills the rest), repeated over the lanes."""
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
    consecutive values of the photo. These are either values of the run (``values`` = group): lane k * group + g holds
    the sum over values g, g + group ..., and in the end the lanes of a kernel are added. Or they are one value of each
    of ``group`` adjacent windows (``values`` = 1, only where maps = 1). Then ``group`` outputs share a vector. All sums
    of a tile stay in registers: ``rows_at_once`` (1 or all) of the ``pool`` rows of each window.

    out, argmax: from ``out_offset`` on, pixel after pixel, ``kernels`` numbers each; argmax: the place in the window in
    row order, not written with pool 1. x: the row's first window begins at ``x_offset``; its rows are ``row_length``
    floats apart. packed: from ``packed_offset`` on, for each row and each ``values`` of a run, ``lanes`` weights.
    """
    literals = (
        maps, kernels, kernel_rows, kernel_columns, pool, lanes, group, values, count, outputs, mixed, rows_at_once,
    )  # fmt: skip
    sizes = _RowSizes(*(literal.literal_value for literal in literals))
    signature = types.void(
        out, out_offset, argmax, x, x_offset, row_length, packed, packed_offset, tiles, shorter_tiles, *literals
    )

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _RowOfSums(sizes, Emitter(context, builder), signature.args, arguments).emit(*arguments[8:10])
        return context.get_dummy_value()

    return signature, generate


@dataclass(frozen=True)
class _RowSizes:
    """The literals of ``convolve_row``, and what follows from them."""

    maps: int
    kernels: int
    kernel_rows: int
    kernel_columns: int
    pool: int
    lanes: int
    group: int
    values: int
    count: int
    outputs: int
    mixed: int
    rows_at_once: int

    @property
    def steps(self) -> list[int]:
        """How many values of a run each step takes."""
        run = self.kernel_columns * self.maps
        return [min(self.values, run - start) for start in range(0, run, self.values)]

    @property
    def windows_in_vector(self) -> int:
        """Adjacent windows whose sums share a vector."""
        return self.group // self.values

    @property
    def kernels_in_vector(self) -> int:
        return self.lanes // self.group

    @property
    def apart(self) -> int:
        """The least distance of two steps that read the same value, in neighbouring windows: see ``shift``."""
        return self.maps // gcd(self.maps, self.values)

    @property
    def shift(self) -> int:
        """By how many columns those windows are apart."""
        return self.values // gcd(self.maps, self.values)

    def kinds_of_steps(self) -> list[tuple[int, int, int]]:
        """The whole steps of a run by their remainder modulo ``apart``, (how many, first, stop): the first remainders
        occur once more than the others."""
        whole = self.kernel_columns * self.maps // self.values
        both = [(whole // self.apart + 1, 0, whole % self.apart), (whole // self.apart, whole % self.apart, self.apart)]
        return [(taps, first, stop) for taps, first, stop in both if taps and first < stop]

    def lanes_of_place(self, place: int) -> list[int]:
        """Where the lanes at a place of the rows of ``group`` adjacent windows are, in the vectors with all of them."""
        windows = [t * self.pool + place for t in range(self.group)]
        return [
            w // self.group * self.lanes + k * self.group + w % self.group
            for w in windows
            for k in range(self.kernels_in_vector)
        ]


class _RowOfSums:
    """Emits ``convolve_row``."""

    def __init__(self, sizes: _RowSizes, e: Emitter, kinds: Sequence[Any], arguments: Sequence[Any]) -> None:
        self._sizes, self._e = sizes, e
        self._target = e.pointer(kinds[0], arguments[0], arguments[1])
        self._places = e.pointer(kinds[2], arguments[2], arguments[1]) if sizes.pool > 1 else None
        self._photo = e.pointer(kinds[3], arguments[3], arguments[4])
        self._weights = e.pointer(kinds[6], arguments[6], arguments[7])
        self._row_length = arguments[5]

    def emit(self, tiles: Any, shorter_tiles: Any) -> None:
        e, most = self._e, self._sizes.outputs
        e.loop(tiles, 1, [], partial(self._tile, most, index(0)))
        if self._sizes.mixed:
            e.loop(shorter_tiles, 1, [], partial(self._tile, most - 1, e.builder.mul(tiles, index(most))))

    def _tile(self, n: int, first_column: Any, number: Any, _: list[Any]) -> list[Any]:
        """Tile ``number`` of those of ``n`` outputs that begin at ``first_column``."""
        e, s = self._e, self._sizes
        builder = e.builder
        vectors = -(-n // s.group)
        column = builder.add(first_column, builder.mul(number, index(n)))
        offset = builder.mul(column, index(s.kernels))
        target = e.moved(self._target, offset)
        places = e.moved(self._places, offset) if s.pool > 1 else None
        photo = e.moved(self._photo, builder.mul(column, index(s.pool * s.maps)))
        window_rows = partial(self._window_rows, n, photo)
        if s.rows_at_once == s.pool:
            best = window_rows(index(0), [])
        else:
            start = [e.constant(float("-inf"), s.lanes)] * vectors + [e.integers(0, s.lanes)] * vectors
            best = e.loop(s.pool, 1, start, window_rows)
        self._store(n, best[:vectors], best[vectors:], target, places)
        return []

    def _window_rows(self, n: int, photo: Any, first: Any, best: list[Any]) -> list[Any]:
        """``rows_at_once`` rows of the windows, from ``first`` on; best: the largest sums so far, then their places."""
        e, s = self._e, self._sizes
        in_row = -(-n * s.pool // s.windows_in_vector)
        base = e.moved(photo, e.builder.mul(first, self._row_length))
        sums = [e.constant(0.0, s.lanes)] * (s.rows_at_once * in_row)
        sums = e.loop(s.kernel_rows, 1, sums, partial(self._kernel_row, in_row, base))
        by_place = [
            self._at_place(sums[r * in_row : (r + 1) * in_row], place)
            for r in range(s.rows_at_once)
            for place in range(s.pool)
        ]
        return by_place[0] if s.pool == 1 else self._largest(first, by_place, best)

    def _kernel_row(self, in_row: int, base: Any, i: Any, sums: list[Any]) -> list[Any]:
        """Add row ``i`` of the kernels to the ``in_row`` sums of each row of the windows."""
        e, s = self._e, self._sizes
        builder = e.builder
        starts = [e.moved(base, builder.mul(builder.add(i, index(r)), self._row_length)) for r in range(s.rows_at_once)]
        own = e.moved(self._weights, builder.mul(i, index(len(s.steps) * s.lanes)))
        for taps, first, stop in s.kinds_of_steps():
            for some in _in_groups(list(range(taps)), taps_held(s.lanes)):
                sums = e.loop(stop, 1, sums, partial(self._steps, in_row, starts, own, some, s.group), start=first)
        if s.steps[-1] < s.values:
            sums = self._steps(in_row, starts, own, [0], s.steps[-1], index(len(s.steps) - 1), sums)
        return sums

    def _steps(
        self, in_row: int, starts: list[Any], weights: Any, taps: list[int], values: int, first: Any, sums: list[Any]
    ) -> list[Any]:
        """Add the steps first + tap * apart. Each value that is read serves all windows that it lies in."""
        e, s = self._e, self._sizes
        sums = list(sums)
        own = e.moved(weights, e.builder.mul(first, index(s.lanes)))
        held = [(tap, e.load(own, tap * s.apart * s.lanes, s.lanes)) for tap in taps]
        e.keep_apart()
        rows = [e.moved(start, e.builder.mul(first, index(s.values))) for start in starts]
        for place in range(taps[0] * s.shift, in_row * s.windows_in_vector + taps[-1] * s.shift):
            found = [(divmod(place - tap * s.shift, s.windows_in_vector), weight) for tap, weight in held]
            met = [(at, weight) for (at, off), weight in found if 0 <= at < in_row and off == 0]
            if not met:
                continue
            for r, row in enumerate(rows):
                value = _group_step(e, row, place * s.maps, s.group, values, s.lanes)
                for at, weight in met:
                    own_sum = r * in_row + at
                    sums[own_sum] = e.multiply_add(value, weight, sums[own_sum])
        return sums

    def _at_place(self, sums: list[Any], place: int) -> list[Any]:
        """The sums at a place of the windows' rows: vectors of ``group`` outputs, an output's kernels side by side."""
        e, s = self._e, self._sizes
        if s.windows_in_vector > 1:
            lanes = s.lanes_of_place(place)
            return [e.gather(sums[v : v + s.pool], lanes) for v in range(0, len(sums), s.pool)]
        sums, distance = sums[place :: s.pool], 1
        while distance < s.group:
            pairs = zip(sums[::2], [*sums[1::2], sums[-1]], strict=False)
            sums = [e.add_pairs(a, b) for a, b in pairs]
            distance *= 2
        return sums

    def _largest(self, first: Any, by_place: list[list[Any]], best: list[Any]) -> list[Any]:
        """The largest of the sums at all places and of ``best``; then their places in the window."""
        e, lanes = self._e, self._sizes.lanes
        vectors = len(by_place[0])
        if best:
            largest, where = best[:vectors], best[vectors:]
        else:
            largest, where = by_place[0], [e.integers(0, lanes)] * vectors
        row = e.builder.trunc(e.builder.mul(first, index(self._sizes.pool)), e.int32)
        for number, totals in enumerate(by_place):
            if number == 0 and not best:
                continue
            place = e.builder.add(e.broadcast(row, lanes), e.integers(number, lanes))
            for v, total in enumerate(totals):
                larger = e.larger_or_nan(total, largest[v])
                largest[v] = e.select(larger, total, largest[v])
                where[v] = e.select(larger, place, where[v])
        return [*largest, *where]

    def _store(self, n: int, largest: list[Any], where: list[Any], target: Any, places: Any) -> None:
        """Write the ``n`` outputs of a tile and, with pooling, their argmax."""
        e, s = self._e, self._sizes
        each = s.kernels_in_vector
        for v, vector in enumerate(largest):
            here = min(s.group, n - v * s.group)
            written = [(vector, target)]
            if s.pool > 1:
                written.append((e.to_bytes(where[v]), places))
            if each == s.count == s.kernels:
                for source, there in written:
                    e.store(source, there, v * s.group * s.kernels, here * each)
                continue
            for t in range(here):
                own = range(t * each, (t + 1) * each)
                for source, there in written:
                    e.store(e.shuffle(source, own), there, (v * s.group + t) * s.kernels, s.count)


def window_parts(run: int, lanes: int) -> list[tuple[int, int, int]]:
    """A run of floats as vectors: (start, lanes, used floats); the last one as short as possible."""
    parts = []
    for start in range(0, run, lanes):
        rest = min(lanes, run - start)
        width = lanes
        while width > 4 and width // 2 >= rest:
            width //= 2
        parts.append((start, width, rest))
    return parts


def _in_groups(items: list[Any], most: int) -> list[list[Any]]:
    """As few groups as possible, of nearly equal size."""
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
    ... 1, 1 + stride ..., so that overlapping windows don't follow each other: a read at another alignment than a
    recent write stalls.

    weight: the kernel's, from ``weight_offset`` on; the rest as in ``add_windows``.
    """
    literals = (maps, kernels, kernel_rows, kernel_columns, stride, lanes)
    c, all_kernels, rows, columns, apart, width = (literal.literal_value for literal in literals)
    signature = types.void(
        dx, dx_offset, row_length, delta, windows, winners_offset, winners, weight, weight_offset, *literals
    )
    run = columns * c
    # Windows begin at multiples of c floats. Where these aren't whole vectors, half vectors avoid crossing cache lines,
    # which would cost more than the second half does.
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
