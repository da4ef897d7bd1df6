"""Summaries of runs for lists and comparisons, from the files in their folders, even damaged ones."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from facecnn.errors import CheckpointError, natural_order
from facecnn.photos.folder import UNKNOWN
from facecnn.runs.checkpoint import load_checkpoint
from facecnn.runs.choice import Candidate, candidate, candidates, read_pin
from facecnn.runs.folder import RunFolder, read_json

State = Literal["finished", "unfinished", "in use", "damaged"]

_DEFAULT_NAME = re.compile(r"(\d{8}-\d{6})-(.+?)(-\d+)?\Z")


@dataclass(frozen=True)
class Summary:
    """A run in a list."""

    name: str
    path: str
    state: State
    problem: str | None
    """What is wrong with a damaged run."""
    created: str | None
    """ISO 8601, as is ``ended``."""
    ended: str | None
    """When its model was last written; None without a model."""
    finished: bool
    pinned: bool
    config: str | None
    """The name of its settings file, if known."""
    people: list[str]
    strangers: bool
    """Whether it was trained with an ``unknown/`` folder."""
    photos: int | None
    """Number of photos trained on and held out."""
    accuracy: float | None
    """On the held-out photos, if known."""
    closed_set_accuracy: float | None
    bytes: int


def summarise(run: Candidate, pinned: Path | None) -> Summary:
    """Summarise a run. Damage is reported in ``problem``, not raised."""
    folder = RunFolder(run.path)
    problem = run.damage
    start: Mapping[str, Any] = {}
    split: Mapping[str, Any] = {}
    held_out: Mapping[str, Any] = {}
    try:
        start = read_json(folder.start_path) or {}
        split = folder.read_split() if folder.split_path.exists() else {}
        held_out = held_out_figures(read_json(folder.figures_path) or {})
    except CheckpointError as error:
        problem = problem or str(error)
    default_name = _DEFAULT_NAME.match(run.path.name)
    label = start.get("config")
    state: State = "finished" if run.finished else "unfinished"
    if folder.in_use():
        state = "in use"
    elif problem is not None:
        state = "damaged"
    return Summary(
        name=run.path.name,
        path=str(run.path),
        state=state,
        problem=problem,
        created=_created(folder, start, default_name),
        ended=_iso(lambda: datetime.fromtimestamp(run.written / 1e9)) if run.people else None,
        finished=run.finished,
        pinned=pinned is not None and pinned.resolve() == run.path.resolve(),
        config=label if isinstance(label, str) else default_name[2] if default_name else None,
        people=list(run.people),
        strangers=run.strangers,
        photos=sum(sum(count) for count in photo_counts(split).values()) or None,
        accuracy=_share(held_out, "accuracy"),
        closed_set_accuracy=_share(held_out, "closed_set_accuracy"),
        bytes=folder.size(),
    )


def summaries(out_dir: Path) -> list[Summary]:
    """The runs in ``out_dir``, the newest last. A damaged pin counts as none."""
    pinned = _pinned(out_dir)
    return [summarise(run, pinned) for run in candidates(out_dir)]


def checked_summary(run: Path, out_dir: Path) -> Summary:
    """Summarise a run, and read its whole model, so that any damage is found."""
    found = candidate(run)
    if found.people and found.damage is None:
        try:
            load_checkpoint(run)
        except CheckpointError as error:
            found = Candidate(run, found.written, found.people, found.strangers, damage=str(error))
    return summarise(found, _pinned(out_dir))


def _pinned(out_dir: Path) -> Path | None:
    try:
        return read_pin(out_dir)
    except CheckpointError:
        return None


def held_out_figures(figures: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of the held-out photos in figures.json, in the form of this version."""
    held_out = figures.get("held_out")
    if not isinstance(held_out, Mapping):
        return {}
    if not has_old_accuracy(figures):
        return dict(held_out)
    return {**held_out, "accuracy": None, "closed_set_accuracy": held_out.get("accuracy"), "known": None}


def has_old_accuracy(figures: Mapping[str, Any]) -> bool:
    """Whether figures.json is of an older version, whose ``accuracy`` was the closed-set accuracy."""
    held_out = figures.get("held_out")
    return isinstance(held_out, Mapping) and "closed_set_accuracy" not in held_out


def photo_counts(split: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Numbers of photos of each class that were trained on and held out, from a split.json that may be damaged."""
    sides = [_classes(split.get(side)) for side in ("train", "validation")]
    names = sorted({*sides[0], *sides[1]}, key=lambda name: (name == UNKNOWN, natural_order(name)))
    return {name: (sides[0][name], sides[1][name]) for name in names}


def _classes(side: Any) -> Counter[str]:
    paths: Sequence[Any] = list(side) if isinstance(side, Mapping | list) else []
    return Counter(path.partition("/")[0] for path in paths if isinstance(path, str))


def _created(folder: RunFolder, start: Mapping[str, Any], default_name: re.Match[str] | None) -> str | None:
    """When a run was made, by run.json, else by its name, else by the time of its settings file."""
    return _iso(
        lambda: datetime.fromisoformat(start["created"]),
        lambda: datetime.strptime(default_name[1] if default_name else "", "%Y%m%d-%H%M%S"),
        lambda: datetime.fromtimestamp(folder.config_path.stat().st_mtime),
    )


def _iso(*moments: Callable[[], datetime]) -> str | None:
    """The first moment that is known, as ISO 8601."""
    for moment in moments:
        with suppress(KeyError, TypeError, ValueError, OverflowError, OSError):
            return moment().astimezone().isoformat(timespec="seconds")
    return None


def _share(figures: Mapping[str, Any], key: str) -> float | None:
    value = figures.get(key)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
