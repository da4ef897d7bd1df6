"""The batches of an epoch, on the device: which photos, and what the network sees of them.

A step finds its photos, its learning rate and its number by itself (``take_batch``): so all steps are the same kernels
with the same arguments, which can be recorded. Small batches are prepared several at once, since the fewer photos, the
more of the time that it takes goes into starting it; and their steps can be recorded as one, for the same reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from facecnn.kernels.protocol import AUGMENTATION_NONE, Normalise
from facecnn.network.feeding import PhotoFeed
from facecnn.network.network import Network
from facecnn.network.size import measure
from facecnn.photos.preparation import AugmentSettings

Array = npt.NDArray[Any]

PREPARED_BYTES = 2**18
"""As many batches are prepared at once as the network sees in so many bytes, which a processor's second cache holds."""

STRETCH_MULTIPLY_ADDS = 2**31
"""Steps are made in one go that do so many of them forward, on all photos together: a fraction of a second of work.
What Python takes between two steps is next to nothing beside that."""

MOST_BATCHES = 8
"""No more batches than these are prepared at once, or worked on in one go: what is recorded of them grows with it, and
a training can be stopped only between two goes."""

_ORDER_PURPOSE = 2**32
"""Second word of the key of the shuffles, apart from those of the initial weights."""


def edges_of(photos: int, batches: int) -> list[int]:
    """Where in an epoch's order each batch begins, and the last one ends. They are equal within one photo, so that
    batch norm never meets a small rest."""
    return [batch * photos // batches for batch in range(batches + 1)]


class Place(NamedTuple):
    """Where a batch's photos are, and what is to be done for it: what the kernels' arguments depend on."""

    photos: int
    """In the batch."""
    slot: int
    """Of the feed."""
    first: int
    """The batch's first photo among those that are taken from the order together."""
    to_take: int
    """So many photos, of which the batch's are the first, are to be taken and prepared; 0 if they have been."""


class Stretch(NamedTuple):
    """Batches that follow each other, with the figures of their places; their steps can be recorded as one."""

    photos: tuple[int, ...]
    slot: int
    first: tuple[int, ...]
    to_take: tuple[int, ...]

    def places(self) -> Iterator[Place]:
        """That of each batch."""
        for photos, first, to_take in zip(self.photos, self.first, self.to_take, strict=True):
            yield Place(photos, self.slot, first, to_take)


class Part(NamedTuple):
    """Photos of a batch that are worked on at a time; arrays on the device."""

    start: int
    """The first one's number in the batch."""
    photos: Array
    """(n,) int32: their numbers in the data set."""
    labels: Array
    """(n,) int32."""
    x: Array
    """(n, H, W, C): as the network sees them."""


class Batches:
    """Usage: go through the stretches of an ``epoch``; for each of their places ``take`` the batch and work on its
    ``parts``. What ``take`` and ``parts`` launch depends on the place only."""

    def __init__(
        self,
        network: Network,
        feed: PhotoFeed,
        labels: Array,
        chosen: Array,
        *,
        edges: Sequence[int],
        in_parts: bool,
        augment: AugmentSettings | None,
        normalise: Normalise,
        seed: int,
    ) -> None:
        """Batches of the photos number ``chosen`` of a data set, which ``feed`` brings to the device; of the data set,
        ``labels`` has those of all photos. ``edges``: see ``edges_of``. Unless batches are worked on ``in_parts``, they
        must fit the network's batch size."""
        self._network = network
        self._kernels = kernels = network.kernels
        self._labels_of_photos, self._chosen = labels, chosen
        self._augment, self._normalise, self._seed = augment, normalise, seed
        self._feed, self._edges, self._in_parts = feed, edges, in_parts
        count = len(edges) - 1
        self._sizes = tuple(stop - start for start, stop in pairwise(edges))

        # An epoch's order; where each batch begins in it, and its learning rate; the batch and the step that come next.
        self._order = [kernels.empty((len(chosen),), np.int32) for _ in range(3)]
        self._starts = kernels.to_device(np.array(self._edges[:-1], np.int32))
        self._rates = kernels.empty((count,), network.dtype)
        self._cursor = kernels.empty((2,), np.int32)
        self._epoch = kernels.to_device(np.zeros(1, np.int32))
        self._shuffler = np.random.Generator(np.random.Philox(0))
        self.step: Array = kernels.to_device(np.zeros(1, np.int32))
        """(1,): the number of the step that was taken."""
        self.learning_rate: Array = kernels.to_device(np.zeros(1, network.dtype))
        """(1,): its learning rate."""

        self._at_once = self._in_one_go = 1
        """Batches that are prepared at once, and, a multiple of it, those whose steps can be made in one go."""
        self._prepared = network.input
        if not (in_parts or feed.streamed):  # photos that are streamed come batch by batch
            size = network.input.size * network.dtype.itemsize
            self._at_once = max(1, min(MOST_BATCHES, count, PREPARED_BYTES // size))
            work = network.batch_size * measure(network.stages, network.batch_size).multiply_adds
            in_one_go = min(MOST_BATCHES, STRETCH_MULTIPLY_ADDS // max(1, work))
            self._in_one_go = self._at_once * max(1, in_one_go // self._at_once)
        room = self._at_once * max(self._sizes)
        if self._at_once > 1:
            self._prepared = kernels.empty((room, *network.input.shape[1:]), network.dtype)
        self._photos, self._rows, self._labels = (kernels.empty((room,), np.int32) for _ in range(3))
        self._parameters = kernels.to_device(np.tile(AUGMENTATION_NONE, (room, 1)))
        self._plan(0)

    def _plan(self, begin: int) -> None:
        """Of each batch of an epoch that begins with this one: the first photo among those taken with it, and how many
        are to be taken for it."""
        self._planned_from, count = begin, len(self._sizes)
        first, to_take = [0] * count, [0] * count
        for start in range(begin, count, self._at_once):
            stop = min(start + self._at_once, count)
            to_take[start] = self._edges[stop] - self._edges[start]
            first[start:stop] = [self._edges[batch] - self._edges[start] for batch in range(start, stop)]
        self._first, self._to_take = tuple(first), tuple(to_take)

    def epoch(self, epoch: int, batch: int, step: int, rates: Sequence[float], *, single: bool) -> Iterator[Stretch]:
        """The batches of an epoch from ``batch`` on, which is step number ``step``; each stretch stays on the device
        until the next one is asked for. The epoch's last batch always comes by itself, as it may be watched; all do if
        ``single``. ``rates``: the learning rates of all the epoch's batches."""
        self._shuffler.bit_generator.state = _philox_state(self._seed, _ORDER_PURPOSE + epoch)
        permutation = self._shuffler.permutation(len(self._chosen))
        order = self._chosen[permutation]
        copy = self._kernels.copy_to_device
        numbers = order, self._feed.rows[permutation], self._labels_of_photos[order]
        for on_device, own in zip(self._order, numbers, strict=True):
            copy(on_device, own.astype(np.int32))
        copy(self._rates, np.array(rates, self._network.dtype))
        copy(self._cursor, np.array([batch, step], np.int32))
        copy(self._epoch, np.array([epoch], np.int32))
        if batch != self._planned_from:
            self._plan(batch)
        last = len(self._sizes) - 1
        length = 1 if single else self._in_one_go
        starts = [*range(batch, last, length), last]
        bounds = list(zip(starts, [*starts[1:], last + 1], strict=True))
        fed = self._feed.slots(permutation[self._edges[start] : self._edges[stop]] for start, stop in bounds)
        for (start, stop), slot in zip(bounds, fed, strict=True):
            yield Stretch(self._sizes[start:stop], slot, self._first[start:stop], self._to_take[start:stop])

    def take(self, place: Place) -> Array:
        """The batch, its learning rate and its number; gives back its labels (n,)."""
        network, taken = self._network, slice(place.first, place.first + (place.to_take or place.photos))
        network.announce("batch", "")
        self._kernels.take_batch(
            self._photos[taken],
            self._rows[taken],
            self._labels[taken],
            self.learning_rate,
            self.step,
            self._cursor,
            *self._order,
            self._starts,
            self._rates,
            network.workspace,
        )
        if place.to_take:
            self._draw_augmentation(place.to_take)
        labels: Array = self._labels[place.first : place.first + place.photos]
        return labels

    def parts(self, place: Place) -> Iterator[Part]:
        """The batch that was taken, in parts that fit the network, or as one."""
        if place.to_take and not self._in_parts:
            self._prepare(place.slot, 0, place.to_take)
        size = self._network.batch_size if self._in_parts else place.photos
        for start in range(0, place.photos, size):
            first = place.first + start
            stop = min(first + size, place.first + place.photos)
            if self._in_parts:
                self._prepare(place.slot, first, stop)
            x = self._prepared[: stop - first] if self._in_parts else self._prepared[first:stop]
            yield Part(start, self._photos[first:stop], self._labels[first:stop], x)

    def _draw_augmentation(self, count: int) -> None:
        """What happens in this epoch to the first so many photos that were taken."""
        a = self._augment
        if a is None:
            return
        self._network.announce("augmentation", "")
        self._kernels.draw_augmentation(
            self._parameters[:count],
            self._photos[:count],
            self._epoch,
            self._seed,
            a.mirror,
            a.shift,
            a.zoom,
            a.rotate,
            a.gamma,
            a.contrast,
            a.brightness,
            a.blur,
            a.erase,
            self._network.workspace,
        )

    def _prepare(self, slot: int, start: int, stop: int) -> None:
        """The photos taken, from ``start`` to ``stop``, at the front of what is prepared."""
        self._network.announce("augmentation", "")
        self._kernels.prepare_photos(
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
