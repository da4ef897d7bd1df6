"""What a card would be asked for, found out without one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from contract.harness import Inout, Out
from facecnn.config import load
from facecnn.kernels import cuda
from facecnn.kernels.cuda.planning import Launch, PlannedArray, planning
from facecnn.learning.training import PhotoSet, Trainer
from facecnn.network.layers import with_outputs

PHOTOS = 60


class Silent:
    """A recorder that keeps nothing."""

    def step(self, *arguments: Any, **named: Any) -> None:
        pass

    epoch = save_best = save_last = step


def make_trainer(config: str, kernels: Any = cuda, epochs: int = 1) -> Trainer:
    """A training of a shipped config in batches of 60 photos of its own size; to be made while planning."""
    settings = load(config).settings
    photos = settings.photos
    margins = [round(side * 1.3) for side in (photos.height, photos.width)]
    pixels = np.broadcast_to(np.uint8(0), (PHOTOS, *margins, photos.channels))
    empty = PhotoSet(pixels, np.zeros(0, np.int64), np.zeros(0, np.int64))
    labels = np.arange(PHOTOS) % 2
    return Trainer(
        layers=with_outputs(settings.network, 2),
        input_shape=(photos.height, photos.width, photos.channels),
        loss=settings.loss,
        optimizer=settings.optimizer,
        schedule=settings.schedule,
        train=replace(settings.train, batch_size=PHOTOS, epochs=epochs, least_steps=0, stop_when_worst_loss_below=None),
        augment=photos.augment,
        normalise=photos.normalise,
        photos=PhotoSet(pixels, np.arange(PHOTOS), labels),
        chosen=np.arange(PHOTOS),
        validation=empty,
        outputs=2,
        kernels=kernels,
    )


def launches_of_training(config: str) -> list[Launch]:
    """Of one step, and of the answers for a batch."""
    with planning() as launches:
        trainer = make_trainer(config)
        trainer.run(Silent())
        trainer.answers(trainer.photos)
        return launches


def launches_of_case(name: str, arguments: tuple[Any, ...]) -> list[Launch]:
    """Of one case of ``contract.harness.check``."""
    with planning() as launches:
        passed = [_planned(argument) for argument in arguments]
        getattr(cuda, name)(*passed, cuda.Workspace())
        return launches


def _planned(argument: Any) -> Any:
    if isinstance(argument, Out):
        return PlannedArray(argument.shape, np.float32 if argument.dtype is None else argument.dtype)
    array = argument.array if isinstance(argument, Inout) else argument
    if isinstance(array, np.ndarray):
        return PlannedArray(array.shape, np.float32 if array.dtype.kind == "f" else array.dtype)
    return argument
