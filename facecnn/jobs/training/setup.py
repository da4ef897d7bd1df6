"""What every training run needs before its first step: the device and the trainer."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from facecnn.arrays import Array
from facecnn.config import Loaded, Settings
from facecnn.errors import DeviceError, UsageError, shown
from facecnn.jobs.console import Console
from facecnn.jobs.devices import open_and_show
from facecnn.jobs.people import output_names
from facecnn.jobs.training.options import TrainOptions
from facecnn.jobs.training.photos import TrainingPhotos
from facecnn.kernels import Device
from facecnn.learning.class_means import ClassMeansTrainer, initial_arrays_of_body
from facecnn.learning.data import PhotoSet, TrainingData
from facecnn.learning.full_batch_optimizers import FullBatchOptimizer
from facecnn.learning.loop import Trainer
from facecnn.learning.optimizers import ClassMeans
from facecnn.network.initialisation import NOTHING
from facecnn.network.size import (
    MOST_ELEMENTS,
    card_bytes,
    check_memory,
    countable_photos,
    fitting_photos,
    measure,
    micro_batch_size,
    too_large,
)
from facecnn.network.stages import Stage
from facecnn.parallel.ranks import ALONE, Ranks, largest_share
from facecnn.photos.dataset import Dataset
from facecnn.photos.folder import class_order, some
from facecnn.photos.folder_faces import FolderFaces


def open_for_training(options: TrainOptions, console: Console, *, say_why: bool = False) -> Device:
    """Open the device of the options, and show which it is (and why). Raises DeviceError, UsageError."""
    device = open_and_show(options.device, options.threads, console)
    why = f": {device.reason}" if say_why else ""
    console.info(f"Device: {device.name} ({device.description}){why}")
    return device


AnyTrainer: TypeAlias = Trainer | ClassMeansTrainer


def make_any_trainer(
    loaded: Loaded,
    dataset: Dataset,
    training: FolderFaces,
    device: Device,
    *,
    validation: PhotoSet | None = None,
    profile: bool = False,
    initial_arrays: Mapping[str, Array] = NOTHING,
    fresh: bool = True,
    ranks: Ranks = ALONE,
) -> AnyTrainer:
    """Make the trainer of a data set's photos, whether it makes steps or not; see ``make_trainer``."""
    if not isinstance(loaded.settings.optimizer, ClassMeans):
        return make_trainer(
            loaded,
            dataset,
            training,
            device,
            validation=validation,
            profile=profile,
            initial_arrays=initial_arrays,
            fresh=fresh,
            ranks=ranks,
        )
    outputs = len(output_names(loaded.settings, dataset))
    return ClassMeansTrainer(loaded.settings, _training_data(dataset, training, validation, outputs), device.backend)


def check_suits_optimizer(loaded: Loaded, options: TrainOptions) -> None:
    """Raise UsageError for what an optimizer without steps can't do, before any photo is read."""
    if not isinstance(loaded.settings.optimizer, ClassMeans):
        return
    for given, what in (
        (options.profile, "--profile: there are none to time"),
        (options.init_from is not None, "--init-from: its weights are the body's and computed from your photos"),
        (loaded.settings.train.restarts > 1, "train.restarts: nothing in it is due to chance"),
    ):
        if given:
            raise UsageError(
                f"{loaded.where(('optimizer', 'name'))}: the optimizer class_means makes no steps. Leave out {what}"
            )


def _training_data(dataset: Dataset, training: FolderFaces, validation: PhotoSet | None, outputs: int) -> TrainingData:
    rows, labels, indices = training.samples(dataset)
    if validation is None:
        validation = PhotoSet(dataset.pixels, rows[:0], labels[:0])
    return TrainingData(PhotoSet(dataset.pixels, rows, labels), indices, validation, outputs)


def make_trainer(
    loaded: Loaded,
    dataset: Dataset,
    training: FolderFaces,
    device: Device,
    *,
    validation: PhotoSet | None = None,
    profile: bool = False,
    initial_arrays: Mapping[str, Array] = NOTHING,
    fresh: bool = True,
    ranks: Ranks = ALONE,
) -> Trainer:
    """Make the trainer of a data set's photos that trains step by step.

    Args:
        training: which of them to train on, and which face of each.
        profile: time every layer.
        initial_arrays: weights to start from, by name.
        fresh: whether it starts from its initial weights; if not, others are restored before it runs.
        ranks: the processes that share each batch.

    Raises:
        UsageError: a layer doesn't fit (with its place in the config), memory is too small for the network, or the
            optimizer makes no steps.
        DeviceError: a card is too small for it.
        CheckpointError: the network begins with a body whose package isn't installed, or is damaged.
    """
    settings, outputs = loaded.settings, len(dataset.classes)
    if isinstance(settings.optimizer, ClassMeans):
        raise UsageError(
            f"{loaded.where(('optimizer', 'name'))}: the optimizer class_means makes no steps, and this needs some: "
            "choose another (-c finetune, say)"
        )
    data = _training_data(dataset, training, validation, outputs)
    stages, photos = loaded.plan(outputs), len(data.train_indices)
    batch_size = _batch_size(settings, stages, photos, ranks)
    fitting = _what_fits(stages, batch_size, data.validation, settings, device)
    sizes = [size for size in ranks.gather(fitting) if size is not None]
    fitting = min(sizes, default=None)  # all ranks run the same groups of steps
    if fresh:
        initial_arrays = {**initial_arrays_of_body(settings, data, device.backend), **initial_arrays}
    try:
        return Trainer(
            settings,
            data,
            device.backend,
            micro_batch_size=fitting,
            profile=profile,
            initial_arrays=initial_arrays,
            ranks=ranks,
        )
    except MemoryError:
        if fitting is not None:
            raise
        raise too_large(stages, batch_size) from None


def _batch_size(settings: Settings, stages: Sequence[Stage], photos: int, ranks: Ranks) -> int:
    """The most photos of one batch that any rank gets."""
    size = min(settings.train.batch_size, photos)
    has_batch_norm = any(stage.layer.uses_batch_statistics for stage in stages)
    if isinstance(settings.optimizer, FullBatchOptimizer) and has_batch_norm:
        size = photos
    return largest_share(size, ranks)


def _what_fits(
    stages: Sequence[Stage], batch_size: int, validation: PhotoSet, settings: Settings, device: Device
) -> int | None:
    """Size of the micro-batch on a card, None on the CPU. Raises UsageError and DeviceError."""
    free = device.free_memory()
    if free is None:
        check_memory(stages, batch_size)
        return None
    # Photos, held-out ones too, that don't fit on the card beside the network are streamed through two batch slots.
    photo_bytes = math.prod(validation.pixels.shape[1:]) * validation.pixels.itemsize
    sent = 2 * photo_bytes * (batch_size + max(1, min(batch_size, len(validation))))
    return _fitting_micro_batch(stages, batch_size, settings, free, sent)


def _fitting_micro_batch(stages: Sequence[Stage], batch_size: int, settings: Settings, free: int, sent: int) -> int:
    """Size of the micro-batch on a card with ``free`` bytes, of which photos take ``sent``. Raises DeviceError."""
    normalise = settings.photos.normalise
    size, countable = micro_batch_size(stages, batch_size, free - sent, normalise), countable_photos(stages)
    if countable == 0:
        raise DeviceError(
            f"even for a single photo this network has an array of more than {MOST_ELEMENTS:,} numbers, the most that "
            "a card's kernels can index: take fewer kernels or units, or --device cpu"
        )
    if size == 0:
        needed = card_bytes(stages, 1, normalise) + sent
        raise DeviceError(
            f"the card has {free / 1e9:.1f} GB free, and a single photo takes about {needed / 1e9:.1f} GB in this "
            "network: take fewer kernels or units, or --device cpu"
        )
    norm = next((s for s in stages if s.layer.uses_batch_statistics and s.is_trained(settings.train.freeze)), None)
    if size < batch_size and norm is not None:
        largest = fitting_photos(stages, free - sent, normalise)
        why = f"the card has {free / 1e9:.1f} GB free, which is enough for"
        if largest == countable:
            why = f"an array on a card can have {MOST_ELEMENTS:,} numbers, which is enough for"
        raise DeviceError(
            f"train.batch_size {batch_size}: {why} {largest} photos at a time, and {norm.name} needs the whole batch "
            f"at once: take batch_size {largest} or less, or --device cpu"
        )
    return size


def trial_figures(trainer: AnyTrainer) -> list[dict[str, Any]] | None:
    """The training loss at the end of each restart's trial (None if it diverged); None without restarts."""
    trials = trainer.progress.trials
    return [{"start": start, "loss": loss} for start, loss in enumerate(trials)] if trials else None


def say_what_is_trained(trainer: AnyTrainer, data: TrainingPhotos, console: Console) -> None:
    """Show people, photos, the network's size, and what is special about this run."""
    dataset, train, optimizer = data.dataset, trainer.settings.train, trainer.settings.optimizer
    counts = np.bincount(dataset.labels, minlength=len(dataset.classes))
    numbers = sorted(zip(dataset.classes, counts.tolist(), strict=True), key=lambda counted: class_order(counted[0]))
    people = some([f"{shown(name)} {count}" for name, count in numbers], 6)
    size = measure(trainer.stages, trainer.batch_size)
    counted = data.counts
    console.info(f"People: {people}; {counted['train']} photos to train on, {counted['validation']} held out")
    if isinstance(trainer, ClassMeansTrainer):
        console.info(
            f"Network: {size.parameters:,} weights, {size.multiply_adds / 1e6:.1f} million multiply-adds per face; "
            "only the last layer depends on the people, and is computed from their photos"
        )
        return
    console.info(
        f"Network: {size.parameters:,} weights, {size.multiply_adds / 1e6:.1f} million multiply-adds per photo; "
        f"{trainer.epochs} epochs of {trainer.steps_per_epoch} step{'s' if trainer.steps_per_epoch > 1 else ''}"
    )
    if trainer.trials_left:
        console.info(
            f"Restarts: {train.restarts} different initial weights are tried for {train.restart_epochs} epochs each, "
            "and the best are trained"
        )
    if isinstance(optimizer, FullBatchOptimizer):
        console.info(
            f"Optimizer: {optimizer.name} sees all photos at once and finds its own steps, so these are not "
            "used: augmentation, dropout, schedule, train.batch_size, train.average_weights, train.least_steps"
        )
        return
    if trainer.micro_batch_size < trainer.own_batch_size:
        console.info(
            f"Batches: {trainer.own_batch_size} photos, of which the card takes {trainer.micro_batch_size} at a time; "
            "their gradients are added up, which gives the same result"
        )
    if trainer.step.streamed:
        console.info("Photos: more than the card's memory takes, so each batch is sent while the one before is used")
    photos = len(trainer.data.train_indices)
    if train.batch_size > photos:
        console.info(f"Batch size: {photos}, all there is (train.batch_size is {train.batch_size})")
