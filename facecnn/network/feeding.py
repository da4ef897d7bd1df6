"""Brings photos to the device."""

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, cast

import numpy as np

from facecnn.arrays import Array
from facecnn.kernels.backend import Backend, StreamingBackend

ALL = slice(None)


class PhotoFeed:
    """Photos on the device: all of them if they fit, else batch by batch, each sent while the one before is used."""

    def __init__(self, backend: Backend, pixels: Array, rows: Array, batch_size: int) -> None:
        """``pixels`` (P, H + 2 my, W + 2 mx, C) uint8 and ``rows`` (n,), each photo's row of them, are on the host."""
        self._backend = backend
        self._host = (pixels, np.asarray(rows))
        self._stream: Any = None
        self.rows: Array
        """(n,) int32, on the host: each photo's row of the device's pixels, if all of them are there."""
        try:
            self._pixels, self.rows = backend.resident(pixels, self._host[1])
        except MemoryError:
            self._stream = cast(StreamingBackend, backend).PhotoStream(
                pixels.shape[1:], max(1, min(batch_size, len(rows)))
            )
            self._places = backend.to_device(np.arange(batch_size, dtype=np.int32))
            self.rows = np.zeros(len(rows), np.int32)

    @property
    def streamed(self) -> bool:
        """Whether the photos are sent batch by batch."""
        return self._stream is not None

    def slots(self, batches: Iterable[Array]) -> Iterator[int]:
        """The slot that holds each batch, for all kernels that are launched before the next one is asked for.

        ``batches``: the photos of each batch, as indices from 0 to n - 1.
        """
        if self._stream is None:
            for _ in batches:
                yield 0
            return
        photos = list(batches)
        self._send(0, photos)
        for number in range(len(photos)):
            slot = number % 2
            self._stream.wait(slot)
            try:
                yield slot
            finally:
                self._stream.release(slot)
            self._send(number + 1, photos)

    def in_order(self, size: int, part: slice = ALL) -> Iterator[tuple[int, int, Array, Array]]:
        """All photos, or a ``part`` of them, up to ``size`` at a time.

        Yields:
            Start and stop of the photos, the device's array that holds them, and their rows (n,) of it, for all kernels
            that are launched before the next ones are asked for.
        """
        first, last, _ = part.indices(len(self.rows))
        bounds = [(start, min(last, start + size)) for start in range(first, last, size)]
        for (start, stop), slot in zip(bounds, self.slots(np.arange(*bound) for bound in bounds), strict=True):
            rows = self._rows_on_device[start:stop]
            yield start, stop, self.pixels(slot), self.places(rows, 0, stop - start)

    def pixels(self, slot: int) -> Array:
        """The device's array that holds the batch in ``slot``."""
        arrays: Sequence[Array] = [self._pixels] if self._stream is None else self._stream.arrays
        return arrays[slot]

    def places(self, rows: Array, start: int, stop: int) -> Array:
        """Rows of ``pixels`` of photos ``start`` to ``stop`` of a batch; ``rows`` (N,) on the device: the batch's part
        of this feed's ``rows``."""
        return rows[start:stop] if self._stream is None else self._places[start:stop]

    @cached_property
    def _rows_on_device(self) -> Array:
        rows: Array = self._backend.to_device(self.rows)
        return rows

    def _send(self, number: int, batches: Sequence[Array]) -> None:
        if number < len(batches):
            pixels, rows = self._host
            self._stream.send(number % 2, pixels, rows[batches[number]])
