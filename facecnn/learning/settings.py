"""Settings of the training loop."""

from __future__ import annotations

import math
from dataclasses import replace

from pydantic import Field
from pydantic.dataclasses import dataclass

from facecnn.network.initialisation import Initialisation
from facecnn.settings import SETTINGS


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class TrainSettings:
    """The training loop."""

    epochs: int = Field(default=60, ge=1, le=1_000_000, description="passes over the training photos")
    least_steps: int = Field(
        default=0, ge=0, le=100_000_000, description="with few photos: as many epochs as this number of steps takes"
    )
    batch_size: int = Field(
        default=16, ge=1, le=65_536, description="photos per step; batch sizes differ by at most one photo"
    )
    average_weights: float | None = Field(
        default=None, gt=0, lt=1, description="decay per step of the moving average of the weights that is used | null"
    )
    seed: int = Field(
        default=0, ge=0, le=2**32 - 1, description="of the split, the weights, the order and everything random"
    )
    initialisation: Initialisation = Field(
        default="he", description="he | xavier | lecun | orthogonal | lsuv | zca_patches: the weights to start from"
    )
    restarts: int = Field(
        default=1,
        ge=1,
        le=1000,
        description="initial weights to try; those with the lowest training loss are trained | 1: no trial",
    )
    restart_epochs: int = Field(
        default=5, ge=1, le=1_000_000, description="epochs that each of several initial weights is tried for"
    )
    freeze: int = Field(default=0, ge=0, le=1000, description="number of first layers that keep their weights")
    stop_after_epochs_without_gain: int | None = Field(
        default=None, ge=1, description="end when the validation loss has not fallen for this number of epochs | null"
    )
    stop_when_worst_loss_below: float | None = Field(
        default=None, gt=0, description="end when the worst training photo's loss in an epoch is below this | null"
    )

    def for_epochs(self, epochs: int) -> TrainSettings:
        """The same with this number of epochs from the first initial weights, without averaging and early stopping."""
        return replace(
            self,
            epochs=epochs,
            least_steps=0,
            restarts=1,
            average_weights=None,
            stop_after_epochs_without_gain=None,
            stop_when_worst_loss_below=None,
        )

    def steps_per_epoch(self, photos: int) -> int:
        """Steps per epoch with this number of photos to train on."""
        return max(1, math.ceil(photos / self.batch_size))

    def epochs_for(self, photos: int) -> int:
        """Epochs of training on this number of photos: more than ``epochs`` if these have too few steps."""
        return max(self.epochs, math.ceil(self.least_steps / self.steps_per_epoch(photos)))
