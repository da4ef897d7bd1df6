"""The part of benchmark.py that compares training in full, as ``facecnn train`` does it, with its bare step on ready
pictures, in processes that take turns.

In full means: batches picked from the photos in the cache, augmentation, normalisation, sums for the figures, the
progress bar. ``training_share`` is of the photos a second that `facecnn train` shows for an epoch (the median); they
leave out what comes at an epoch's end: a look at the kernels, validation, figures to disk, saving. ``training`` has the
share with that, too, which depends on how many photos there are and how many are held out.

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
import typer
from PIL import Image

from benchmarks.processes import FACECNN, Implementation, ask_facecnn, started
from benchmarks.work import Case
from facecnn.config import apply_overrides, load, shipped
from facecnn.errors import UsageError
from facecnn.learning.full_batch_optimizers import FullBatchOptimizer

ROUNDS, QUICK_ROUNDS = 9, 5
LEAST_SECONDS = 0.3
"""Of a turn. What comes first in it is slower: the other process has emptied the processor's caches. So several epochs
of a small network follow each other in a turn, as they do when it is trained."""

PHOTOS = 600
PHOTO_SIDE = 120
PEOPLE = ("a", "b")


@dataclass(frozen=True)
class Trained:
    """What is trained."""

    name: str
    config: str
    overrides: tuple[str, ...] = ()

    def case(self, batch: int) -> Case:
        photos = apply_overrides(load(self.config), self.overrides).settings.photos
        assert photos.height == photos.width
        return Case(self.config, photos.channels, photos.height, batch, "train")


def every() -> list[Trained]:
    """All shipped configs with steps by a gradient, and seed-64 with its own batch and with that of the ratios."""
    configs = [name for name in shipped() if not isinstance(load(name).settings.optimizer, FullBatchOptimizer)]
    small = ("photos.size=64", "photos.colour=grey")
    return [
        *(Trained(name, name) for name in configs),
        Trained("seed-64", "seed", small),
        Trained("seed-64, batch 60", "seed", (*small, "train.batch_size=60")),
    ]


def chosen(networks: Sequence[str]) -> list[Trained]:
    """Those whose config or name is among ``networks``; all, if there are none."""
    trained = every()
    known = {one.config for one in trained} | {one.name for one in trained}
    for name in networks:
        if name not in known:
            raise UsageError(f"--network {name}: there is no such network; choose among {', '.join(sorted(known))}")
    return [one for one in trained if not networks or one.name in networks or one.config in networks]


def measure(device: str, threads: int, chosen: Sequence[Trained], rounds: int) -> list[dict[str, Any]]:
    """``training``: a row for each. Raises FacecnnError."""
    with tempfile.TemporaryDirectory() as temporary:
        photos = Path(temporary) / "photos"
        write_photos(photos)
        return [measure_one(device, threads, one, photos, Path(temporary), rounds) for one in chosen]


def measure_one(device: str, threads: int, trained: Trained, photos: Path, folder: Path, rounds: int) -> dict[str, Any]:
    """Epochs of the training and about as many bare steps, by turns."""
    typer.echo(f"Training in full: {trained.name} ...", err=True)
    common = {"device": device, "threads": threads}
    own = {"config": trained.config, "overrides": trained.overrides, "photos": str(photos), "folder": str(folder)}
    training = Implementation(f"{trained.name}, training", "training_worker.py", {**common, **own})
    bare = Implementation(FACECNN, "facecnn_worker.py", {**common, "recorded": True})
    steps: list[float] = []
    bare_rates: list[float] = []
    rates: list[float] = []
    whole: list[float] = []
    with started([training, bare]) as (in_full, on_ready_pictures):
        batch = ask_facecnn(in_full, "start")["batch"]
        ask_facecnn(on_ready_pictures, "prepare", case=trained.case(batch))
        ask_facecnn(in_full, "epochs", count=1)  # the first one's rest
        epoch = ask_facecnn(in_full, "epochs", count=1)["seconds"]  # to be warm, and to see how long one takes
        for _ in range(rounds):
            found = ask_facecnn(in_full, "epochs", count=max(1, math.ceil(LEAST_SECONDS / epoch)))
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
    """Noise, whose pictures are all different."""
    random = np.random.default_rng(0)
    for number in range(PHOTOS):
        path = folder / PEOPLE[number % len(PEOPLE)] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (PHOTO_SIDE, PHOTO_SIDE, 3), dtype=np.uint8)).save(path)


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """To be read, in lines of 80 characters."""
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
