"""Draw the learning rate of every step, before there are photos."""

from pathlib import Path

import numpy as np

from facecnn.config import Settings
from facecnn.errors import UsageError
from facecnn.learning.schedules import Plateau
from facecnn.reports.plots import draw_schedule

ASSUMED_PHOTOS = 200
"""Assumed number of photos to train on."""


def draw(settings: Settings, path: Path) -> None:
    """Draw the learning rate of every step to a PNG file, as if there were 200 photos to train on.

    Raises UsageError for an optimizer that has no learning rate, OutputError if the file can't be written.
    """
    rate = getattr(settings.optimizer, "learning_rate", None)
    if rate is None:
        raise UsageError(
            f"--plot: the optimizer {settings.optimizer.name} has no learning rate, so there is no schedule to draw: "
            "leave --plot out"
        )
    epochs, steps = settings.train.epochs_for(ASSUMED_PHOTOS), settings.train.steps_per_epoch(ASSUMED_PHOTOS)
    rates = [rate * settings.schedule.factor(step, epochs * steps) for step in range(epochs * steps)]
    what = f"{epochs} epochs of {steps}, if there are {ASSUMED_PHOTOS} photos to train on"
    remark, schedule = "", settings.schedule
    if isinstance(schedule, Plateau):
        remark = f"times {schedule.factor_each:g} when the loss has not fallen for more than {schedule.patience} epochs"
    draw_schedule(path, np.array(rates), steps, what, remark)
