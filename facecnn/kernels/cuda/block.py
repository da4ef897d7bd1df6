"""Sums over a block's threads in a fixed order, without shuffles (which the simulator doesn't know)."""

from __future__ import annotations

from functools import cache
from typing import Any

from facecnn.kernels.cuda.driver import cuda, device_function

COLUMNS = 32
"""Threads that add up in parallel: a warp, each at another bank of the shared memory."""


@cache
def block_sum(threads: int) -> Any:
    """A device function ``total(values, partial, value)``: the sum of ``value`` over a block of so many threads, which
    each of them gets; two barriers for the sum and one after it, so that the memory can be used again.

    values (threads,) and partial (columns,) are in shared memory; columns = min(32, threads), a divisor of threads.
    """
    columns = min(COLUMNS, threads)
    rows = threads // columns
    assert rows * columns == threads

    @device_function
    def total(values: Any, partial: Any, value: Any) -> Any:
        thread = cuda.threadIdx.x
        values[thread] = value
        cuda.syncthreads()
        if thread < columns:
            column = values[thread]
            for row in range(1, rows):
                column += values[thread + row * columns]
            partial[thread] = column
        cuda.syncthreads()
        result = partial[0]
        for column in range(1, columns):
            result += partial[column]
        cuda.syncthreads()
        return result

    return total
