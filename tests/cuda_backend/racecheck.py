"""What the threads of a launch may not do, though it often goes well: races, and memory that is read before it is
written.

Each thread of the simulator notes the elements that it reads and writes, and the barriers that it comes to. How many
barriers it has passed is its epoch. When the launch is over, it must be true of it that

- of two threads of a block that touch an element in the same epoch neither writes it,
- of two blocks that touch an element neither writes it, whatever the epoch,
- all threads of a block come to the same barriers, and
- shared and local memory is written before it is read.

So it doesn't matter which thread happened to be first, or that a card runs the threads of a warp in step. An element is
known by the address of its first byte: arrays that overlap are one memory. What remains unseen are races between
launches, and what shapes would do that weren't run.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from numba.cuda.simulator import kernel as simulator

READ, WRITE, NEW = 0, 1, 2
"""NEW is added for memory that holds nothing before it is written, shared and local."""

_SIMULATOR = str(Path(simulator.__file__).parent)
_MOST = 10
"""Faults that are named."""

_Line = tuple[str, int]
_lines: dict[_Line, int] = {}
"""The lines that touched an element, numbered."""
_numbers = count()
_threads: list[Thread] = []
"""Of the launch that is being run."""


class FaultyLaunch(AssertionError):
    """What was found, a line for each kind of fault and place in the code."""


_BlockThread: Any = simulator.BlockThread


class Thread(_BlockThread):  # type: ignore[misc]
    """A thread of the simulator that keeps what it did."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.accesses: list[int] = []
        """Address, epoch, READ or WRITE (+ NEW) and number of the line, one after another."""
        self.barriers: list[tuple[_Line, ...]] = []
        """The calls that led to each."""
        self.arrays: list[Any] = []
        """Its local arrays: another one may lie in the same place only after the launch."""
        _threads.append(self)

    def syncthreads(self) -> None:
        self.barriers.append(_calls())
        super().syncthreads()


def touch(address: int, strides: tuple[int, ...], index: Any, kind: int) -> None:
    """Note that the line which called the caller reads or writes an element of the array at this address.

    Raises IndexError for an index below 0, which the simulator takes for Python's.
    """
    parts = index if isinstance(index, tuple) else (index,)
    if len(parts) != len(strides):
        raise NotImplementedError(f"index {index} of an array with {len(strides)} axes: only elements are followed")
    for part, stride in zip(parts, strides, strict=True):
        number = part.__index__()
        if number < 0:
            raise IndexError(f"index {index} is below 0")
        address += number * stride
    thread: Any = threading.current_thread()
    frame = sys._getframe(2)
    line = _lines.setdefault((frame.f_code.co_filename, frame.f_lineno), next(_numbers))
    thread.accesses += (address, len(thread.barriers), kind, line)


@contextmanager
def checked_launch() -> Iterator[None]:
    """Raises FaultyLaunch if the threads that are started meanwhile did what they may not."""
    _threads.clear()
    try:
        yield
    except Exception as error:  # which may come of a fault that others see as well: a wrong index, a root of garbage
        _demand_none(_faulty_accesses(_blocks()), error)
        raise
    else:
        blocks = _blocks()
        divergent = [fault for block in blocks for fault in _divergence(block)]
        _demand_none(divergent + _faulty_accesses(blocks), None)
    finally:
        _threads.clear()


def _demand_none(found: list[str], cause: Exception | None) -> None:
    if found:
        more = [f"and {len(found) - _MOST} more"] if len(found) > _MOST else []
        raise FaultyLaunch("\n".join(found[:_MOST] + more)) from cause


# -------------------------------------------------------------------------------------------------- what was wrong


def _blocks() -> list[list[Thread]]:
    blocks: dict[tuple[int, ...], list[Thread]] = {}
    for thread in _threads:
        blocks.setdefault(tuple(thread.blockIdx), []).append(thread)
    return list(blocks.values())


def _divergence(block: Sequence[Thread]) -> Iterator[str]:
    """Where the threads of a block part."""
    first, *others = block
    for other in others:
        pairs = zip_longest(first.barriers, other.barriers, fillvalue=())
        different = next(((one, two) for one, two in pairs if one != two), None)
        if different is not None:
            one, two = map(_way, different)
            yield f"divergent barrier: thread 0 comes to {one}, thread {other.thread_id} to {two}"
            return


def _faulty_accesses(blocks: Sequence[Sequence[Thread]]) -> list[str]:
    owners = [(number, thread) for number, block in enumerate(blocks) for thread in block]
    parts = [np.array(thread.accesses, np.int64).reshape(-1, 4) for _, thread in owners]
    if not sum(map(len, parts)):
        return []
    accesses = np.concatenate(parts)
    block = np.repeat([number for number, _ in owners], list(map(len, parts)))
    thread = np.repeat([thread.thread_id for _, thread in owners], list(map(len, parts)))
    # By element, block and epoch; lexsort is stable, so that each thread's accesses stay in order.
    order = np.lexsort((accesses[:, 1], block, accesses[:, 0]))
    (address, epoch, kind, line), block, thread = accesses[order].T, block[order], thread[order]
    writes, is_new = kind & WRITE, kind & NEW

    def groups(*keys: Any) -> Any:
        """Where each group begins in which all keys are equal."""
        changes = [key[1:] != key[:-1] for key in keys]
        return np.flatnonzero(np.concatenate([[True], np.logical_or.reduce(changes)]))

    def racing(starts: Any, owner: Any) -> Any:
        """Which groups have accesses of several owners and a write."""
        several = np.minimum.reduceat(owner, starts) != np.maximum.reduceat(owner, starts)
        return several & (np.maximum.reduceat(writes, starts) == WRITE)

    def touched_by(start: int, stop: int) -> str:
        lines = sorted({(bool(w), number) for w, number in zip(writes[start:stop], line[start:stop], strict=True)})
        return " and ".join(f"{_place(number)} {'writes' if w else 'reads'}" for w, number in lines)

    elements, epochs = groups(address), groups(address, block, epoch)
    within, between = racing(epochs, thread), racing(elements, block)
    # An element that is read first. If another thread wrote it in the same epoch, that is a race and nothing else.
    unwritten = (writes[elements] == 0) & (is_new[elements] > 0) & ~within[np.searchsorted(epochs, elements)]
    found: Counter[str] = Counter()
    for what, starts, are_faulty in (
        ("race between threads of a block", epochs, within),
        ("race between blocks", elements, between),
    ):
        stops = np.append(starts[1:], len(order))
        for i in np.flatnonzero(are_faulty):
            found[f"{what}: {touched_by(starts[i], stops[i])}"] += 1
    for first in elements[unwritten]:
        found[f"read before it was written: {_place(line[first])} reads"] += 1
    return [f"{what} ({number} element{'s' if number > 1 else ''})" for what, number in sorted(found.items())]


# ------------------------------------------------------------------------------------------------ lines of the code


def _calls() -> tuple[_Line, ...]:
    """The kernel's line that runs, and the calls that led to it, the innermost first."""
    calls = []
    frame: Any = sys._getframe(2)
    while frame is not None:
        name = frame.f_code.co_filename
        if not name.startswith(_SIMULATOR) and name != threading.__file__:
            calls.append((name, frame.f_lineno))
        frame = frame.f_back
    return tuple(calls)


def _place(number: int) -> str:
    [(name, line)] = (key for key, value in _lines.items() if value == number)
    return f"{Path(name).name}:{line}"


def _way(calls: tuple[_Line, ...]) -> str:
    lines = [f"{Path(name).name}:{line}" for name, line in calls]
    return " called from ".join(lines) if lines else "its end"
