"""Sums and largest values over a block's threads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from facecnn.kernels import cuda as backend
from facecnn.kernels.cuda.block import block_largest, block_sum, columns_of
from facecnn.kernels.cuda.driver import SIMULATED, cuda, kernel

pytestmark = pytest.mark.cuda


@pytest.mark.parametrize("threads", [2, 4, 8, 16] if SIMULATED else [2, 32, 64, 256])
def test_each_thread_gets_the_sum_and_the_largest_again_and_again(threads: int) -> None:
    """With fewer threads than work in parallel, as many, and more."""
    columns = columns_of(threads)
    add_up, find_largest = block_sum(threads), block_largest(threads)

    @kernel
    def fold(out: Any, x: Any) -> None:
        # out (3, threads), x (2, threads)
        values = cuda.shared.array(threads, np.float32)
        partial = cuda.shared.array(columns, np.float32)
        thread = cuda.threadIdx.x
        out[0, thread] = add_up(values, partial, x[0, thread])
        out[1, thread] = find_largest(values, partial, x[0, thread])
        out[2, thread] = find_largest(values, partial, x[1, thread])

    x = np.stack([2.0 ** (np.arange(threads) % 16), np.full(threads, -1)]).astype(np.float32)
    x[1, threads // 2] = np.nan
    out = backend.to_device(np.zeros((3, threads), np.float32))
    fold[1, threads](out, backend.to_device(x))
    expected = np.repeat(np.array([[x[0].sum(dtype=np.float64)], [x[0].max()], [np.nan]], np.float32), threads, axis=1)
    np.testing.assert_array_equal(backend.to_host(out), expected)
