"""The folder of a sweep, and what must stay the same when it is continued."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from facecnn.errors import CheckpointError, OutputError, UsageError, shown
from facecnn.runs.atomic import make_folder, output_error, write_atomically
from facecnn.runs.folder import check_name, make_dated_folder

_IN_USE = ".facecnn.lock"


class SweepFolder:
    """A sweep's folder and the files in it. One process at a time, with those that it starts, works in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.journal_path = path / "trials.journal"
        self.given_path = path / "given.json"
        self.best_path = path / "best.yaml"
        self.result_path = path / "sweep.json"
        self.importance_path = path / "importance.png"
        self.parallel_path = path / "parallel.png"
        self.tracking_path = path / "tensorboard"
        self._lock = FileLock(path / _IN_USE, timeout=0)

    @classmethod
    def create(cls, out: Path, name: str | None, label: str, given: dict[str, Any]) -> SweepFolder:
        """Make a new sweep's folder, and lock it.

        Args:
            out: the folder of sweeps, made if missing.
            name: of the sweep; by default made of date and ``label``.
            given: what ``check_given`` compares later, as JSON.

        Raises:
            UsageError: the name can't be one.
            OutputError: it is taken, or can't be written.
        """
        if name is None:
            make_folder(out)
            folder = cls(make_dated_folder(out, label))
        else:
            check_name(name)
            folder = cls(out / name)
            if folder.path.exists() and not folder._is_empty():
                raise OutputError(
                    f"{shown(folder.path)}: already exists: --resume continues it; or give another --name"
                )
            make_folder(folder.path)
        folder.lock()
        write_atomically(folder.given_path, json.dumps(given, indent=2, allow_nan=False).encode())
        return folder

    @classmethod
    def open(cls, out: Path, name: str) -> SweepFolder:
        """An existing sweep's folder, locked. Raises CheckpointError if it is no sweep, OutputError if in use."""
        folder = cls(out / name)
        if not folder.given_path.is_file():
            raise CheckpointError(f"{shown(folder.path)}: no sweep to resume: leave --resume out to begin one")
        folder.lock()
        return folder

    def _is_empty(self) -> bool:
        """Whether nothing, or only the lock of a start that failed, is in it."""
        with suppress(OSError):
            return {entry.name for entry in self.path.iterdir()} <= {_IN_USE}
        return False

    def lock(self) -> None:
        """Lock the folder for this process; the lock ends with it. Raises OutputError if another has it."""
        try:
            self._lock.acquire()
        except Timeout:
            raise OutputError(
                f"{shown(self.path)}: another process works on this sweep: wait for it, or end it"
            ) from None
        except OSError as error:
            raise output_error(self.path, error) from error

    def unlock(self) -> None:
        self._lock.release()

    def check_given(self, now: dict[str, Any]) -> None:
        """Check that a sweep is continued with what it was started with.

        Raises UsageError, which says what differs, and CheckpointError if what it was started with can't be read.
        """
        try:
            before = json.loads(self.given_path.read_bytes())
            changed = [key for key in now if before.get(key) != json.loads(json.dumps(now[key]))]
        except (OSError, ValueError, AttributeError) as error:
            raise CheckpointError(f"{shown(self.given_path)}: damaged: start another sweep") from error
        if changed:
            raise UsageError(
                f"{shown(self.path)}: was begun with other {' and '.join(changed)}: give the same, or another --name"
            )
