"""Products of matrices by one kernel, for dense layers and strided convolutions.

A block makes a tile of the product. It brings slabs of both factors to shared memory, where each number is read by a
whole row or column of threads, and each thread keeps up to 8 x 8 sums in registers: 16 numbers that are read serve 64
multiply-adds. Threads and their rows and columns are interleaved (thread 0 has columns 0, 8, 16, ...), so that
neighbours read neighbouring memory, without bank conflicts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

from facecnn.kernels.cuda.columns import natural
from facecnn.kernels.cuda.conv_unrolled import unrolled
from facecnn.kernels.cuda.driver import SIMULATED, cuda, device_function, kernel, launch
from facecnn.kernels.cuda.memory import Workspace

_ZERO = np.float32(0)
_SIDE = 2 if SIMULATED else 8
THREADS = _SIDE * _SIDE
"""Threads of a block, _SIDE x _SIDE."""
SLAB = 4 if SIMULATED else 32
"""Depth of the slab in shared memory."""


def tiles_of(size: int, each: int) -> int:
    """Tiles along a side of this size, for so many outputs of a thread."""
    return -(-size // (_SIDE * each))


def _each(size: int, possible: Sequence[int]) -> int:
    """Outputs of a thread along a side: as few tiles as can be, of as little as they need."""
    tiles = tiles_of(size, possible[-1])
    return next(each for each in possible if each * _SIDE * tiles >= size)


def grid_of(rows: int, columns: int, possible: Sequence[int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Rows and columns of outputs of a thread, of the possible numbers; and the tiles down and across."""
    rows_each, columns_each = _each(rows, possible), _each(columns, possible)
    return (rows_each, columns_each), (tiles_of(rows, rows_each), tiles_of(columns, columns_each))


def split_depth_of(depth: int, tiles: int, blocks: int, least: int) -> int:
    """The depth of a split of long sums: ``least`` slabs or more, so that ``tiles`` of outputs take about ``blocks``
    blocks at most."""
    return SLAB * max(least, -(-depth // (SLAB * max(1, blocks // tiles))))


def _pitch(width: int) -> int:
    """Elements from one row of a tile to the next: 1 beyond a multiple of the 32 banks, so that writing down a column
    is as quick as along a row."""
    return width + (1 - width) % 32


def _load(width: int, element: Any, depth_first: bool) -> Any:
    """A device function that fills tile (slab, width) in shared memory with the elements of lines ``first`` and depths
    ``start`` on, and 0 beyond ``lines`` and ``stop``. Neighbouring threads read neighbouring depths if ``depth_first``,
    else lines."""

    @device_function
    def load(tile: Any, source: Any, lines: Any, first: Any, start: Any, stop: Any) -> None:
        e = natural(cuda.threadIdx.x)
        while e < width * SLAB:
            if depth_first:
                i, d = e // SLAB, e % SLAB
            else:
                i, d = e % width, e // width
            value = _ZERO
            if first + i < lines and start + d < stop:
                value = element(source, first + i, start + d)
            tile[d, i] = value
            e += THREADS

    return load


def _store(rows_each: int, columns_each: int, finish: Any, written_out: bool) -> Any:
    """A device function that stores a thread's sums: see ``product_of``."""

    def one_output(output: int) -> Any:
        i, j = divmod(output, columns_each)

        @device_function
        def store(state: Any) -> None:
            sums, target, first_row, first_column, row_count, column_count, split = state
            r, c = first_row + i * _SIDE, first_column + j * _SIDE
            if r < row_count and c < column_count:
                finish(target, r, c, sums[output], split)

        return store

    @device_function
    def store_all(state: Any) -> None:
        sums, target, first_row, first_column, row_count, column_count, split = state
        for i in range(rows_each):
            for j in range(columns_each):
                r, c = first_row + i * _SIDE, first_column + j * _SIDE
                if r < row_count and c < column_count:
                    finish(target, r, c, sums[i * columns_each + j], split)

    return unrolled(rows_each * columns_each, one_output) if written_out else store_all


@device_function
def _no_row_sum(target: Any, r: Any, total: Any, split: Any) -> None:
    pass


def product_of(
    rows_each: int, columns_each: int, a: tuple[Any, bool], b: tuple[Any, bool], finish: Any,
    finish_row: Any = _no_row_sum, written_out: bool = False,
) -> Any:  # fmt: skip
    """A kernel that sums a[r, d] * b[c, d] over the depths d of its split, in order, for its tile of rows r and columns
    c, and stores each sum by ``finish(target, r, c, sum, split)``.

    a, b: a device function ``element(source, line, depth)``, and whether depths lie side by side. finish_row, if there
    is one, is called once for each row and split: ``finish_row(target, r, sum of a[r, d], split)``. Where ``finish`` is
    so long that the compiler doesn't unroll a loop over the sums, it has to be ``written_out`` for each of them, which
    takes ten times as long to compile.
    """
    rows, columns = _SIDE * rows_each, _SIDE * columns_each
    shape_a, shape_b = (SLAB, _pitch(rows)), (SLAB, _pitch(columns))
    outputs, store_all = rows_each * columns_each, _store(rows_each, columns_each, finish, written_out)
    load_a, load_b = _load(rows, *a), _load(columns, *b)
    adds_rows = finish_row is not _no_row_sum
    assert rows <= THREADS

    @kernel
    def product(target: Any, a: Any, b: Any, row_count: Any, column_count: Any, depth: Any, split_depth: Any) -> None:
        # grid: (tiles, a row of them after the other; splits)
        tile_a = cuda.shared.array(shape_a, np.float32)
        tile_b = cuda.shared.array(shape_b, np.float32)
        sums = cuda.local.array(outputs, np.float32)
        left = cuda.local.array(rows_each, np.float32)
        thread = natural(cuda.threadIdx.x)
        down, along = thread // _SIDE, thread % _SIDE
        block, across = natural(cuda.blockIdx.x), (natural(column_count) + columns - 1) // columns
        first_row, first_column = block // across * rows, block % across * columns
        split = natural(cuda.blockIdx.y)
        for o in range(outputs):
            sums[o] = _ZERO
        total = _ZERO
        start = split * natural(split_depth)
        stop = min(start + natural(split_depth), natural(depth))
        while start < stop:
            load_a(tile_a, a, row_count, first_row, start, stop)
            load_b(tile_b, b, column_count, first_column, start, stop)
            cuda.syncthreads()
            d = 0
            while d < SLAB:
                for i in range(rows_each):
                    left[i] = tile_a[d, down + i * _SIDE]
                for j in range(columns_each):
                    right = tile_b[d, along + j * _SIDE]
                    for i in range(rows_each):
                        sums[i * columns_each + j] += left[i] * right
                d += 1
            if adds_rows and first_column == 0 and thread < rows:
                for d in range(SLAB):
                    total += tile_a[d, thread]
            cuda.syncthreads()
            start += SLAB
        store_all((sums, target, first_row + down, first_column + along, row_count, column_count, split))
        if adds_rows and first_column == 0 and thread < rows and first_row + thread < row_count:
            finish_row(target, first_row + thread, total, split)

    return product


def launch_product(
    product: Callable[[int, int], Any], possible: Sequence[int], size: tuple[int, int, int], target: Any, a: Any,
    b: Any, workspace: Workspace, split_depth: int | None = None,
) -> None:  # fmt: skip
    """Launch the ``product`` of these rows, columns and depth, made for one of the possible numbers of rows and columns
    of outputs of a thread; in splits of ``split_depth``, if it is to be split."""
    rows, columns, depth = size
    each, tiles = grid_of(rows, columns, possible)
    splits = 1 if split_depth is None else -(-depth // split_depth)
    launch(
        product(*each),
        (prod(tiles), splits),
        THREADS,
        workspace,
        target,
        a,
        b,
        rows,
        columns,
        depth,
        split_depth or depth,
    )
