"""A training run in its folder, and what it writes there."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from facecnn.arrays import Array
from facecnn.config import Settings, to_dict
from facecnn.jobs.console import Console, TrainingDisplay
from facecnn.jobs.faces import arrays_for_checkpoint
from facecnn.jobs.models import TRAINED_ON
from facecnn.jobs.signals import StopRequest
from facecnn.jobs.training.photos import TrainingPhotos
from facecnn.jobs.training.recorders import TrialRecorder
from facecnn.jobs.training.setup import AnyTrainer
from facecnn.jobs.training.tracking import Tracking
from facecnn.kernels import Device
from facecnn.learning.calibration import Calibration
from facecnn.learning.progress import StepReport
from facecnn.learning.watching import KernelNews
from facecnn.runs.checkpoint import Checkpoint
from facecnn.runs.folder import RunFolder
from facecnn.runs.frames import KernelFrames, frame_epochs
from facecnn.runs.metrics import MetricsLog, read_metrics
from facecnn.runs.writing_thread import WritingThread


@dataclass
class TrainingRun:
    """A training run in its locked folder."""

    folder: RunFolder
    settings: Settings
    data: TrainingPhotos
    trainer: AnyTrainer
    device: Device
    trained_on: npt.NDArray[np.uint8]
    """(n, 32): SHA-256 of each photo that the model was trained on, including before this run."""
    frames: KernelFrames = field(init=False)
    """The kernels as they change from epoch to epoch."""

    def __post_init__(self) -> None:
        self.frames = KernelFrames(self.folder.frames_path, self.trainer.watch.start)

    def checkpoint(
        self, arrays: Mapping[str, Array], progress: Mapping[str, Any], calibration: Calibration | None = None
    ) -> Checkpoint:
        """The checkpoint to save. It has no folder of photos, so that equal runs give equal files."""
        settings, finder = self.settings, self.data.dataset.finder
        return Checkpoint(
            settings=to_dict(replace(settings, photos=replace(settings.photos, folder=None))),
            classes=self.data.classes,
            arrays={**arrays, TRAINED_ON: self.trained_on, **arrays_for_checkpoint(finder)},
            state={"progress": dict(progress), "calibration": None if calibration is None else asdict(calibration)},
        )


class RunRecorder(TrialRecorder):
    """Writes a run's results to its folder, models and ``tracking`` by ``writing``, and shows them."""

    def __init__(
        self,
        training: TrainingRun,
        display: TrainingDisplay,
        stop: StopRequest,
        console: Console,
        writing: WritingThread,
        tracking: Tracking | None = None,
    ) -> None:
        super().__init__(display, console)
        self._training = training
        self._stop = stop
        self._writing = writing
        self._tracking = tracking
        self._log = MetricsLog(training.folder.metrics_path)
        # States saved by an interrupt or before the first step don't become `previous`: the next save replaces them, so
        # that `last` and `previous` end up the same with and without an interrupt.
        progress = training.trainer.progress
        self._rotate = 0 < progress.saved_at == progress.step
        trainer = training.trainer
        self._news = KernelNews(trainer.stages, read_metrics(training.folder.metrics_path))
        self._frame_epochs = frame_epochs(trainer.epochs) if trainer.watch.start else set()

    def trial_step(self, start: int, step: StepReport) -> None:
        self._stop.stepped = True
        super().trial_step(start, step)

    def chosen(self, start: int) -> None:
        super().chosen(start)
        self._training.frames.start_again_after(0, self._training.trainer.watch.start)

    def step(self, step: StepReport) -> None:
        self._stop.stepped = True
        self._display.step(step)

    def epoch(self, metrics: Mapping[str, Any]) -> None:
        trainer = self._training.trainer
        self._log.append(metrics)
        kernels = trainer.watch.kernels() if metrics["epoch"] in self._frame_epochs else {}
        if kernels:
            self._training.frames.append(metrics["epoch"], kernels)
        if self._tracking is not None:
            self._track(self._tracking, metrics, kernels)
        self._display.epoch(metrics, trainer.epochs)
        for message in self._news.of(metrics):
            self._console.warning(message)

    def _track(self, tracking: Tracking, metrics: Mapping[str, Any], kernels: Mapping[str, Array]) -> None:
        by_epoch = {metrics["epoch"]: kernels}
        if metrics["epoch"] == 1:
            by_epoch = {0: self._training.trainer.watch.start, **by_epoch}
        first = {
            epoch: (name, np.array(weights))  # a copy, as training continues meanwhile
            for epoch, layers in by_epoch.items()
            for name, weights in list(layers.items())[:1]
        }
        self._writing.submit(lambda: tracking.epoch(metrics, first))

    def save_best(self, arrays: Mapping[str, Array], state: Mapping[str, Any]) -> None:
        best = self._training.checkpoint(arrays, state)
        self._writing.submit(lambda: self._training.folder.save_best(best))

    def save_last(self, arrays: Mapping[str, Array], state: Mapping[str, Any], *, interrupted: bool) -> None:
        last, rotate = self._training.checkpoint(arrays, state), self._rotate

        def write() -> None:
            self._log.sync()
            if self._tracking is not None:
                self._tracking.flush()
            self._training.folder.save_last(last, rotate=rotate)

        self._writing.submit(write)
        self._rotate = state["saved_at"] > 0
