"""One trial of a sweep: a cross-validation that ends early if it is going badly."""

import gc
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from optuna.trial import Trial

from facecnn.arrays import Array
from facecnn.config import Loaded
from facecnn.config.sweep import Range, settings_with
from facecnn.errors import DivergedError, UsageError
from facecnn.jobs.console import LINES, Console, TrainingDisplay
from facecnn.jobs.cross_validate import judge_likeliest, train_outside, without_early_stopping
from facecnn.jobs.people import read_all_people
from facecnn.jobs.sweep.study import Trials
from facecnn.kernels import Device
from facecnn.photos.dataset import Dataset
from facecnn.photos.preparation import PhotoSettings

SEARCH = "search"
"""Name of the study of all photos."""


@dataclass(frozen=True)
class Part:
    """The photos of a study, by their paths."""

    name: str
    folds: tuple[frozenset[str], ...]
    """Of the inner cross-validation; together they are the photos that the study may see."""
    left_out: frozenset[str] = frozenset()
    """The outer fold, of which the study sees nothing."""


@dataclass(frozen=True)
class Task:
    """What a process needs to run trials."""

    loaded: Loaded
    """The settings from which trials differ."""
    ranges: tuple[Range, ...]
    folder: Path
    parts: tuple[Part, ...]
    trials: int
    """Of each study."""
    journal: Path
    processes: int
    device: str
    threads: int | None

    def open_trials(self) -> Trials:
        """The journal."""
        return Trials(self.journal, self.ranges, self.loaded.settings.train.seed, self.processes)


class Photos:
    """The photos as each trial wants them prepared; only the last ones are kept in memory."""

    def __init__(self, task: Task, console: Console) -> None:
        self._task = task
        self._console = console
        self._last: tuple[PhotoSettings, Dataset] | None = None

    def prepared(self, loaded: Loaded) -> Dataset:
        """The data set for these settings."""
        settings = loaded.settings.photos
        if self._last is None or self._last[0] != settings:
            self._last = None
            dataset = read_all_people(self._task.folder, loaded, self._console, self._task.threads, strict=False)
            self._last = settings, dataset
        return self._last[1]


class BarsOnly(Console):
    """A console for what was said before: it shows the bars of training runs, and no messages."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def show_compilation(self) -> None:
        self._console.show_compilation()

    def training(
        self, epochs: int, steps: int, label: str = "", lines: int = LINES
    ) -> AbstractContextManager[TrainingDisplay]:
        return self._console.training(epochs, steps, label, lines)


def run_trials(task: Task, device: Device, console: Console) -> None:
    """Run trials of all studies until none is left to begin; other processes may do the same."""
    trials, photos = task.open_trials(), Photos(task, BarsOnly(console))
    for part in task.parts:
        while (trial := trials.claim(part.name, task.trials)) is not None:
            _run_trial(task, part, trials, trial, photos, device, console)


def _run_trial(
    task: Task, part: Part, trials: Trials, trial: Trial, photos: Photos, device: Device, console: Console
) -> None:
    number = int(trial.user_attrs["index"]) + 1
    label = f"Trial {number} of {task.trials}" + (f", {part.name}" if part.left_out else "")
    started = time.perf_counter()
    figures: list[dict[str, Any]] = []
    reason = None
    try:
        loaded = settings_with(task.loaded, task.ranges, trial.params)
        for step, fold in enumerate(part.folds):
            what = f"{label}, fold {step + 1} of {len(part.folds)}"
            dataset, left_out = photos.prepared(loaded), part.left_out | fold
            figures.append(train_and_judge(loaded, dataset, left_out, fold, device, console, what))
            loss = float(np.mean([one["log_loss"] for one in figures]))
            if trials.report(trial, step, loss) and step + 1 < len(part.folds):
                reason = f"after {step + 1} of {len(part.folds)} folds it was worse than the median"
                break
    except UsageError as error:
        reason = f"the settings don't fit together: {error}"
    except DivergedError as error:
        reason = f"the training diverged: {error}"
    kept = {"folds": figures, "reason": reason, "seconds": time.perf_counter() - started}
    trials.finish(trial, None if reason else loss, kept)
    if reason:
        console.info(f"{label}: ended early: {reason.splitlines()[0]}")
    else:
        accuracy = float(np.mean([one["closed_set_accuracy"] for one in figures]))
        console.info(f"{label}: log loss {loss:.4f}, closed-set accuracy {100 * accuracy:.1f} %")


def train_and_judge(
    loaded: Loaded,
    dataset: Dataset,
    left_out: frozenset[str],
    judged: frozenset[str],
    device: Device,
    console: Console,
    label: str,
) -> dict[str, Any]:
    """Train to the end on all photos except those left out, and judge by some of the latter, given by their paths.

    Returns ``closed_set_accuracy``, ``log_loss``, ``photos``, ``seconds`` and ``epochs``. Raises UsageError if there is
    nothing to judge by, DivergedError.
    """
    gc.collect()  # see cross_validate
    trainer, trained = train_outside(
        without_early_stopping(loaded), dataset, indices(dataset, left_out), device, BarsOnly(console), label, lines=0
    )
    figures, _, _ = judge_likeliest(trainer, dataset, indices(dataset, judged))
    if figures["log_loss"] is None:
        raise UsageError("no photo of this fold shows a single face to judge by: add photos of one person alone")
    return figures | {key: trained[key] for key in ("seconds", "epochs")}


def indices(dataset: Dataset, paths: frozenset[str]) -> Array:
    """The indices of the photos that the data set has."""
    return np.array([number for number, path in enumerate(dataset.paths) if path in paths], np.int64)


def parts_of(dataset: Dataset, folds: int, outer_folds: int) -> tuple[Part, ...]:
    """The studies: of all photos, and then of those outside each outer fold.

    Raises UsageError if there are too few photos.
    """

    def paths(numbers: Array) -> frozenset[str]:
        return frozenset(dataset.paths[number] for number in numbers.tolist())

    def inner(among: Array) -> tuple[frozenset[str], ...]:
        return tuple(map(paths, dataset.folds(folds, among)))

    everything = np.arange(len(dataset.paths))
    parts = [Part(SEARCH, inner(everything))]
    outer: Sequence[Array] = dataset.folds(outer_folds) if outer_folds else ()
    for number, left_out in enumerate(outer, start=1):
        try:
            own = inner(np.setdiff1d(everything, left_out))
        except UsageError as error:
            raise UsageError(f"outside outer fold {number} of {outer_folds}: {error}, or --outer-folds 0") from None
        parts.append(Part(f"outer fold {number}", own, paths(left_out)))
    return tuple(parts)


def refuse_bad_folds(dataset: Dataset, parts: Sequence[Part]) -> None:
    """Raise UsageError if a training run would lack a person, or a fold have nobody to judge by."""
    from facecnn.jobs.cross_validate import fold_problem

    for part in parts:
        excluded = [indices(dataset, part.left_out | fold) for fold in part.folds]
        judged = [indices(dataset, fold) for fold in part.folds]
        problem = fold_problem(dataset, excluded)
        if problem is None and not all((dataset.labels[fold] < len(dataset.people)).any() for fold in judged):
            problem = "so many photos look alike that a fold is left empty"
        if problem is not None:
            raise UsageError(f"{part.name}: {problem}: lower --folds or --outer-folds, or add photos")
