"""A sweep's trials as TensorBoard shows them: a row for each in its table of runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from facecnn.runs.atomic import output_error
from facecnn.runs.event_file import EventFile, event_files

FIGURES = ("log_loss", "closed_set_accuracy")
"""Of a trial, and of each of its folds."""


def track(folder: Path, trials: Sequence[Mapping[str, Any]]) -> None:
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
            events.begin({**parameters, "state": trial["state"]}, dict.fromkeys(FIGURES))
            for number, fold in enumerate(trial["folds"], start=1):
                events.scalars(number, {f"fold/{key}": fold[key] for key in FIGURES if fold[key] is not None})
            whole = {key: trial[key] for key in FIGURES if trial[key] is not None}
            events.scalars(len(trial["folds"]), whole)
            events.end()
