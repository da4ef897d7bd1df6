"""How well would a network do on photos that it has never seen? Train it several times, leaving out other photos each
time, and judge each by the photos left out.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from facecnn.config import Loaded
from facecnn.errors import UsageError, shown
from facecnn.jobs.console import Console
from facecnn.jobs.faces import installed_finder
from facecnn.jobs.people import find_folder, photo_set, read_people
from facecnn.jobs.training_setup import ShowingRecorder, TrainOptions, make_trainer, open_for_training, trial_figures
from facecnn.learning import scores
from facecnn.photos.dataset import Dataset
from facecnn.photos.folder import UNKNOWN, some

Array = npt.NDArray[Any]


def cross_validate(loaded: Loaded, options: TrainOptions, folds: int, console: Console) -> dict[str, Any]:
    """Figures of all folds (the ``cross-validate`` JSON). No run is written.

    Each fold trains on the photos of the others, all of them, to the end, and is judged by the last weights: nothing is
    chosen by the photos that judge it. Strangers in ``unknown/`` are trained on but not judged.

    Raises UsageError where a person has fewer photos than there are folds, and whatever ``train`` raises.
    """
    # Without photos of its own to judge by, a training can't be ended by them either.
    settings = replace(loaded.settings, train=replace(loaded.settings.train, stop_after_epochs_without_gain=None))
    loaded = replace(loaded, settings=settings)
    device = open_for_training(options, console)
    folder = find_folder(options.photos, settings.photos, console)
    finder = installed_finder(settings.photos, console, options.threads)
    dataset = read_people(folder, settings.photos, finder, console, strict=options.strict, for_training=True)
    people = len(dataset.people)
    empty = photo_set(dataset, np.zeros(0, np.int64))
    results: list[dict[str, Any]] = []
    predictions: list[dict[str, Any]] = []
    parts = dataset.folds(folds)
    _refuse_poor_folds(dataset, parts)
    for number, fold in enumerate(parts, start=1):
        # A trainer and the step that it recorded refer to each other, and Python looks for such cycles only rarely: the
        # arrays of all folds would pile up.
        gc.collect()
        chosen = np.setdiff1d(np.arange(len(dataset.paths)), fold)
        trainer = make_trainer(loaded, dataset, chosen, empty, device)
        started = time.perf_counter()
        label = f"Fold {number} of {folds}"
        with console.training(trainer.epochs, trainer.steps, label) as display:
            recorder = ShowingRecorder(trainer.epochs, display, console, label)
            trainer.run(recorder)
        seconds = time.perf_counter() - started
        judged = fold[dataset.labels[fold] < people]
        logs = trainer.answers(photo_set(dataset, judged))
        probabilities = scores.over_people(logs, people)
        labels = dataset.labels[judged]
        results.append(
            {
                "accuracy": float((probabilities.argmax(axis=1) == labels).mean()),
                "log_loss": scores.log_loss(probabilities, labels),
                "photos": len(judged),
                "seconds": seconds,
                "train_loss": recorder.last["train_loss"],
                "epochs": recorder.last["epoch"],
                "restarts": trial_figures(trainer),
                "kernel_change": recorder.last["kernel_change"],
                "dead_kernels": recorder.last["dead_kernels"],
            }
        )
        console.info(f"{label}: {100 * results[-1]['accuracy']:.1f} % of {len(judged)} photos, {seconds:.0f} s")
        predictions += [
            {
                "path": dataset.paths[photo],
                "fold": number,
                "truth": dataset.classes[dataset.labels[photo]],
                "probabilities": dict(zip(dataset.people, row, strict=True)),
            }
            for photo, row in zip(judged.tolist(), probabilities.tolist(), strict=True)
        ]
    accuracies = np.array([result["accuracy"] for result in results])
    return {
        "device": device.name,
        "device_reason": device.reason,
        "classes": [name for name in dataset.classes if name != UNKNOWN],
        "folds": results,
        "mean": float(accuracies.mean()),
        "std": float(accuracies.std()),
        "predictions": predictions,
    }


def _refuse_poor_folds(dataset: Dataset, parts: Sequence[Array]) -> None:
    """Near-duplicates stay in one fold, and so a fold may be left with nothing to judge, or nothing to train on."""
    for fold in parts:
        trained = np.setdiff1d(np.arange(len(dataset.labels)), fold)
        lost = [name for label, name in enumerate(dataset.classes) if label not in dataset.labels[trained]]
        if lost:
            reason = f"all photos of {some([shown(name) for name in lost])} look alike, so they come into one fold"
            raise UsageError(f"--folds {len(parts)}: {reason}: add different ones")
        if not (dataset.labels[fold] < len(dataset.people)).any():
            raise UsageError(
                f"--folds {len(parts)}: so many photos look alike that a fold is left empty: lower --folds"
            )
