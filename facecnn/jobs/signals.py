"""Ctrl-C, and the signals that end a program politely: finish the step, save, then go."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Those that end a program; Windows has no SIGHUP."""


class Stopped(KeyboardInterrupt):
    """A signal that ends the program where it stands."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class StopAtOnce:
    """While entered, SIGINT, SIGTERM and SIGHUP raise ``Stopped``.

    Elsewhere than in the main thread, where Python can't catch signals, it does nothing. A SIGHUP that is ignored, as
    under nohup, stays ignored. A SIGINT doesn't: shells ignore it for what a script starts with ``&``, and
    ``kill -INT`` should end that as well.

    Python drops what is raised in a callback from C, as LLVM's are when a kernel is compiled or loaded. Then the signal
    is sent again; and an error that comes first is taken for what came of the callback, which didn't do its work.
    """

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}
        self._hook = sys.unraisablehook
        self._dropped: int | None = None
        self._again: threading.Timer | None = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if number == signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._caught)
            self._hook = sys.unraisablehook
            sys.unraisablehook = self._lost
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._before:
            sys.unraisablehook = self._hook
        if self._dropped is not None and isinstance(error, Exception):
            assert self._again is not None
            self._again.cancel()
            raise Stopped(self._dropped) from error

    def _caught(self, number: int, frame: FrameType | None) -> None:
        raise Stopped(number)

    def _lost(self, what: sys.UnraisableHookArgs) -> None:
        if not isinstance(what.exc_value, Stopped):
            self._hook(what)
            return
        self._dropped = what.exc_value.number
        self._again = threading.Timer(0.01, _send_to_main_thread, (self._dropped,))
        self._again.daemon = True
        self._again.start()


def _send_to_main_thread(number: int) -> None:
    if hasattr(signal, "pthread_kill"):
        identity = threading.main_thread().ident
        assert identity is not None
        signal.pthread_kill(identity, number)  # this one ends waiting, too
    else:
        signal.raise_signal(number)


def ignore_signals() -> None:
    """From now on they do nothing."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


class StopRequest(StopAtOnce):
    """While entered, a signal only sets ``number``: finish the step and save. A second one raises ``Stopped``.

    So does the first until ``stepped``: the first step may take long, as kernels are compiled, and nothing is lost.
    """

    def __init__(self) -> None:
        super().__init__()
        self.number: int | None = None
        self.stepped = False

    def __call__(self) -> bool:
        return self.number is not None

    def _caught(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None or not self.stepped:
            raise Stopped(number)
        self.number = number
