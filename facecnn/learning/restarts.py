"""Trials of several initial weights (multi-start), of which the best are trained.

With ``train.restarts`` each of several initial weights is trained for some epochs, and those that end with the lowest
training loss are then trained from the beginning, as if nothing had been tried. So the trials cost ``restarts *
restart_epochs`` epochs more, and the training is, to the bit, the one that these weights alone would have had.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from facecnn.errors import DivergedError
from facecnn.learning.progress import Progress, Recorder, StepReport

if TYPE_CHECKING:
    from facecnn.learning.loop import Trainer


class _Trial(Recorder):
    """Passes on the steps of a trial and keeps the loss that it ended with; nothing is saved."""

    def __init__(self, recorder: Recorder, start: int, epochs: int, steps: int) -> None:
        self.every_step = recorder.every_step
        self._recorder = recorder
        self._start = start
        self._epochs, self._steps = epochs, steps
        self.loss: float | None = None

    def step(self, step: StepReport) -> None:
        self._recorder.trial_step(self._start, step._replace(epochs=self._epochs, steps=self._steps))

    def epoch(self, metrics: Mapping[str, Any]) -> None:
        self.loss = metrics["train_loss"]


def choose_start(trainer: Trainer, recorder: Recorder, stop: Callable[[], bool]) -> bool:
    """Try each of the initial weights for some epochs, and begin with those that learned best; False if stopped.

    They are judged by the training loss of the trial's last epoch, and not by held-out photos. What a bad start shows
    is that it doesn't learn, which the photos trained on show as well, and there are more of them; held-out ones would
    choose once more, beside the best epoch, what they are to judge afterwards, and where they are few, the luckiest of
    several starts looks better than it is. It also is the same rule where nothing is held out.

    All trials see the same order, augmentation and dropout, so that they differ by their initial weights only. After
    each, the losses so far are saved; a trial that was interrupted is made anew, to the same loss.
    """
    train = trainer.settings.train
    diverged: DivergedError | None = None
    while trainer.trials_left:
        trials = trainer.progress.trials
        trial = _Trial(recorder, len(trials), train.restart_epochs, train.restart_epochs * trainer.steps_per_epoch)
        try:
            goes_on = trainer.train(train.restart_epochs, trial, stop)
            ended = goes_on or trainer.progress.epoch == train.restart_epochs
        except DivergedError as error:
            goes_on, ended, diverged, trial.loss = True, True, error, None
        if ended:
            trials = [*trials, trial.loss]
            recorder.tried(trials)
        if len(trials) == train.restarts and all(loss is None for loss in trials):
            raise DivergedError(f"Each of {len(trials)} initial weights diverged when tried. {diverged}")
        trainer.begin(Progress(trials=trials))
        trainer.save(recorder, interrupted=not goes_on)
        if not goes_on:
            return False
    recorder.chosen(trainer.start)
    return True
