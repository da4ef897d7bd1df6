"""Training steps on batches of ready pictures, for benchmarks and experiments."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from facecnn.arrays import Array
from facecnn.learning.batches import BatchSlot, StepGroup
from facecnn.learning.optimizers import Optimizer
from facecnn.learning.progress import Progress
from facecnn.learning.schedules import Constant
from facecnn.learning.step import TrainingStep
from facecnn.learning.update import WeightUpdate
from facecnn.network.network import MicroBatch, Network


class ReadyBatches:
    """Takes the place of ``facecnn.learning.batches.Batches``: batches of the pictures in order, again and again.

    As in training, a step finds its photos, its learning rate and its number by itself.
    """

    streamed = False

    def __init__(self, network: Network, pictures: Array, labels: Array, batch_size: int, steps: int) -> None:
        """Set up the batches.

        Args:
            network: The network to train.
            pictures: (n, H, W, C), on the device; n is a multiple of ``batch_size``.
            labels: (n,), on the host.
            batch_size: Pictures per step.
            steps: Steps per epoch.
        """
        backend = network.backend
        self._network = network
        self.largest, self.steps_per_epoch = batch_size, steps
        self._pictures = pictures
        numbers = backend.to_device(np.arange(len(labels), dtype=np.int32))
        self._order = (numbers, numbers, backend.to_device(labels.astype(np.int32)))
        self._starts = backend.to_device((np.arange(steps) * batch_size % len(labels)).astype(np.int32))
        self._rates = backend.empty((steps,), network.dtype)
        self._cursor = backend.empty((2,), np.int32)
        photos, rows, own_labels = (backend.empty((batch_size,), np.int32) for _ in range(3))
        self._taken = (photos, rows, own_labels)
        self.step: Array = backend.to_device(np.zeros(1, np.int32))
        self.learning_rate: Array = backend.to_device(np.zeros(1, network.dtype))
        self._groups: list[StepGroup] = [
            (BatchSlot(batch_size, 0, first, batch_size),) for first in range(0, len(labels), batch_size)
        ]

    def epoch(self, progress: Progress, rates: Sequence[float], *, one_by_one: bool) -> Iterator[StepGroup]:
        copy = self._network.backend.copy_to_device
        copy(self._rates, np.array(rates, self._network.dtype))
        copy(self._cursor, np.array([progress.batch, progress.step], np.int32))
        for batch in range(progress.batch, self.steps_per_epoch):
            yield self._groups[batch % len(self._groups)]

    def take(self, slot: BatchSlot) -> Array:
        arrays = (*self._taken, self.learning_rate, self.step, self._cursor, *self._order, self._starts, self._rates)
        self._network.backend.take_batch(*arrays, self._network.workspace)
        return self._taken[2]

    def micro_batches(self, slot: BatchSlot) -> Iterator[MicroBatch]:
        photos, _, labels = self._taken
        yield MicroBatch(0, labels, photos, self.step, self._pictures[slot.first : slot.first + slot.photos])


def train(network: Network, pictures: Array, labels: Array, optimizer: Optimizer, batch_size: int) -> Array:
    """Train once through the pictures (n, H, W, C), with a constant learning rate. Returns the loss of each step."""
    batches = ReadyBatches(network, pictures, labels, batch_size, len(labels) // batch_size)
    classes = np.ones(network.units)
    step = TrainingStep(batches, WeightUpdate(network, optimizer), Constant(), epochs=1, class_weights=classes)
    return np.array([step.objectives.sum() for _ in step.epoch(Progress(), one_by_one=True)])
