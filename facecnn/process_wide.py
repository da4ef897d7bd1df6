"""Process-wide switches, set for as long as anything needs them."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

RARELY = 100_000, 20, 100
"""Thresholds of Python's garbage collector (``gc.set_threshold``) in commands, and in all processes that compile. With
the usual ones, it goes through everything the modules made again and again, a twentieth of a second at a time, though
there is little to free, and compiling takes an eighth longer; with it off, memory would double."""


class WhileInUse:
    """A context manager that any number of threads may enter: the first to enter sets switches of the process, the last
    to leave restores them."""

    def __init__(self, switch: Callable[[ExitStack], None]) -> None:
        """``switch`` sets them, and tells the stack it is given how to restore them."""
        self._switch = switch
        self._lock = threading.Lock()
        self._users = 0
        self._restore = ExitStack()

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            if self._users == 0:
                self._switch(self._restore)
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if self._users == 0:
                    self._restore.close()
