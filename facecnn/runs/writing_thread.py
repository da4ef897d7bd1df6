"""Writes files beside the training, which goes on meanwhile."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

MOST_WAITING = 2
"""Maximum number of writes that haven't ended, as each keeps its arrays in memory: the best and the last model's."""


class WritingThread:
    """A thread that runs one write after another, in order; where none can be started, the caller runs them.

    As a context manager it waits at the end for all of them. What a write raises is raised by a later call, or there,
    unless another error ends the block; what waits behind a failed one is dropped.
    """

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = ThreadPoolExecutor(1, "writing")
        try:
            self._pool.submit(bool).result()  # starts the thread
        except RuntimeError:  # a limit of processes
            self._pool = None
        self._waiting: deque[Future[None]] = deque()

    def submit(self, write: Callable[[], None]) -> None:
        """Have ``write`` called soon; waits first if too many are waiting. Raises what an earlier one raised."""
        if self._pool is None:
            write()
            return
        while self._waiting and (self._waiting[0].done() or len(self._waiting) >= MOST_WAITING):
            self._finish_first()
        self._waiting.append(self._pool.submit(write))

    def wait(self) -> None:
        """Wait for all writes. Raises what the first failed one raised."""
        while self._waiting:
            self._finish_first()

    def _finish_first(self) -> None:
        try:
            self._waiting.popleft().result()
        except BaseException:
            for later in self._waiting:
                later.cancel()
            self._waiting.clear()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            if error is None:
                self.wait()
        finally:
            if self._pool is not None:
                self._pool.shutdown()
