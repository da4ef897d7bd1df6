"""Show, compare and delete runs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from facecnn.config import Settings, load, shipped, to_dict
from facecnn.errors import FacecnnError, UsageError, shown
from facecnn.jobs.console import Console
from facecnn.reports.summary import Summary, checked_summary, held_out_figures, photo_counts, summaries
from facecnn.runs.choice import named_run, read_pin
from facecnn.runs.folder import RunFolder, read_json
from facecnn.runs.metrics import read_metrics


def show(run: Path, out: Path) -> dict[str, Any]:
    """Describe a run (the ``runs show`` JSON). Damage is reported in ``problem``, not raised."""
    summary = checked_summary(run, out)
    folder, problems = RunFolder(run), [] if summary.problem is None else [summary.problem]

    def read(what: Callable[[], Any], otherwise: Any) -> Any:
        try:
            return what()
        except FacecnnError as error:
            if str(error) not in problems:
                problems.append(str(error))
            return otherwise

    start = read(lambda: read_json(folder.start_path), None) or {}
    figures = read(lambda: read_json(folder.figures_path), None) or {}
    metrics = read(lambda: read_metrics(folder.metrics_path), [])
    split = read(folder.read_split, {}) if folder.split_path.exists() else {}
    settings = read(lambda: load(str(folder.config_path)).settings, None) if folder.config_path.exists() else None
    training = figures.get("training")
    training = training if isinstance(training, Mapping) else {}
    seconds = [row["seconds"] for row in metrics if isinstance(row.get("seconds"), int | float)]
    return {
        **asdict(summary),
        "problem": "; ".join(problems) or None,
        "facecnn": start.get("facecnn") or figures.get("facecnn"),
        "device": training.get("device_description") or training.get("device"),
        "epochs": metrics[-1]["epoch"] if metrics else 0,
        "best_epoch": training.get("best_epoch"),
        "seconds": float(sum(seconds)) if seconds else None,
        "counts": [
            {"name": name, "train": train, "validation": held_out}
            for name, (train, held_out) in photo_counts(split).items()
        ],
        "held_out": held_out_figures(figures) or None,
        "folder": None if settings is None else settings.photos.folder,
        "settings": None if settings is None else to_dict(settings),
        "unlike_config": None if settings is None else _unlike_config(settings, summary.config),
    }


def compare(runs: Sequence[Path], out: Path) -> dict[str, Any]:
    """Compare runs (the ``runs compare`` JSON).

    ``runs`` are as from ``show``. ``differ`` has the settings that differ, each with a value for each run.
    """
    shown_runs = [show(run, out) for run in runs]
    flat = [_flat(run["settings"] or {}) for run in shown_runs]
    return {"runs": shown_runs, "differ": _differences(flat)}


def to_prune(out: Path, keep: int, unfinished: bool) -> list[Summary]:
    """The runs that ``prune`` deletes, the oldest first; never the pinned one, one in use, or a link.

    ``keep``: number of the newest finished runs that stay; ``unfinished``: also delete runs that haven't finished or
    are damaged. Raises CheckpointError if the pin is damaged, or the pinned run is missing.
    """
    read_pin(out)  # with a damaged pin, it isn't known which run to keep
    runs = [run for run in summaries(out) if not Path(run.path).is_symlink()]
    finished = [run for run in runs if run.finished]
    kept = {run.name for run in finished[len(finished) - min(keep, len(finished)) :]}
    return [
        run
        for run in runs
        if not run.pinned and run.state != "in use" and (run.name not in kept if run.finished else unfinished)
    ]


def delete(runs: Sequence[Summary], console: Console) -> dict[str, Any]:
    """Delete runs (the ``runs prune`` JSON).

    Warns of runs that are in use by now, which stay, and of files that training didn't write, which also stay. Raises
    OutputError where a run can't be deleted.
    """
    deleted, left = [], []
    for run in runs:
        folder = RunFolder(Path(run.path))
        if folder.in_use():
            console.warning(f"{shown(run.path)}: in use by now, so it is left")
            continue
        if not folder.delete():
            console.warning(f"{shown(run.path)}: also has files that training didn't write; these are left")
            left.append(run.path)
        deleted.append({"name": run.name, "path": run.path, "bytes": run.bytes})
    return {"deleted": deleted, "bytes": sum(run["bytes"] for run in deleted), "files_left_in": left}


def runs_to_compare(arguments: Sequence[Path], out: Path) -> list[Path]:
    """The folders of the named runs. Raises CheckpointError, or UsageError if one run is named twice."""
    runs = [named_run(argument, out) for argument in arguments]
    if len({run.resolve() for run in runs}) < len(runs):
        raise UsageError("runs compare: the same run twice: give different runs")
    return runs


def _unlike_config(settings: Settings, label: str | None) -> dict[str, list[Any]]:
    """Settings that differ between the shipped config of that label (or default) and a run: [config's, run's].

    The folder of photos doesn't count.
    """
    name = label if label in shipped() else "default"
    assert name is not None
    plain = [load(name).settings, replace(settings, photos=replace(settings.photos, folder=None))]
    return _differences([_flat(to_dict(one)) for one in plain])


def _differences(flat: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    keys = list(dict.fromkeys(key for settings in flat for key in settings))
    values = {key: [settings.get(key) for settings in flat] for key in keys}
    return {key: row for key, row in values.items() if any(value != row[0] for value in row[1:])}


def _flat(settings: Any, prefix: str = "") -> dict[str, Any]:
    """``{"train.epochs": 60, "network.0.conv.kernels": 8, …}``, with keys as ``--set`` takes them."""
    if isinstance(settings, Mapping) and settings:
        items = [(str(key), value) for key, value in settings.items()]
    elif isinstance(settings, list) and any(isinstance(value, Mapping) for value in settings):
        items = [(str(number), value) for number, value in enumerate(settings)]
    else:
        return {prefix: settings} if prefix else {}
    return {key: value for name, part in items for key, value in _flat(part, f"{prefix}.{name}".lstrip(".")).items()}
