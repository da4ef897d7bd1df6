"""``train --dry-run`` and ``--overfit-batch``, which make no run."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from facecnn.arrays import Array
from facecnn.config import Loaded, Settings
from facecnn.errors import OutputError
from facecnn.jobs.console import Console, TrainingDisplay
from facecnn.jobs.faces import installed_finder
from facecnn.jobs.people import find_folder, read_people
from facecnn.jobs.training.init_from import NO_MODEL, read_initial_weights
from facecnn.jobs.training.options import TrainOptions, check_place
from facecnn.jobs.training.photos import read_photos
from facecnn.jobs.training.recorders import ShowingRecorder
from facecnn.jobs.training.setup import (
    check_suits_optimizer,
    make_any_trainer,
    make_trainer,
    open_for_training,
    say_what_is_trained,
)
from facecnn.learning.full_batch_optimizers import FullBatchOptimizer
from facecnn.learning.loop import Trainer
from facecnn.learning.optimizers import AnyOptimizer, ClassMeans
from facecnn.learning.progress import StepReport
from facecnn.learning.schedules import Constant
from facecnn.network.loss import CrossEntropy
from facecnn.network.size import layer_rows, measure
from facecnn.photos.folder_faces import folder_faces

_SomeOptimizer = TypeVar("_SomeOptimizer", bound="AnyOptimizer | FullBatchOptimizer | ClassMeans")

OVERFIT_LOSS = 0.01
OVERFIT_STEPS = 3000


def dry_run(loaded: Loaded, options: TrainOptions, console: Console) -> dict[str, Any]:
    """Do everything up to the first step (photos, split, shapes, memory), without training or writing anything."""
    check_place(options)
    check_suits_optimizer(loaded, options)
    device = open_for_training(options, console, say_why=True)
    data = read_photos(loaded, options, console)
    initial = NO_MODEL
    if options.init_from is not None:
        initial = read_initial_weights(options.init_from, loaded, data, options.strict, console)
    trainer = make_any_trainer(
        loaded, data.dataset, data.training, device, validation=data.validation, initial_arrays=initial.arrays
    )
    say_what_is_trained(trainer, data, console)
    size = measure(trainer.stages, trainer.batch_size)
    return {
        "device": device.name,
        "device_reason": device.reason,
        "classes": data.classes,
        "photos": data.counts,
        "epochs": trainer.epochs,
        "steps": trainer.steps,
        "batch_size": trainer.batch_size,
        "parameters": size.parameters,
        "training_bytes": size.training_bytes,
        "layers": layer_rows(trainer.stages),
        "init_from": initial.record,
    }


def overfit_batch(loaded: Loaded, options: TrainOptions, console: Console) -> dict[str, Any]:
    """Check that the network can learn one batch by heart. If it can't, the cause isn't the photos.

    It trains without augmentation, dropout, label smoothing, weight decay and averaging, at the optimizer's full rate.
    Raises OutputError if the batch's loss hasn't fallen below ``OVERFIT_LOSS`` after ``OVERFIT_STEPS`` steps.
    """
    check_place(options)
    device = open_for_training(options, console, say_why=True)
    loaded = replace(loaded, settings=_overfit_settings(loaded.settings))
    folder = find_folder(options.photos, loaded, console)
    photos = loaded.settings.photos
    finder = installed_finder(photos, console, options.threads)
    dataset = read_people(folder, photos, finder, console, strict=options.strict, for_training=True)
    training = folder_faces(dataset, np.arange(len(dataset.labels)), spectators=False)
    batch = training.part(_one_batch(dataset.labels[training.photos], loaded.settings.train.batch_size))
    trainer = make_trainer(loaded, dataset, batch, device)
    with console.training(trainer.epochs, trainer.steps) as display:
        recorder = _OverfitRecorder(trainer, display, console)
        trainer.run(recorder, lambda: recorder.reached)
    result = {
        "device": device.name,
        "device_reason": device.reason,
        "photos": len(batch.photos),
        "steps": recorder.steps,
        "loss": recorder.loss,
        "passed": recorder.reached,
    }
    if not recorder.reached:
        raise OutputError(
            f"--overfit-batch: the loss of {len(batch.photos)} photos is {recorder.loss:.4f} after {recorder.steps} "
            f"steps, not below {OVERFIT_LOSS}: the network is too small, or the learning rate is wrong"
        )
    return result


class _OverfitRecorder(ShowingRecorder):
    """Notices when the batch is learned, by the objective of the training."""

    every_step = True
    steps = 0
    loss = float("inf")
    reached = False

    def __init__(self, trainer: Trainer, display: TrainingDisplay, console: Console) -> None:
        super().__init__(trainer.epochs, display, console)
        self._trainer = trainer

    def step(self, step: StepReport) -> None:
        super().step(step)
        self.steps, self.loss = step.step, self._trainer.objective()
        self.reached = self.loss < OVERFIT_LOSS

    def epoch(self, metrics: Mapping[str, Any]) -> None:
        pass  # each step is an epoch here


def _overfit_settings(settings: Settings) -> Settings:
    layers = tuple(layer.without_randomness() for layer in settings.network)
    loss = replace(settings.loss, label_smoothing=0.0) if isinstance(settings.loss, CrossEntropy) else settings.loss
    return replace(
        settings,
        photos=replace(settings.photos, augment=None),
        network=layers,
        loss=loss,
        optimizer=_without_decay(settings.optimizer),
        schedule=Constant(),
        train=settings.train.for_epochs(OVERFIT_STEPS),
    )


def _without_decay(optimizer: _SomeOptimizer) -> _SomeOptimizer:
    return optimizer if isinstance(optimizer, ClassMeans) else replace(optimizer, weight_decay=0.0)


def _one_batch(labels: Array, size: int) -> Array:
    """Numbers of ``size`` photos, the first ones of every class in turn."""
    rank = np.zeros(len(labels), np.int64)
    for label in np.unique(labels):
        own = labels == label
        rank[own] = np.arange(own.sum())
    return np.sort(np.lexsort((labels, rank))[:size])
