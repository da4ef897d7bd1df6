"""The innermost work of convolutions and neurons, written vector by vector (see ``emit``).

Sizes are known when a function is made: each set of them gets its own code, in which loops over them are unrolled. Only
offsets, numbers of iterations and the photo's row length are run-time values. Reads of x and dx may go past a window's
row by less than a vector (arrays are padded), but those values never affect results; writes never do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from math import gcd
from typing import Any

from facecnn.kernels.cpu.vector_ir.emit import Emitter, Pointer, emitted, index
from facecnn.kernels.cpu.vector_ir.lanes import registers


def taps_held(lanes: int) -> int:
    """Weights of a row of the kernel that ``convolve_row`` holds in registers beside the sums."""
    return registers(lanes) // 5


def grouped(e: Emitter, x: Any, offset: int, group: int, count: int, lanes: int) -> Any:
    """``count`` consecutive values in ``group`` places (the last fills the rest), repeated over the lanes."""
    if count == 1:
        return e.broadcast(e.scalar(x, offset), lanes)
    loaded = e.load(x, offset, group, count)
    return e.shuffle(loaded, [min(lane % group, count - 1) for lane in range(lanes)])


@dataclass(frozen=True)
class RowSizes:
    """The sizes of ``convolve_row``, and what follows from them."""

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
    mixed: bool
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


@emitted
def convolve_row(s: RowSizes) -> Callable[..., None]:
    """The sums of a row of the output, for ``count`` kernels; of each window the largest. The row is worked on in
    ``tiles`` of ``outputs`` neighbours and, if it is ``mixed``, ``shorter_tiles`` of one less after them.

    A window's row is a run of kernel_columns * maps values of the photo. A vector's lanes are kernels x ``group``
    consecutive values of the photo. These are either values of the run (``values`` = group): lane k * group + g holds
    the sum over values g, g + group ..., and in the end the lanes of a kernel are added. Or they are one value of each
    of ``group`` adjacent windows (``values`` = 1, only where maps = 1). Then ``group`` outputs share a vector. All sums
    of a tile stay in registers: ``rows_at_once`` (1 or all) of the ``pool`` rows of each window.

    out, argmax: pixel after pixel, ``kernels`` numbers each; argmax: the place in the window in row order, not written
    with pool 1. x: where the row's first window begins; its rows are ``row_length`` floats apart. packed: for each row
    and each ``values`` of a run, ``lanes`` weights.
    """

    def emit(
        e: Emitter, out: Pointer, argmax: Pointer, x: Pointer, row_length: Any, packed: Pointer, tiles: Any,
        shorter_tiles: Any,
    ) -> None:  # fmt: skip
        _RowOfSums(s, e, out, argmax, x, row_length, packed).emit(tiles, shorter_tiles)

    return emit


@dataclass(frozen=True)
class _RowOfSums:
    """Emits ``convolve_row``."""

    _sizes: RowSizes
    _e: Emitter
    _target: Pointer
    _places: Pointer
    _photo: Pointer
    _row_length: Any
    _weights: Pointer

    def emit(self, tiles: Any, shorter_tiles: Any) -> None:
        e, most = self._e, self._sizes.outputs
        e.loop(tiles, 1, [], partial(self._tile, most, index(0)))
        if self._sizes.mixed:
            e.loop(shorter_tiles, 1, [], partial(self._tile, most - 1, e.mul(tiles, index(most))))

    def _tile(self, n: int, first_column: Any, number: Any, _: list[Any]) -> list[Any]:
        """Tile ``number`` of those of ``n`` outputs that begin at ``first_column``."""
        e, s = self._e, self._sizes
        vectors = -(-n // s.group)
        column = e.add(first_column, e.mul(number, index(n)))
        offset = e.mul(column, index(s.kernels))
        target = e.moved(self._target, offset)
        places = e.moved(self._places, offset) if s.pool > 1 else None
        photo = e.moved(self._photo, e.mul(column, index(s.pool * s.maps)))
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
        base = e.moved(photo, e.mul(first, self._row_length))
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
        starts = [e.moved(base, e.mul(e.add(i, index(r)), self._row_length)) for r in range(s.rows_at_once)]
        own = e.moved(self._weights, e.mul(i, index(len(s.steps) * s.lanes)))
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
        own = e.moved(weights, e.mul(first, index(s.lanes)))
        held = [(tap, e.load(own, tap * s.apart * s.lanes, s.lanes)) for tap in taps]
        e.keep_apart()
        rows = [e.moved(start, e.mul(first, index(s.values))) for start in starts]
        for place in range(taps[0] * s.shift, in_row * s.windows_in_vector + taps[-1] * s.shift):
            found = [(divmod(place - tap * s.shift, s.windows_in_vector), weight) for tap, weight in held]
            met = [(at, weight) for (at, off), weight in found if 0 <= at < in_row and off == 0]
            if not met:
                continue
            for r, row in enumerate(rows):
                value = grouped(e, row, place * s.maps, s.group, values, s.lanes)
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
        row = e.trunc(e.mul(first, index(self._sizes.pool)), e.int32)
        for number, totals in enumerate(by_place):
            if number == 0 and not best:
                continue
            place = e.add(e.broadcast(row, lanes), e.integers(number, lanes))
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
    maps: int, kernels: int, kernel_rows: int, kernel_columns: int, together: int, lanes: int
) -> Callable[..., None]:
    """sums[k, r, i] += delta[j, k] * x[windows[j, k] + r * row_length + i], over ``winners`` j, for ``together`` k.

    The sums stay in registers, as many at once as there are; x is read again for each such group.

    sums: kernel_rows * kernel_columns * maps for each kernel, as weights lie. delta, windows (float32, int32):
    ``kernels`` numbers for each winner.
    """
    run = kernel_columns * maps
    parts = window_parts(run, lanes)
    slots = [(k, r, *part) for k in range(together) for r in range(kernel_rows) for part in parts]

    def emit(
        e: Emitter, sums: Pointer, delta: Pointer, windows: Pointer, winners: Any, x: Pointer, row_length: Any
    ) -> None:
        row_starts = [e.mul(index(r), row_length) for r in range(kernel_rows)]

        for group in _in_groups(slots, registers(lanes) - 5):
            kernels_here = sorted({k for k, *_ in group})

            def winner(j: Any, totals: list[Any], group: Any = group, kernels_here: Any = kernels_here) -> list[Any]:
                at = e.mul(j, index(kernels))
                factors, windows_here = {}, {}
                for k in kernels_here:
                    own = e.add(at, index(k))
                    scalar = e.scalar(delta, own)
                    factors.update({(k, width): e.broadcast(scalar, width) for width in {slot[3] for slot in group}})
                    windows_here[k] = e.moved(x, e.as_index(e.scalar(windows, own)))
                return [
                    e.multiply_add(
                        factors[k, width], e.load(e.moved(windows_here[k], row_starts[r]), start, width), total
                    )
                    for total, (k, r, start, width, _) in zip(totals, group, strict=True)
                ]

            at = [(k * kernel_rows + r) * run + start for k, r, start, _, _ in group]
            totals = [e.load(sums, a, width, valid) for a, (*_, width, valid) in zip(at, group, strict=True)]
            totals = e.loop(winners, 1, totals, winner)
            for total, a, (*_, valid) in zip(totals, at, group, strict=True):
                e.store(total, sums, a, valid)

    return emit


@emitted
def spread_windows(
    maps: int, kernels: int, kernel_rows: int, kernel_columns: int, stride: int, lanes: int
) -> Callable[..., None]:
    """dx[windows[j] + r * row_length + i] += delta[j] * weight[r, i], over ``winners`` j, for one kernel.

    The weights stay in registers, as many at once as there are. Winners are visited in the order 0, stride, 2 stride
    ... 1, 1 + stride ..., so that overlapping windows don't follow each other: a read at another alignment than a
    recent write stalls.

    weight: the kernel's; the rest as in ``add_windows``.
    """
    run = kernel_columns * maps
    # Windows begin at multiples of maps floats. Where these aren't whole vectors, half vectors avoid crossing cache
    # lines, which would cost more than the second half does.
    parts = window_parts(run, lanes // 2 if maps % lanes == lanes // 2 else lanes)
    slots = [(r, *part) for r in range(kernel_rows) for part in parts]

    def emit(
        e: Emitter, dx: Pointer, row_length: Any, delta: Pointer, windows: Pointer, winners: Any, weight: Pointer
    ) -> None:
        row_starts = [e.mul(index(r), row_length) for r in range(kernel_rows)]

        for group in _in_groups(slots, registers(lanes) - 5):
            held = [e.load(weight, r * run + start, width, valid) for r, start, width, valid in group]

            def winner(j: Any, _: Any, group: Any = group, held: Any = held) -> list[Any]:
                at = e.mul(j, index(kernels))
                scalar = e.scalar(delta, at)
                factors = {width: e.broadcast(scalar, width) for width in {slot[2] for slot in group}}
                window = e.moved(dx, e.as_index(e.scalar(windows, at)))
                for own, (r, start, width, valid) in zip(held, group, strict=True):
                    row = e.moved(window, row_starts[r])
                    grown = e.multiply_add(factors[width], own, e.load(row, start, width))
                    e.store(grown, row, start, valid)
                return []

            def turn(first: Any, _: Any, winner: Any = winner) -> list[Any]:
                return e.loop(winners, stride, [], winner, start=first)

            e.loop(stride, 1, [], turn)

    return emit


@emitted
def sum_products(size: int, lanes: int) -> Callable[..., None]:
    """out[i] = sum over ``count`` n of x[n * x_stride + i] * factors[n * factors_stride + i], for ``size`` i, which are
    whole vectors and stay in registers."""
    places = range(0, size, lanes)

    def emit(
        e: Emitter, out: Pointer, x: Pointer, x_stride: Any, factors: Pointer, factors_stride: Any, count: Any
    ) -> None:
        def add(n: Any, sums: list[Any]) -> list[Any]:
            here, own = e.moved(x, e.mul(n, x_stride)), e.moved(factors, e.mul(n, factors_stride))
            return [
                e.multiply_add(e.load(here, place, lanes), e.load(own, place, lanes), total)
                for place, total in zip(places, sums, strict=True)
            ]

        sums = e.loop(count, 1, [e.constant(0.0, lanes)] * len(places), add)
        for place, total in zip(places, sums, strict=True):
            e.store(total, out, place)

    return emit
