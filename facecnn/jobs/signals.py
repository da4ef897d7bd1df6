"""Ctrl-C, and the signals that end a program politely: finish the step, save, then go."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class Stopped(KeyboardInterrupt):
    """A signal that ends the program where it stands."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class _Handlers:
    """While entered, SIGINT, SIGTERM and SIGHUP call ``_caught``.

    Elsewhere than in the main thread, where Python can't catch signals, it does nothing. A SIGHUP that is ignored, as
    under nohup, stays so. An ignored SIGINT doesn't: shells ignore it for what a script starts with ``&``, and
    ``kill -INT`` should end that as well.
    """

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}

    def _enter(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for name in ("SIGINT", "SIGTERM", "SIGHUP"):
                number = getattr(signal, name, None)  # Windows has no SIGHUP
                if number is None or (name == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN):
                    continue
                self._before[number] = signal.signal(number, self._caught)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _caught(self, number: int, frame: FrameType | None) -> None:
        raise Stopped(number)


class StopAtOnce(_Handlers):
    """While entered, a signal raises ``Stopped``."""

    def __enter__(self) -> StopAtOnce:
        self._enter()
        return self


class StopRequest(_Handlers):
    """While entered, a signal only sets ``number``. A second one raises ``Stopped``."""

    def __init__(self) -> None:
        super().__init__()
        self.number: int | None = None

    def __call__(self) -> bool:
        return self.number is not None

    def __enter__(self) -> StopRequest:
        self._enter()
        return self

    def _caught(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None:
            raise Stopped(number)
        self.number = number
