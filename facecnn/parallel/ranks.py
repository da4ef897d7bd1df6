"""What the processes that work together tell each other, and the share of the work that each does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

from facecnn.errors import FacecnnError

if TYPE_CHECKING:  # the command line imports this module, and NumPy only once a command runs
    from facecnn.arrays import Array

_T = TypeVar("_T")


@dataclass(frozen=True)
class Silent:
    """In the place of what a rank should have given."""

    reason: str


Work: TypeAlias = Callable[[int, int, Callable[[int], None]], Sequence[Any]]
"""Does the items from a start to a stop, tells how many of them are done, and returns the result of each."""


@dataclass(frozen=True)
class PortionSize:
    """How many items a rank takes at a time."""

    smallest: int = 1
    """So many that the work on them takes far longer than starting it."""
    largest: int | None = None


ANY_PORTION = PortionSize()


class Ranks(Protocol):
    """One of ``size`` processes, seen from itself.

    All ranks must call the same methods in the same order. A method returns once every rank that it needs has called
    it, and raises ``OtherRankFailed`` if one has failed, or DeviceError if one hasn't answered in time.
    """

    @property
    def rank(self) -> int:
        """Number of this process, from 0 up. Rank 0 alone writes and prints."""

    @property
    def size(self) -> int: ...

    def add_up(self, array: Array) -> None:
        """Replace a C-contiguous host array by the sum of all ranks' arrays, added in the order of the ranks: each
        element has the same bits on every rank and in every run."""

    def stack(self, array: Array) -> Array:
        """The host arrays of all ranks, which have the same shape and dtype: (size, ...)."""

    def gather(self, value: _T) -> list[_T]:
        """The values of all ranks, in their order."""

    def broadcast(self, value: _T | None, *, patiently: bool = False) -> _T:
        """The value of rank 0. ``patiently``: wait for it as long as rank 0 is ``busy``."""

    def busy(self) -> None:
        """Let the others know, until the next exchange, that this rank is at work on what takes long."""

    def collect(self, value: _T) -> list[_T | Silent]:
        """On rank 0 the values of all ranks, which it waits for as long as they are ``busy``; elsewhere nothing."""

    def share_out(
        self, count: int, work: Work, size: PortionSize = ANY_PORTION, told: Callable[[int, int], None] | None = None
    ) -> list[Any]:
        """Share ``count`` items.

        The portion of a rank that doesn't answer in time is done by others. If two ranks fall silent over it, its items
        have ``Silent`` for a result. What ``work`` raises ends all ranks, as any error does.

        Args:
            count: number of items, the same on all ranks.
            work: does some of them; it mustn't call a method of this object.
            told: called on rank 0 with the number of items done and of all.

        Returns:
            On rank 0 the result of each item, in their order; elsewhere nothing.
        """

    @property
    def lost(self) -> tuple[str, ...]:
        """On rank 0 the ranks that have fallen silent over their part of ``share_out`` or ``collect``, each with the
        reason. They aren't waited for any more."""


class Alone:
    """The only process: what it tells itself costs nothing."""

    rank = 0
    size = 1
    lost: tuple[str, ...] = ()

    def add_up(self, array: Array) -> None:
        """The sum of a single array is the array."""

    def stack(self, array: Array) -> Array:
        return array[None]

    def gather(self, value: _T) -> list[_T]:
        return [value]

    def broadcast(self, value: _T | None, *, patiently: bool = False) -> _T:
        assert value is not None
        return value

    def busy(self) -> None:
        """Nobody waits."""

    def collect(self, value: _T) -> list[_T | Silent]:
        return [value]

    def share_out(
        self, count: int, work: Work, size: PortionSize = ANY_PORTION, told: Callable[[int, int], None] | None = None
    ) -> list[Any]:
        return list(work(0, count, lambda done: told(done, count) if told is not None else None))


ALONE: Ranks = Alone()


class OtherRankFailed(FacecnnError):
    """Another rank has failed, and this one ends with the same exit code."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def share(count: int, ranks: Ranks) -> tuple[int, int]:
    """Start and stop of this rank's part of ``count`` things. Parts differ by one at most."""
    return ranks.rank * count // ranks.size, (ranks.rank + 1) * count // ranks.size


def largest_share(count: int, ranks: Ranks) -> int:
    """Size of the largest part of ``count`` things that a rank has."""
    return -(-count // ranks.size)
