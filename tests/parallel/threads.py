"""Ranks that are threads of this process, for tests of what ranks share, with backends that several threads may use."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from facecnn.arrays import Array
from facecnn.parallel.ranks import ANY_PORTION, PortionSize, Ranks, Silent, Work
from facecnn.parallel.sharing import SharedItems

_T = TypeVar("_T")

SECONDS = 60
"""After which a rank that waits for the others gives up."""


class ThreadRanks:
    """One of the ranks."""

    lost: tuple[str, ...] = ()

    def __init__(self, rank: int, size: int, board: list[Any], barrier: threading.Barrier) -> None:
        self.rank, self.size = rank, size
        self._board, self._barrier = board, barrier

    def add_up(self, array: Array) -> None:
        stacked = self.stack(array)
        array[...] = stacked[0]
        for other in stacked[1:]:
            array += other

    def stack(self, array: Array) -> Array:
        return np.array(self.gather(np.array(array)))

    def gather(self, value: _T) -> list[_T]:
        self._board[self.rank] = value
        self._barrier.wait(SECONDS)
        found: list[_T] = list(self._board)
        self._barrier.wait(SECONDS)
        return found

    def broadcast(self, value: _T | None, *, patiently: bool = False) -> _T:
        found = self.gather(value)[0]
        assert found is not None
        return found

    def busy(self) -> None:
        pass

    def collect(self, value: _T) -> list[_T | Silent]:
        found: list[_T | Silent] = [*self.gather(value)]
        return [] if self.rank else found

    def share_out(
        self, count: int, work: Work, size: PortionSize = ANY_PORTION, told: Callable[[int, int], None] | None = None
    ) -> list[Any]:
        items: SharedItems = self.broadcast(SharedItems(count, self.size, size, told) if self.rank == 0 else None)
        try:
            items.work(self.rank, work)
        except BaseException as error:
            items.fail(error)
            raise
        self._barrier.wait(SECONDS)
        return [] if self.rank else items.results


def on_ranks(size: int, function: Callable[[Ranks], _T]) -> list[_T]:
    """What a function returns on each of ``size`` ranks; raises what it raises on the first of those that fail."""
    board, barrier = [None] * size, threading.Barrier(size)
    results: list[Any] = [None] * size
    errors: list[BaseException] = []

    def run(rank: int) -> None:
        try:
            results[rank] = function(ThreadRanks(rank, size, board, barrier))
        except BaseException as error:
            errors.append(error)
            barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,), name=f"rank {rank}") for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results
