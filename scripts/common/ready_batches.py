"""Batches of pictures that need no preparing, for training steps in a benchmark or a study."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from facecnn.learning.batches import BatchSlot, StepGroup
from facecnn.learning.progress import Progress
from facecnn.network.network import MicroBatch, Network

Array = npt.NDArray[Any]


class ReadyBatches:
    """Takes the place of ``facecnn.learning.batches.Batches``: an epoch's batches are those of the pictures, in their
    order, or the only one again and again. As in training, a step finds its photos, its rate and its number by itself.
    """

    streamed = False

    def __init__(self, network: Network, pictures: Array, labels: Array, batch_size: int, steps: int) -> None:
        """Pictures (n, H, W, C) on the device and labels (n,) on the host, n a multiple of ``batch_size``; ``steps`` an
        epoch."""
        backend = network.backend
        self._network = network
        self.largest, self.steps_per_epoch = batch_size, steps
        self._pictures = pictures
        numbers = np.arange(len(labels), dtype=np.int32)
        self._order = [backend.to_device(array) for array in (numbers, numbers, labels.astype(np.int32))]
        self._starts = backend.to_device((np.arange(steps) * batch_size % len(labels)).astype(np.int32))
        self._rates = backend.empty((steps,), network.dtype)
        self._cursor = backend.empty((2,), np.int32)
        self._taken = [backend.empty((batch_size,), np.int32) for _ in self._order]
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
