"""Recorders that show the progress of training."""

from collections.abc import Mapping, Sequence
from typing import Any

from facecnn.jobs.console import Console, TrainingDisplay
from facecnn.learning.progress import Recorder, StepReport


class TrialRecorder(Recorder):
    """Shows the trials of initial weights, and their results."""

    every_step = False

    def __init__(self, display: TrainingDisplay, console: Console, label: str = "") -> None:
        self._display = display
        self._console = console
        self._label = f"{label}, " if label else ""

    def trial_step(self, start: int, step: StepReport) -> None:
        self._display.trial_step(start, step)

    def tried(self, losses: Sequence[float | None]) -> None:
        what = "diverged" if losses[-1] is None else f"training loss {losses[-1]:.4f}"
        self._console.info(f"{self._label}start {len(losses) - 1}: {what}")

    def chosen(self, start: int) -> None:
        self._console.info(f"{self._label}start {start} has learned best, and is trained")


class ShowingRecorder(TrialRecorder):
    """Shows training, and keeps only the last epoch's figures."""

    def __init__(self, epochs: int, display: TrainingDisplay, console: Console, label: str = "") -> None:
        super().__init__(display, console, label)
        self._epochs = epochs
        self.last: Mapping[str, Any] = {}
        """The last epoch's figures."""

    def step(self, step: StepReport) -> None:
        self._display.step(step)

    def epoch(self, metrics: Mapping[str, Any]) -> None:
        self.last = metrics
        self._display.epoch(metrics, self._epochs)
