"""Training that several ranks share: rank 0 leads it, and the others follow.

All ranks that share rank 0's cache find faces and prepare photos for it; rank 0 then reads them from there, and the
others after it. Rank 0 alone has the run's folder. It sends the others the settings and the split and, when training
begins, weights and progress.
"""

import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from facecnn.arrays import Array
from facecnn.config import Loaded
from facecnn.errors import InterruptedTraining, UsageError
from facecnn.jobs.console import Console
from facecnn.jobs.devices import part_of_machine
from facecnn.jobs.faces import arrays_for_checkpoint, finder_of_checkpoint
from facecnn.jobs.sharing import check_same_photos, find_shared_folder, prepare_beforehand
from facecnn.jobs.signals import StopRequest
from facecnn.jobs.training.options import TrainOptions
from facecnn.jobs.training.photos import TrainingPhotos, read_photos_again
from facecnn.jobs.training.setup import make_trainer, open_for_training
from facecnn.learning.full_batch_optimizers import FullBatchOptimizer
from facecnn.learning.optimizers import ClassMeans
from facecnn.learning.progress import Recorder, StepReport
from facecnn.parallel.ranks import Ranks


@dataclass(frozen=True)
class _Task:
    """What rank 0 tells the others."""

    loaded: Loaded
    folder: Path
    """Of the photos."""
    split: dict[str, Any]
    """``TrainingPhotos.record``"""
    finder: dict[str, Array]
    """Its arrays; empty where photos are cropped to the middle."""
    run: Path
    """The run's folder, or that which it will be made in."""


class SharedStop:
    """Ends training on all ranks after the same step, if any of them has received a signal."""

    def __init__(self, own: StopRequest, ranks: Ranks) -> None:
        self._own, self._ranks = own, ranks

    def __call__(self) -> bool:
        number = max(self._ranks.gather(self._own.number or 0))
        if number and self._own.number is None:
            self._own.number = number
        return number > 0  # a signal that came meanwhile counts after the next step, when all know of it


class _Following(Recorder):
    """Of a rank that writes nothing."""

    every_step = False

    def __init__(self, stop: StopRequest) -> None:
        self._stop = stop

    def step(self, step: StepReport) -> None:
        self._stop.stepped = True

    def trial_step(self, start: int, step: StepReport) -> None:
        self._stop.stepped = True


def options_for_rank(options: TrainOptions, ranks: Ranks) -> TrainOptions:
    """The options with this rank's part of its machine; see ``part_of_machine``."""
    device, threads = part_of_machine(options.device, options.threads, ranks)
    return replace(options, device=device, threads=threads)


def check_suits_ranks(loaded: Loaded, ranks: Ranks) -> None:
    """Raise UsageError for what several ranks can't share."""
    if ranks.size == 1:
        return
    settings = loaded.settings
    alone = "start facecnn without the MPI launcher"
    if isinstance(settings.optimizer, ClassMeans):
        raise UsageError(
            f"{loaded.where(('optimizer', 'name'))}: the optimizer class_means makes no steps that {ranks.size} ranks "
            f"could share: {alone}"
        )
    if isinstance(settings.optimizer, FullBatchOptimizer):
        raise UsageError(
            f"{loaded.where(('optimizer', 'name'))}: {ranks.size} ranks can't share the steps of a full-batch "
            f"optimizer: {alone}, or choose another optimizer (adamw, say)"
        )
    if settings.train.initialisation == "lsuv":
        raise UsageError(
            f"{loaded.where(('train', 'initialisation'))}: lsuv scales the weights by the outputs for a whole batch, "
            f"of which each of {ranks.size} ranks has a part only: {alone}, or choose orthogonal"
        )


def prepare_together(loaded: Loaded, options: TrainOptions, ranks: Ranks, console: Console) -> None:
    """Share what can be done for a new training's photos before they are read; see ``prepare_beforehand``."""
    if ranks.size == 1:
        return
    people = find_shared_folder(options.photos, loaded, Console(), ranks)  # looked for again, and said then
    for folder in (people, options.validation):
        if folder is not None:
            prepare_beforehand(folder, loaded, options.threads, ranks, console)


def tell_others(loaded: Loaded, data: TrainingPhotos, run: Path, ranks: Ranks) -> None:
    """Tell the other ranks what is trained, now that the photos have been read, and wait until they have read them.

    Raises DeviceError if one doesn't answer.
    """
    if ranks.size == 1:
        return
    folder, finder = data.dataset.folder.absolute(), arrays_for_checkpoint(data.dataset.finder)
    ranks.broadcast(_Task(loaded, folder, data.record(), finder, run))
    check_same_photos(folder, _digest(data), ranks)


def say_ranks(ranks: Ranks, console: Console) -> None:
    """Show how many ranks there are."""
    if ranks.size > 1:
        machines = len(set(ranks.gather(platform.node())))
        where = "this machine" if machines == 1 else f"{machines} machines"
        console.info(f"Ranks: {ranks.size} processes on {where}, each with its part of every batch")


def follow(loaded: Loaded, options: TrainOptions, console: Console, ranks: Ranks) -> None:
    """Take part in the training that rank 0 leads.

    Raises what ``train`` raises, PhotoError if this rank sees other photos than rank 0, and InterruptedTraining
    after a signal.
    """
    device = open_for_training(options, console)
    say_ranks(ranks, console)
    if options.resume is None:
        prepare_together(loaded, options, ranks, console)
    task: _Task = ranks.broadcast(None, patiently=True)
    ranks.busy()
    finder = finder_of_checkpoint(task.finder, options.threads)
    data = read_photos_again(task.split, task.run, task.folder, task.loaded, finder, False, console)
    check_same_photos(task.folder, _digest(data), ranks)
    trainer = make_trainer(
        task.loaded,
        data.dataset,
        data.training,
        device,
        validation=data.validation,
        profile=options.profile,
        fresh=False,
        ranks=ranks,
    )
    with StopRequest() as stop:
        if not trainer.run(_Following(stop), SharedStop(stop, ranks)):
            assert stop.number is not None
            raise InterruptedTraining("Stopped with rank 0.", stop.number)


def _digest(data: TrainingPhotos) -> str:
    """Of all photos and the split."""
    split: Mapping[str, Any] = data.record()
    return sha256(repr((data.dataset.paths, data.dataset.sha256, split)).encode()).hexdigest()
