"""The part of benchmark.py that trains from 1,000, 10,000 and 100,000 photos: do photos per second and memory stay the
same?

The network is seed's at 1x64x64, in batches of 60, trained as ``facecnn train`` does it. Decoding so many photos would
take longer than everything else, so their pixels, which are noise, are written straight into a cache of photos, as if
they had been decoded before; each has a file, which is never opened. Nothing is held out.

The memory is the part that no file backs (RssAnon). Pages of the cache's file, which the system drops when it needs
room, aren't counted.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from benchmarks.processes import Conditions, Process, ask_facecnn, in_turns, started
from common.command import say
from facecnn.config import apply_overrides, load
from facecnn.photos.cache_folder import CACHE_VARIABLE
from facecnn.photos.store import PhotoStore, Prepared, store_folder

SIZES = (1_000, 10_000, 100_000)
ROUNDS, QUICK_ROUNDS = 15, 7
WARM_UP_STEPS = 200
TURN_STEPS = 100
BATCH = 60
OVERRIDES = ["photos.size=64", "photos.colour=grey", "photos.validation=0", f"train.batch_size={BATCH}"]
WRITTEN_AT_ONCE = 1_000
PEOPLE = ("a", "b")
RATE, RATE_WITHIN = "photos_per_second", "photos_per_second_within_epochs"


def measure(conditions: Conditions, sizes: Sequence[int]) -> dict[str, Any]:
    """Measure ``growth``: a row for each size, and how the largest compares with the smallest."""
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as stack:
        trainings = []
        for size in sizes:
            say(f"Growth: {size:,} photos ...")
            folder = Path(temporary) / str(size)
            write_photos(folder, size)
            implementation = conditions.training("seed", OVERRIDES, folder / "photos", folder)
            (process,) = stack.enter_context(started([implementation]))
            trainings.append(GrowingTraining(size, process))
        rounds = conditions.turns(ROUNDS, QUICK_ROUNDS)
        for number, in_order in enumerate(in_turns(trainings, rounds)):
            say(f"Growth: round {number + 1} of {rounds} ...")
            for training in in_order:
                training.turn()
        rows = [training.row() for training in trainings]
    first, last = rows[0], rows[-1]
    known = None not in (first["rss_anon_bytes"], last["rss_anon_bytes"])
    return {
        "network": "seed",
        "size": 64,
        "batch": BATCH,
        "rows": rows,
        **{f"{name}_share": last[name] / first[name] for name in (RATE, RATE_WITHIN)},
        "rss_anon_growth_bytes": last["rss_anon_bytes"] - first["rss_anon_bytes"] if known else None,
    }


class GrowingTraining:
    """Training from a number of photos, and its figures."""

    def __init__(self, photos: int, process: Process) -> None:
        self.photos = photos
        self._process = process
        self._turns: list[float] = []
        """Photos per second in each turn: in all, and for steps within epochs."""
        self._within: list[float] = []
        ask_facecnn(self._process, "start")
        ask_facecnn(self._process, "steps", count=WARM_UP_STEPS)

    def turn(self) -> None:
        """Train for some steps; whatever belongs to the end of an epoch counts, too."""
        found = ask_facecnn(self._process, "steps", count=TURN_STEPS)
        for rates, part in ((self._turns, found), (self._within, found["within"])):
            rates.append(part["photos"] / part["seconds"])

    def row(self) -> dict[str, Any]:
        """Compute medians over the turns, and ask for the memory."""
        return {
            "photos": self.photos,
            RATE: statistics.median(self._turns),
            RATE_WITHIN: statistics.median(self._within),
            "rss_anon_bytes": ask_facecnn(self._process, "memory"),
        }


def write_photos(folder: Path, count: int) -> None:
    """Write files of two people to ``folder / "photos"``, and a cache that knows them to ``folder / "cache"``."""
    settings = apply_overrides(load("seed"), OVERRIDES).settings.photos
    random = np.random.default_rng(count)
    for person in PEOPLE:
        (folder / "photos" / person).mkdir(parents=True)
    with mock.patch.dict(os.environ, {CACHE_VARIABLE: str(folder / "cache")}):
        path = store_folder(settings, None)
    path.mkdir(parents=True)
    with PhotoStore(path, settings) as store:
        for first in range(0, count, WRITTEN_AT_ONCE):
            numbers = range(first, min(count, first + WRITTEN_AT_ONCE))
            pixels = random.integers(0, 256, (len(numbers), 1, *settings.margin_shape), dtype=np.uint8)
            hashes = random.integers(0, 2**64, len(numbers), dtype=np.uint64)
            added = []
            for number, photo, fingerprint in zip(numbers, pixels, hashes.tolist(), strict=True):
                file = folder / "photos" / PEOPLE[number % len(PEOPLE)] / f"{number:06}.jpg"
                content = str(number).encode()
                file.write_bytes(content)
                sha256 = hashlib.sha256(content).hexdigest()
                side = settings.height
                added.append((file, file.stat(), Prepared(sha256, side, side, fingerprint, pixels=photo)))
            store.add(added)


def table(growth: dict[str, Any]) -> list[str]:
    """Format for a terminal of 80 columns."""
    lines = [
        "",
        f"Training from more and more photos ({growth['network']} 1x{growth['size']}x{growth['size']}, "
        f"batch {growth['batch']}): photos a second in all,",
        "of steps within epochs, and memory without the cache's pages (RssAnon, MB):",
    ]
    for row in growth["rows"]:
        memory = "" if row["rss_anon_bytes"] is None else f"{row['rss_anon_bytes'] / 1e6:12.0f}"
        lines.append(f"  {row['photos']:12,} photos{row[RATE]:12,.0f}{row[RATE_WITHIN]:12,.0f}{memory}")
    grown = growth["rss_anon_growth_bytes"]
    lines.append(
        f"  last against first:{growth[RATE + '_share']:11.1%}{growth[RATE_WITHIN + '_share']:12.1%}"
        + ("" if grown is None else f"{grown / 1e6:+12.0f}")
    )
    return lines
