"""Search for the best settings by cross-validation, and judge the search by photos that it never saw.

A trial is a cross-validation on all photos, and its score the mean log loss of its folds: accuracy hardly changes from
one setting to the next if there are few photos, and would leave a tie to chance. The best trial's own score is too
good, since it was chosen by it. So the whole search is repeated outside each outer fold, and the best setting of each
of these searches is trained there and judged by that fold (nested cross-validation).
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from facecnn.config import Loaded, to_dict, to_yaml
from facecnn.config.sweep import Range, ranges_in, settings_with
from facecnn.errors import DivergedError, UsageError, shown
from facecnn.jobs.console import Console
from facecnn.jobs.judgement import wilson_interval
from facecnn.jobs.people import read_all_people
from facecnn.jobs.sharing import find_shared_folder, prepare_beforehand
from facecnn.jobs.sweep.folder import SweepFolder
from facecnn.jobs.training.options import TrainOptions
from facecnn.jobs.training.ranks import options_for_rank
from facecnn.jobs.training.setup import open_for_training
from facecnn.kernels import Device, available_threads
from facecnn.parallel.ranks import ALONE, Ranks
from facecnn.photos.dataset import Dataset
from facecnn.reports.figure import WITHOUT_PICTURES, can_draw
from facecnn.reports.findings import counted
from facecnn.reports.sweep import DrawnTrial, draw_importance, draw_parallel
from facecnn.runs.atomic import output_error, write_atomically
from facecnn.runs.event_file import EventFile, check_installed, event_files

if TYPE_CHECKING:
    from facecnn.jobs.sweep.study import Trials
    from facecnn.jobs.sweep.trial import Task

_INSTALL = "pip install 'facecnn[sweep]'"

_FIGURES = ("log_loss", "closed_set_accuracy")
"""Of a trial, and of each of its folds, for TensorBoard."""


@dataclass(frozen=True)
class SweepOptions:
    """How much to search."""

    trials: int
    """Of each search, in all: those of a resumed sweep count."""
    folds: int = 3
    outer_folds: int = 3
    """How often the search is repeated to judge it; 0: never."""
    processes: int = 1
    resume: bool = False
    track: bool = False
    """Whether event files of the trials are written, for TensorBoard."""


def sweep(
    loaded: Loaded, options: TrainOptions, plan: SweepOptions, console: Console, ranks: Ranks = ALONE
) -> dict[str, Any]:
    """Run a sweep, or what is left of it.

    ``ranks``: the processes that share the trials, with the same arguments. All of them need the sweep's folder.

    Returns:
        The ``sweep`` JSON; empty on other ranks than 0.

    Raises:
        UsageError: an extra isn't installed, the ranges are wrong, or there are too few photos for the folds.
        CheckpointError: a sweep to resume can't be read.
        DivergedError: no trial was completed.
        FacecnnError: as from ``cross_validate``.
    """
    _check(plan, ranks)
    ranges = ranges_in(loaded)
    options = options_for_rank(options, ranks)
    device = open_for_training(options, console)
    ranks.busy()
    folder = find_shared_folder(options.photos, loaded, console, ranks)
    prepare_beforehand(folder, loaded, options.threads, ranks, console)
    if ranks.rank:
        from facecnn.jobs.sweep.ranks import follow

        follow(options, device, ranks)
        return {}
    ranks.busy()
    dataset = read_all_people(folder, loaded, console, options.threads, strict=options.strict)

    from facecnn.jobs.sweep.trial import Task, parts_of, refuse_bad_folds

    parts = parts_of(dataset, plan.folds, plan.outer_folds)
    refuse_bad_folds(dataset, parts)
    given = _given(loaded, ranges, plan, dataset)
    if plan.resume:
        assert options.name is not None
        kept = SweepFolder.open(options.out, options.name)
    else:
        kept = SweepFolder.create(options.out, options.name, options.label, given)
    try:
        kept.check_given(given)
        threads, journal = options.threads, kept.journal_path
        if plan.processes > 1:
            threads = max(1, (threads or available_threads()) // plan.processes)
        if ranks.size > 1:
            folder, journal = folder.absolute(), journal.absolute()
        workers = max(plan.processes, ranks.size)
        task = Task(loaded, ranges, folder, parts, plan.trials, journal, workers, options.device, threads)
        trials = _search(task, plan, device, console, ranks)
        result = _finish(task, trials, kept, dataset, device, console)
        if plan.track:
            _track(kept.tracking_path, result["trials"])
        return result
    finally:
        kept.unlock()


def _check(plan: SweepOptions, ranks: Ranks) -> None:
    if importlib.util.find_spec("optuna") is None:
        raise UsageError(f"sweep: the search needs the package optuna: {_INSTALL}")
    if plan.track:
        check_installed("--track")
    if ranks.size > 1 and plan.processes > 1:
        raise UsageError(
            f"--processes {plan.processes}: {ranks.size} ranks share the trials already: leave --processes out"
        )
    if plan.outer_folds == 1 or plan.outer_folds < 0:
        raise UsageError(f"--outer-folds {plan.outer_folds}: at least 2 are needed, or 0 for none")
    most = available_threads()
    if not 1 <= plan.processes <= most:
        raise UsageError(f"--processes {plan.processes}: must be 1 to {most}, the processors that this process may use")


def _given(loaded: Loaded, ranges: Sequence[Range], plan: SweepOptions, dataset: Dataset) -> dict[str, Any]:
    """What must be the same when a sweep is resumed."""
    photos = hashlib.sha256()
    for path, digest in zip(dataset.paths, dataset.sha256, strict=True):
        photos.update(f"{path}\0{digest}\n".encode())
    return {
        "settings": to_dict(loaded.settings),
        "ranges": {one.path: one.record() for one in ranges},
        "folds": plan.folds,
        "outer folds": plan.outer_folds,
        "photos": photos.hexdigest(),
    }


def _search(task: Task, plan: SweepOptions, device: Device, console: Console, ranks: Ranks) -> Trials:
    """Run all trials that are missing."""
    from facecnn.jobs.sweep.study import mend
    from facecnn.jobs.sweep.trial import run_trials
    from facecnn.jobs.sweep.worker import run_in_processes, wait_for_the_last

    wait_for_the_last(task.journal)
    mend(task.journal)
    trials = task.open_trials()
    for part in task.parts:
        trials.add_study(part.name)
    most = len(task.parts) * task.trials * plan.folds
    console.info(
        f"Sweep: {shown(task.journal.parent)}; {counted(task.trials, 'trial')} of {plan.folds} training runs"
        + (f", {len(task.parts)} times (--outer-folds)" if len(task.parts) > 1 else "")
        + f": at most {most + len(task.parts) - 1} training runs"
    )
    lost = sum(trials.requeue_lost(part.name) for part in task.parts)
    if plan.resume:
        done = sum(len(trials.rows(part.name)) for part in task.parts) - lost
        again = f", {lost} that didn't end are repeated" if lost else ""
        console.info(f"Resumed: {done} of {task.trials * len(task.parts)} trials are done{again}")
    if ranks.size > 1:
        from facecnn.jobs.sweep.ranks import run_on_ranks

        run_on_ranks(task, device, console, ranks)
        return task.open_trials()
    if task.processes > 1:
        run_in_processes(task, console)
        return task.open_trials()
    run_trials(task, device, console)
    return trials


def _finish(
    task: Task, trials: Trials, kept: SweepFolder, dataset: Dataset, device: Device, console: Console
) -> dict[str, Any]:
    """Judge the search, and write what was found. Returns the JSON."""
    from facecnn.jobs.sweep.trial import SEARCH

    kept_trials, chosen = trials.rows(SEARCH), trials.best(SEARCH)
    rows = [_row(number, trial) for number, trial in enumerate(kept_trials, start=1)]
    if chosen is None:
        raise DivergedError(f"no trial was completed; the last one: {rows[-1]['reason']}: change the ranges")
    best = rows[[trial.number for trial in kept_trials].index(chosen.number)]
    nested = _judge_search(task, trials, device, console)
    importance = trials.importances(SEARCH)
    found = settings_with(task.loaded, task.ranges, chosen.params)
    head = "".join(f"# {line}\n" for line in _heading(rows, best, nested))
    write_atomically(kept.best_path, (head + to_yaml(found.settings)).encode())
    pictures = _draw(kept, task.ranges, rows, importance, console)
    result = {
        "sweep": str(kept.path),
        "device": device.name,
        "classes": list(dataset.people),
        "ranges": {one.path: one.record() for one in task.ranges},
        "trials": rows,
        "best": best,
        "nested": nested,
        "importance": importance,
        "config": str(kept.best_path),
        "pictures": pictures,
    }
    write_atomically(kept.result_path, json.dumps(result, indent=2, allow_nan=False).encode())
    return result


def _row(number: int, trial: Any) -> dict[str, Any]:
    """A trial in the JSON."""
    folds = trial.user_attrs.get("folds", [])

    def mean(key: str) -> float | None:
        return float(np.mean([fold[key] for fold in folds])) if folds else None

    return {
        "number": number,
        "state": trial.state.name.lower(),
        "reason": trial.user_attrs.get("reason"),
        "parameters": _plain(trial.params),
        "log_loss": mean("log_loss"),
        "closed_set_accuracy": mean("closed_set_accuracy"),
        "folds": folds,
        "seconds": trial.user_attrs.get("seconds"),
    }


def _plain(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters with choices as the values that they stand for."""
    return {key: json.loads(value) if isinstance(value, str) else value for key, value in parameters.items()}


def _judge_search(task: Task, trials: Trials, device: Device, console: Console) -> dict[str, Any] | None:
    """Judge each outer search's best setting by its outer fold. None without outer folds."""
    from facecnn.jobs.sweep.trial import BarsOnly, Photos, train_and_judge

    photos = Photos(task, BarsOnly(console))
    results = []
    for part in task.parts[1:]:
        best = trials.best(part.name)
        if best is None:
            raise DivergedError(f"{part.name}: no trial was completed: change the ranges")
        parameters = _plain(best.params)
        known = trials.noted(part.name, "judged")
        if known is None or known["parameters"] != parameters:
            loaded = settings_with(task.loaded, task.ranges, best.params)
            figures = train_and_judge(
                loaded, photos.prepared(loaded), part.left_out, part.left_out, device, console, part.name
            )
            known = {"parameters": parameters, **figures}
            trials.note(part.name, "judged", known)
            console.info(
                f"{part.name}: log loss {known['log_loss']:.4f}, closed-set accuracy "
                f"{100 * known['closed_set_accuracy']:.1f} % of {known['photos']} photos that its search never saw"
            )
        results.append(known)
    if not results:
        return None
    photos_judged = sum(one["photos"] for one in results)
    right = round(sum(one["closed_set_accuracy"] * one["photos"] for one in results))
    accuracies = [one["closed_set_accuracy"] for one in results]
    return {
        "folds": results,
        "closed_set_accuracy": float(np.mean(accuracies)),
        "std": float(np.std(accuracies)),
        "log_loss": float(np.mean([one["log_loss"] for one in results])),
        "photos": photos_judged,
        "interval": list(wilson_interval(right, photos_judged)),
    }


def _heading(rows: Sequence[dict[str, Any]], best: dict[str, Any], nested: dict[str, Any] | None) -> list[str]:
    """Comments at the top of best.yaml."""
    lines = [
        f"Found by facecnn sweep: trial {best['number']} of {len(rows)}, each of up to {len(best['folds'])} runs.",
        *(f"  {path}: {json.dumps(value)}" for path, value in best["parameters"].items()),
        f"Its own score is too good, since it was chosen by it: log loss {best['log_loss']:.4f}, closed-set accuracy "
        f"{100 * best['closed_set_accuracy']:.1f} %.",
    ]
    if nested is None:
        return [*lines, "How good it is on other photos wasn't measured (--outer-folds 0)."]
    return [
        *lines,
        f"On photos that the search never saw ({len(nested['folds'])} outer folds, each with a search of its own): log "
        f"loss {nested['log_loss']:.4f}, closed-set accuracy {100 * nested['closed_set_accuracy']:.1f} %.",
    ]


def _draw(
    kept: SweepFolder,
    ranges: Sequence[Range],
    rows: Sequence[dict[str, Any]],
    importance: Mapping[str, float] | None,
    console: Console,
) -> list[str]:
    """Draw the pictures that there are data for. Returns their paths."""
    if not can_draw():
        console.warning(WITHOUT_PICTURES)
        return []
    drawn = [DrawnTrial(row["parameters"], row["log_loss"]) for row in rows if row["state"] == "complete"]
    draw_parallel(kept.parallel_path, {one.path: one.record() for one in ranges}, drawn)
    if importance is None:
        return [str(kept.parallel_path)]
    draw_importance(kept.importance_path, importance)
    return [str(kept.importance_path), str(kept.parallel_path)]


def _track(folder: Path, trials: Sequence[Mapping[str, Any]]) -> None:
    """Write an event file for each trial, in a folder of its own, in place of earlier ones.

    Args:
        folder: of these folders.
        trials: of the ``sweep`` JSON. The folds of a trial are its steps, from 1; its own figures have the number of
            its folds.

    Raises:
        OutputError: a file can't be written.
    """
    for trial in trials:
        own = folder / f"trial-{trial['number']:04}"
        try:
            for file in event_files(own):
                file.unlink()
        except OSError as error:
            raise output_error(own, error) from error
        parameters = {
            key: value if isinstance(value, bool | int | float | str) else json.dumps(value)
            for key, value in trial["parameters"].items()
        }
        with EventFile(own, 0) as events:
            events.begin({**parameters, "state": trial["state"]}, dict.fromkeys(_FIGURES))
            for number, fold in enumerate(trial["folds"], start=1):
                events.scalars(number, {f"fold/{key}": fold[key] for key in _FIGURES if fold[key] is not None})
            whole = {key: trial[key] for key in _FIGURES if trial[key] is not None}
            events.scalars(len(trial["folds"]), whole)
            events.end()
