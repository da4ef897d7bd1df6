"""What becomes of a kernel's loops over prange."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numba import prange

from facecnn.kernels import available_threads
from facecnn.kernels.cpu import jit


@pytest.fixture(autouse=True)
def _not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jit, "cache_folder", lambda: None)


def test_every_turn_is_done_once_on_any_number_of_threads() -> None:
    @jit.compiled(parallel=True)
    def count(turns: Any, threads: Any) -> None:
        for n in prange(len(turns)):
            turns[n] += 1
            threads[n] = jit.thread_number()

    try:
        for number in range(1, available_threads() + 1):
            jit.set_threads(number)
            for size in (0, 1, 2, 3, 7, 100):
                turns, threads = np.zeros(size, np.int32), np.full(size, -1)
                count(turns, threads)
                assert (turns == 1).all()
                assert set(threads) <= set(range(number))
    finally:
        jit.set_threads(available_threads())


def test_a_kernel_may_have_several_loops_that_use_what_was_computed_before() -> None:
    factor = np.float32(2)

    @jit.compiled(parallel=True)
    def compute(out: Any, x: Any, pair: Any, times: int) -> None:
        offset = 0
        for i in range(times):
            offset += i
        rows, columns = x.shape
        for n in prange(rows):
            row = x[n]
            for i in range(columns):
                out[n, i] = row[i] * pair[0][i] + pair[1] * factor
        for i in range(columns):
            out[0, i] += 1
        for n in prange(rows):
            row = out[n]
            for i in range(columns):
                row[i] += offset

    x, weights = np.arange(12, dtype=np.float32).reshape(3, 4), np.array([1, 2, 3, 4], np.float32)
    out = np.empty_like(x)
    compute(out, x, (weights, np.float32(5)), 4)
    wanted = x * weights + 10 + 6
    wanted[0] += 1
    np.testing.assert_array_equal(out, wanted)


def test_a_loop_hands_nothing_on_but_what_it_writes_to_arrays() -> None:
    @jit.compiled(parallel=True)
    def add(x: Any) -> float:
        total = 0.0
        for n in prange(len(x)):
            total += x[n]
        return total

    with pytest.raises(AssertionError, match="a parallel loop's variables are used after it"):
        add(np.ones(3))


def test_a_kernel_without_a_parallel_loop_is_noticed() -> None:
    @jit.compiled(parallel=True)
    def clear(x: Any) -> None:
        for n in range(len(x)):
            x[n] = 0

    with pytest.raises(AssertionError, match="clear has no parallel loop"):
        clear(np.ones(3))
