"""Progress of the compiler: the first use of a kernel takes seconds, and a user should see why.

Numba announces every function that it compiles (``numba.core.event``), and none that it finds in the cache, so
listening costs nothing where all is compiled. It compiles one function at a time, in whichever thread. It doesn't
announce CUDA kernels: ``tell_of`` does that.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from numba.core import event

_KIND, _WAITING = "numba:compile", "facecnn:waiting"
_event: Any = event  # untyped


@dataclass(frozen=True)
class Compilation:
    """What has been compiled since listening began."""

    functions: int
    """Functions that Python calls; the helpers compiled into them are not counted."""
    seconds: float
    """Spent on it."""
    at_work: bool
    """Whether a function is being compiled now, or waited for."""
    waited: float = 0.0
    """Seconds spent waiting for functions that another process compiled."""


@dataclass
class Cost:
    """What compiling a kernel took."""

    kernel: str
    """Its module within the backends' folder, and its name."""
    times: int = 0
    """How often it was compiled: once for each combination of its arguments' types."""
    seconds: float = 0.0
    """With the helpers compiled into it."""


@contextmanager
def costs() -> Iterator[dict[str, Cost]]:
    """The costs, by kernel, of all that this process compiles within the context."""
    counting = _Costs()
    with event.install_listener(_KIND, counting):
        yield counting.costs


@contextmanager
def told(tell: Callable[[Compilation], None]) -> Iterator[None]:
    """Within the context, call ``tell`` whenever compilation of a function or helper starts or ends, in the thread that
    compiles it; while a function is waited for, every second."""
    listener = _Listener(tell)
    with event.install_listener(_KIND, listener), event.install_listener(_WAITING, listener):
        yield


@contextmanager
def waiting() -> Iterator[Callable[[], None]]:
    """Announce that this thread waits for a function that another process compiles. Yields what is to be called from
    time to time, to say that it still does."""
    with event.trigger_event(_WAITING):
        yield partial(_event.start_event, _WAITING)


def tell_of(kernel: Any) -> None:
    """Announce the compilation of a CUDA kernel, too: at its first launch, unless it is found in the cache."""
    compile_or_load, load = kernel.compile, kernel._cache.load_overload
    now = threading.local()

    def load_and_tell(signature: Any, target: Any) -> Any:
        found = load(signature, target)
        if found is None and not getattr(now, "begun", True):
            now.begun = True
            _event.start_event(_KIND, data={"dispatcher": kernel, "args": signature})
        return found

    def compile_and_tell(signature: Any) -> Any:
        now.begun = False
        try:
            return compile_or_load(signature)
        finally:
            if now.begun:
                _event.end_event(_KIND, data={"dispatcher": kernel, "args": signature})

    kernel._cache.load_overload, kernel.compile = load_and_tell, compile_and_tell


class _Listener(event.Listener):
    """Adds up; functions that are compiled for others come between those others' start and end. Nothing is compiled
    while a function is waited for: Numba's lock is held."""

    def __init__(self, tell: Callable[[Compilation], None]) -> None:
        self._tell = tell
        self._functions = 0
        self._depth = 0
        self._before = 0.0
        self._started = 0.0
        self._waited = 0.0
        self._waits_since: float | None = None

    def on_start(self, event: Any) -> None:
        if event.kind == _WAITING:
            self._say_of_waiting(ends=False)
            return
        if self._depth == 0:
            self._started = time.perf_counter()
        self._depth += 1
        self._say()

    def on_end(self, event: Any) -> None:
        if event.kind == _WAITING:
            self._say_of_waiting(ends=True)
            return
        function = event.data["dispatcher"]
        # Of functions for the CPU, only what Python calls runs without its lock; those for cards are all launched. And
        # what can't be compiled for these arguments ends as well.
        is_called = "nogil" in function.targetoptions or "device" in function.targetoptions
        if is_called and tuple(event.data["args"]) in function.overloads:
            self._functions += 1
        self._depth -= 1
        self._say()
        if self._depth == 0:
            self._before += time.perf_counter() - self._started

    def _say(self) -> None:
        at_work = self._depth > 0
        seconds = self._before + time.perf_counter() - self._started
        self._tell(Compilation(self._functions, seconds, at_work, self._waited))

    def _say_of_waiting(self, *, ends: bool) -> None:
        now = time.perf_counter()
        if self._waits_since is not None:
            self._waited += now - self._waits_since
        self._waits_since = None if ends else now
        self._tell(Compilation(self._functions, self._before, not ends, self._waited))


class _Costs(event.Listener):
    """Adds up by kernel: what is compiled between a kernel's start and end belongs to it."""

    def __init__(self) -> None:
        self.costs: dict[str, Cost] = {}
        self._depth = 0
        self._started = 0.0

    def on_start(self, event: Any) -> None:
        self._depth += 1
        if self._depth == 1:
            self._started = time.perf_counter()

    def on_end(self, event: Any) -> None:
        self._depth -= 1
        if self._depth > 0:
            return
        function = event.data["dispatcher"].py_func
        module = function.__module__.removeprefix("facecnn.kernels.")
        kernel = f"{module}.{function.__name__}"
        cost = self.costs.setdefault(kernel, Cost(kernel))
        cost.times += 1
        cost.seconds += time.perf_counter() - self._started
