"""How a job tells what it is doing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:  # every command has a console, but few train
    from facecnn.learning.progress import StepReport


class TrainingDisplay(Protocol):
    """Shows a training as it goes."""

    def step(self, report: StepReport) -> None: ...

    def trial_step(self, start: int, report: StepReport) -> None: ...

    def epoch(self, metrics: Mapping[str, Any], epochs: int) -> None: ...


class Console(Protocol):
    """Where messages go; the command line has one for terminals and one for logs."""

    def info(self, text: str) -> None:
        """Something worth knowing."""

    def warning(self, text: str) -> None:
        """Something that may be wrong; jobs under ``--strict`` fail where the data caused one."""

    def show_compilation(self) -> None:
        """Show from now on, until the command ends, what Numba compiles, if anything, and what is wrong with the place
        where it is kept; and warn of what makes kernels slow. Loads Numba."""

    def counting(self, what: str, unit: str = "photos") -> AbstractContextManager[Callable[[int, int], None]]:
        """A progress bar for work that calls back with (done, total) of what ``unit`` says."""

    def training(
        self, epochs: int, steps: int, label: str = "", lines: int = ...
    ) -> AbstractContextManager[TrainingDisplay]:
        """The display of a training of so many epochs and steps in all; a log has ``lines`` of it unless it is to have
        a line an epoch."""
