"""What the compiler is doing, told as it happens: the first use of a kernel takes seconds, and nobody should wonder.

Numba tells of every function that it compiles (``numba.core.event``), and of none that it finds on the disk, so being
told costs nothing where all is compiled. It compiles one function at a time, whichever thread asks. Of kernels for
cards it tells nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from numba.core import event


@dataclass(frozen=True)
class Compilation:
    """What has been compiled since it is told."""

    functions: int
    """Those that Python calls; helpers, which become a part of these, are not counted."""
    seconds: float
    """Spent on it."""
    at_work: bool
    """Whether there is more of it to come at once."""


@contextmanager
def told(tell: Callable[[Compilation], None]) -> Iterator[None]:
    """Meanwhile ``tell`` is called whenever a function, a helper too, begins or ends to be compiled, by the thread that
    compiles it."""
    with event.install_listener("numba:compile", _Listener(tell)):
        yield


class _Listener(event.Listener):
    """Adds up; functions that are compiled for others come between those others' start and end."""

    def __init__(self, tell: Callable[[Compilation], None]) -> None:
        self._tell = tell
        self._functions = 0
        self._depth = 0
        self._before = 0.0
        self._started = 0.0

    def on_start(self, event: Any) -> None:
        if self._depth == 0:
            self._started = time.perf_counter()
        self._depth += 1
        self._say()

    def on_end(self, event: Any) -> None:
        function = event.data["dispatcher"]
        # Only what Python calls runs without its lock. And what can't be compiled for these arguments ends as well.
        if "nogil" in function.targetoptions and tuple(event.data["args"]) in function.overloads:
            self._functions += 1
        self._depth -= 1
        self._say()
        if self._depth == 0:
            self._before += time.perf_counter() - self._started

    def _say(self) -> None:
        at_work = self._depth > 0
        seconds = self._before + time.perf_counter() - self._started
        self._tell(Compilation(self._functions, seconds, at_work))
