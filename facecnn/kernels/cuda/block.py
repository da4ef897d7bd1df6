"""Sums and maxima over a block's threads, in a fixed order and without shuffles (the simulator has none)."""

from __future__ import annotations

from functools import cache
from typing import Any

from facecnn.kernels.cuda.driver import SIMULATED, cuda, device_function
from facecnn.kernels.cuda.sizes import THREADS

_COLUMNS = 4 if SIMULATED else 32
"""Threads of the first half of a reduction: a warp, each on its own bank of shared memory. (Fewer than THREADS in the
simulator, too, so that each adds up several values there as well.)"""


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
    """A device function ``total(values, partial, value)``: the sum of ``value`` over a block, which every thread
    gets. Has two barriers.

    values (threads,) and partial (columns_of(threads),) are in shared memory. Both may be passed to the next such call
    at once: it overwrites values, which no thread reads after the second barrier, and partial only after a barrier of
    its own. Any other use needs a barrier first.
    """
    return _folded(threads, _plus)


@cache
def block_largest(threads: int) -> Any:
    """As ``block_sum``, for the largest value; NaN if any is NaN."""
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
        return result

    return folded


COLUMNS = columns_of(THREADS)
add_up, find_largest = block_sum(THREADS), block_largest(THREADS)
"""For blocks of as many threads as most have."""
