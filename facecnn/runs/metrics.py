"""metrics.jsonl: a line of strict JSON for each epoch."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from facecnn.errors import CheckpointError, shown
from facecnn.runs.atomic import append_whole, output_error, write_atomically


class MetricsLog:
    """The log of a run: a JSON object with at least "epoch" on each line.

    The file is opened for each line, so that the next epoch notices if the run's folder was deleted.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, record: Mapping[str, Any]) -> None:
        """Append a line. NaN and infinity become null, since strict JSON has neither.

        Raises OutputError; the lines before are then intact.
        """
        append_whole(self.path, _line(record))

    def sync(self) -> None:
        """Flush the lines to the disk, in case of a power cut. Raises OutputError."""
        try:
            with self.path.open("rb") as stream:
                os.fsync(stream.fileno())
        except FileNotFoundError:
            return  # no epoch has ended yet
        except OSError as error:
            raise output_error(self.path, error) from error

    def truncate_after(self, epoch: int) -> None:
        """Drop the epochs after ``epoch``, where training is resumed, and a torn last line.

        Raises:
            CheckpointError: the file is damaged, see ``read_metrics``.
            OutputError: it couldn't be written; the old file is intact.
        """
        kept = [record for record in read_metrics(self.path) if record["epoch"] <= epoch]
        write_atomically(self.path, b"".join(_line(record) for record in kept))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of a metrics file, oldest first; none where there is no file yet. A torn last line is ignored.

    Raises CheckpointError where another line isn't a JSON object with an integer "epoch", or the file can't be read.
    """
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise CheckpointError(
            f"{shown(path)}: can't be read ({error.strerror}): check the file and its permissions"
        ) from error
    records = []
    for number, line in enumerate(lines, start=1):
        record = _record(line)
        if record is not None:
            records.append(record)
        elif number < len(lines):
            raise CheckpointError(f"{shown(path)}:{number}: damaged, not a JSON record of an epoch: delete this line")
    return records


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and type(record.get("epoch")) is int else None


def _line(record: Mapping[str, Any]) -> bytes:
    try:
        text = json.dumps(record, allow_nan=False, default=_strict)
    except ValueError:  # a number that isn't finite
        text = json.dumps(_strict(record), allow_nan=False)
    return text.encode() + b"\n"


def _strict(value: Any) -> Any:
    """``value`` with NumPy's numbers and arrays as Python's, and None for numbers that aren't finite."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    return value
