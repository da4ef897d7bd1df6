"""The part of benchmark.py that measures the time from photos to a model that is right about photos that it wasn't
trained on: facecnn, the same network in PyTorch, and dlib's pretrained embedding with logistic regression.

Each training run is a whole process, from its start to the model on the disk. In each round another fold of the photos
is held out, the same for all; other processes judge the models by it, untimed, by the likeliest person. Kernels have
been compiled before, but each run finds the faces again. PyTorch trains on facecnn's crops, which are made in its
process, and writes nothing but the weights, where facecnn also draws pictures and a report.

``RECIPES`` say how long a network is trained; --quick has only the shortest. The rest is as in the config ``default``,
for all of them. No photos are held out to choose the best epoch by.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.processes import FACECNN, HERE, TUNED, Conditions, in_turns, launched
from common.command import say
from common.figures import BLUE, GREEN, ORANGE, new_figure, save
from facecnn.errors import PhotoError
from facecnn.photos.cache_folder import CACHE_VARIABLE, cache_folder
from facecnn.photos.preparation import PhotoSettings
from facecnn.photos.sample import write_sample
from studies.album import read_album

FOLDS, QUICK_ROUNDS = 5, 1
CONFIG = "default"
DLIB, DLIB_PARTS = "dlib + logistic regression", ("dlib", "face_recognition_models", "sklearn")
COLOURS = {FACECNN: BLUE, "torch": ORANGE, "dlib": GREEN}
"""By the beginnings of names."""

Command = list[str | Path]


@dataclass(frozen=True)
class Recipe:
    """How long a network is trained."""

    steps: int
    batch: int
    learning_rate: float
    average: float
    """Share of the average of the weights that stays in a step."""

    @property
    def name(self) -> str:
        return f"{self.steps:,} x {self.batch}"

    def overrides(self, seed: int) -> list[str]:
        """As ``--set`` of facecnn."""
        values = {
            "train.epochs": 1,
            "train.least_steps": self.steps,
            "train.batch_size": self.batch,
            "optimizer.learning_rate": self.learning_rate,
            "train.average_weights": self.average,
            "train.seed": seed,
            "photos.validation": 0,
        }
        return [f"{key}={value}" for key, value in values.items()]


RECIPES = Recipe(1600, 16, 0.002, 0.99), Recipe(400, 32, 0.008, 0.97), Recipe(200, 32, 0.008, 0.95)
"""The first is that of ``default``."""
TO_COMPILE = Recipe(10, 8, 0.008, 0.9)


@dataclass(frozen=True)
class Fold:
    """Folders of photos, with a folder for each person."""

    training: Path
    held_out: Path
    count: int
    """Photos held out."""


@dataclass
class Contestant:
    """A way from photos to a model, and how it did."""

    name: str
    train: Callable[[Fold, Path, int], Command]
    """The command that makes a model in a new folder, from a fold and a seed."""
    judge: Callable[[Fold, Path], Command]
    """The command that prints, as JSON, the model's accuracy and the photos that it is of."""
    environment: dict[str, str] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    processor_seconds: list[float | None] = field(default_factory=list)
    right: int = 0
    photos: int = 0

    def row(self, target: float) -> dict[str, Any]:
        used = [seconds for seconds in self.processor_seconds if seconds is not None]
        return {
            "implementation": self.name,
            "median_seconds": statistics.median(self.seconds),
            "min_seconds": min(self.seconds),
            "max_seconds": max(self.seconds),
            "median_processor_seconds": statistics.median(used) if used else None,
            "right": self.right,
            "photos": self.photos,
            "accuracy": self.right / self.photos,
            "reached": self.right >= target * self.photos,
        }


def measure(conditions: Conditions, photos: Path | None, target: float) -> dict[str, Any] | None:
    """Measure ``time_to_accuracy``.

    Args:
        conditions: how many threads and rounds.
        photos: a folder with one folder of photos per person; None: the sample's two people.
        target: the accuracy to reach, 0 to 1.

    Returns:
        The target, and a row for each contestant; None without photos.

    Raises:
        FacecnnError: a process fails, or a person has fewer photos than there are folds.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        try:
            people = photos or write_sample(folder / "people").folder
        except PhotoError as error:
            say(f"time-to-accuracy is left out: {error}")
            return None
        dealt = deal(people, folder / "folds")
        say("Time to accuracy: compiling facecnn's kernels ...")
        take_turn(by_facecnn(conditions, TO_COMPILE), dealt[0], folder / "first", 0)
        found = contestants(conditions)
        rounds = conditions.turns(FOLDS, QUICK_ROUNDS)
        for number, in_order in enumerate(in_turns(found, rounds)):
            for one in in_order:
                say(f"Time to accuracy: {one.name}, round {number + 1} of {rounds} ...")
                take_turn(one, dealt[number % FOLDS], folder / f"{number}-{found.index(one)}", number)
    return {"target": target, "rows": [one.row(target) for one in found]}


def deal(people: Path, folder: Path) -> list[Fold]:
    """Copy photos to a folder for each fold, by ``facecnn.photos.split.folds``. Raises PhotoError, UsageError."""
    album, _ = read_album(people, PhotoSettings(faces="off"))
    found = []
    for number, held_out in enumerate(album.folds(FOLDS)):
        fold = Fold(folder / str(number) / "training", folder / str(number) / "held-out", len(held_out))
        for index, (file, path) in enumerate(zip(album.files, album.paths, strict=True)):
            place = (fold.held_out if index in held_out else fold.training) / path
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, place)
        found.append(fold)
    return found


def contestants(conditions: Conditions) -> list[Contestant]:
    """All whose packages are installed; those left out are named on stderr."""
    recipes = RECIPES[-1:] if conditions.quick else RECIPES
    found = [by_facecnn(conditions, recipe) for recipe in recipes]
    if importlib.util.find_spec("torch") is not None:
        found += [by_torch(conditions, recipe) for recipe in recipes]
    else:
        say("PyTorch is left out: pip install torch")
    missing = [name for name in DLIB_PARTS if importlib.util.find_spec(name) is None]
    if not missing:
        found.append(by_dlib())
    else:
        say(f"dlib is left out, without {', '.join(missing)}: pip install dlib-bin 'facecnn[pretrained,sklearn]'")
    return found


def by_facecnn(conditions: Conditions, recipe: Recipe) -> Contestant:
    """``facecnn train``."""
    facecnn: Command = [sys.executable, "-m", "facecnn"]
    compute = ["--device", conditions.device, "--threads", str(conditions.threads)]

    def train(fold: Fold, folder: Path, seed: int) -> Command:
        settings = [part for change in recipe.overrides(seed) for part in ("--set", change)]
        place: Command = ["--out", folder, "--name", "run", "--quiet"]
        return [*facecnn, "train", fold.training, "-c", CONFIG, *settings, *place, *compute]

    def judge(fold: Fold, folder: Path) -> Command:
        return [*facecnn, "eval", fold.held_out, "-m", folder / "run", "--format", "json", "--quiet"]

    return Contestant(f"{FACECNN}, {recipe.name}", train, judge)


def by_torch(conditions: Conditions, recipe: Recipe) -> Contestant:
    """The same network in PyTorch: see accuracy_torch.py."""

    def command(job: str, photos: Path, folder: Path, seed: int = 0) -> Command:
        options = {**asdict(recipe), "seed": seed, "config": CONFIG, "threads": conditions.threads}
        return [sys.executable, HERE / "accuracy_torch.py", job, photos, folder, json.dumps(options)]

    return Contestant(
        f"torch, {recipe.name}",
        lambda fold, folder, seed: command("train", fold.training, folder, seed),
        lambda fold, folder: command("judge", fold.held_out, folder),
        environment=TUNED,
    )


def by_dlib() -> Contestant:
    """See accuracy_dlib.py."""

    def command(job: str, photos: Path, folder: Path) -> Command:
        return [sys.executable, HERE / "accuracy_dlib.py", job, photos, folder]

    return Contestant(
        DLIB,
        lambda fold, folder, seed: command("train", fold.training, folder),
        lambda fold, folder: command("judge", fold.held_out, folder),
    )


def take_turn(one: Contestant, fold: Fold, folder: Path, number: int) -> None:
    """Make a model, with the round's number as its seed, and judge it. Raises FacecnnError."""
    run = partial(launched, more={**one.environment, CACHE_VARIABLE: str(new_cache(folder))})
    _, figures = run(f"{one.name}: the training", one.train(fold, folder, number))
    one.seconds.append(figures["seconds"])
    one.processor_seconds.append(figures["processor_seconds"])
    said, _ = run(f"{one.name}: its judgement", one.judge(fold, folder))
    judged = json.loads(said)
    one.right += round(judged["closed_set_accuracy"] * judged["photos"])
    one.photos += fold.count  # one in which no face is found counts as wrong
    shutil.rmtree(folder)


def new_cache(folder: Path) -> Path:
    """A cache in a new folder without any photos, with the user's compiled kernels."""
    kernels, own = cache_folder() / "kernels", folder / "cache" / "kernels"
    kernels.mkdir(parents=True, exist_ok=True)
    own.parent.mkdir(parents=True)
    own.symlink_to(kernels.absolute(), target_is_directory=True)
    return own.parent


def table(report: dict[str, Any]) -> list[str]:
    """Format for a terminal of 80 columns."""
    lines = [
        "",
        "From photos to a model on the disk, whole processes; steps x photos a step.",
        f"Accuracy of the likeliest person, on photos held out; * at least {report['target']:.1%}:",
        f"{'':32}{'median s':>10}{'from':>8}{'to':>8}{'processor':>11}{'right':>11}",
    ]
    for row in report["rows"]:
        processor = row["median_processor_seconds"]
        lines.append(
            f"  {row['implementation']:30}{row['median_seconds']:10.2f}{row['min_seconds']:8.2f}"
            f"{row['max_seconds']:8.2f}"
            + (f"{'-':>11}" if processor is None else f"{processor:11.2f}")
            + f"{row['accuracy']:9.1%} {'*' if row['reached'] else ' '}"
        )
    return lines


def draw(report: dict[str, Any], path: Path) -> None:
    """Write a PNG file: accuracy over seconds. Raises OutputError."""
    time, machine = report["time_to_accuracy"], report["machine"]
    rows = time["rows"]
    figure = new_figure(9, max(3.2, 0.9 + 0.42 * len(rows)))
    axes = figure.add_subplot()
    for number, row in enumerate(rows):
        name, median = row["implementation"], row["median_seconds"]
        colour = next(colour for start, colour in COLOURS.items() if name.startswith(start))
        axes.barh(number, median, height=0.66, color=colour, alpha=1.0 if row["reached"] else 0.4)
        axes.plot([row["min_seconds"], row["max_seconds"]], [number, number], color="black", linewidth=1)
        label = f"{median:.1f} s, {row['accuracy']:.1%} right"
        axes.annotate(label, (row["max_seconds"], number), (5, 0), textcoords="offset points", va="center", fontsize=9)
    axes.set_yticks(range(len(rows)), [row["implementation"] for row in rows])
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_xlim(0, 1.3 * max(row["max_seconds"] for row in rows))
    axes.set_xlabel("seconds from photos to a model: median, least and most")
    axes.set_title(f"{machine['cpu']}, {report['threads']} threads; pale: fewer than {time['target']:.1%} right")
    save(figure, path)
