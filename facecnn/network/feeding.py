"""How photos get to the device."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from facecnn.kernels.protocol import Kernels

Array = npt.NDArray[Any]


class PhotoFeed:
    """Photos on the device: all of them where they fit, else batch by batch, each sent while the one before is worked
    on.

    Usage: ``plan`` the batches; then, for each, ``bring`` it, ask for the kernels that read it, and say ``done``.
    """

    def __init__(self, kernels: Kernels, pixels: Array, rows: Array, batch_size: int) -> None:
        """pixels (P, H + 2 my, W + 2 mx, C) uint8 and rows (n,) on the host: which of them the n photos are."""
        self._kernels = kernels
        self._host = (pixels, np.asarray(rows))
        self._stream: Any = None
        self._batches: list[Array] = []
        self._next = 0
        try:
            self._pixels, self.rows = kernels.resident(pixels, self._host[1])
        except MemoryError:
            self._stream = kernels.PhotoStream(pixels.shape[1:], max(1, min(batch_size, len(rows))))
            self._places = kernels.to_device(np.arange(batch_size, dtype=np.int32))
            self.rows = np.zeros(len(rows), np.int32)
        """``rows`` (n,) int32, on the host: where in the device's pixels each photo lies, if all are there."""

    @property
    def streamed(self) -> bool:
        """Whether the photos are sent batch by batch."""
        return self._stream is not None

    def plan(self, batches: Iterable[Array]) -> None:
        """The photos, numbered 0 to n - 1, that will be asked for, batch after batch. The first is sent."""
        self._next = 0
        if self._stream is not None:
            self._batches = list(batches)
            self._send(0)

    def bring(self) -> int:
        """The slot in which the next batch lies for all kernels that are asked for from now on, until ``done``."""
        slot = self._next % 2 if self._stream is not None else 0
        if self._stream is not None:
            self._stream.wait(slot)
        return slot

    def done(self) -> None:
        """All kernels that read the batch have been asked for: the next one is sent meanwhile."""
        if self._stream is not None:
            self._stream.release(self._next % 2)
            self._next += 1
            self._send(self._next)

    def pixels(self, slot: int) -> Array:
        """The device's array that holds the batch in ``slot``."""
        arrays: Sequence[Array] = [self._pixels] if self._stream is None else self._stream.arrays
        return arrays[slot]

    def places(self, rows: Array, start: int, stop: int) -> Array:
        """Where in ``pixels`` photos start to stop of the batch lie; ``rows`` (N,) on the device is the batch's part of
        this feed's ``rows``."""
        return rows[start:stop] if self._stream is None else self._places[start:stop]

    def _send(self, number: int) -> None:
        if number < len(self._batches):
            pixels, rows = self._host
            self._stream.send(number % 2, pixels, rows[self._batches[number]])
