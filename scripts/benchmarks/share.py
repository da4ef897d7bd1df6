"""The part of benchmark.py that compares complete training, as ``facecnn train`` does it, with its bare step on ready
pictures, in processes that take turns.

Complete training picks batches from the photos in the cache, augments and normalises them, adds up its metrics and
shows a progress bar. ``training_share`` is computed from the photos per second that `facecnn train` shows for an epoch
(the median). They leave out the end of an epoch: a look at the kernels, validation, metrics to disk, checkpoints. The
share with that, which depends on the number of photos and on how many are held out, is in ``training``.

The networks are those of the shipped configs, at their own picture sizes and batches, and seed's at 1x64x64. Photos are
noise, in two folders, a fifth held out.
"""

from __future__ import annotations

import math
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.processes import Conditions, ask_facecnn, started
from benchmarks.work import Case
from common.command import say
from facecnn.config import apply_overrides, load, shipped
from facecnn.errors import UsageError
from facecnn.learning.full_batch_optimizers import FullBatchOptimizer
from facecnn.network.layers import Body

ROUNDS, QUICK_ROUNDS = 9, 5
LEAST_SECONDS = 0.3
"""Least length of a turn. Its beginning is slow, since the other process has emptied the processor's caches, so a small
network trains for several epochs in a turn."""

EPOCHS_TOGETHER = 6
"""A turn has a multiple of so many epochs: one of them ends with a validation (see ``loop.VALIDATION_SHARE``)."""

PHOTOS = 600
PHOTO_SIDE = 120
PEOPLE = ("a", "b")


@dataclass(frozen=True)
class Trained:
    """A network to train."""

    name: str
    config: str
    overrides: tuple[str, ...] = ()

    def case(self, batch: int) -> Case:
        photos = apply_overrides(load(self.config), self.overrides).settings.photos
        assert photos.height == photos.width
        return Case(self.config, photos.channels, photos.height, batch, "train")


def every() -> list[Trained]:
    """The shipped configs, and seed-64 with its own batch and with the ratios'. Left out are full-batch optimizers, and
    networks on the pretrained body, which train on embeddings or not at all."""
    settings = {name: load(name).settings for name in shipped()}
    configs = [
        name
        for name, own in settings.items()
        if not isinstance(own.optimizer, FullBatchOptimizer) and not any(isinstance(one, Body) for one in own.network)
    ]
    small = ("photos.size=64", "photos.colour=grey")
    return [
        *(Trained(name, name) for name in configs),
        Trained("seed-64", "seed", small),
        Trained("seed-64, batch 60", "seed", (*small, "train.batch_size=60")),
    ]


def chosen(networks: Sequence[str]) -> list[Trained]:
    """Choose by config or name; all, if there are no ``networks``. Raises UsageError."""
    trained = every()
    known = {one.config for one in trained} | {one.name for one in trained}
    for name in networks:
        if name not in known:
            raise UsageError(f"--network {name}: there is no such network; choose among {', '.join(sorted(known))}")
    return [one for one in trained if not networks or one.name in networks or one.config in networks]


def measure(conditions: Conditions, chosen: Sequence[Trained]) -> list[dict[str, Any]]:
    """Measure ``training``: a row for each network. Raises FacecnnError."""
    with tempfile.TemporaryDirectory() as temporary:
        photos = Path(temporary) / "photos"
        write_photos(photos)
        return [measure_one(conditions, one, photos, Path(temporary)) for one in chosen]


def measure_one(conditions: Conditions, trained: Trained, photos: Path, folder: Path) -> dict[str, Any]:
    """Take turns with epochs of the training and about as many bare steps."""
    say(f"Training in full: {trained.name} ...")
    training = conditions.training(trained.config, trained.overrides, photos, folder)
    steps: list[float] = []
    bare_rates: list[float] = []
    rates: list[float] = []
    whole: list[float] = []
    with started([training, conditions.facecnn()]) as (in_full, on_ready_pictures):
        batch = ask_facecnn(in_full, "start")["batch"]
        ask_facecnn(on_ready_pictures, "prepare", case=trained.case(batch))
        ask_facecnn(in_full, "epochs", count=1)  # the rest of the first epoch
        # to be warm, and to see how long they take
        together = ask_facecnn(in_full, "epochs", count=EPOCHS_TOGETHER)["seconds"]
        count = EPOCHS_TOGETHER * math.ceil(LEAST_SECONDS / together)
        for _ in range(conditions.turns(ROUNDS, QUICK_ROUNDS)):
            found = ask_facecnn(in_full, "epochs", count=count)
            rates += found["rates"]
            photos_seen = sum(rate * within for rate, within in zip(found["rates"], found["within"], strict=True))
            whole.append(photos_seen / found["seconds"])
            turn = ask_facecnn(on_ready_pictures, "turn", seconds=found["seconds"])
            steps += turn
            bare_rates.append(1000 * batch / statistics.mean(turn))
    alone, in_training = statistics.median(bare_rates), statistics.median(rates)
    return {
        "name": trained.name,
        "batch": batch,
        "bare_step_ms": statistics.median(steps),
        "step_ms": 1000 * batch / in_training,
        "photos_per_second": in_training,
        "bare_photos_per_second": alone,
        "share": in_training / alone,
        "share_with_epoch_ends": statistics.median(whole) / alone,
    }


def write_photos(folder: Path) -> None:
    """Write pictures of noise, each another one."""
    random = np.random.default_rng(0)
    for number in range(PHOTOS):
        path = folder / PEOPLE[number % len(PEOPLE)] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (PHOTO_SIDE, PHOTO_SIDE, 3), dtype=np.uint8)).save(path)


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Format for a terminal of 80 columns."""
    lines = [
        "",
        "Training in full (augmentation, figures, progress) beside its bare step on ready",
        "pictures: ms a step, photos a second, and the share of the bare step's; with the",
        "ends of epochs (validation, saving)",
        f"{'':19}{'batch':>5}{'bare':>8}{'step':>8}{'bare/s':>9}{'photos/s':>10}{'share':>8}{'with ends':>11}",
    ]
    lines += [
        f"  {row['name']:17}{row['batch']:5}{row['bare_step_ms']:8.3f}{row['step_ms']:8.3f}"
        f"{row['bare_photos_per_second']:9,.0f}{row['photos_per_second']:10,.0f}{row['share']:8.1%}"
        f"{row['share_with_epoch_ends']:11.1%}"
        for row in rows
    ]
    return lines
