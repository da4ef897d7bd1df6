"""Trainings on a card whose memory is short: what is said, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cli.running import call
from facecnn.config import load
from facecnn.jobs import training_setup
from facecnn.kernels import Device, cpu
from facecnn.network.size import CARD_SHARE, measure, part_size

CARD = "cuda:0"


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that lets --device open the CPU's kernels as a card with so many bytes free."""

    def with_free(free: int) -> None:
        device = Device(cpu, CARD, "a small card", "asked for", None, lambda: free)
        monkeypatch.setattr(training_setup, "open_and_show", lambda *arguments: device)

    return with_free


def bytes_for(config: str, photos: int) -> int:
    return measure(load(config).plan(2), photos).training_bytes


def train(people: Path, folder: Path, *options: str) -> Any:
    return call("train", people, "--out", folder, "--epochs", "2", *options)


def test_a_large_batch_is_worked_on_in_equal_parts(people: Path, tmp_path: Path, card: Any) -> None:
    card(int(bytes_for("smoke", 7) / CARD_SHARE) + 1)
    done = train(people, tmp_path, "-c", "smoke", "--set", "train.batch_size=16")
    assert done.exit_code == 0
    assert "Batches: 16 photos, of which the card's memory takes 6 at a time" in done.stderr


def test_a_batch_that_fits_is_not_split(people: Path, tmp_path: Path, card: Any) -> None:
    card(2 * bytes_for("smoke", 16))
    done = train(people, tmp_path, "-c", "smoke", "--set", "train.batch_size=16")
    assert done.exit_code == 0
    assert "at a time" not in done.stderr


def test_batch_norm_needs_the_whole_batch(people: Path, tmp_path: Path, card: Any) -> None:
    card(int(bytes_for("default", 9) / CARD_SHARE) + 1)
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
        size = part_size(stages, batch_size, free)
        assert 1 <= size <= min(batch_size, photos)
        assert -(-batch_size // size) == -(-batch_size // min(batch_size, photos))
    assert part_size(stages, batch_size, 100) == 0
