"""Where the messages of a call go: nowhere but to the logger ``facecnn``, or to stderr if progress is asked for."""

import logging
from contextlib import AbstractContextManager, nullcontext

from facecnn.jobs.console import Console

LOGGER = logging.getLogger("facecnn")
LOGGER.addHandler(logging.NullHandler())  # without a handler, Python would print the warnings


def console(progress: bool) -> AbstractContextManager[Console]:
    """The console of a call, as a context manager; ``progress``: whether to show everything on stderr."""
    if progress:
        from facecnn.jobs.stderr import StderrConsole

        return StderrConsole(quiet=False, verbose=False)
    return nullcontext(LogConsole())


class LogConsole(Console):
    """A ``facecnn.jobs.console.Console`` that writes messages to the logger, and shows no progress."""

    def info(self, text: str) -> None:
        LOGGER.info("%s", text)

    def warning(self, text: str) -> None:
        LOGGER.warning("%s", text)
