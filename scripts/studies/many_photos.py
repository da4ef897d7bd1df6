"""How do preparing and training go with very many photos?

Draws photos of noise, grey JPEGs of 64×64 pixels, in a folder for each of ``--people``, then prepares them by
``facecnn train --dry-run``, three times: the first process is killed when half of the photos are in the cache, the
second one goes on, and the third one finds all of them there. After that it trains for three epochs. Faces aren't
looked for. Photos and cache are kept in FOLDER, about 10 GB for a million; a later run goes on with them.

"prepared a second": new photos over the seconds of the first two processes; "read again": seconds of the third one;
"trained a second": the median over three epochs, as ``facecnn train`` says, without the ends of epochs. "peak MB" is
that of the process before it, without pages of files (RssAnon, Linux only): the system drops those of the cache's file
when it needs room.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.work import memory
from common.command import add_config, at_least, exit_on_error, parser, say
from common.tables import table
from facecnn.errors import FacecnnError
from facecnn.photos.cache_folder import CACHE_VARIABLE

SIDE = 64
AT_ONCE = 1_000
"""Photos that are drawn together."""
COLUMNS = (
    "photos", "killed at", "prepared a second", "peak MB", "read again", "peak MB", "trained a second", "peak MB",
    "cache GB",
)  # fmt: skip


@exit_on_error()
def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("folder", type=Path, metavar="FOLDER", help="for photos, cache and runs")
    arguments.add_argument("--sizes", type=at_least(10), nargs="+", default=[1_000, 100_000, 1_000_000])
    arguments.add_argument("--people", type=at_least(2), default=2, help="(default: 2)")
    add_config(arguments)
    options = arguments.parse_args()
    settings = [argument for setting in options.set for argument in ("--set", setting)]
    rows = [row(options.folder / f"{size}", size, options.people, options.config, settings) for size in options.sizes]
    print(table(rows, COLUMNS))


def row(folder: Path, size: int, people: int, config: str, settings: Sequence[str]) -> list[object]:
    say(f"{size:,} photos: drawing ...")
    draw(folder / "photos", size, people)
    read = ["-m", "facecnn", "train", folder / "photos", "-c", config, "--out", folder / "runs", "--format", "json"]
    read += ["--set", "photos.faces=off", *settings]
    # The kernels are compiled once for all sizes.
    environment = {CACHE_VARIABLE: str(folder / "cache"), "NUMBA_CACHE_DIR": str(folder.parent / "kernels")}
    say(f"{size:,} photos: preparing ...")
    command = [sys.executable, *map(str, read), "--dry-run", "--quiet"]
    before, seconds = cached(folder), -time.perf_counter()
    killed_at = kill_halfway(command, folder, before, size, environment)
    again = watched(command, environment)
    seconds += time.perf_counter()
    new = cached(folder) - before
    warm = watched(command, environment)
    say(f"{size:,} photos: training ...")
    short = ["--epochs", "3", "--set", "train.least_steps=0", "--name", "run", "--overwrite", "--quiet"]
    trained = watched([sys.executable, *map(str, read), *short], environment)
    return [
        f"{size:,}",
        f"{killed_at:,}",
        f"{new / seconds:,.0f}" if new else "-",
        f"{again.peak / 1e6:,.0f}",
        f"{warm.seconds:.1f} s",
        f"{warm.peak / 1e6:,.0f}",
        f"{json.loads(trained.said)['photos_per_second']:,.0f}",
        f"{trained.peak / 1e6:,.0f}",
        f"{sum(file.stat().st_size for file in (folder / 'cache' / 'photos').rglob('*')) / 1e9:.2f}",
    ]


def draw(folder: Path, size: int, people: int) -> None:
    """Write the photos that aren't there yet. Each person's photos have a bright bar at a height of their own."""
    for start in range(0, size, AT_ONCE):
        last = min(start + AT_ONCE, size) - 1
        if place(folder, last, people).exists():
            continue
        pixels = np.random.default_rng(start).integers(60, 160, (AT_ONCE, SIDE // 4, SIDE // 4), np.uint8)
        for number, small in enumerate(pixels[: last + 1 - start], start):
            person = number % people
            small[person * 7 % (SIDE // 4), 4 + person // (SIDE // 4) % 8 :] += np.uint8(80)
            path = place(folder, number, people)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(small).resize((SIDE, SIDE)).save(path, "JPEG", quality=80)


def place(folder: Path, number: int, people: int) -> Path:
    return folder / f"person {number % people:05}" / f"{number:07}.jpg"


def cached(folder: Path) -> int:
    """Number of photos in the cache, by the size of its file of pixels: to count them would take longer."""
    files = list((folder / "cache" / "photos").glob("*/pixels.bin"))
    if not files:
        return 0
    [pixels] = files
    with closing(sqlite3.connect(pixels.with_name("index.sqlite"), timeout=60)) as index:
        row_bytes = int(index.execute("pragma user_version").fetchone()[0])
    return pixels.stat().st_size // row_bytes


def kill_halfway(command: list[str], folder: Path, before: int, size: int, environment: dict[str, str]) -> int:
    """Start a command, and kill it when half of the photos are in the cache; returns how many there are then."""
    process = subprocess.Popen(command, env=os.environ | environment, stdout=subprocess.DEVNULL)
    while process.poll() is None and cached(folder) < (before + size) / 2:
        time.sleep(0.05)
    if process.poll() is None:
        process.send_signal(signal.SIGKILL)
    if process.wait() not in (0, -signal.SIGKILL):
        raise FacecnnError(f"preparing failed with exit code {process.returncode}")
    return cached(folder)


@dataclass(frozen=True)
class Watched:
    """What a process printed, how long it took, and the most memory that it had, in bytes, without pages of files."""

    said: str
    seconds: float
    peak: int


def watched(command: list[str], environment: dict[str, str]) -> Watched:
    """Run a command as a whole process. Raises FacecnnError where it fails."""
    started, peak = time.perf_counter(), 0
    with tempfile.TemporaryFile("w+", encoding="utf-8") as said:
        process = subprocess.Popen(command, env=os.environ | environment, stdout=said)
        while process.poll() is None:
            peak = max(peak, memory("RssAnon", process.pid) or 0)
            time.sleep(0.05)
        if process.returncode:
            raise FacecnnError(f"{' '.join(command[2:4])}: it failed with exit code {process.returncode}")
        said.seek(0)
        return Watched(said.read(), time.perf_counter() - started, peak)


if __name__ == "__main__":
    main()
