"""How compiled kernels are called; and recording what a step calls, to do it again without Python's time for it.

Between two kernels Python looks up layers, settings and scratch memory, makes views, and decides on the number of
threads: more than a small kernel takes itself (3.0 of 6.5 us that a dense layer of 16 units took). All of that is the
same in every step. So a step is written down once, kernel by kernel with its arguments, and then gone through.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numba
from numba.np.ufunc import parallel

from facecnn.kernels.cpu.memory import Workspace

_WORTH_A_THREAD = 1 << 16
"""Operations on elements that take about as long as it takes to wake a thread that sleeps (measured: 85 us)."""


class _Call(NamedTuple):
    kernel: Callable[..., None]
    arguments: tuple[Any, ...]
    threads: int | None
    """None: all."""


_Recording: TypeAlias = list[tuple[int | None, list[tuple[Callable[..., None], tuple[Any, ...]]]]]
"""Kernels with their arguments, by turns for as many threads as said."""


class _Recorder(threading.local):
    """Whether what this thread launches is being recorded."""

    calls: list[_Call] | None = None


_recorder = _Recorder()


def launch(kernel: Callable[..., None], *arguments: Any, operations: int | None = None) -> None:
    """Call a kernel. One of little work, of about so many ``operations`` on elements, runs on fewer threads."""
    call = _Call(kernel, arguments, _threads(operations))
    if _recorder.calls is not None:
        _recorder.calls.append(call)
    _play([(call.threads, [(kernel, arguments)])])


def record(function: Callable[[], None], workspace: Workspace) -> Callable[[], None]:
    """A function that does the same as ``function``, which only launches kernels, and always the same.

    First it is called plainly, which compiles the kernels and makes the workspace grow; the second time it is recorded;
    from then on the recording is played.
    """
    return _Recorded(function)


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
    # The function behind numba.set_num_threads: that looks, each time, whether threads have been started and whether
    # the number is right, for 1 us instead of 0.25, which a step of a small network takes 20 us longer by.
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
