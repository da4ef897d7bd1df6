"""Choose the model that answers: the one asked for, else the pinned run, else the newest finished run."""

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from facecnn.errors import CheckpointError, UsageError, shown
from facecnn.runs.atomic import output_error, write_atomically
from facecnn.runs.checkpoint import BEST, UNKNOWN, find_checkpoint, glance_at_checkpoint
from facecnn.runs.folder import RunFolder, looks_like_run

PIN = ".pinned"
"""File in the folder of runs that holds the name of the pinned one."""

_PIN_ANOTHER = "facecnn runs pin RUN pins another one, facecnn runs pin --none none"
_LONGEST_NAME = 255  # bytes


@dataclass(frozen=True)
class Candidate:
    """What the header of a run's model file says about the run."""

    path: Path
    written: int
    """When its model (or, without one, its folder) was last written, in nanoseconds since 1970."""
    people: tuple[str, ...] = ()
    """Without strangers; empty where the model can't be read."""
    strangers: bool = False
    """Whether it has an output for strangers."""
    finished: bool = False
    damage: str | None = None
    """Why its model can't be read."""


@dataclass(frozen=True)
class ChosenRun:
    """The run whose model answers."""

    run: Path
    reason: str
    """``the pinned run``, ``the newest finished run``."""
    remarks: tuple[str, ...] = ()
    """Warnings for a user who may expect another run."""


def run_folders(out_dir: Path) -> list[Path]:
    """The folders of runs in ``out_dir``, sorted by name; none if it is missing."""
    try:
        return sorted(entry for entry in out_dir.iterdir() if entry.is_dir() and looks_like_run(entry))
    except OSError:
        return []


def candidate(run: Path) -> Candidate:
    """Read a run's header. Damage is reported in ``damage``, not raised."""
    written = 0
    try:
        with suppress(OSError):
            written = run.stat().st_mtime_ns
        file = find_checkpoint(run)
        written = file.stat().st_mtime_ns
        glance = glance_at_checkpoint(file)
    except (CheckpointError, OSError) as error:
        begun = not any(run.glob("*.safetensors"))
        return Candidate(run, written, damage=None if begun else str(error))
    return Candidate(
        run,
        written,
        people=tuple(name for name in glance.classes if name != UNKNOWN),
        strangers=UNKNOWN in glance.classes,
        finished=file.name == BEST and glance.state.get("calibration") is not None,
    )


def candidates(out_dir: Path) -> list[Candidate]:
    """All runs in ``out_dir``, the newest last."""
    return sorted(map(candidate, run_folders(out_dir)), key=lambda run: (run.written, run.path.name))


def choose_run(out_dir: Path) -> ChosenRun:
    """The pinned run, else the newest finished one, else the newest.

    Raises CheckpointError where no run has a model, or the pinned run is missing.
    """
    pinned = read_pin(out_dir)
    known = candidates(out_dir)
    readable = [run for run in known if run.people]
    finished = [run for run in readable if run.finished]
    remarks = []
    if pinned is not None:
        chosen, reason = candidate(pinned), "the pinned run"
    elif readable:
        chosen, reason = finished[-1] if finished else readable[-1], "the newest finished run"
        remarks = [
            f"{run.damage}; an older run answers" for run in known if run.damage and run.written > chosen.written
        ]
        if not finished:
            reason = "the newest run"
            remarks.append(f"no run in {shown(out_dir)}{os.sep} has finished: {shown(chosen.path)} answers as it is")
    elif damaged := [run.damage for run in known if run.damage]:
        raise CheckpointError(damaged[-1])
    else:
        raise CheckpointError(
            f"no run in {shown(out_dir)}{os.sep}: train first (`facecnn train PHOTOS`), or name a model"
        )
    if len({frozenset(run.people) for run in readable}) > 1:
        remarks.append(
            f"the runs in {shown(out_dir)}{os.sep} know different people: {shown(chosen.path)}, {reason}, answers "
            f"({_some(chosen.people)}); -m takes another"
        )
    return ChosenRun(chosen.path, reason, tuple(remarks))


def resolve_model(argument: Path, out_dir: Path) -> Path:
    """The checkpoint file of a MODEL argument, a run folder or a file. Raises CheckpointError where it is missing."""
    if not _exists(argument) and _exists(out_dir / argument):
        raise CheckpointError(f"{shown(argument)}: no such file or folder: did you mean {shown(out_dir / argument)}?")
    return find_checkpoint(argument)


def named_run(argument: Path, out_dir: Path) -> Path:
    """The folder of a run, given by its name in ``out_dir`` or its path. Raises CheckpointError where it is missing."""
    inside = out_dir / argument
    is_name = argument.name == str(argument)
    return RunFolder.open(inside if is_name and (looks_like_run(inside) or not _exists(argument)) else argument).path


def read_pin(out_dir: Path) -> Path | None:
    """The folder of the pinned run, if any. Raises CheckpointError where the run is missing, or the pin damaged."""
    file = out_dir / PIN
    try:
        if not os.path.lexists(file):
            return None
        if not file.is_file():
            raise CheckpointError(f"{shown(file)}: not a file, so it pins no run: delete it")
        with file.open("rb") as stream:
            name = os.fsdecode(stream.read(_LONGEST_NAME + 2)).removesuffix("\n")
    except OSError as error:
        raise CheckpointError(f"{shown(file)}: can't be read ({error.strerror}): check its permissions") from error
    if not name or Path(name).name != name or "\0" in name or len(os.fsencode(name)) > _LONGEST_NAME:
        raise CheckpointError(f"{shown(file)}: damaged, not the name of a run: {_PIN_ANOTHER}")
    if not looks_like_run(out_dir / name):
        raise CheckpointError(f"{shown(file)}: the pinned run {shown(name)} isn't there any more: {_PIN_ANOTHER}")
    return out_dir / name


def write_pin(run: Path | None, out_dir: Path) -> None:
    """Pin a run of ``out_dir``, or none.

    Raises:
        CheckpointError: its model can't be read.
        UsageError: it isn't in ``out_dir``.
        OutputError: the pin can't be written.
    """
    file = out_dir / PIN
    if run is None:
        try:
            file.unlink(missing_ok=True)
        except OSError as error:
            raise output_error(file, error) from error
        return
    run = run.absolute()
    if run.parent.resolve() != out_dir.resolve():
        raise UsageError(
            f"{shown(run)}: not in {shown(out_dir)}{os.sep}, so it can't be pinned there: give --out "
            f"{shown(run.parent)}, or take it with -m"
        )
    glance_at_checkpoint(find_checkpoint(run))
    write_atomically(file, os.fsencode(run.name) + b"\n")


def _exists(path: Path) -> bool:
    return os.path.exists(path)  # noqa: PTH110 (Path.exists raises for invalid names)


def _some(names: Sequence[str]) -> str:
    more = len(names) - 3
    return ", ".join(map(shown, names[:3])) + (f" and {more} more" if more > 0 else "")
