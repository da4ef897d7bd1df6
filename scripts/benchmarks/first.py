"""The part of benchmark.py that measures the first `facecnn train` on a machine, which compiles its kernels, and a
later one, which finds them compiled: whole processes, on the two sample people.

Each round has a cache of its own, empty before the first training. The second reads the photos from the cache, too.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.processes import Conditions, launched
from common.command import say
from facecnn.errors import PhotoError
from facecnn.photos.cache_folder import CACHE_VARIABLE
from facecnn.photos.sample import write_sample

ROUNDS, QUICK_ROUNDS = 3, 1
KINDS = "first", "later"
FIGURES = "seconds", "processor_seconds", "peak_bytes"


def measure(conditions: Conditions, config: str) -> dict[str, Any] | None:
    """Train with a shipped config, in turns.

    Returns:
        The config, and a row for the first training and for the later one, with the medians of ``FIGURES``: wall time,
        processor time of all processes that took part, and the peak memory of the largest (None where the system
        doesn't tell). None without the sample photos.

    Raises:
        FacecnnError: training fails.
    """
    found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    rounds = conditions.turns(ROUNDS, QUICK_ROUNDS)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        try:
            people = write_sample(folder / "people").folder
        except PhotoError as error:
            say(f"the first training is left out: {error}")
            return None
        for number in range(rounds):
            for kind in KINDS:
                say(f"The {kind} training: round {number + 1} of {rounds} ...")
                found[kind].append(train(people, config, folder / f"round{number}", kind, conditions))
    rows = [{"name": kind, **{figure: median(some, figure) for figure in FIGURES}} for kind, some in found.items()]
    return {"config": config, "rows": rows}


def train(people: Path, config: str, folder: Path, kind: str, conditions: Conditions) -> dict[str, Any]:
    """Run ``facecnn train`` with a cache in ``folder``. Returns what ``launch.py`` prints; raises FacecnnError."""
    compute = ["--device", conditions.device, "--threads", str(conditions.threads)]
    place: list[str | Path] = ["-c", config, "--out", folder, "--name", kind, "--quiet"]
    command = [sys.executable, "-m", "facecnn", "train", people, *place, *compute]
    _, figures = launched(f"the {kind} training", command, {CACHE_VARIABLE: str(folder / "cache")})
    return figures


def median(rows: list[dict[str, Any]], figure: str) -> float | None:
    """The median of a figure; None where the system doesn't tell."""
    values = [row[figure] for row in rows if row[figure] is not None]
    return statistics.median(values) if values else None


def table(report: dict[str, Any]) -> list[str]:
    """Format for a terminal of 80 columns."""
    lines = ["", f"facecnn train, on the two sample people, config {report['config']} (medians):"]
    lines += [f"  {'':44}{'seconds':>10}{'processor':>12}{'MB':>8}"]
    names = {"first": "first: compiles its kernels", "later": "later: kernels and faces are in the cache"}
    for row in report["rows"]:
        processor, peak = row["processor_seconds"], row["peak_bytes"]
        lines.append(
            f"  {names[row['name']]:44}{row['seconds']:10.1f}"
            + (f"{'-':>12}" if processor is None else f"{processor:12.1f}")
            + (f"{'-':>8}" if peak is None else f"{peak / 1e6:8.0f}")
        )
    return lines
