"""The batches of an epoch, on the device: which photos, and what the network sees of them.

A step finds its photos, its learning rate and its number by itself (``take_batch``): so all steps are the same kernels
with the same arguments, which can be recorded. Small batches are prepared several at once, since the fewer photos, the
more of the time that it takes goes into starting it; and their steps can be recorded as one, for the same reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import astuple
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from facecnn.arrays import Array
from facecnn.kernels.protocol import AUGMENTATION_NONE
from facecnn.learning.data import TrainingData
from facecnn.learning.progress import Progress
from facecnn.network.feeding import PhotoFeed
from facecnn.network.network import MicroBatch, Network
from facecnn.network.size import measure
from facecnn.photos.preparation import PhotoSettings

PREPARED_BYTES = 2**18
"""As many batches are prepared at once as the network sees in so many bytes, which a processor's second cache holds."""

GROUP_MULTIPLY_ADDS = 2**31
"""A group of steps does so many of them forward, on all photos together: a fraction of a second of work. What Python
takes between two groups is next to nothing beside that."""

MOST_BATCHES = 8
"""No more batches than these are prepared at once, or worked on by a group of steps: what is recorded of them grows
with it, and a training can be stopped only between two groups."""

_ORDER_PURPOSE = 2**32
"""Second word of the key of the shuffles, apart from those of the initial weights."""


def edges_of(photos: int, batches: int) -> list[int]:
    """Where in an epoch's order each batch begins, and the last one ends. They are equal within one photo, so that
    batch norm never meets a small rest."""
    return [batch * photos // batches for batch in range(batches + 1)]


class BatchSlot(NamedTuple):
    """Where a batch's photos are, and what is to be done for it: what the kernels' arguments depend on."""

    photos: int
    """In the batch."""
    feed_slot: int
    """Of the feed, which has the photos."""
    first: int
    """The batch's first photo among those that are taken from the order together."""
    to_take: int
    """How many photos, of which the batch's are the first, are to be taken and prepared; 0 if they have been."""


StepGroup: TypeAlias = tuple[BatchSlot, ...]
"""The slots of batches that follow each other, whose steps are recorded as one."""


class Batches:
    """The batches of one epoch after another.

    For each slot of each group of an ``epoch``, ``take`` the batch and work on its ``micro_batches``. What these two
    launch depends on the slot only.
    """

    def __init__(
        self, network: Network, feed: PhotoFeed, data: TrainingData, settings: PhotoSettings, steps_per_epoch: int
    ) -> None:
        """Batches of the photos to train on, which ``feed`` brings to the device; those that are larger than the
        network's batch size are worked on in micro-batches."""
        self._network = network
        self._backend = backend = network.backend
        self._data, self._feed = data, feed
        self._normalise = settings.normalise
        self._augment: tuple[Any, ...] | None = None
        """The last arguments of ``draw_augmentation``, in its order."""
        if settings.augment is not None:
            self._augment = (*astuple(settings.augment), network.workspace)
        self._edges = edges_of(len(data.train_indices), steps_per_epoch)
        self._sizes = [stop - start for start, stop in pairwise(self._edges)]
        self.steps_per_epoch = steps_per_epoch
        self.streamed = feed.streamed
        self.largest: int = max(self._sizes)
        """Photos of the largest batch."""
        self._in_micro_batches = network.batch_size < self.largest

        # An epoch's order; where each batch begins in it, and its learning rate; the batch and the step that come next.
        self._order = [backend.empty((len(data.train_indices),), np.int32) for _ in range(3)]
        self._starts = backend.to_device(np.array(self._edges[:-1], np.int32))
        self._rates = backend.empty((steps_per_epoch,), network.dtype)
        self._cursor = backend.empty((2,), np.int32)
        self._epoch = backend.to_device(np.zeros(1, np.int32))
        self._shuffler = np.random.Generator(np.random.Philox(0))
        self.step: Array = backend.to_device(np.zeros(1, np.int32))
        """(1,): the number of the step that was taken."""
        self.learning_rate: Array = backend.to_device(np.zeros(1, network.dtype))
        """(1,): its learning rate."""

        self._prepared_together = self._steps_in_group = 1
        """Batches that are prepared at once, and, a multiple of it, those whose steps can be recorded as one."""
        self._prepared = network.input
        if not (self._in_micro_batches or feed.streamed):  # photos that are streamed come batch by batch
            size = network.input.size * network.dtype.itemsize
            together = self._prepared_together = max(1, min(MOST_BATCHES, steps_per_epoch, PREPARED_BYTES // size))
            work = network.batch_size * measure(network.stages, network.batch_size).multiply_adds
            steps = min(MOST_BATCHES, GROUP_MULTIPLY_ADDS // max(1, work))
            self._steps_in_group = together * max(1, steps // together)
        room = self._prepared_together * self.largest
        if self._prepared_together > 1:
            self._prepared = backend.empty((room, *network.input.shape[1:]), network.dtype)
        self._photos, self._rows, self._labels = (backend.empty((room,), np.int32) for _ in range(3))
        self._parameters = backend.to_device(np.tile(AUGMENTATION_NONE, (room, 1)))
        self._plan(0)

    def _plan(self, begin: int) -> None:
        """The slots of the batches of an epoch that begins with ``begin``; photos may be in either slot of the feed."""
        self._planned_from, edges = begin, self._edges
        places = [(0, 0)] * begin
        for start in range(begin, self.steps_per_epoch, self._prepared_together):
            stop = min(start + self._prepared_together, self.steps_per_epoch)
            for batch in range(start, stop):
                places.append((edges[batch] - edges[start], edges[stop] - edges[start] if batch == start else 0))
        self._slots = [
            tuple(BatchSlot(size, slot, *place) for size, place in zip(self._sizes, places, strict=True))
            for slot in ((0, 1) if self._feed.streamed else (0,))
        ]

    def epoch(self, progress: Progress, rates: Sequence[float], *, one_by_one: bool) -> Iterator[StepGroup]:
        """The batches that are left of an epoch, each on the device until the next ones are asked for.

        Args:
            progress: the epoch, and the step and the batch to begin with.
            rates: the learning rates of all batches of the epoch.
            one_by_one: never several steps in a group. The epoch's last one is always by itself, as it may be watched.
        """
        self._shuffler.bit_generator.state = _philox_state(self._network.seed, _ORDER_PURPOSE + progress.epoch)
        permutation = self._shuffler.permutation(len(self._data.train_indices))
        order = self._data.train_indices[permutation]
        copy = self._backend.copy_to_device
        numbers = order, self._feed.rows[permutation], self._data.photos.labels[order]
        for on_device, own in zip(self._order, numbers, strict=True):
            copy(on_device, own.astype(np.int32))
        copy(self._rates, np.array(rates, self._network.dtype))
        copy(self._cursor, np.array([progress.batch, progress.step], np.int32))
        copy(self._epoch, np.array([progress.epoch], np.int32))
        if progress.batch != self._planned_from:
            self._plan(progress.batch)
        last = self.steps_per_epoch - 1
        starts = [*range(progress.batch, last, 1 if one_by_one else self._steps_in_group), last]
        bounds = list(pairwise([*starts, last + 1]))
        fed = self._feed.slots(permutation[self._edges[start] : self._edges[stop]] for start, stop in bounds)
        for (start, stop), slot in zip(bounds, fed, strict=True):
            yield self._slots[slot][start:stop]

    def take(self, slot: BatchSlot) -> Array:
        """Take the batch, its learning rate and its number; returns its labels (n,)."""
        network, taken = self._network, slice(slot.first, slot.first + (slot.to_take or slot.photos))
        network.announce("batch", "")
        order_photos, order_rows, order_labels = self._order
        self._backend.take_batch(
            self._photos[taken],
            self._rows[taken],
            self._labels[taken],
            self.learning_rate,
            self.step,
            self._cursor,
            order_photos,
            order_rows,
            order_labels,
            self._starts,
            self._rates,
            network.workspace,
        )
        if slot.to_take:
            self._draw_augmentation(slot.to_take)
        labels: Array = self._labels[slot.first : slot.first + slot.photos]
        return labels

    def micro_batches(self, slot: BatchSlot) -> Iterator[MicroBatch]:
        """The batch that was taken, in parts that fit the network, or as one."""
        if slot.to_take and not self._in_micro_batches:
            self._prepare(slot.feed_slot, 0, slot.to_take)
        size = self._network.batch_size if self._in_micro_batches else slot.photos
        for start in range(0, slot.photos, size):
            first = slot.first + start
            stop = min(first + size, slot.first + slot.photos)
            if self._in_micro_batches:
                self._prepare(slot.feed_slot, first, stop)
            x = self._prepared[: stop - first] if self._in_micro_batches else self._prepared[first:stop]
            yield MicroBatch(start, self._labels[first:stop], self._photos[first:stop], self.step, x)

    def _draw_augmentation(self, count: int) -> None:
        """Draw what happens in this epoch to the first ``count`` photos that were taken."""
        if self._augment is None:
            return
        self._network.announce("augmentation", "")
        self._backend.draw_augmentation(
            self._parameters[:count],
            self._photos[:count],
            self._epoch,
            self._network.seed,
            *self._augment,
        )

    def _prepare(self, slot: int, start: int, stop: int) -> None:
        """Prepare the photos taken, from ``start`` to ``stop``, at the front of ``_prepared``."""
        self._network.announce("augmentation", "")
        self._backend.prepare_photos(
            self._prepared[: stop - start],
            self._feed.pixels(slot),
            self._feed.places(self._rows, start, stop),
            self._parameters[start:stop],
            self._normalise,
            self._network.workspace,
        )


def _philox_state(*key: int) -> dict[str, Any]:
    """That of ``np.random.Philox(key=key)``, which is slower to make: it asks the system for a seed, too."""
    return {
        "bit_generator": "Philox",
        "state": {"counter": np.zeros(4, np.uint64), "key": np.array(key, np.uint64)},
        "buffer": np.zeros(4, np.uint64),
        "buffer_pos": 4,
        "has_uint32": 0,
        "uinteger": 0,
    }
