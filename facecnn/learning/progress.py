"""How far a training has come: what of it is saved, and whom it is told to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from facecnn.arrays import Array


@dataclass
class Progress:
    """All of a training's state but the arrays; with those it is enough to resume to the same bits."""

    epoch: int = 0
    """Epochs that are complete."""
    batch: int = 0
    """Steps made in the epoch after those."""
    step: int = 0
    totals: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    """Sum of losses, right answers and largest loss of the epoch so far."""
    best_loss: float | None = None
    best_epoch: int = 0
    minimiser: dict[str, float] = field(default_factory=dict)
    """The numbers that a full-batch optimizer remembers; by this name they are in saved trainings."""
    schedule: dict[str, float] = field(default_factory=dict)
    """What the schedule remembers of the epochs."""
    saved_at: int = 0
    """The step of the last save at an epoch's end."""
    finished: bool = False
    trials: list[float | None] = field(default_factory=list)
    """The training loss that each of the initial weights tried so far ended its trial with; None where it diverged."""


class StepReport(NamedTuple):
    """Where a training stands after a step; loss and accuracy are those that were read last."""

    epoch: int
    epochs: int
    step: int
    steps: int
    photos: int
    loss: float
    """Of the epoch's photos so far, as is the accuracy."""
    accuracy: float


class Recorder:
    """Where a training's results go; this one keeps nothing of them."""

    every_step: bool = True
    """Whether ``step`` is to be called after each. If not, steps with small batches are run in groups
    (``batches.StepGroup``), which takes less time."""

    def step(self, step: StepReport) -> None:
        """Called after every step, or after every group of steps, with the last one's report."""

    def epoch(self, metrics: Mapping[str, Any]) -> None:
        """Called after every epoch with one line of figures."""

    def trial_step(self, start: int, step: StepReport) -> None:
        """The same as ``step``, in the trial of the initial weights number ``start``."""

    def tried(self, losses: Sequence[float | None]) -> None:
        """Called when a trial has ended, with the losses of all so far; None for one that diverged."""

    def chosen(self, start: int) -> None:
        """Called after all trials, when the weights are the initial ones number ``start``, which will be trained."""

    def save_best(self, arrays: Mapping[str, Array], state: Mapping[str, Any]) -> None:
        """Keep the model with the lowest validation loss so far."""

    def save_last(self, arrays: Mapping[str, Array], state: Mapping[str, Any], *, interrupted: bool) -> None:
        """Keep all that resuming needs."""
