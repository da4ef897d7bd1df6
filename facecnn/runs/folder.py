"""The folder of a run."""

import errno
import json
import os
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

from facecnn import __version__
from facecnn.errors import CheckpointError, OutputError, UsageError, shown
from facecnn.runs.atomic import (
    TEMPORARY_SUFFIX,
    make_folder,
    no_folder,
    output_error,
    refuse_unwritable,
    write_atomically,
)
from facecnn.runs.checkpoint import BEST, LAST, PREVIOUS, Checkpoint, near_names, save_checkpoint
from facecnn.runs.event_file import event_files

_LOCK = ".facecnn.lock"
_PROCESS = ".facecnn.pid"
_CHECKPOINTS = (BEST, LAST, PREVIOUS)
EXPORT_SUFFIXES = (".onnx", ".npz")
"""Of what ``facecnn export`` writes beside a checkpoint, which goes with the run."""
_LONGEST_NAME = 100
_ANOTHER_OUT = "choose another --out"


class RunFolder:
    """A run's folder and the files in it.

    One process at a time may write to it: ``create`` returns it locked, one from ``open`` is locked by ``lock`` or as a
    context manager. A lock ends with its process, however that ends.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_path = path / "config.yaml"
        self.split_path = path / "split.json"
        self.metrics_path = path / "metrics.jsonl"
        self.frames_path = path / "kernels.frames"
        self.best_path = path / BEST
        self.last_path = path / LAST
        self.previous_path = path / PREVIOUS
        self.start_path = path / "run.json"
        self.init_from_path = path / "init_from.json"
        self.figures_path = path / "figures.json"
        self.background_path = path / "background.json"
        self.curves_path = path / "curves.png"
        self.confusion_path = path / "confusion.png"
        self.kernels_path = path / "kernels.png"
        self.patches_path = path / "patches.png"
        self.evolution_path = path / "kernels.gif"
        self.watching_path = path / "watching.png"
        self.report_path = path / "report.html"
        self.card_path = path / "MODEL_CARD.md"
        self.tracking_path = path / "tensorboard"
        self._lock: FileLock | None = None

    @property
    def picture_paths(self) -> tuple[Path, ...]:
        """The files of its pictures, whether they exist or not."""
        drawn = (self.curves_path, self.confusion_path, self.kernels_path, self.patches_path)
        return (*drawn, self.evolution_path, self.watching_path)

    @classmethod
    def create(cls, out_dir: Path, name: str | None, config_label: str, overwrite: bool = False) -> Self:
        """Make the folder of a new run, and lock it.

        Args:
            out_dir: the folder of runs, made if missing.
            name: of the run; by default YYYYMMDD-HHMMSS-CONFIG_LABEL, with -2, -3 … where that exists.
            overwrite: delete the files of an old run with this name. Other files in its folder stay.

        Raises:
            UsageError: see ``check_new_run``.
            OutputError: the folder can't be made, or another process is writing to it.
        """
        make_folder(out_dir, _ANOTHER_OUT)
        if name is None:
            run = cls(make_dated_folder(out_dir, config_label))
            run.lock()
            return run
        check_new_run(out_dir, name, overwrite)
        run = cls(out_dir / name)
        try:
            run.path.mkdir(exist_ok=overwrite)
        except FileExistsError:
            raise run._held() from None  # made since the check, by another run
        except OSError as error:
            raise output_error(run.path, error) from error
        run.lock()
        try:
            run._clear()
        except BaseException:
            run.unlock()
            raise
        return run

    @classmethod
    def open(cls, path: Path) -> Self:
        """An existing run's folder, unlocked. Raises CheckpointError where it is missing, or isn't a run."""
        if os.path.isdir(path):  # noqa: PTH112 (no error for invalid names)
            if looks_like_run(path):
                return cls(path)
            raise CheckpointError(
                f"{shown(path)}: not a run (no {LAST} in it): give a folder that `facecnn train` made"
            )
        if os.path.exists(path):  # noqa: PTH110
            raise CheckpointError(f"{shown(path)}: a file: give the folder of the run")
        raise CheckpointError(
            f"{shown(path)}: no such run: {near_names(path) or 'give a folder that `facecnn train` made'}"
        )

    def lock(self) -> None:
        """Lock the folder for this process, and delete temporary files of a killed one.

        Raises OutputError where another process has locked it, or it can't be written to.
        """
        if self._lock is not None:
            return
        lock = FileLock(self.path / _LOCK, timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise self._held() from None
        except OSError as error:
            raise output_error(self.path / _LOCK if error.errno == errno.ELOOP else self.path, error) from error
        try:
            self._write_process_number()
            for leftover in self.path.glob(f".*{TEMPORARY_SUFFIX}"):
                leftover.unlink()
        except OSError as error:
            lock.release()
            raise output_error(self.path / _PROCESS if error.errno == errno.ELOOP else self.path, error) from error
        self._lock = lock

    def unlock(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            # Deleted before the release, after which the file may be the next process's. The folder may have been
            # deleted meanwhile.
            (self.path / _PROCESS).unlink(missing_ok=True)
            self._lock.release()
            self._lock = None

    def __enter__(self) -> Self:
        self.lock()
        return self

    def __exit__(self, *error: object) -> None:
        self.unlock()

    def in_use(self) -> bool:
        """Whether a living process has locked it."""
        if self._lock is not None:
            return True
        if not os.path.lexists(self.path / _PROCESS):
            return False  # to try the lock might disturb a process that is about to take it
        lock = FileLock(self.path / _LOCK, timeout=0)
        try:
            lock.acquire()
        except Timeout:
            return True
        except OSError:
            return False  # nothing can be written here, so nobody trains
        lock.release()
        return False

    def size(self) -> int:
        """Total bytes of the files in it."""
        total = 0
        for folder, _, names in os.walk(self.path):
            for name in names:
                with suppress(OSError):
                    total += os.lstat(os.path.join(folder, name)).st_size  # noqa: PTH118 (many files)
        return total

    def delete(self) -> bool:
        """Delete the run's own files, and its folder if that is empty then. Returns whether the folder is gone.

        Raises OutputError where another process has locked it, or it can't be deleted.
        """
        with self:
            self._clear()
        try:
            (self.path / _LOCK).unlink(missing_ok=True)
            with suppress(OSError):  # other files in it
                self.path.rmdir()
        except OSError as error:
            raise output_error(self.path, error) from error
        return not self.path.exists()

    def save_last(self, checkpoint: Checkpoint, *, rotate: bool = True) -> None:
        """Write last.safetensors (see ``save_checkpoint``); with ``rotate`` the old one becomes previous.safetensors.

        At any moment one of the two is good, and ``find_checkpoint`` finds it.
        """
        save_checkpoint(self.last_path, checkpoint, keep_old_as=self.previous_path if rotate else None)

    def save_best(self, checkpoint: Checkpoint) -> None:
        """Write best.safetensors (see ``save_checkpoint``)."""
        save_checkpoint(self.best_path, checkpoint)

    def write_config(self, text: str) -> None:
        """Write config.yaml, the resolved settings. Raises OutputError."""
        write_atomically(self.config_path, text.encode("utf-8"))

    def read_split(self) -> dict[str, Any]:
        """The contents of split.json: which photos are on which side. Raises CheckpointError."""
        try:
            split = json.loads(self.split_path.read_bytes())
            reason = "damaged"
        except OSError as error:
            split, reason = None, str(error.strerror)
        except (ValueError, RecursionError):
            split, reason = None, "damaged"
        if not isinstance(split, dict):
            raise CheckpointError(f"{shown(self.split_path)}: {reason}: name the folder of photos instead")
        return split

    def write_start(self, config_label: str) -> None:
        """Write run.json: when the run was made, by which version, and its config's name. Raises OutputError."""
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        write_json(self.start_path, {"facecnn": __version__, "created": now, "config": config_label})

    def _write_process_number(self) -> None:
        path = self.path / _PROCESS
        if path.is_symlink():  # refused, as FileLock does for the lock: the target isn't ours to overwrite
            raise OSError(errno.ELOOP, "")
        path.unlink(missing_ok=True)
        with path.open("x", encoding="ascii") as stream:
            stream.write(f"{os.getpid()}\n")

    def _held(self) -> OutputError:
        return OutputError(
            f"{shown(self.path)}: in use by process {self._holder()}: wait for it or choose another --name"
        )

    def _holder(self) -> str:
        try:
            return str(int((self.path / _PROCESS).read_text(encoding="ascii")))
        except (OSError, ValueError):
            return "(number unknown)"

    def _clear(self) -> None:
        """Delete a run's files. The checkpoints, by which it is recognised as a run, go last, in case of a kill."""
        own = (self.config_path, self.split_path, self.metrics_path, self.frames_path, self.report_path, self.card_path)
        noted = (self.start_path, self.init_from_path, self.figures_path, self.background_path)
        exported = [path.with_suffix(suffix) for path in (self.best_path, self.last_path) for suffix in EXPORT_SUFFIXES]
        checkpoints = (self.previous_path, self.last_path, self.best_path)
        try:
            for file in event_files(self.tracking_path):
                file.unlink(missing_ok=True)
            with suppress(OSError):  # missing, or other files in it
                self.tracking_path.rmdir()
            for file in (*own, *noted, *exported, *self.picture_paths, *checkpoints):
                file.unlink(missing_ok=True)
        except OSError as error:
            raise output_error(self.path, error) from error


def check_out(out_dir: Path) -> None:
    """Check that runs can be made in this folder, without making it. Raises OutputError."""
    for folder in (out_dir, *out_dir.parents):
        try:
            folder.lstat()
            if not folder.is_dir():
                raise no_folder(folder, _ANOTHER_OUT)
            refuse_unwritable(folder)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise output_error(out_dir, error) from error
        return


def check_name(name: str) -> None:
    """Raise UsageError unless ``--name`` can be a folder's name."""
    given = f"--name {name[:40]!a}"
    if not name or name in (".", "..") or any(mark in name for mark in ("/", "\\", os.sep)):
        raise UsageError(f"{given}: not a folder's name: give one without / and \\ (--out says where)")
    if not name.isprintable():
        raise UsageError(f"{given}: holds characters that can't be shown: choose another name")
    if len(os.fsencode(name)) > _LONGEST_NAME:
        raise UsageError(f"{given}…: {len(os.fsencode(name))} bytes: {_LONGEST_NAME} at most")


def check_new_run(out_dir: Path, name: str, overwrite: bool = False) -> None:
    """Check that a new run may have this name, so that training can fail before any photo is read.

    Raises UsageError where it can't be a folder's name, it exists and ``overwrite`` isn't set, or what exists isn't a
    run, and OutputError where a file has the name, or another process is writing to the run.
    """
    check_name(name)
    path = out_dir / name
    if not os.path.lexists(path):
        return
    if not path.is_dir():
        raise OutputError(f"{shown(path)}: a file has this name: choose another --name")
    run = RunFolder(path)
    if run.in_use():
        raise run._held()
    if not overwrite:
        raise UsageError(
            f"{shown(path)}: this run exists already: --resume {shown(path)} goes on with it, --overwrite replaces it,"
            " or choose another --name"
        )
    if path.is_symlink() or not (looks_like_run(path) or not any(path.iterdir())):
        raise UsageError(f"{shown(path)}: not the folder of a run, so it is not overwritten: choose another --name")


def looks_like_run(path: Path) -> bool:
    """Whether a folder is a run, judged by its checkpoints and lock; config.yaml is too common a name."""
    return any(os.path.exists(path / name) for name in (_LOCK, *_CHECKPOINTS))  # noqa: PTH110 (no error)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON file atomically. Raises OutputError."""
    # ASCII, because the name of a photo may not be valid text: it has \udcXX for such bytes.
    write_atomically(path, json.dumps(value, indent=1, allow_nan=False).encode("ascii") + b"\n")


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in one of a run's JSON files; None where there is no file, as in runs of older versions.

    Raises CheckpointError where it is damaged or can't be read.
    """
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CheckpointError(f"{shown(path)}: can't be read ({error.strerror}): check its permissions") from error
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise CheckpointError(f"{shown(path)}: damaged: delete it, and what it holds is left out or made anew")
    return value


def make_dated_folder(out_dir: Path, label: str) -> Path:
    """Make a folder YYYYMMDD-HHMMSS-LABEL, with -2, -3 … where that exists. Only mkdir can tell, as others may start
    now. Raises OutputError."""
    path, number = out_dir / f"{_timestamp()}-{_label(label)}", 1
    while True:
        numbered = path if number == 1 else path.with_name(f"{path.name}-{number}")
        try:
            numbered.mkdir()
            return numbered
        except FileExistsError:
            number += 1
        except OSError as error:
            raise output_error(numbered, error) from error


def _timestamp() -> str:
    try:
        return time.strftime("%Y%m%d-%H%M%S", time.localtime())
    except (OverflowError, ValueError, OSError):  # the clock is years off
        return "00000000-000000"


def _label(config_label: str) -> str:
    """The config's name as part of a folder's name."""
    return re.sub(r"[^A-Za-z0-9_]+", "-", config_label)[:40].strip("-") or "run"
