"""The innermost work of convolutions by Winograd's minimal filtering (see ``conv.winograd``), vector by vector.

As in ``micro_kernels``, sizes are literals, and offsets and numbers of turns are values.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from numba import types

from facecnn.kernels.cpu.vector_ir.emit import Emitter, emitted, index
from facecnn.kernels.cpu.vector_ir.filtering import Matrix, filtering
from facecnn.kernels.cpu.vector_ir.lanes import registers


def _combined(e: Emitter, factors: Sequence[Fraction], vectors: Sequence[Any]) -> Any:
    """The sum of factor * vector; the first of those that are 1 or -1 costs no multiplication."""
    terms = [(factor, vector) for factor, vector in zip(factors, vectors, strict=True) if factor]
    terms.sort(key=lambda term: abs(term[0]) != 1)
    total = None
    for factor, vector in terms:
        if total is None:
            total = vector if factor == 1 else e.multiply(vector, e.constant(float(factor), vector.type.count))
        elif factor == 1:
            total = e.add(total, vector)
        elif factor == -1:
            total = e.subtract(total, vector)
        else:
            total = e.multiply_add(vector, e.constant(float(factor), vector.type.count), total)
    return total


def at_points(e: Emitter, matrix: Matrix, vectors: Sequence[Any]) -> list[Any]:
    """matrix @ vectors, for a matrix (points, vectors)."""
    found = [_combined(e, matrix[0], vectors)]
    for p in range(1, len(matrix) - 1, 2):  # a pair of opposite points: equal but for the signs of the odd powers
        even, odd = (
            [factor if j % 2 == rest else Fraction(0) for j, factor in enumerate(matrix[p])] for rest in (0, 1)
        )
        a, b = _combined(e, even, vectors), _combined(e, odd, vectors)
        sign = next(x / y for x, y in zip(matrix[p + 1], even, strict=True) if y)
        found += [e.add(a, b), e.subtract(a, b) if sign == 1 else e.subtract(b, a)]
    return [*found, _combined(e, matrix[-1], vectors)]


def sums_held(lanes: int) -> int:
    """Vectors of sums that stay in registers, beside weights and the values that they meet."""
    return registers(lanes) * 3 // 4


def tiles_of(e: Emitter, pointer: Any, group: int, lanes: int) -> Any:
    """The values of ``group`` tiles that follow each other, over and over."""
    if group == 1:
        return e.broadcast(e.scalar(pointer), lanes)
    return e.shuffle(e.load(pointer, 0, group), [lane % group for lane in range(lanes)])


def _split(e: Emitter, vectors: list[Any], apart: int) -> list[list[Any]]:
    """The elements at places 0, 1, ... modulo ``apart``."""
    groups = [vectors[v : v + apart] for v in range(0, len(vectors), apart)]
    lanes = range(vectors[0].type.count)
    return [[e.gather(group, [lane * apart + s for lane in lanes]) for group in groups] for s in range(apart)]


def _by_column(e: Emitter, vectors: list[Any], apart: int) -> list[Any]:
    """The same as one vector for each remainder, by halves; ``apart`` is a power of 2."""
    if apart == 1:
        return vectors
    even, odd = (_by_column(e, half, apart // 2) for half in _split(e, vectors, 2))
    return [(even if s % 2 == 0 else odd)[s // 2] for s in range(apart)]


def _loaded(e: Emitter, source: Any, ahead: Any, count: int, width: int) -> list[Any]:
    """Vectors one after the other; as many are fetched from ``ahead`` later on."""
    loaded = [e.load(source, v * width, width) for v in range(count)]
    later = e.moved(source, ahead)
    for v in range(count):
        e.prefetch(later, v * width)
    return loaded


@emitted
def transform_maps(
    typing: Any,
    points: Any, points_offset: Any, point_length: Any, map_length: Any, x: Any, x_offset: Any, vectors: Any,
    rests: Any, ahead: Any,
    maps: Any, outputs: Any, taps: Any, lanes: Any,
) -> Any:  # fmt: skip
    """B d of a row's tiles for few maps: points[p * point_length + c * map_length + t], for ``vectors`` of t and, if
    ``rests`` is 1 and not 0, one more, the last tile of which takes no column that the next would begin with.

    Read are vectors + 1 times lanes * outputs * maps floats of the row. ``outputs`` is a power of 2, and not less than
    taps - 1.
    """
    literals = (maps, outputs, taps, lanes)
    c, m, r, width = (literal.literal_value for literal in literals)
    signature = types.void(
        points, points_offset, point_length, map_length, x, x_offset, vectors, rests, ahead, *literals
    )
    matrix = filtering(m, r).input

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        e = Emitter(context, builder)
        kinds = signature.args
        target = e.pointer(kinds[0], arguments[0], arguments[1])
        source = e.pointer(kinds[4], arguments[4], arguments[5])
        targets = [
            [
                e.moved(target, builder.add(builder.mul(index(p), arguments[2]), builder.mul(index(own), arguments[3])))
                for p in range(len(matrix))
            ]
            for own in range(c)
        ]

        def columns(number: Any) -> list[Any]:
            """Vectors of each map's columns 0, 1, ... ``outputs`` - 1 of the tiles."""
            here = e.moved(source, builder.mul(number, index(width * m * c)))
            loaded = _loaded(e, here, arguments[8], m * c, width)
            return [vector for own in _split(e, loaded, c) for vector in _by_column(e, own, m)]

        def transform(number: Any, own: list[Any], following: list[Any]) -> None:
            there = builder.mul(number, index(width))
            for i in range(c):
                here, after = own[i * m : (i + 1) * m], following[i * m : (i + 1) * m]
                shifted = [e.shuffle(a, range(1, width + 1), b) for a, b in zip(here, after, strict=True)]
                for pointer, vector in zip(targets[i], at_points(e, matrix, [*here, *shifted[: r - 1]]), strict=True):
                    e.store(vector, e.moved(pointer, there), 0)

        def with_next(number: Any, own: list[Any]) -> list[Any]:
            following = columns(builder.add(number, index(1)))
            transform(number, own, following)
            return following

        def last(number: Any, _: list[Any]) -> list[Any]:
            transform(arguments[6], own, own)
            return []

        own = e.loop(arguments[6], 1, columns(index(0)), with_next)
        e.loop(arguments[7], 1, [], last)
        return context.get_dummy_value()

    return signature, generate


@emitted
def transform_pixels(
    typing: Any,
    points: Any, points_offset: Any, point_length: Any, x: Any, x_offset: Any, tiles: Any,
    maps: Any, outputs: Any, taps: Any, lanes: Any,
) -> Any:  # fmt: skip
    """B d of a row's ``tiles`` for maps that fill vectors: points[p * point_length + t * maps + c]."""
    literals = (maps, outputs, taps, lanes)
    c, m, r, width = (literal.literal_value for literal in literals)
    signature = types.void(points, points_offset, point_length, x, x_offset, tiles, *literals)
    matrix = filtering(m, r).input

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        e = Emitter(context, builder)
        kinds = signature.args
        target = e.pointer(kinds[0], arguments[0], arguments[1])
        source = e.pointer(kinds[3], arguments[3], arguments[4])
        targets = [e.moved(target, builder.mul(index(p), arguments[2])) for p in range(len(matrix))]

        def tile(number: Any, _: list[Any]) -> list[Any]:
            there = builder.mul(number, index(c))
            here = e.moved(source, builder.mul(there, index(m)))
            for first in range(0, c, width):
                columns = [e.load(here, j * c + first, width) for j in range(len(matrix))]
                for pointer, vector in zip(targets, at_points(e, matrix, columns), strict=True):
                    e.store(vector, e.moved(pointer, there), first)
            return []

        e.loop(arguments[5], 1, [], tile)
        return context.get_dummy_value()

    return signature, generate


@emitted
def multiply_points(
    typing: Any,
    products: Any, products_offset: Any, point_products: Any, points: Any, points_offset: Any, point_length: Any,
    map_length: Any, row_starts: Any, packed: Any, packed_offset: Any,
    maps: Any, kernel_rows: Any, pool: Any, tiles: Any, tile_length: Any, together: Any, group: Any, lanes: Any,
) -> Any:  # fmt: skip
    """products[p, row, t] = sum over c, i of points[row_starts[row + i], p, c, t] * packed[p, c, i], for ``together``
    points p, ``pool`` rows, and ``tiles`` vectors t of kernels, which stay in registers.

    ``group`` tiles share a vector (lane k * group + g): their numbers follow each other. The next vector's are
    ``tile_length`` floats further on, the next map's ``map_length``, the next point's ``point_length``. products:
    (p, row, t), of which a point's are ``point_products`` apart and the others follow each other.
    """
    literals = (maps, kernel_rows, pool, tiles, tile_length, together, group, lanes)
    c, rows, high, count, apart, some, g, width = (literal.literal_value for literal in literals)
    signature = types.void(
        products, products_offset, point_products, points, points_offset, point_length, map_length, row_starts, packed,
        packed_offset, *literals,
    )  # fmt: skip

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        e = Emitter(context, builder)
        kinds = signature.args
        target = e.pointer(kinds[0], arguments[0], arguments[1])
        source = e.pointer(kinds[3], arguments[3], arguments[4])
        starts = e.pointer(kinds[7], arguments[7], index(0))
        weights = e.pointer(kinds[8], arguments[8], arguments[9])
        row_sources = [e.moved(source, e.as_index(e.scalar(starts, i))) for i in range(rows + high - 1)]
        of_points = [builder.mul(index(p), arguments[5]) for p in range(some)]

        def one_map(number: Any, sums: list[Any]) -> list[Any]:
            sums = list(sums)
            here = builder.mul(number, arguments[6])
            own = e.moved(weights, builder.mul(number, index(rows * width)))
            for p in range(some):
                for i in range(rows + high - 1):
                    e.keep_apart()
                    values = e.moved(e.moved(row_sources[i], of_points[p]), here)
                    met = [
                        (row, e.load(own, (p * c * rows + i - row) * width, width))
                        for row in range(high)
                        if 0 <= i - row < rows
                    ]
                    for t in range(count):
                        value = tiles_of(e, e.moved(values, t * apart), g, width)
                        for row, weight in met:
                            place = (p * high + row) * count + t
                            sums[place] = e.multiply_add(value, weight, sums[place])
            return sums

        sums = e.loop(c, 1, [e.constant(0.0, width)] * (some * high * count), one_map)
        for p in range(some):
            there = e.moved(target, builder.mul(index(p), arguments[2]))
            for i in range(high * count):
                e.store(sums[p * high * count + i], there, i * width)
        return context.get_dummy_value()

    return signature, generate


def _from_points(e: Emitter, matrix: Matrix, vectors: Sequence[Any]) -> list[Any]:
    """matrix @ vectors, for a matrix (outputs, points), whose points but for the first and the last are opposite
    pairs."""
    inner = range(1, len(vectors) - 1, 2)
    pairs = [(e.add(vectors[p], vectors[p + 1]), e.subtract(vectors[p], vectors[p + 1])) for p in inner]
    return [
        _combined(e, [row[0], *row[1:-1:2], row[-1]], [vectors[0], *(pair[i % 2] for pair in pairs), vectors[-1]])
        for i, row in enumerate(matrix)
    ]


def _winner(e: Emitter, window: list[Any]) -> tuple[Any, Any]:
    """The largest of a window's sums, NaN if any is NaN, and its place."""
    lanes = window[0].type.count
    largest, where = window[0], e.integers(0, lanes)
    for place, total in enumerate(window[1:], 1):
        larger = e.larger_or_nan(total, largest)
        largest = e.select(larger, total, largest)
        where = e.select(larger, e.integers(place, lanes), where)
    return largest, where


@emitted
def transform_output(
    typing: Any,
    out: Any, out_offset: Any, argmax: Any, argmax_offset: Any, products: Any, products_offset: Any,
    point_products: Any, tiles: Any, later: Any, later_offset: Any,
    kernels: Any, valid: Any, pool: Any, outputs: Any, taps: Any, group: Any, lanes: Any, with_places: Any,
) -> Any:  # fmt: skip
    """A m of ``tiles`` vectors of tiles, and of each window of ``pool`` x ``pool`` the largest, for ``valid`` kernels;
    argmax is filled only ``with_places``.

    products: (p, row, t), of which a point's are ``point_products`` apart. out, argmax: as in ``convolve_row``; a
    vector's windows are those of ``group`` tiles. As much is fetched of ``later``, to be written next.
    """
    literals = (kernels, valid, pool, outputs, taps, group, lanes, with_places)
    all_kernels, some, high, m, r, g, width, placed = (literal.literal_value for literal in literals)
    signature = types.void(
        out, out_offset, argmax, argmax_offset, products, products_offset, point_products, tiles, later, later_offset,
        *literals,
    )  # fmt: skip
    plan = filtering(m, r)
    together = some == width // g == all_kernels

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        e = Emitter(context, builder)
        kinds = signature.args
        row_target = e.pointer(kinds[0], arguments[0], arguments[1])
        row_places = e.pointer(kinds[2], arguments[2], arguments[3])
        source = e.pointer(kinds[4], arguments[4], arguments[5])
        of_points = [e.moved(source, builder.mul(index(p), arguments[6])) for p in range(len(plan.input))]
        row_length = builder.mul(arguments[7], index(width))
        written_next = e.pointer(kinds[8], arguments[8], arguments[9])

        def outputs_of(row: int, here: Any) -> list[Any]:
            own = builder.add(builder.mul(index(row), row_length), here)
            return _from_points(e, plan.output, [e.load(e.moved(pointer, own), 0, width) for pointer in of_points])

        def tile(number: Any, _: list[Any]) -> list[Any]:
            here = builder.mul(number, index(width))
            rows = [outputs_of(row, here) for row in range(high)]
            offset = builder.mul(number, index(g * m // high * all_kernels))
            target = e.moved(row_target, offset)
            windows = [[row[w * high + s] for row in rows for s in range(high)] for w in range(m // high)]
            found = [_winner(e, own) if placed or high == 1 else (e.largest(own), None) for own in windows]
            # Tile after tile, window after window: where each kernel's lanes are, in the vectors that were found.
            runs = [[w * width + k * g + t for k in range(width // g)] for t in range(g) for w in range(m // high)]
            if together:
                lanes_of_runs = [place for run in runs for place in run]
                runs = [lanes_of_runs[first : first + width] for first in range(0, len(lanes_of_runs), width)]
            values, places = ([pair[i] for pair in found] for i in (0, 1))
            for number, run in enumerate(runs):
                at, count = (number * width, width) if together else (number * all_kernels, some)
                e.store(e.gather(values, run), target, at, count)
                e.prefetch(e.moved(written_next, offset), at, to_write=True)
                if high > 1 and placed:
                    e.store(e.to_bytes(e.gather(places, run)), e.moved(row_places, offset), at, count)
            return []

        e.loop(arguments[7], 1, [], tile)
        return context.get_dummy_value()

    return signature, generate


@emitted
def transform_lines(
    typing: Any,
    out: Any, out_offset: Any, products: Any, products_offset: Any, point_products: Any, whole: Any,
    last: Any, kernels: Any, outputs: Any, taps: Any, width: Any, lanes: Any,
) -> Any:  # fmt: skip
    """A m of a row's tiles for ``width`` of its kernels: ``whole`` tiles, and one of which only ``last`` columns are
    written.

    products: (p, t, k), of which a point's are ``point_products`` apart. out: ``kernels`` numbers for each column.
    """
    literals = (last, kernels, outputs, taps, width, lanes)
    columns, all_kernels, m, r, some, lane_count = (literal.literal_value for literal in literals)
    signature = types.void(out, out_offset, products, products_offset, point_products, whole, *literals)
    plan = filtering(m, r)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        e = Emitter(context, builder)
        target = e.pointer(signature.args[0], arguments[0], arguments[1])
        source = e.pointer(signature.args[2], arguments[2], arguments[3])
        of_points = [e.moved(source, builder.mul(index(p), arguments[4])) for p in range(len(plan.input))]

        def tile(number: Any, count: int) -> None:
            here = builder.mul(number, index(some))
            there = e.moved(target, builder.mul(number, index(m * all_kernels)))
            for k in range(0, some, lane_count):
                vectors = [e.load(e.moved(pointer, here), k, lane_count) for pointer in of_points]
                for column, total in enumerate(_from_points(e, plan.output, vectors)[:count]):
                    e.store(total, there, column * all_kernels + k)

        def one_of_whole(number: Any, _: list[Any]) -> list[Any]:
            tile(number, m)
            return []

        e.loop(arguments[5], 1, [], one_of_whole)
        tile(arguments[5], columns)
        return context.get_dummy_value()

    return signature, generate
