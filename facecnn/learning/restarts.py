"""Multi-start: several initial weights are tried, and the best of them trained.

With ``train.restarts`` each of several initial weights is trained for some epochs. Those with the lowest training loss
are then trained from the beginning, as if nothing had been tried. So the trials cost ``restarts * restart_epochs``
epochs more, and the training has the same bits as with these weights alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from facecnn.errors import DivergedError
from facecnn.learning.progress import Progress, Recorder, StepReport

if TYPE_CHECKING:
    from facecnn.learning.loop import Trainer


class _Trial(Recorder):
    """Passes on the steps of a trial and keeps its final loss; nothing is saved."""

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
    """Try each of the initial weights for some epochs, and set the best; False if stopped.

    They are compared by the training loss of the trial's last epoch, not by held-out photos: a bad start doesn't learn,
    which the training photos show as well, and there are more of them. Held-out photos would be used for another
    choice, besides the best epoch, before they judge the result, and if they are few, the luckiest start would win. The
    rule also works if nothing is held out.

    All trials see the same order, augmentation and dropout. The losses are saved after each; an interrupted trial is
    repeated, with the same loss.
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
