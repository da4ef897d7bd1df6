"""What TensorBoard shows of a training run: its curves, first kernels and settings, and how it ended.

During training, the thread that writes the models writes this, too. TensorBoard's steps are epochs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from facecnn.arrays import Array
from facecnn.config import Settings, to_dict
from facecnn.errors import shown
from facecnn.jobs.console import Console
from facecnn.jobs.training.options import TrainOptions
from facecnn.reports.figure import can_draw
from facecnn.reports.kernel_pictures import kernel_tiles
from facecnn.runs.event_file import EventFile, event_files, is_installed
from facecnn.runs.metrics import read_metrics

if TYPE_CHECKING:
    from facecnn.jobs.training.run import TrainingRun

FIGURES = ("accuracy", "closed_set_accuracy", "loss")
"""Figures of the held-out photos by which finished runs are compared."""

_CURVES = {
    "train_loss": "loss/train",
    "validation_loss": "loss/held_out",
    "train_worst_loss": "loss/worst",
    "train_accuracy": "accuracy/train",
    "validation_accuracy": "accuracy/held_out",
    "learning_rate": "learning_rate",
    "photos_per_second": "photos_per_second",
}
"""Names of the scalars, by the keys of metrics.jsonl."""


class Tracking:
    """Writes a run's event file."""

    def __init__(self, file: EventFile) -> None:
        self._file = file

    def epoch(self, metrics: Mapping[str, Any], kernels: Mapping[int, tuple[str, Array]]) -> None:
        """Add an epoch's line of metrics.jsonl, and the kernels of the first layer, with its name, by epoch.

        Raises OutputError.
        """
        for epoch, (layer, weights) in kernels.items():
            if can_draw():
                self._file.image(epoch, f"kernels/{layer}", kernel_tiles(weights))
        self._file.scalars(metrics["epoch"], scalars_of(metrics))

    def flush(self) -> None:
        """Write what was added to the disk. Raises OutputError."""
        self._file.flush()

    def finish(self, epoch: int, result: Mapping[str, Any], pictures: Mapping[str, Path]) -> None:
        """Add the figures and pictures of a finished run.

        ``epoch`` is its last, ``result`` the ``train`` JSON. ``pictures``: PNG files by name; those that don't exist
        are left out. Raises OutputError.
        """
        self._file.scalars(epoch, final_figures(result))
        for name, path in pictures.items():
            if path.exists():
                self._file.image(epoch, name, path.read_bytes())
        self._file.end()


@contextmanager
def tracked(training: TrainingRun, options: TrainOptions, console: Console) -> Iterator[Tracking | None]:
    """The tracking of a run, for as long as it trains: None if it isn't tracked.

    A run that was tracked before stays tracked. Its new event file begins after the last epoch trained, or with that
    epoch if the training had ended, since its final figures are written anew. If there is no event file yet, all
    earlier epochs are added.
    Raises OutputError.
    """
    folder = training.folder.tracking_path
    before = event_files(folder)
    if not (options.track or before):
        yield None
        return
    if not is_installed():
        console.warning(
            f"{shown(folder)}: not continued, as the package tensorboardX is missing: pip install 'facecnn[track]'"
        )
        yield None
        return
    progress = training.trainer.progress
    first = progress.epoch if progress.finished else progress.epoch + 1
    with EventFile(folder, first if before else 0) as file:
        if not before:
            figures = dict.fromkeys(final_names())
            file.begin(settings_of(training.settings, training.data.counts, len(training.data.dataset.people)), figures)
        tracking = Tracking(file)
        shown_kernels = {
            frame.epoch: next(iter(frame.layers.items())) for frame in training.frames.read() if frame.layers
        }
        for metrics in read_metrics(training.folder.metrics_path):
            epoch = metrics["epoch"]
            if not before or epoch >= first:
                tracking.epoch(metrics, {epoch: shown_kernels[epoch]} if epoch in shown_kernels else {})
        file.flush()
        yield tracking


def scalars_of(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The scalars of a line of metrics.jsonl; figures of each kernel become medians over their layer."""
    found = {name: metrics.get(key) for key, name in _CURVES.items()}
    found |= {f"kernel_change/{layer}": change for layer, change in metrics["kernel_change"].items()}
    for what in ("dead", "asleep"):
        if f"{what}_kernels" in metrics:
            found[f"kernel_count/{what}"] = len(metrics[f"{what}_kernels"])
    for layer, figures in metrics.get("kernels", {}).items():
        found |= {f"kernel_median/{figure}/{layer}": float(np.median(values)) for figure, values in figures.items()}
    return {name: float(value) for name, value in found.items() if value is not None}


def final_names() -> list[str]:
    """The names of the scalars by which finished runs are compared."""
    return [f"final/{key}" for key in FIGURES]


def final_figures(result: Mapping[str, Any]) -> dict[str, float]:
    """The scalars of ``final_names``, from the ``train`` JSON; without held-out photos those of photos trained on."""
    judged = result["validation"] if result["photos"]["validation"] else result["train"]
    return {name: judged[key] for name, key in zip(final_names(), FIGURES, strict=True) if judged[key] is not None}


def settings_of(settings: Settings, photos: Mapping[str, int], people: int) -> dict[str, float | str | bool]:
    """The settings as a flat table, ``train.batch_size`` and so on, without the folder of photos."""
    plain = to_dict(settings)
    plain["photos"].pop("folder")
    plain["network"] = ", ".join(_layer(layer) for layer in plain["network"])
    plain |= {"people": people, "photos.trained_on": photos["train"], "photos.held_out": photos["validation"]}
    found: dict[str, float | str | bool] = {}

    def add(name: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                add(f"{name}.{key}", inner)
        elif isinstance(value, bool | int | float | str):
            found[name] = value
        elif value is not None:
            found[name] = str(value)

    for key, value in plain.items():
        add(key, value)
    return found


def _layer(layer: Mapping[str, Any]) -> str:
    """A layer in short: its kind, with the number of its kernels or units."""
    ((kind, settings),) = layer.items()
    if not isinstance(settings, Mapping):
        return f"{kind} {settings}"
    sizes = (settings.get(key) for key in ("kernels", "units", "per_kernel", "name"))
    size = next((size for size in sizes if size is not None), None)
    return kind if size is None else f"{kind} {size}"
