"""The progress of training, and the interface of what records it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from facecnn.arrays import Array


@dataclass
class Progress:
    """The state of training except for its arrays; together they suffice to resume with the same bits."""

    epoch: int = 0
    """Complete epochs."""
    batch: int = 0
    """Steps made in the current epoch."""
    step: int = 0
    totals: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    """Of the current epoch so far: sum of losses, number of right answers and largest loss."""
    best_loss: float | None = None
    best_epoch: int = 0
    minimiser: dict[str, float] = field(default_factory=dict)
    """What a full-batch optimizer remembers. Saved states use this name."""
    schedule: dict[str, float] = field(default_factory=dict)
    """What the schedule remembers between epochs."""
    saved_at: int = 0
    """Step of the last save at an epoch's end."""
    validated_at: int = 0
    """Step after which the held-out photos were last judged."""
    finished: bool = False
    trials: list[float | None] = field(default_factory=list)
    """Training loss at the end of each trial of initial weights so far; None if it diverged."""


class StepReport(NamedTuple):
    """The state of training after a step; loss and accuracy are those that were read last."""

    epoch: int
    epochs: int
    step: int
    steps: int
    photos: int
    loss: float
    """Of the epoch's photos so far, like the accuracy."""
    accuracy: float


class Recorder:
    """Receives the results of training; this base class drops them."""

    every_step: bool = True
    """Whether ``step`` must be called after each step. If not, steps with small batches run in groups
    (``batches.StepGroup``), which is faster."""

    def step(self, step: StepReport) -> None:
        """Called after each step, or each group of steps."""

    def epoch(self, metrics: Mapping[str, Any]) -> None:
        """Called after each epoch with its figures."""

    def trial_step(self, start: int, step: StepReport) -> None:
        """Like ``step``, in the trial of initial weights ``start``."""

    def tried(self, losses: Sequence[float | None]) -> None:
        """Called after each trial, with the losses of all so far; None for one that diverged."""

    def chosen(self, start: int) -> None:
        """Called after all trials, when the initial weights ``start`` are set, which will be trained."""

    def save_best(self, arrays: Mapping[str, Array], state: Mapping[str, Any]) -> None:
        """Keep the model with the lowest validation loss so far."""

    def save_last(self, arrays: Mapping[str, Array], state: Mapping[str, Any], *, interrupted: bool) -> None:
        """Keep everything that resuming needs."""
