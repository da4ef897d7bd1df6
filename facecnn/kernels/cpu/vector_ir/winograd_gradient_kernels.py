"""The innermost work of gradients of convolutions by Winograd's minimal filtering (see ``conv.winograd_gradient``)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

from facecnn.kernels.cpu.vector_ir.emit import Emitter, Pointer, emitted, index
from facecnn.kernels.cpu.vector_ir.filtering import filtering
from facecnn.kernels.cpu.vector_ir.micro_kernels import grouped
from facecnn.kernels.cpu.vector_ir.winograd_kernels import at_points, sums_held


def _window_reader(e: Emitter, windows: int, kernels: int, valid: int, group: int, width: int) -> Callable[..., Any]:
    together = valid == width // group == kernels

    def by_window(pointer: Any, *count: int) -> list[Any]:
        """A vector of each window; where an output's kernels don't fill it, ``count`` of them are read."""
        if together:
            loaded = [e.load(pointer, v * width, width) for v in range(windows)]
            return [
                e.gather(loaded, [(lane % group * windows + w) * kernels + lane // group for lane in range(width)])
                for w in range(windows)
            ]
        run = [lane % group * width + lane // group for lane in range(width)]
        starts = [[(t * windows + w) * kernels for t in range(group)] for w in range(windows)]
        return [e.gather([e.load(pointer, start, width, *count) for start in own], run) for own in starts]

    return by_window


@emitted
def transform_gradient(
    kernels: int, valid: int, pool: int, outputs: int, taps: int, group: int, lanes: int
) -> Callable[..., None]:
    """A' of the gradients at a row of pooled outputs: points[p * point_length + row * row_length + t * lanes], for the
    ``pool`` rows of windows and ``tiles`` vectors t of kernels (lane k * group + g: see ``multiply_points``).

    delta, argmax: ``kernels`` numbers for each output, from the first tile's on; where the row ends within a vector,
    zeros in delta. A gradient is that of the place in the window that argmax says. ahead: bytes, of which some are
    fetched for later.
    """
    matrix = tuple(zip(*filtering(outputs, taps).output, strict=True))
    windows = outputs // pool

    def emit(
        e: Emitter, points: Pointer, point_length: Any, row_length: Any, delta: Pointer, argmax: Pointer, tiles: Any,
        ahead: Pointer,
    ) -> None:  # fmt: skip
        targets = [e.moved(points, e.mul(index(p), point_length)) for p in range(len(matrix))]
        by_window = _window_reader(e, windows, kernels, valid, group, lanes)

        def tile(number: Any, _: list[Any]) -> list[Any]:
            offset = e.mul(number, index(group * windows * kernels))
            e.prefetch(e.moved(ahead, e.mul(number, index(64))), 0)
            values = by_window(e.moved(delta, offset), valid)
            if pool > 1:
                won = by_window(e.moved(argmax, offset))
            zero = e.constant(0.0, lanes)
            there = e.mul(number, index(lanes))
            for row in range(pool):
                columns = values
                if pool > 1:
                    columns = []
                    for w, s in product(range(windows), range(pool)):
                        here = e.fcmp_ordered("==", won[w], e.constant(row * pool + s, lanes))
                        columns.append(e.select(here, values[w], zero))
                here = e.add(there, e.mul(index(row), row_length))
                for pointer, vector in zip(targets, at_points(e, matrix, columns), strict=True):
                    e.store(vector, e.moved(pointer, here))
            return []

        e.loop(tiles, 1, [], tile)

    return emit


def _groups(maps: int, rows: int, together: int, lanes: int) -> list[tuple[range, range]]:
    """Maps and rows of the kernel whose sums, at ``together`` points, stay in registers at the same time."""
    held = sums_held(lanes)
    maps_at_once, rows_at_once = max(1, min(maps, held // rows // together)), min(rows, held)
    return [
        (range(m, min(maps, m + maps_at_once)), range(r, min(rows, r + rows_at_once)))
        for m in range(0, maps, maps_at_once)
        for r in range(0, rows, rows_at_once)
    ]


@emitted
def add_points(
    maps: int, kernel_rows: int, pool: int, tile_length: int, together: int, group: int, lanes: int
) -> Callable[..., None]:
    """sums[p, c, i] += sum over ``pool`` rows and ``tiles`` vectors t of gradients[p, row, t] * points[row_starts[row +
    i], p, c, t], for ``together`` points p: the transpose of ``multiply_points``, with the same layouts.

    The sums stay in registers, as many at once as there are; the others are read again for each such group.
    """

    def emit(
        e: Emitter, sums: Pointer, gradients: Pointer, point_gradients: Any, row_gradients: Any, points: Pointer,
        point_length: Any, map_length: Any, row_starts: Pointer, tiles: Any, ahead: Pointer,
    ) -> None:  # fmt: skip
        starts = (e.as_index(e.scalar(row_starts, i)) for i in range(kernel_rows + pool - 1))
        row_sources = [e.moved(points, start) for start in starts]
        apart = (point_gradients, point_length)
        of_points = [[e.mul(index(p), length) for length in apart] for p in range(together)]
        of_rows = [e.mul(index(row), row_gradients) for row in range(pool)]

        def tile(places: dict[Any, int], maps: range, rows: range, number: Any, totals: list[Any]) -> list[Any]:
            totals = list(totals)
            there, here = e.mul(number, index(lanes)), e.mul(number, index(tile_length))
            if maps.start == rows.start == 0:
                e.prefetch(e.moved(ahead, e.mul(number, index(16))), 0)
            for p, (of_gradients, of_point) in enumerate(of_points):
                e.keep_apart()
                deltas = e.moved(e.moved(gradients, of_gradients), there)
                met = [e.load(e.moved(deltas, of_row), 0, lanes) for of_row in of_rows]
                for i in range(rows.start, rows.stop + pool - 1):
                    values = e.moved(e.moved(row_sources[i], of_point), here)
                    for own in maps:
                        value = grouped(e, e.moved(values, e.mul(index(own), map_length)), 0, group, group, lanes)
                        for row in range(pool):
                            if i - row in rows:
                                place = places[p, own, i - row]
                                totals[place] = e.multiply_add(met[row], value, totals[place])
            return totals

        for some_maps, some_rows in _groups(maps, kernel_rows, together, lanes):
            slots = list(product(range(together), some_maps, some_rows))
            at = [((p * maps + own) * kernel_rows + i) * lanes for p, own, i in slots]
            places = {slot: number for number, slot in enumerate(slots)}
            totals = [e.load(sums, offset, lanes) for offset in at]
            totals = e.loop(tiles, 1, totals, partial(tile, places, some_maps, some_rows))
            for total, offset in zip(totals, at, strict=True):
                e.store(total, sums, offset)

    return emit
