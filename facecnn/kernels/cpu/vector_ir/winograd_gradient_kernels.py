"""The innermost work of gradients of convolutions by Winograd's minimal filtering (see ``conv.winograd_gradient``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from typing import Any

from numba import types

from facecnn.kernels.cpu.vector_ir.emit import Emitter, emitted, index
from facecnn.kernels.cpu.vector_ir.filtering import filtering
from facecnn.kernels.cpu.vector_ir.winograd_kernels import at_points, sums_held, tiles_of


def _window_reader(e: Emitter, windows: int, kernels: int, valid: int, group: int, width: int) -> Callable[..., Any]:
    together = valid == width // group == kernels

    def by_window(load: Any, pointer: Any, *count: int) -> list[Any]:
        """A vector of each window; where an output's kernels don't fill it, ``count`` of them are read."""
        if together:
            loaded = [load(pointer, v * width, width) for v in range(windows)]
            return [
                e.gather(loaded, [(lane % group * windows + w) * kernels + lane // group for lane in range(width)])
                for w in range(windows)
            ]
        run = [lane % group * width + lane // group for lane in range(width)]
        starts = [[(t * windows + w) * kernels for t in range(group)] for w in range(windows)]
        return [e.gather([load(pointer, start, width, *count) for start in own], run) for own in starts]

    return by_window


@emitted
def transform_gradient(
    typing: Any,
    points: Any, points_offset: Any, point_length: Any, row_length: Any, delta: Any, delta_offset: Any, argmax: Any,
    tiles: Any, ahead: Any, ahead_offset: Any,
    kernels: Any, valid: Any, pool: Any, outputs: Any, taps: Any, group: Any, lanes: Any,
) -> Any:  # fmt: skip
    """A' of the gradients at a row of pooled outputs: points[p * point_length + row * row_length + t * lanes], for the
    ``pool`` rows of windows and ``tiles`` vectors t of kernels (lane k * group + g: see ``multiply_points``).

    delta, argmax: ``kernels`` numbers for each output, from its first tile on (of delta: and ``delta_offset``); where
    the row ends within a vector, zeros in delta. A gradient is that of the place in the window that argmax says.
    ahead: bytes, of which some from ``ahead_offset`` on are fetched for later.
    """
    literals = (kernels, valid, pool, outputs, taps, group, lanes)
    all_kernels, some, high, m, r, g, width = (literal.literal_value for literal in literals)
    signature = types.void(
        points, points_offset, point_length, row_length, delta, delta_offset, argmax, tiles, ahead, ahead_offset,
        *literals,
    )  # fmt: skip
    matrix = tuple(zip(*filtering(m, r).output, strict=True))
    windows = m // high

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        e = Emitter(context, builder)
        kinds = signature.args
        target = e.pointer(kinds[0], arguments[0], arguments[1])
        deltas = e.pointer(kinds[4], arguments[4], arguments[5])
        places = e.pointer(kinds[6], arguments[6], arguments[5])
        needed_next = e.pointer(kinds[8], arguments[8], arguments[9])
        targets = [e.moved(target, builder.mul(index(p), arguments[2])) for p in range(len(matrix))]
        by_window = _window_reader(e, windows, all_kernels, some, g, width)

        def tile(number: Any, _: list[Any]) -> list[Any]:
            offset = builder.mul(number, index(g * windows * all_kernels))
            e.prefetch(e.moved(needed_next, builder.mul(number, index(64))), 0)
            values = by_window(e.load, e.moved(deltas, offset), some)
            if high > 1:
                won = by_window(e.load_bytes, e.moved(places, offset))
            zero = e.constant(0.0, width)
            there = builder.mul(number, index(width))
            for row in range(high):
                columns = values
                if high > 1:
                    columns = []
                    for w, s in product(range(windows), range(high)):
                        here = e.equal(won[w], e.constant(row * high + s, width))
                        columns.append(e.select(here, values[w], zero))
                here = builder.add(there, builder.mul(index(row), arguments[3]))
                for pointer, vector in zip(targets, at_points(e, matrix, columns), strict=True):
                    e.store(vector, e.moved(pointer, here), 0)
            return []

        e.loop(arguments[7], 1, [], tile)
        return context.get_dummy_value()

    return signature, generate


@emitted
def add_points(
    typing: Any,
    sums: Any, sums_offset: Any, gradients: Any, gradients_offset: Any, point_gradients: Any, row_gradients: Any,
    points: Any, points_offset: Any, point_length: Any, map_length: Any, row_starts: Any, tiles: Any,
    ahead: Any, ahead_offset: Any,
    maps: Any, kernel_rows: Any, pool: Any, tile_length: Any, together: Any, group: Any, lanes: Any,
) -> Any:  # fmt: skip
    """sums[p, c, i] += sum over ``pool`` rows and ``tiles`` vectors t of gradients[p, row, t] * points[row_starts[row +
    i], p, c, t], for ``together`` points p: the transpose of ``multiply_points``, with the same layouts.

    The sums stay in registers, as many at once as there are; the others are read again for each such group.
    """
    literals = (maps, kernel_rows, pool, tile_length, together, group, lanes)
    sizes = tuple(literal.literal_value for literal in literals)
    signature = types.void(
        sums, sums_offset, gradients, gradients_offset, point_gradients, row_gradients, points, points_offset,
        point_length, map_length, row_starts, tiles, ahead, ahead_offset, *literals,
    )  # fmt: skip

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _SumsAtPoints(sizes, Emitter(context, builder), signature.args, arguments).emit()
        return context.get_dummy_value()

    return signature, generate


class _SumsAtPoints:
    """Emits ``add_points``."""

    def __init__(self, sizes: Sequence[int], e: Emitter, kinds: Sequence[Any], arguments: Sequence[Any]) -> None:
        self._maps, self._rows, self._high, self._tile_length, self._together, self._group, self._lanes = sizes
        self._e = e
        self._sums = e.pointer(kinds[0], arguments[0], arguments[1])
        self._gradients = e.pointer(kinds[2], arguments[2], arguments[3])
        self._ahead = e.pointer(kinds[12], arguments[12], arguments[13])
        source = e.pointer(kinds[6], arguments[6], arguments[7])
        starts = e.pointer(kinds[10], arguments[10], index(0))
        builder = e.builder
        self._row_sources = [
            e.moved(source, e.as_index(e.scalar(starts, i))) for i in range(self._rows + self._high - 1)
        ]
        self._of_points = [
            (builder.mul(index(p), arguments[4]), builder.mul(index(p), arguments[8])) for p in range(self._together)
        ]
        self._of_rows = [builder.mul(index(row), arguments[5]) for row in range(self._high)]
        self._map_length, self._tiles = arguments[9], arguments[11]

    def emit(self) -> None:
        held = sums_held(self._lanes)
        maps_at_once = max(1, min(self._maps, held // self._rows // self._together))
        rows_at_once = min(self._rows, held)
        for first_map in range(0, self._maps, maps_at_once):
            for first_row in range(0, self._rows, rows_at_once):
                maps = range(first_map, min(self._maps, first_map + maps_at_once))
                self._add(maps, range(first_row, min(self._rows, first_row + rows_at_once)))

    def _add(self, maps: range, rows: range) -> None:
        """Add to the sums of some maps and rows of the kernel, which stay in registers."""
        e, slots = self._e, list(product(range(self._together), maps, rows))
        at = [((p * self._maps + own) * self._rows + i) * self._lanes for p, own, i in slots]
        totals = [e.load(self._sums, offset, self._lanes) for offset in at]
        places = {slot: number for number, slot in enumerate(slots)}
        totals = e.loop(self._tiles, 1, totals, partial(self._tile, places, maps, rows))
        for total, offset in zip(totals, at, strict=True):
            e.store(total, self._sums, offset)

    def _tile(
        self, places: dict[tuple[int, int, int], int], maps: range, rows: range, number: Any, totals: list[Any]
    ) -> list[Any]:
        e, builder, width = self._e, self._e.builder, self._lanes
        totals = list(totals)
        there, here = builder.mul(number, index(width)), builder.mul(number, index(self._tile_length))
        if maps.start == rows.start == 0:
            e.prefetch(e.moved(self._ahead, builder.mul(number, index(16))), 0)
        for p, (of_gradients, of_point) in enumerate(self._of_points):
            e.keep_apart()
            deltas = e.moved(e.moved(self._gradients, of_gradients), there)
            met = [e.load(e.moved(deltas, of_row), 0, width) for of_row in self._of_rows]
            for i in range(rows.start, rows.stop + self._high - 1):
                values = e.moved(e.moved(self._row_sources[i], of_point), here)
                for own in maps:
                    value = None
                    for row in range(self._high):
                        place = places.get((p, own, i - row))
                        if place is None:
                            continue
                        if value is None:
                            start = e.moved(values, builder.mul(index(own), self._map_length))
                            value = tiles_of(e, start, self._group, width)
                        totals[place] = e.multiply_add(met[row], value, totals[place])
        return totals
