"""Photos reach a device that is too small for all of them, batch by batch, and nothing else changes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from facecnn.kernels import cpu
from facecnn.network.feeding import PhotoFeed


class Stream:
    """Keeps to the order that a card needs, and fails where it isn't kept."""

    def __init__(self, shape: tuple[int, ...], batch_size: int) -> None:
        self.arrays = [np.zeros((batch_size, *shape), np.uint8) for _ in range(2)]
        self.state = ["free", "free"]

    def send(self, slot: int, pixels: Any, rows: Any) -> None:
        assert self.state[slot] == "free", "the batch that lies there is still to be read"
        self.arrays[slot][: len(rows)] = pixels[rows]
        self.state[slot] = "sent"

    def wait(self, slot: int) -> None:
        assert self.state[slot] == "sent", "a batch is used that was never sent"
        self.state[slot] = "in use"

    def release(self, slot: int) -> None:
        self.state[slot] = "free"


def too_small(array: Any, rows: Any) -> Any:
    raise MemoryError


SMALL_DEVICE: Any = SimpleNamespace(**{**vars(cpu), "resident": too_small, "PhotoStream": Stream})

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 4, 5, 1), np.uint8)
ROWS = np.array([8, 2, 2, 5, 0, 7, 1])


@pytest.mark.parametrize("backend", [cpu, SMALL_DEVICE], ids=["all at once", "batch by batch"])
def test_every_batch_holds_its_photos(backend: Any) -> None:
    feed = PhotoFeed(backend, PIXELS, ROWS, 3)
    assert feed.streamed == (backend is SMALL_DEVICE)
    for order in (np.arange(7), np.array([6, 1, 0, 2, 5, 4, 3])):
        batches = [order[:3], order[3:5], order[5:]]
        for slot, batch in zip(feed.slots(batches), batches, strict=True):
            rows = feed.rows[batch]  # what lies on the device of them
            for start, stop in ((0, len(batch)), (1, len(batch))):
                places = feed.places(rows, start, stop)
                np.testing.assert_array_equal(feed.pixels(slot)[places], PIXELS[ROWS[batch[start:stop]]])


@pytest.mark.parametrize("backend", [cpu, SMALL_DEVICE], ids=["all at once", "batch by batch"])
def test_all_photos_come_in_their_order(backend: Any) -> None:
    feed = PhotoFeed(backend, PIXELS, ROWS, 3)
    for _ in range(2):
        bounds = []
        for start, stop, pixels, rows in feed.in_order(3):
            np.testing.assert_array_equal(pixels[rows], PIXELS[ROWS[start:stop]])
            bounds.append((start, stop))
        assert bounds == [(0, 3), (3, 6), (6, 7)]


def test_a_batch_is_sent_while_the_one_before_is_used() -> None:
    feed = PhotoFeed(SMALL_DEVICE, PIXELS, ROWS, 3)
    slots = feed.slots([np.arange(3), np.arange(3, 6)])
    assert next(slots) == 0
    stream = feed._stream
    stream.wait = lambda slot: np.testing.assert_array_equal(feed.pixels(slot)[:3], PIXELS[ROWS[3:6]])
    assert stream.state == ["in use", "free"]
    assert next(slots) == 1, "it is there before it is waited for"
    assert stream.state[0] == "free"


def test_a_batch_that_is_given_up_is_released() -> None:
    feed = PhotoFeed(SMALL_DEVICE, PIXELS, ROWS, 3)
    slots = feed.slots([np.arange(3), np.arange(3, 6)])
    next(slots)
    slots.close()
    assert feed._stream.state == ["free", "free"]


def test_there_may_be_no_photos() -> None:
    feed = PhotoFeed(SMALL_DEVICE, PIXELS, np.zeros(0, np.int64), 3)
    assert not list(feed.slots([]))
    assert not list(feed.in_order(3))
    assert len(feed.rows) == 0
