"""Sums and largest values over a block's threads, in a fixed order and without shuffles (the simulator knows none)."""

from __future__ import annotations

from functools import cache
from typing import Any

from facecnn.kernels.cuda.driver import cuda, device_function

_COLUMNS = 32
"""Threads that work in parallel on the first half of it: a warp, each at another bank of the shared memory."""


def columns_of(threads: int) -> int:
    """Elements of the second array in shared memory that the functions below need."""
    return min(_COLUMNS, threads)


@device_function
def _plus(a: Any, b: Any) -> Any:
    return a + b


@device_function
def larger(a: Any, b: Any) -> Any:
    """The larger of two; NaN if one of them is."""
    return b if b > a or b != b else a


@cache
def block_sum(threads: int) -> Any:
    """A device function ``total(values, partial, value)``: the sum of ``value`` over a block of so many threads, which
    each of them gets; two barriers for the sum and one after it, so that the memory can be used again.

    values (threads,) and partial (columns_of(threads),) are in shared memory.
    """
    return _folded(threads, _plus)


@cache
def block_largest(threads: int) -> Any:
    """As ``block_sum``, for the largest value: NaN if there is one among them."""
    return _folded(threads, larger)


def _folded(threads: int, of_two: Any) -> Any:
    columns = columns_of(threads)
    rows = threads // columns
    assert rows * columns == threads

    @device_function
    def folded(values: Any, partial: Any, value: Any) -> Any:
        thread = cuda.threadIdx.x
        values[thread] = value
        cuda.syncthreads()
        if thread < columns:
            column = values[thread]
            for row in range(1, rows):
                column = of_two(column, values[thread + row * columns])
            partial[thread] = column
        cuda.syncthreads()
        result = partial[0]
        for column in range(1, columns):
            result = of_two(result, partial[column])
        cuda.syncthreads()
        return result

    return folded
