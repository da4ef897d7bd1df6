"""Where the messages of a call go: nowhere but to the logger ``facecnn``, or to stderr if progress is asked for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from facecnn.jobs.console import Console
    from facecnn.learning.progress import StepReport

LOGGER = logging.getLogger("facecnn")
LOGGER.addHandler(logging.NullHandler())  # without a handler, Python would print the warnings


def console(progress: bool) -> AbstractContextManager[Console]:
    """The console of a call, as a context manager; ``progress``: whether to show everything on stderr."""
    if progress:
        from facecnn.jobs.stderr import StderrConsole

        return StderrConsole(quiet=False, verbose=False)
    return nullcontext(LogConsole())


class LogConsole:
    """A ``facecnn.jobs.console.Console`` that writes messages to the logger, and shows no progress."""

    def info(self, text: str) -> None:
        LOGGER.info("%s", text)

    def warning(self, text: str) -> None:
        LOGGER.warning("%s", text)

    def show_compilation(self) -> None:
        pass

    @contextmanager
    def counting(self, what: str, unit: str = "photos") -> Iterator[Callable[[int, int], None]]:
        yield lambda done, total: None

    @contextmanager
    def training(self, epochs: int, steps: int, label: str = "", lines: int = 0) -> Iterator[_NoDisplay]:
        yield _NoDisplay()


class _NoDisplay:
    def step(self, report: StepReport) -> None:
        pass

    def trial_step(self, start: int, report: StepReport) -> None:
        pass

    def epoch(self, metrics: Mapping[str, Any], epochs: int) -> None:
        pass
