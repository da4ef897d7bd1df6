"""The part of benchmark.py that measures whole processes: the time from the start to the answer about one photo with
its peak memory, and the peak memory of a training process.

The model is trained in a moment with `facecnn train` on the two sample people, with the default config; the kernels'
cache is warm. Each round has a new photo that no cache knows, the same for all processes.
"""

from __future__ import annotations

import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.processes import (
    FACECNN,
    HERE,
    Conditions,
    Implementation,
    WorkerError,
    environment,
    in_turns,
    launched,
    raise_if_ours,
    started,
)
from benchmarks.work import Case
from common.command import say
from common.worker import last_line
from facecnn.errors import FacecnnError, PhotoError
from facecnn.photos.sample import write_sample

ROUNDS, QUICK_ROUNDS = 15, 7
WARM_UPS = 2
TRAINING_EPOCHS = 60
"""Of one step each."""

TORCH = "torch"
WITH_FACES = f"{FACECNN}, face found first"
TRAINED = Case("deep", 3, 224, 60, "train")
"""What the process whose memory is measured trains by default."""


@dataclass
class Whole:
    """A kind of process, and its figures."""

    name: str
    command: Sequence[str | Path]
    seconds: list[float] = field(default_factory=list)
    peaks: list[int] = field(default_factory=list)


def measure(
    conditions: Conditions, chosen: Sequence[Implementation], trained: Case
) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """Measure ``cold_start`` and ``memory``, of prediction and of training ``trained``.

    Returns:
        ``cold_start``, None without the sample photos, and ``memory``. PyTorch is left out if none of its
        implementations is among the chosen ones.

    Raises:
        FacecnnError: Where facecnn fails, or the answers differ.
    """
    memory: dict[str, Any] = {}
    cold_start = None
    with tempfile.TemporaryDirectory() as temporary:
        try:
            wholes = answer(Path(temporary), conditions, any(one.is_torch for one in chosen))
            cold_start = figures("seconds", {whole.name: whole.seconds for whole in wholes})
            memory["predict"] = figures("bytes", {whole.name: whole.peaks for whole in wholes})
        except PhotoError as error:
            say(f"cold start is left out: {error}")
    memory["train"] = {
        "network": trained.network,
        "size": trained.size,
        "batch": trained.batch,
        **figures("bytes", training_peaks(chosen, trained)),
    }
    return cold_start, memory


def figures(unit: str, found: dict[str, list[Any]]) -> dict[str, Any]:
    """Compute median and minimum of each, and the ratio of PyTorch's least median to facecnn's."""
    rows = [
        {"implementation": name, f"median_{unit}": statistics.median(values), f"min_{unit}": min(values)}
        for name, values in found.items()
        if values
    ]
    medians = {row["implementation"]: row[f"median_{unit}"] for row in rows}
    theirs = [value for name, value in medians.items() if not name.startswith(FACECNN)]
    ratio = min(theirs) / medians[FACECNN] if theirs and FACECNN in medians else None
    return {"rows": rows, "ratio": ratio}


def answer(folder: Path, conditions: Conditions, with_torch: bool) -> list[Whole]:
    """Have processes answer one photo after another, in turns."""
    say("Cold start: training models ...")
    people = write_sample(folder / "people").folder
    common = ["--threads", str(conditions.threads), "--device", conditions.device]
    models = {name: train(folder, people, name, faces, common) for name, faces in kinds().items()}
    photo = folder / "photo.png"
    wholes = [
        Whole(name, [sys.executable, "-m", "facecnn", "predict", photo, "-m", model, "--format", "json", *common])
        for name, model in models.items()
    ]
    if with_torch:
        wholes.append(Whole(TORCH, [sys.executable, HERE / "predict_torch.py", photo, models[FACECNN], *common]))
    sources = sorted(people.rglob("*.pgm"))
    rounds = conditions.turns(ROUNDS, QUICK_ROUNDS)
    for number, in_order in enumerate(in_turns(wholes, WARM_UPS + rounds), -WARM_UPS):
        say(f"Cold start: round {number + 1} of {rounds} ...")
        new_photo(sources[number % len(sources)], photo, number % 256)
        labels = {whole.name: run(whole, counted=number >= 0) for whole in in_order}
        if with_torch and labels[TORCH] != labels[FACECNN]:
            raise FacecnnError(f"{TORCH} does not answer as facecnn does: {labels[TORCH]}, not {labels[FACECNN]}")
    return wholes


def kinds() -> dict[str, str]:
    """The models' ``photos.faces``, by their names in the rows."""
    return {FACECNN: "off"} | ({WITH_FACES: "required"} if importlib.util.find_spec("mtcnn") else {})


def train(folder: Path, people: Path, name: str, faces: str, common: Sequence[str]) -> Path:
    """Train a model with the default config. Returns its checkpoint."""
    short = [f"train.epochs={TRAINING_EPOCHS}", "train.least_steps=0", f"photos.faces={faces}"]
    settings = [argument for value in short for argument in ("--set", value)]
    place: list[str | Path] = ["--out", folder / "runs", "--name", faces, "--quiet"]
    command = [sys.executable, "-m", "facecnn", "train", people, *settings, *place, *common]
    done = subprocess.run(command, env=environment(), capture_output=True, encoding="utf-8")
    if done.returncode:
        raise FacecnnError(f"{name}: facecnn train failed: {last_line(done.stderr)}")
    return folder / "runs" / faces / "best.safetensors"


def new_photo(source: Path, target: Path, value: int) -> None:
    """Write a photo whose bytes differ from all earlier ones."""
    with Image.open(source) as image:
        changed = image.convert("RGB")
    changed.putpixel((0, 0), (value, value, value))
    changed.save(target)


def run(whole: Whole, *, counted: bool) -> str:
    """Run a process. Returns the label that it answers."""
    said, found = launched(whole.name, whole.command)
    if counted:
        whole.seconds.append(found["seconds"])
        whole.peaks += [found["peak_bytes"]] if found["peak_bytes"] is not None else []
    answered = json.loads(said)
    return str((answered[0] if isinstance(answered, list) else answered)["label"])


def training_peaks(chosen: Sequence[Implementation], trained: Case) -> dict[str, list[int]]:
    """Measure the peak memory of each implementation over some steps, one process at a time; nothing where the system
    doesn't report it."""
    found: dict[str, list[int]] = {}
    for implementation in chosen:
        if not implementation.float32:
            continue
        say(f"Memory of training: {implementation.name} ...")
        with started([implementation]) as (process,):
            try:
                process.ask("prepare", case=trained)
                peak = process.ask("peak_memory")
                found[implementation.name] = [] if peak is None else [peak]
            except WorkerError as error:
                raise_if_ours(process, error)
    return found


def table(cold_start: dict[str, Any] | None, memory: dict[str, Any]) -> list[str]:
    """Format for a terminal of 80 columns."""
    lines = []
    if cold_start is not None:
        peaks = {row["implementation"]: row["median_bytes"] for row in memory["predict"]["rows"]}
        lines += ["", "From a process's start to its answer about one photo, and its peak memory:"]
        lines += [f"{'':48}{'median':>10}{'min':>10}{'MB':>9}"]
        for row in cold_start["rows"]:
            peak = peaks.get(row["implementation"])
            lines.append(
                f"  {row['implementation']:46}{row['median_seconds']:8.3f} s{row['min_seconds']:8.3f} s"
                + ("" if peak is None else f"{peak / 1e6:9.0f}")
            )
        lines += ratio_line("time", cold_start["ratio"]) + ratio_line("memory", memory["predict"]["ratio"])
    about = memory["train"]
    if about["rows"]:
        lines += [
            "",
            f"Peak memory of a process that trains {about['network']} {about['size']}, {about['batch']} photos:",
        ]
        lines += [f"  {row['implementation']:66}{row['median_bytes'] / 1e6:9.0f}" for row in about["rows"]]
        lines += ratio_line("memory", about["ratio"])
    return lines


def ratio_line(what: str, ratio: float | None) -> list[str]:
    return [] if ratio is None else [f"  PyTorch's least {what} over facecnn's: {ratio:.2f}"]
