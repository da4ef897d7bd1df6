"""Trainings on a card whose memory is short: what is said, and what is refused."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import pytest

from cli.running import call
from facecnn.config import load
from facecnn.jobs.training import setup
from facecnn.kernels import Device, cpu
from facecnn.network import size
from facecnn.network.layers import Buffer, Conv, Dense, Pool
from facecnn.network.size import CARD_SHARE, card_bytes, countable_photos, fitting_photos, micro_batch_size
from facecnn.network.stages import plan

CARD = "cuda:0"
LARGEST = {"smoke": 24 * 24, "default": 48 * 48 * 4}
"""Numbers in the largest array of a photo."""


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that lets --device open the CPU's kernels as a card with so many bytes free."""

    def with_free(free: int) -> None:
        device = Device(cpu, CARD, "a small card", "asked for", lambda: free)
        monkeypatch.setattr(setup, "open_and_show", lambda *arguments: device)

    return with_free


def bytes_for(config: str, photos: int) -> int:
    loaded = load(config)
    return card_bytes(loaded.plan(2), photos, loaded.settings.photos.normalise)


def bytes_sent(config: str, batch_size: int) -> int:
    """Places for two batches of photos, and for as many of those held out, of which there are four."""
    return 2 * prod(load(config).settings.photos.margin_shape) * (batch_size + 4)


def train(people: Path, folder: Path, *options: str) -> Any:
    return call("train", people, "--out", folder, "--epochs", "2", *options)


def test_a_large_batch_is_worked_on_in_equal_parts(people: Path, tmp_path: Path, card: Any) -> None:
    card(int(bytes_for("smoke", 7) / CARD_SHARE) + bytes_sent("smoke", 16) + 1)
    done = train(people, tmp_path, "-c", "smoke", "--set", "train.batch_size=16")
    assert done.exit_code == 0
    assert "Batches: 16 photos, of which the card takes 6 at a time" in done.stderr


def test_a_batch_that_fits_is_not_split(people: Path, tmp_path: Path, card: Any) -> None:
    card(2 * bytes_for("smoke", 16))
    done = train(people, tmp_path, "-c", "smoke", "--set", "train.batch_size=16")
    assert done.exit_code == 0
    assert "at a time" not in done.stderr


def test_batch_norm_needs_the_whole_batch(people: Path, tmp_path: Path, card: Any) -> None:
    card(int(bytes_for("default", 9) / CARD_SHARE) + bytes_sent("default", 16) + 1)
    done = train(people, tmp_path, "-c", "default", "--set", "train.batch_size=16")
    assert (done.exit_code, done.stdout) == (5, "")
    assert "train.batch_size 16" in done.stderr
    assert "batch_norm1 needs the whole batch" in done.stderr
    assert "take batch_size 9 or less, or --device cpu" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_network_that_does_not_fit_at_all(people: Path, tmp_path: Path, card: Any) -> None:
    card(bytes_for("smoke", 1) // 2)
    done = train(people, tmp_path, "-c", "smoke")
    assert (done.exit_code, done.stdout) == (5, "")
    assert "a single photo takes about" in done.stderr
    assert "--device cpu" in done.stderr


@pytest.mark.parametrize("batch_size", [1, 2, 16, 60])
def test_parts_fit_and_are_as_few_as_can_be(batch_size: int) -> None:
    stages = load("smoke").plan(2)
    for photos in range(1, batch_size + 2):
        free = int(bytes_for("smoke", photos) / CARD_SHARE) + 1
        size = micro_batch_size(stages, batch_size, free)
        assert 1 <= size <= min(batch_size, photos)
        assert -(-batch_size // size) == -(-batch_size // min(batch_size, photos))
    assert micro_batch_size(stages, batch_size, 100) == 0


def test_no_array_on_a_card_is_too_large_to_be_counted() -> None:
    """Whatever is largest: the input, or an output of a layer. 180 GB have room for more."""
    side, photos = 224, 65_536
    for layers, of_a_photo in (
        ((Conv(kernels=16, size=3, padding="same"), Dense(units=2)), side * side * 16),
        ((Pool(size=8), Dense(units=2)), side * side * 3),
        ((Pool(size="global"), Dense(units=300_000), Dense(units=2)), 300_000),
    ):
        stages = plan(layers, (side, side, 3))
        assert fitting_photos(stages, 180 * 10**9) == (2**31 - 1) // of_a_photo
        assert 0 < micro_batch_size(stages, photos, 180 * 10**9) * of_a_photo < 2**31


def test_what_a_layer_keeps_for_backward_counts_if_it_grows_with_the_batch() -> None:
    class Keeping(Dense):
        def buffers(self, shape: Any) -> Any:
            return {"own": Buffer((10**6,)), "shared": Buffer((10**9,), per_photo=False)}

    assert countable_photos(plan((Keeping(units=2),), (4, 4, 1))) == 2147


def test_weights_can_be_too_many_to_be_counted() -> None:
    rows, columns = 2**15, 2**16
    assert countable_photos(plan((Dense(units=columns), Dense(units=rows - 3)), (1, 1, 1))) == 2**15 - 1
    assert countable_photos(plan((Dense(units=columns), Dense(units=rows)), (1, 1, 1))) == 0


@pytest.fixture
def can_count(monkeypatch: pytest.MonkeyPatch, card: Any) -> Any:
    """A function that sets how many elements an array on a card, whose memory is large, may have."""

    def set_most(elements: int) -> None:
        card(2**50)
        monkeypatch.setattr(size, "MOST_ELEMENTS", elements)
        monkeypatch.setattr(setup, "MOST_ELEMENTS", elements)

    return set_most


def test_a_batch_too_large_to_be_counted_is_worked_on_in_parts(people: Path, tmp_path: Path, can_count: Any) -> None:
    can_count(7 * LARGEST["smoke"])
    done = train(people, tmp_path, "-c", "smoke", "--set", "train.batch_size=16")
    assert done.exit_code == 0
    assert "Batches: 16 photos, of which the card takes 6 at a time" in done.stderr


def test_batch_norm_needs_a_batch_that_can_be_counted(people: Path, tmp_path: Path, can_count: Any) -> None:
    can_count(12 * LARGEST["default"])
    done = train(people, tmp_path, "-c", "default", "--set", "train.batch_size=16")
    assert (done.exit_code, done.stdout) == (5, "")
    assert "an array on a card can have 110,592 numbers, which is enough for 12 photos" in done.stderr
    assert "take batch_size 12 or less, or --device cpu" in done.stderr


def test_a_network_of_which_no_photo_can_be_counted(people: Path, tmp_path: Path, can_count: Any) -> None:
    can_count(LARGEST["smoke"] - 1)
    done = train(people, tmp_path, "-c", "smoke")
    assert (done.exit_code, done.stdout) == (5, "")
    assert "has an array of more than 575 numbers" in done.stderr
