"""Judge a model by photos whose people are known."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from facecnn.config import load
from facecnn.errors import CheckpointError, FacecnnError, PhotoError, UsageError, shown
from facecnn.jobs.console import Console
from facecnn.jobs.devices import open_and_show
from facecnn.jobs.judgement import judge_photos
from facecnn.jobs.models import NO_STRANGERS, UNFINISHED, Model, open_model
from facecnn.jobs.people import read_people
from facecnn.jobs.training.photos import changes
from facecnn.photos.dataset import Dataset
from facecnn.photos.folder import UNKNOWN, some
from facecnn.recognition import Answer
from facecnn.reports.findings import counted
from facecnn.runs.folder import RunFolder

Split = Literal["validation", "train", "all"]


@dataclass(frozen=True)
class EvaluateOptions:
    """The options of ``eval``."""

    model: Path
    photos: Path | None = None
    split: Split | None = None
    hide_face: bool = False
    """Whether to blank the faces first, to see what the surroundings give away."""
    others_as_unknown: bool = False
    """Whether people whom the model doesn't know are judged as strangers."""
    device: str = "auto"
    threads: int | None = None


@dataclass(frozen=True)
class Evaluation:
    """The figures, and the answer to every photo."""

    figures: dict[str, Any]
    """The ``eval`` JSON."""
    predictions: list[dict[str, Any]]
    """For each photo: path, truth, the answer for the main face (label, confidence, probabilities, unknown_score,
    also_like), and ``names``, all that were given in the photo. Where there are several faces, ``faces`` has the answer
    for each, with its box in pixels of the upright photo."""


def evaluate(options: EvaluateOptions, console: Console) -> Evaluation:
    """Judge the model of ``options``; see ``evaluate_model``. Raises CheckpointError if it can't be read."""
    device = open_and_show(options.device, options.threads, console)
    console.info(f"Model: {shown(options.model)}")
    return evaluate_model(open_model(options.model, device.backend, options.threads), options, console)


def evaluate_model(model: Model, options: EvaluateOptions, console: Console) -> Evaluation:
    """Judge a model by its own held-out photos, or by a folder without the photos that it was trained on.

    Raises PhotoError if there is nothing to judge by, or the model doesn't know a name, and CheckpointError if
    the run that it belongs to is missing or damaged.
    """
    dataset, chosen, trained_on = _photos(model, options, console)
    recogniser = model.recogniser
    judged = judge_photos(recogniser, dataset, chosen)
    if not model.calibrated:
        console.info(UNFINISHED)
    elif recogniser.calibration.photos == 0:
        console.info("This model's confidence is not calibrated, for lack of held-out photos.")
    if not recogniser.knows_strangers:
        console.info(NO_STRANGERS)
    figures = {
        "model": str(options.model),
        "photos": len(chosen),
        "trained_on": trained_on,
        **judged.figures,
        "skipped": [{"path": photo.path, "reason": photo.reason} for photo in dataset.skipped],
    }
    described = dataset.crops(chosen).by_photo(recogniser.describe(judged.answers))
    predictions = [
        _prediction(dataset, number, of_photo) for number, of_photo in zip(chosen.tolist(), described, strict=True)
    ]
    return Evaluation(figures, predictions)


def _prediction(dataset: Dataset, number: int, answers: Sequence[Answer]) -> dict[str, Any]:
    """The prediction for photo ``number``, from the answers for its faces, the main one first."""
    row = {
        "path": dataset.paths[number],
        "truth": dataset.classes[dataset.labels[number]],  # the folder's name, also where the model doesn't know it
        **answers[0].as_dict(),
        "names": [answer.label for answer in answers if answer.label != UNKNOWN],
    }
    if len(answers) > 1:
        faces = zip(dataset.faces[number], answers, strict=True)
        row["faces"] = [{"box": list(face.box), **answer.as_dict()} for face, answer in faces]
    return row


def _photos(model: Model, options: EvaluateOptions, console: Console) -> tuple[Dataset, npt.NDArray[np.int64], int]:
    """The data set, the numbers of the photos to judge by, and how many were left out because they were trained on."""
    run_split: dict[str, Any] | None = None
    held_out: dict[str, str] | None = None
    folder, wanted = options.photos, options.split
    if folder is None:
        run, folder = _own_photos(options.model)
        run_split = run.read_split()
        wanted = wanted or "validation"
        if wanted == "validation":
            held_out = run_split["validation"]
            if run_split.get("validation_folder") is not None:
                folder, wanted, run_split = Path(run_split["validation_folder"]), "all", None
    photos = model.settings.photos
    if options.hide_face:
        if model.finder is None:
            raise UsageError(
                f"--hide-face: {shown(options.model)} was trained on photos cropped to the middle, so it can't find "
                "the faces to hide: train with the extra faces"
            )
        photos = replace(photos, hide_face=True)
    dataset = read_people(folder, photos, model.finder, console, strict=False, for_training=False)
    others = [shown(name) for name in dataset.classes if name not in model.recogniser.people and name != UNKNOWN]
    if others and not options.others_as_unknown:
        who = "is" if len(others) == 1 else "are"
        raise PhotoError(
            f"{shown(folder)}: {some(others)} {who} not in the model (it knows "
            f"{some([shown(name) for name in model.recogniser.people], 6)}): --others-as-unknown judges them as "
            "strangers"
        )
    if others:
        console.info(f"Judged as strangers: {some(others, 6)}")
    if held_out is not None:
        _warn_of_changes(held_out, dataset, console)
    trained = np.array([digest in model.trained_on for digest in dataset.sha256], bool)
    if wanted == "all":
        chosen = np.arange(len(trained))
    elif wanted == "train":
        chosen = np.flatnonzero(trained)
    elif run_split is not None:
        kept = set(run_split["validation"])
        chosen = np.array([n for n, path in enumerate(dataset.paths) if path in kept and not trained[n]], np.int64)
    else:
        chosen = np.flatnonzero(~trained)
    left_out = int(trained.sum()) if wanted not in ("all", "train") and run_split is None else 0
    if not len(chosen):
        reason = f"all {len(trained)} photos were trained on" if trained.all() else "no photo of that split is there"
        raise PhotoError(f"{shown(folder)}: nothing to judge by: {reason}; give other photos, or --split all")
    if left_out:
        console.info(f"{counted(left_out, 'photo')} left out: used in training (--split all judges by all)")
    return dataset, chosen, left_out


def _warn_of_changes(before: Mapping[str, str], dataset: Dataset, console: Console) -> None:
    """Warn where held-out photos (SHA-256 by PERSON/FILE) have changed since the training."""
    gone, changed, _ = changes(before, dict(zip(dataset.paths, dataset.sha256, strict=True)))
    if gone or changed:
        parts = [
            f"{len(paths)} {what} ({some(list(map(shown, paths)))})"
            for paths, what in ((changed, "changed"), (gone, "gone"))
            if paths
        ]
        console.warning(
            f"of {len(before)} held-out photos, {' and '.join(parts)} since the training: these figures are not those "
            "that it ended with"
        )


def _own_photos(model: Path) -> tuple[RunFolder, Path]:
    """The run that a checkpoint belongs to, and the run's folder of photos."""
    try:
        run = RunFolder.open(model.parent)
        folder = load(str(run.config_path)).settings.photos.folder
    except FacecnnError as error:
        raise CheckpointError(
            f"{shown(model)}: not in its run's folder, or part of the run is missing, so its own photos can't be "
            "found: give PHOTOS"
        ) from error
    if folder is None:
        raise UsageError(f"{shown(run.config_path)}: photos.folder is empty: give PHOTOS")
    return run, Path(folder)
