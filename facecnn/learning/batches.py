"""The batches of an epoch on the device: which photos they have, and what the network sees of them.

A step finds its photos, learning rate and number by itself (``take_batch``). So all steps launch the same kernels with
the same arguments, and can be recorded. Small batches are prepared several at a time, and their steps recorded as one:
the fewer photos there are, the larger is the share of time that launching kernels takes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import astuple
from itertools import accumulate, pairwise
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from facecnn.arrays import Array
from facecnn.kernels.protocol import AUGMENTATION_NONE
from facecnn.learning.data import TrainingData
from facecnn.learning.progress import Progress
from facecnn.network.feeding import PhotoFeed
from facecnn.network.network import MicroBatch, Network
from facecnn.network.size import measure
from facecnn.parallel.ranks import largest_share, share
from facecnn.photos.preparation import PhotoSettings

PREPARED_BYTES = 2**18
"""Size of the network's input up to which batches are prepared together; it fits a processor's second-level cache."""

GROUP_MULTIPLY_ADDS = 2**31
"""Multiply-adds of a group's forward passes: a fraction of a second of work, beside which the time that Python takes
between groups is negligible."""

MOST_BATCHES = 8
"""Maximum number of batches that are prepared together, and of steps in a group: what is recorded grows with it, and
training can only be stopped between groups."""

_ORDER_PURPOSE = 2**32
"""Second word of the Philox key of the shuffles, different from that of the initial weights."""


def edges_of(photos: int, batches: int) -> list[int]:
    """Where each batch begins in an epoch's order, and where the last one ends. Sizes differ by one photo at most, so
    that batch norm never meets a small remainder."""
    return [batch * photos // batches for batch in range(batches + 1)]


class BatchSlot(NamedTuple):
    """Where a batch's photos are; the arguments of its kernels depend on nothing else."""

    photos: int
    """Size of the batch."""
    feed_slot: int
    """Slot of the feed that has the photos."""
    first: int
    """Index of the batch's first photo among those that are taken from the order together."""
    to_take: int
    """Number of photos, from the batch's first one on, to take and prepare; 0 if that has been done."""


StepGroup: TypeAlias = tuple[BatchSlot, ...]
"""Slots of consecutive batches whose steps are recorded as one."""


class Batches:
    """The batches of one epoch after another.

    For each slot of each group of an ``epoch``, ``take`` the batch and process its ``micro_batches``. What these two
    launch depends on the slot only.
    """

    def __init__(
        self, network: Network, feed: PhotoFeed, data: TrainingData, settings: PhotoSettings, steps_per_epoch: int
    ) -> None:
        """``feed`` has the photos to train on. Batches larger than the network's are split into micro-batches. Where
        several ranks share each batch, all that is here is this rank's part of it."""
        self._network, ranks = network, network.ranks
        self._backend = backend = network.backend
        self._data, self._feed = data, feed
        self._normalise = settings.normalise
        self._augment: tuple[Any, ...] | None = None
        """Last arguments of ``draw_augmentation``, in its order."""
        if settings.augment is not None:
            self._augment = (*astuple(settings.augment), network.workspace)
        whole = edges_of(len(data.train_indices), steps_per_epoch)
        own = [[start + edge for edge in share(stop - start, ranks)] for start, stop in pairwise(whole)]
        self._own = np.concatenate([np.arange(*bounds) for bounds in own])
        """This rank's photos, as positions in an epoch's order."""
        self._sizes = [stop - start for start, stop in own]
        self._edges = [0, *accumulate(self._sizes)]
        self.steps_per_epoch = steps_per_epoch
        self.streamed = any(ranks.gather(feed.streamed))
        self.largest: int = largest_share(max(stop - start for start, stop in pairwise(whole)), ranks)
        """Size of the largest batch, the same on all ranks, whose groups of steps must be the same."""
        self._in_micro_batches = network.batch_size < self.largest

        # An epoch's order (photos, rows, labels), each batch's start and learning rate, and the next batch and step.
        self._order = [backend.empty((len(self._own),), np.int32) for _ in range(3)]
        self._starts = backend.to_device(np.array(self._edges[:-1], np.int32))
        self._rates = backend.empty((steps_per_epoch,), network.dtype)
        self._cursor = backend.empty((2,), np.int32)
        self._epoch = backend.to_device(np.zeros(1, np.int32))
        self._shuffler = np.random.Generator(np.random.Philox(0))
        self.step: Array = backend.to_device(np.zeros(1, np.int32))
        """(1,): number of the step that was taken."""
        self.learning_rate: Array = backend.to_device(np.zeros(1, network.dtype))
        """(1,): its learning rate."""

        self._prepared_together = self._steps_in_group = 1
        """Batches that are prepared together, and steps in a group, which is a multiple of that."""
        self._prepared = network.input
        if not (self._in_micro_batches or self.streamed):  # streamed photos come batch by batch
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
        """Plan the slots of an epoch from batch ``begin`` on, for each slot that the feed may use."""
        self._planned_from, edges = begin, self._edges
        positions = [(0, 0)] * begin
        for start in range(begin, self.steps_per_epoch, self._prepared_together):
            stop = min(start + self._prepared_together, self.steps_per_epoch)
            for batch in range(start, stop):
                positions.append((edges[batch] - edges[start], edges[stop] - edges[start] if batch == start else 0))
        self._slots = [
            tuple(BatchSlot(size, slot, *position) for size, position in zip(self._sizes, positions, strict=True))
            for slot in ((0, 1) if self._feed.streamed else (0,))
        ]

    def epoch(self, progress: Progress, rates: Sequence[float], *, one_by_one: bool) -> Iterator[StepGroup]:
        """Shuffle an epoch and go through what is left of it; a group's photos stay until the next one is asked for.

        Args:
            progress: the epoch, and the next step and batch.
            rates: learning rates of all batches of the epoch.
            one_by_one: whether each group has one step. The epoch's last step is always alone, as it may be watched.
        """
        self._shuffler.bit_generator.state = _philox_state(self._network.seed, _ORDER_PURPOSE + progress.epoch)
        permutation = self._shuffler.permutation(len(self._data.train_indices))[self._own]
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
        """Take a batch with its learning rate and number; returns its labels (n,)."""
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
        """The batch that was taken, in parts that fit the network, or as a whole."""
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
        """Draw this epoch's augmentation of the first ``count`` photos taken."""
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
        """Prepare photos ``start`` to ``stop`` of those taken into the front of ``_prepared``."""
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
    """State of ``np.random.Philox(key=key)``, whose constructor is slower, as it also gets a seed from the system."""
    return {
        "bit_generator": "Philox",
        "state": {"counter": np.zeros(4, np.uint64), "key": np.array(key, np.uint64)},
        "buffer": np.zeros(4, np.uint64),
        "buffer_pos": 4,
        "has_uint32": 0,
        "uinteger": 0,
    }
