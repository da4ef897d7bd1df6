"""Launches of compiled kernels, and recordings of a step's launches, which are replayed without Python's overhead.

Between two kernels Python looks up layers, settings and scratch memory, makes views, and decides on the number of
threads. That can take longer than the kernel (of the 6.5 us of a dense layer of 16 units, 3.0 were the kernel's). All
of it is the same in every step, so a step's launches are recorded once, with their arguments, and replayed.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, TypeAlias

import numba
from numba.core.dispatcher import Dispatcher
from numba.np.ufunc import parallel

from facecnn.arrays import Array
from facecnn.kernels.cpu.memory import Workspace

_WORTH_A_THREAD = 1 << 16
"""Elementwise operations that take about as long as waking a sleeping thread (measured: 85 us)."""


class _Call(NamedTuple):
    kernel: Callable[..., None]
    arguments: tuple[Any, ...]
    threads: int | None
    """None: all."""


_Recording: TypeAlias = list[tuple[int | None, list[tuple[Callable[..., None], tuple[Any, ...]]]]]
"""Kernels with their arguments, in groups that run on the same number of threads."""


class _Recorder(threading.local):
    """Whether what this thread launches is being recorded."""

    calls: list[_Call] | None = None


_recorder = _Recorder()


class Launch(NamedTuple):
    """A kernel and the types that it was called with, for which it is compiled."""

    kernel: Any
    types: tuple[Any, ...]


_listed: dict[Launch, None] | None = None
"""The launches that are listed instead of made, in order, each once."""


def listed(function: Callable[[], object]) -> list[Launch]:
    """What ``function`` launches, without running any of it: so nothing is compiled, and arrays keep what they hold.
    What it raises ends the list. Launches of all threads are listed, as the face finder has one of its own: nothing
    else may be launched meanwhile."""
    global _listed
    _listed = {}
    try:
        with suppress(Exception):  # results that were never computed may be refused
            function()
        return list(_listed)
    finally:
        _listed = None


def compile_in_order(launches: Iterable[Launch]) -> None:
    """Compile kernels, or load what is kept of them, except those that another process is compiling now, and those
    whose code can't be kept, so that no other process would have it."""
    for kernel, types in launches:
        is_taken = getattr(kernel._cache, "is_taken", None)
        if is_taken is not None and not is_taken(types, kernel.targetctx):
            kernel.compile(types)


def not_kept(launches: Iterable[Launch]) -> list[Launch]:
    """Those whose code can be kept, but isn't yet."""
    return [
        Launch(kernel, types)
        for kernel, types in launches
        if hasattr(kernel._cache, "is_kept") and not kernel._cache.is_kept(types, kernel.targetctx)
    ]


def launch(kernel: Callable[..., None], *arguments: Any, operations: int | None = None) -> None:
    """Call a kernel. If ``operations`` (its elementwise operations, about) are few, it runs on fewer threads."""
    if _listed is not None:
        if isinstance(kernel, Dispatcher):  # and not one of NumPy's functions
            _listed[Launch(kernel, tuple(map(kernel.typeof_pyval, arguments)))] = None
        return
    call = _Call(kernel, arguments, _threads(operations))
    if _recorder.calls is not None:
        _recorder.calls.append(call)
    _play([(call.threads, [(kernel, arguments)])])


def record(function: Callable[[], None], workspace: Workspace) -> Callable[[], None]:
    """Record ``function``, which always launches the same kernels; returns a function to call instead.

    The first call runs it plainly, which compiles the kernels and grows the workspace; the second records it; later
    calls replay the recording.
    """
    return _Recorded(function)


def on_host(function: Callable[..., None], arrays: Sequence[Array], workspace: Workspace) -> None:
    """Call ``function`` with the arrays themselves, in line with the kernels."""
    launch(function, *arrays)


class _Recorded:
    def __init__(self, function: Callable[[], None]) -> None:
        self._function = function
        self._calls = 0
        self._recording: _Recording | None = None

    def __call__(self) -> None:
        if self._recording is not None:
            _play(self._recording)
            return
        self._calls += 1
        if self._calls == 1:
            self._function()
            return
        calls: list[_Call] = []
        _recorder.calls = calls
        try:
            self._function()
        finally:
            _recorder.calls = None
        self._recording = [
            (threads, [(call.kernel, call.arguments) for call in some])
            for threads, some in itertools.groupby(calls, lambda call: call.threads)
        ]


def _play(recording: _Recording) -> None:
    every = numba.get_num_threads()  # has started them
    # The function behind numba.set_num_threads, which checks each time whether threads have been started and the number
    # is valid: 1 us instead of 0.25, or 20 us for a step of a small network.
    use: Any = vars(parallel)["_set_num_threads"]
    try:
        for threads, calls in recording:
            use(every if threads is None else threads)
            for kernel, arguments in calls:
                kernel(*arguments)
    finally:
        use(every)


def _threads(operations: int | None) -> int | None:
    if operations is None:
        return None
    worth = max(1, operations // _WORTH_A_THREAD)
    return worth if worth < numba.get_num_threads() else None
