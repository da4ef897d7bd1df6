"""The innermost work of convolutions by Winograd's minimal filtering (see ``conv.winograd``), vector by vector.

As for ``micro_kernels``: sizes are known when a function is made, offsets and numbers of turns when it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

from facecnn.kernels.cpu.vector_ir.emit import Emitter, Pointer, emitted, index
from facecnn.kernels.cpu.vector_ir.filtering import Matrix, filtering
from facecnn.kernels.cpu.vector_ir.lanes import registers
from facecnn.kernels.cpu.vector_ir.micro_kernels import grouped


def _combined(e: Emitter, factors: Sequence[Fraction], vectors: Sequence[Any]) -> Any:
    """The sum of factor * vector; the first of those that are 1 or -1 costs no multiplication."""
    terms = [(factor, vector) for factor, vector in zip(factors, vectors, strict=True) if factor]
    terms.sort(key=lambda term: abs(term[0]) != 1)
    total = None
    for factor, vector in terms:
        if total is None:
            total = vector if factor == 1 else e.fmul(vector, e.constant(float(factor), vector.type.count))
        elif factor == 1:
            total = e.fadd(total, vector)
        elif factor == -1:
            total = e.fsub(total, vector)
        else:
            total = e.multiply_add(vector, e.constant(float(factor), vector.type.count), total)
    return total


def at_points(e: Emitter, matrix: Matrix, vectors: Sequence[Any]) -> list[Any]:
    """matrix @ vectors, for a matrix (points, vectors)."""
    found = [_combined(e, matrix[0], vectors)]
    for p in range(1, len(matrix) - 1, 2):  # a pair of opposite points: equal except for the signs of the odd powers
        even, odd = (
            [factor if j % 2 == rest else Fraction(0) for j, factor in enumerate(matrix[p])] for rest in (0, 1)
        )
        a, b = _combined(e, even, vectors), _combined(e, odd, vectors)
        sign = next(x / y for x, y in zip(matrix[p + 1], even, strict=True) if y)
        found += [e.fadd(a, b), e.fsub(a, b) if sign == 1 else e.fsub(b, a)]
    return [*found, _combined(e, matrix[-1], vectors)]


def sums_held(lanes: int) -> int:
    """Vectors of sums that stay in registers, beside weights and the values that they meet."""
    return registers(lanes) * 3 // 4


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
def transform_maps(maps: int, outputs: int, taps: int, lanes: int) -> Callable[..., None]:
    """B d of a row's tiles for few maps: points[p * point_length + c * map_length + t], for ``vectors`` of t and, if
    ``rests`` is 1 and not 0, one more, the last tile of which takes no column that the next would begin with.

    Read are vectors + 1 times lanes * outputs * maps floats of the row. ``outputs`` is a power of 2, and not less than
    taps - 1.
    """
    matrix = filtering(outputs, taps).input

    def emit(
        e: Emitter,
        points: Pointer,
        point_length: Any,
        map_length: Any,
        x: Pointer,
        vectors: Any,
        rests: Any,
        ahead: Any,
    ) -> None:
        targets = [
            [
                e.moved(points, e.add(e.mul(index(p), point_length), e.mul(index(own), map_length)))
                for p in range(len(matrix))
            ]
            for own in range(maps)
        ]

        def columns(number: Any) -> list[Any]:
            """Vectors of each map's columns 0, 1, ... ``outputs`` - 1 of the tiles."""
            here = e.moved(x, e.mul(number, index(lanes * outputs * maps)))
            loaded = _loaded(e, here, ahead, outputs * maps, lanes)
            return [vector for own in _split(e, loaded, maps) for vector in _by_column(e, own, outputs)]

        def transform(number: Any, own: list[Any], following: list[Any]) -> None:
            there = e.mul(number, index(lanes))
            for i in range(maps):
                here, after = own[i * outputs : (i + 1) * outputs], following[i * outputs : (i + 1) * outputs]
                shifted = [e.shuffle(a, range(1, lanes + 1), b) for a, b in zip(here, after, strict=True)]
                found = at_points(e, matrix, [*here, *shifted[: taps - 1]])
                for pointer, vector in zip(targets[i], found, strict=True):
                    e.store(vector, e.moved(pointer, there))

        def with_next(number: Any, own: list[Any]) -> list[Any]:
            following = columns(e.add(number, index(1)))
            transform(number, own, following)
            return following

        def last(number: Any, _: list[Any]) -> list[Any]:
            transform(vectors, own, own)
            return []

        own = e.loop(vectors, 1, columns(index(0)), with_next)
        e.loop(rests, 1, [], last)

    return emit


@emitted
def transform_pixels(maps: int, outputs: int, taps: int, lanes: int) -> Callable[..., None]:
    """B d of a row's ``tiles`` for maps that fill vectors: points[p * point_length + t * maps + c]."""
    matrix = filtering(outputs, taps).input

    def emit(e: Emitter, points: Pointer, point_length: Any, x: Pointer, tiles: Any) -> None:
        targets = [e.moved(points, e.mul(index(p), point_length)) for p in range(len(matrix))]

        def tile(number: Any, _: list[Any]) -> list[Any]:
            there = e.mul(number, index(maps))
            here = e.moved(x, e.mul(there, index(outputs)))
            for first in range(0, maps, lanes):
                columns = [e.load(here, j * maps + first, lanes) for j in range(len(matrix))]
                for pointer, vector in zip(targets, at_points(e, matrix, columns), strict=True):
                    e.store(vector, e.moved(pointer, there), first)
            return []

        e.loop(tiles, 1, [], tile)

    return emit


@emitted
def multiply_points(
    maps: int, kernel_rows: int, pool: int, tiles: int, tile_length: int, together: int, group: int, lanes: int
) -> Callable[..., None]:
    """products[p, row, t] = sum over c, i of points[row_starts[row + i], p, c, t] * packed[p, c, i], for ``together``
    points p, ``pool`` rows, and ``tiles`` vectors t of kernels, which stay in registers.

    ``group`` tiles share a vector (lane k * group + g): their numbers follow each other. The next vector's are
    ``tile_length`` floats further on, the next map's ``map_length``, the next point's ``point_length``. products:
    (p, row, t), of which a point's are ``point_products`` apart and the others follow each other.
    """

    def emit(
        e: Emitter, products: Pointer, point_products: Any, points: Pointer, point_length: Any, map_length: Any,
        row_starts: Pointer, packed: Pointer,
    ) -> None:  # fmt: skip
        starts = (e.as_index(e.scalar(row_starts, i)) for i in range(kernel_rows + pool - 1))
        row_sources = [e.moved(points, start) for start in starts]
        of_points = [e.mul(index(p), point_length) for p in range(together)]

        def one_map(number: Any, sums: list[Any]) -> list[Any]:
            sums = list(sums)
            here = e.mul(number, map_length)
            own = e.moved(packed, e.mul(number, index(kernel_rows * lanes)))
            for p in range(together):
                for i, row_source in enumerate(row_sources):
                    e.keep_apart()
                    values = e.moved(e.moved(row_source, of_points[p]), here)
                    met = [
                        (row, e.load(own, (p * maps * kernel_rows + i - row) * lanes, lanes))
                        for row in range(pool)
                        if 0 <= i - row < kernel_rows
                    ]
                    for t in range(tiles):
                        value = grouped(e, e.moved(values, t * tile_length), 0, group, group, lanes)
                        for row, weight in met:
                            place = (p * pool + row) * tiles + t
                            sums[place] = e.multiply_add(value, weight, sums[place])
            return sums

        sums = e.loop(maps, 1, [e.constant(0.0, lanes)] * (together * pool * tiles), one_map)
        for p in range(together):
            there = e.moved(products, e.mul(index(p), point_products))
            for i in range(pool * tiles):
                e.store(sums[p * pool * tiles + i], there, i * lanes)

    return emit


def _from_points(e: Emitter, matrix: Matrix, vectors: Sequence[Any]) -> list[Any]:
    """matrix @ vectors, for a matrix (outputs, points), whose points except for the first and the last are opposite
    pairs."""
    inner = range(1, len(vectors) - 1, 2)
    pairs = [(e.fadd(vectors[p], vectors[p + 1]), e.fsub(vectors[p], vectors[p + 1])) for p in inner]
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
    kernels: int, valid: int, pool: int, outputs: int, taps: int, group: int, lanes: int, with_places: bool
) -> Callable[..., None]:
    """A m of ``tiles`` vectors of tiles, and of each window of ``pool`` x ``pool`` the largest, for ``valid`` kernels;
    argmax is filled only ``with_places``.

    products: (p, row, t), of which a point's are ``point_products`` apart. out, argmax: as in ``convolve_row``; a
    vector's windows are those of ``group`` tiles. As much is fetched of ``later``, to be written next.
    """
    matrix, windows = filtering(outputs, taps).output, outputs // pool
    together = valid == lanes // group == kernels
    # Tile after tile, window after window: where each kernel's lanes are, in the vectors of the windows.
    runs = [[w * lanes + k * group + t for k in range(lanes // group)] for t in range(group) for w in range(windows)]
    if together:
        lanes_of_runs = [place for run in runs for place in run]
        runs = [lanes_of_runs[first : first + lanes] for first in range(0, len(lanes_of_runs), lanes)]

    def emit(
        e: Emitter, out: Pointer, argmax: Pointer, products: Pointer, point_products: Any, tiles: Any, later: Pointer
    ) -> None:
        of_points = [e.moved(products, e.mul(index(p), point_products)) for p in range(len(matrix[0]))]
        row_length = e.mul(tiles, index(lanes))

        def outputs_of(row: int, here: Any) -> list[Any]:
            own = e.add(e.mul(index(row), row_length), here)
            return _from_points(e, matrix, [e.load(e.moved(pointer, own), 0, lanes) for pointer in of_points])

        def tile(number: Any, _: list[Any]) -> list[Any]:
            here = e.mul(number, index(lanes))
            rows = [outputs_of(row, here) for row in range(pool)]
            offset = e.mul(number, index(group * windows * kernels))
            target = e.moved(out, offset)
            sums = [[row[w * pool + s] for row in rows for s in range(pool)] for w in range(windows)]
            found = [_winner(e, own) if with_places or pool == 1 else (e.largest(own), None) for own in sums]
            values, places = ([pair[i] for pair in found] for i in (0, 1))
            for number, run in enumerate(runs):
                at, count = (number * lanes, lanes) if together else (number * kernels, valid)
                e.store(e.gather(values, run), target, at, count)
                e.prefetch(e.moved(later, offset), at, to_write=True)
                if pool > 1 and with_places:
                    e.store(e.to_bytes(e.gather(places, run)), e.moved(argmax, offset), at, count)
            return []

        e.loop(tiles, 1, [], tile)

    return emit


@emitted
def transform_lines(last: int, kernels: int, outputs: int, taps: int, width: int, lanes: int) -> Callable[..., None]:
    """A m of a row's tiles for ``width`` of its kernels: ``whole`` tiles, and one of which only ``last`` columns are
    written.

    products: (p, t, k), of which a point's are ``point_products`` apart. out: ``kernels`` numbers for each column.
    """
    matrix = filtering(outputs, taps).output

    def emit(e: Emitter, out: Pointer, products: Pointer, point_products: Any, whole: Any) -> None:
        of_points = [e.moved(products, e.mul(index(p), point_products)) for p in range(len(matrix[0]))]

        def tile(number: Any, count: int) -> None:
            here = e.mul(number, index(width))
            there = e.moved(out, e.mul(number, index(outputs * kernels)))
            for k in range(0, width, lanes):
                vectors = [e.load(e.moved(pointer, here), k, lanes) for pointer in of_points]
                for column, total in enumerate(_from_points(e, matrix, vectors)[:count]):
                    e.store(total, there, column * kernels + k)

        def one_of_whole(number: Any, _: list[Any]) -> list[Any]:
            tile(number, outputs)
            return []

        e.loop(whole, 1, [], one_of_whole)
        tile(whole, last)

    return emit
