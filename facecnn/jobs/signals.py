"""Stop on Ctrl-C and the signals that end a program: finish the step, save, then exit."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""The signals that end a program; Windows has no SIGHUP."""


class Stopped(KeyboardInterrupt):
    """A signal that ends the program at once."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class StopAtOnce:
    """While entered, SIGINT, SIGTERM and SIGHUP raise ``Stopped``.

    Outside the main thread, where Python can't handle signals, it does nothing. An ignored SIGHUP, as under nohup,
    stays ignored. An ignored SIGINT doesn't: shells ignore it in what a script starts with ``&``, and ``kill -INT``
    should end that, too.

    Python drops exceptions from callbacks of C code, such as LLVM's while a kernel is compiled or loaded. In that case
    the signal is sent again. An error that is raised before it arrives counts as a consequence of the failed callback.
    """

    def __init__(self, *, listens: bool = True) -> None:
        """``listens``: if not, it does nothing, and signals are left to the program that this is part of."""
        self._listens = listens
        self._before: dict[int, Any] = {}
        self._hook = sys.unraisablehook
        self._dropped: int | None = None
        self._again: threading.Timer | None = None

    def __enter__(self) -> Self:
        if self._listens and threading.current_thread() is threading.main_thread():
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
        signal.pthread_kill(identity, number)  # also interrupts waiting
    else:
        signal.raise_signal(number)


def ignore_signals() -> None:
    """Ignore the signals from now on."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


class StopRequest(StopAtOnce):
    """While entered, a signal only sets ``number``, so that the step can be finished and saved.

    A second signal raises ``Stopped``. So does the first one before ``stepped`` is set: the first step may take a long
    time to compile, and there is nothing to save yet.
    """

    def __init__(self, *, listens: bool = True) -> None:
        super().__init__(listens=listens)
        self.number: int | None = None
        self.stepped = False

    def __call__(self) -> bool:
        return self.number is not None

    def _caught(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None or not self.stepped:
            raise Stopped(number)
        self.number = number
