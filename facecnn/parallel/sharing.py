"""A list of items that ranks share: who works on which, what comes of it, and what a rank leaves undone.

A rank takes a portion, brings its results and takes the next one. Portions become smaller towards the end (guided
self-scheduling, Polychronopoulos and Kuck 1987), so that all ranks end at about the same time, however fast each is.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from facecnn.parallel.ranks import ANY_PORTION, PortionSize, Silent, Work

MOST_TRIES = 2
"""How many ranks may fall silent over a portion before nobody else tries it: its items may be the cause."""


class Portion(NamedTuple):
    """The items from ``start`` to ``stop``."""

    start: int
    stop: int


@dataclass
class _Lost:
    """A portion that a rank hasn't brought back."""

    portion: Portion
    tries: int


class SharedItems:
    """The items on rank 0. Any thread may call it."""

    def __init__(
        self, count: int, ranks: int, size: PortionSize = ANY_PORTION, told: Callable[[int, int], None] | None = None
    ) -> None:
        """``ranks``: how many share them. ``told`` is called with the number of items done and of all."""
        self._count, self._ranks, self._size = count, ranks, size
        self._told = told or (lambda done, total: None)
        self._changed = threading.Condition()
        self._next = 0
        self._again: deque[_Lost] = deque()
        self._held: dict[int, _Lost] = {}
        self._results: list[Any] = [None] * count
        self._open = [True] * count
        self._left = count
        self._under_way: dict[int, int] = {}
        self._error: BaseException | None = None

    @property
    def finished(self) -> bool:
        """Whether each item has a result."""
        return self._left == 0

    @property
    def results(self) -> list[Any]:
        """A result for each item."""
        return self._results

    def take(self, rank: int) -> Portion | None:
        """The next portion for a rank; None if there is none at the moment. Raises what ``fail`` was given."""
        with self._changed:
            return self._take(rank)

    def _take(self, rank: int) -> Portion | None:
        if self._error is not None:
            raise self._error
        if self._again:
            held = self._again.popleft()
        elif self._next < self._count:
            remaining = self._count - self._next
            size = min(max(remaining // (2 * self._ranks), self._size.smallest), self._size.largest or remaining)
            held = _Lost(Portion(self._next, min(self._next + size, self._count)), 0)
            self._next = held.portion.stop
        else:
            return None
        self._held[rank] = held
        return held.portion

    def take_or_wait(self, rank: int) -> Portion | None:
        """The next portion for a rank, which may be one that another rank loses; None once all items have results."""
        with self._changed:
            while (portion := self._take(rank)) is None and not self.finished:
                self._changed.wait()
            return portion

    def put(self, rank: int, portion: Portion, results: Sequence[Any]) -> None:
        """The results of a rank's portion. If others have done it meanwhile, theirs stay."""
        with self._changed:
            self._held.pop(rank, None)
            self._under_way.pop(rank, None)
            self._again = deque(lost for lost in self._again if lost.portion != portion)
            self._fill(portion, results)

    def lose(self, rank: int, reason: str) -> bool:
        """A rank has fallen silent: others get its portion, unless that was tried often enough, when ``reason`` becomes
        the result of each item. Returns whether it had one."""
        with self._changed:
            lost = self._held.pop(rank, None)
            self._under_way.pop(rank, None)
            if lost is None:
                return False
            lost.tries += 1
            if lost.tries < MOST_TRIES:
                self._again.append(lost)
                self._changed.notify_all()
            else:
                self._fill(lost.portion, [Silent(reason)] * (lost.portion.stop - lost.portion.start))
            return True

    def fail(self, error: BaseException) -> None:
        """End the work of all who wait for a portion, with an error."""
        with self._changed:
            self._error = error
            self._changed.notify_all()

    def advance(self, rank: int, done: int) -> None:
        """So many items of a rank's portion are done."""
        with self._changed:
            self._under_way[rank] = done
            self._tell()

    def work(self, rank: int, work: Work) -> None:
        """Do as much of the work as there is for a rank."""
        while (portion := self.take_or_wait(rank)) is not None:
            self.put(rank, portion, work(*portion, lambda done: self.advance(rank, done)))

    def _fill(self, portion: Portion, results: Sequence[Any]) -> None:
        for item, result in zip(range(*portion), results, strict=True):
            if self._open[item]:
                self._results[item] = result
                self._open[item] = False
                self._left -= 1
        self._tell()
        self._changed.notify_all()

    def _tell(self) -> None:
        self._told(min(self._count, self._count - self._left + sum(self._under_way.values())), self._count)
