"""Event files, which TensorBoard reads: scalars, pictures and settings by step.

Their records are made by tensorboardX, which knows TensorBoard's protocol. Its own ``SummaryWriter`` has a thread of
its own, gives two files the same name within a second, and puts settings into a folder beside the scalars, so it isn't
used.
"""

from __future__ import annotations

import importlib.util
import io
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from facecnn.errors import UsageError
from facecnn.runs.atomic import make_folder, output_error

if TYPE_CHECKING:  # the command line lists runs without NumPy
    from tensorboardX.proto.summary_pb2 import Summary

    from facecnn.arrays import UInt8Array

SECONDS_BETWEEN_FLUSHES = 2.0
"""Between two flushes to the disk, at least, unless one is asked for."""

PATTERN = "events.out.tfevents.*.facecnn"
"""The names of event files that this module writes."""


def check_installed(asked_by: str) -> None:
    """Raise UsageError, which begins with ``asked_by``, unless the extra for event files is installed."""
    if not is_installed():
        raise UsageError(
            f"{asked_by}: there are no event files without the package tensorboardX: pip install 'facecnn[track]' "
            "brings it"
        )


def is_installed() -> bool:
    """Whether the extra for event files is installed."""
    return importlib.util.find_spec("tensorboardX") is not None


def event_files(folder: Path) -> list[Path]:
    """The event files in a folder, oldest first; none where there is no folder."""
    return sorted(folder.glob(PATTERN))


class EventFile:
    """A new event file in a folder, to which one thread at a time may write.

    A reader takes the files of a folder together, in the order of their names. From older files it drops the events
    that don't come before this file's first step: a resumed run makes them once more.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        """``first_step``: that may occur in this file. Makes the folder if it is missing. Raises OutputError."""
        from tensorboardX import RecordWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        make_folder(folder)
        numbers = [int(path.name.split(".")[-2]) for path in event_files(folder)]
        number = max([int(time.time()), *(number + 1 for number in numbers)])
        self.path = folder / PATTERN.replace("*", f"{number:010}")
        try:
            self._records = RecordWriter(str(self.path))
        except OSError as error:
            raise output_error(self.path, error) from error
        self._event = Event
        self._flushed = 0.0
        self._add(file_version="brain.Event:2")
        self._add(step=first_step, session_log=SessionLog(status=SessionLog.START))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Add numbers by name; names with a slash are grouped by what is before it. Raises OutputError."""
        from tensorboardX.summary import scalar

        for name, value in values.items():
            self._add(step=step, summary=scalar(name, value))
        if time.monotonic() - self._flushed > SECONDS_BETWEEN_FLUSHES:
            self.flush()

    def image(self, step: int, name: str, picture: UInt8Array | bytes) -> None:
        """Add a picture: pixels (rows, columns, 3 or 4), or a PNG file. Raises OutputError."""
        from PIL import Image
        from tensorboardX.proto.summary_pb2 import Summary

        if isinstance(picture, bytes):
            with Image.open(io.BytesIO(picture)) as image:
                width, height = image.size
        else:
            stream = io.BytesIO()
            Image.fromarray(picture).save(stream, "PNG")
            (height, width), picture = picture.shape[:2], stream.getvalue()
        found = Summary.Image(height=height, width=width, colorspace=4, encoded_image_string=picture)
        self._add(step=step, summary=Summary(value=[Summary.Value(tag=name, image=found)]))

    def begin(self, settings: Mapping[str, float | str | bool], figures: Mapping[str, object]) -> None:
        """Add the settings of a run, and which scalars are its figures (their values don't matter), for TensorBoard's
        table of runs. Raises OutputError."""
        experiment, start, _ = _tables(settings, figures)
        self._add(summary=experiment)
        self._add(summary=start)

    def end(self) -> None:
        """Say that the run has ended. Raises OutputError."""
        self._add(summary=_tables({}, {})[2])

    def _add(self, **event: Any) -> None:
        try:
            self._records.write(self._event(wall_time=time.time(), **event).SerializeToString())
        except OSError as error:
            raise output_error(self.path, error) from error

    def flush(self) -> None:
        """Bring what was added to the disk. Raises OutputError."""
        try:
            self._records.flush()
        except OSError as error:
            raise output_error(self.path, error) from error
        self._flushed = time.monotonic()

    def close(self) -> None:
        """Flush and close the file. Raises OutputError."""
        try:
            self.flush()
        finally:
            self._records.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _tables(
    settings: Mapping[str, float | str | bool], figures: Mapping[str, object]
) -> tuple[Summary, Summary, Summary]:
    """What TensorBoard's table of runs is made of: its columns, a run's settings, and a run's end."""
    from tensorboardX.summary import hparams

    tables: tuple[Summary, Summary, Summary] = hparams(dict(settings), dict(figures))
    return tables
