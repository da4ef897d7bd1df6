"""What a job uses to report progress."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # every command has a console, but few train
    from facecnn.learning.progress import StepReport

LINES = 10
"""Epochs that a log of training lists. With everything else, it then has about 20 lines."""


class TrainingDisplay:
    """Shows the progress of training; this one shows nothing."""

    def step(self, report: StepReport) -> None:
        pass

    def trial_step(self, start: int, report: StepReport) -> None:
        pass

    def epoch(self, metrics: Mapping[str, Any], epochs: int) -> None:
        pass


class Console:
    """Where a job's messages and progress go; this one shows nothing, and is for what is said at another time."""

    def info(self, text: str) -> None:
        """Show a message."""

    def warning(self, text: str) -> None:
        """Show a warning. With ``--strict``, jobs fail where the data cause one."""
        self.info(f"warning: {text}")

    def show_compilation(self) -> None:
        """From now on, show what Numba compiles and problems of its cache, and warn of slow kernels. Loads Numba."""

    def show_left(self, left: Callable[[], int | None]) -> None:
        """From now on, show how many functions are left to compile with what is compiled; None: not known."""

    def counting(self, what: str, unit: str = "photos") -> AbstractContextManager[Callable[[int, int], None]]:
        """A progress bar for work that calls back with (done, total)."""
        return nullcontext(lambda done, total: None)

    def training(
        self, epochs: int, steps: int, label: str = "", lines: int = LINES
    ) -> AbstractContextManager[TrainingDisplay]:
        """The display of training. A log lists ``lines`` epochs at most, or none, except with ``--verbose``."""
        return nullcontext(TrainingDisplay())
