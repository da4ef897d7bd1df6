"""Finish a training run: calibrate its model, judge it, draw its pictures, and report."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from facecnn.arrays import Array, Float64Array, Int64Array
from facecnn.errors import CheckpointError, shown
from facecnn.jobs.background import judge_background
from facecnn.jobs.console import Console
from facecnn.jobs.judgement import judge, judge_photos, warn_of_people_alike
from facecnn.jobs.models import Model, about_calibration, calibrate_by_some, calibrate_for, make_recogniser
from facecnn.jobs.plotting import Plotter
from facecnn.jobs.report import report_training
from facecnn.jobs.run_pictures import draw_pictures
from facecnn.jobs.training.photos import TrainingPhotos
from facecnn.jobs.training.pretrained_hint import compare_with_pretrained
from facecnn.jobs.training.run import TrainingRun
from facecnn.learning.calibration import MOST_NUMBERS, Calibration
from facecnn.learning.data import PhotoSet
from facecnn.recognition import Answers, Recogniser
from facecnn.reports import findings
from facecnn.reports.facts import Background
from facecnn.runs.checkpoint import Checkpoint, load_checkpoint
from facecnn.runs.folder import read_json, write_json

FEW = 2**36
"""Multiply-adds, about half a second of one processor's: less than the plots take, which are drawn meanwhile."""

MOST_JUDGED = 20_000
"""Maximum number of training photos that are judged. If there are more, these are drawn at random: a million would take
longer than an epoch, and the figures would be the same to a percent."""


def finish(
    training: TrainingRun,
    metrics: Sequence[Mapping[str, Any]],
    trials: list[dict[str, Any]] | None,
    console: Console,
    plotter: Plotter | None,
) -> dict[str, Any]:
    """Calibrate the best model on the held-out photos, draw the pictures, and report the figures.

    Args:
        training: whose last step is done.
        metrics: a record for each epoch.
        trials: from ``trial_figures``.
        plotter: draws the plots, and has begun with those of training. None: no pictures, report page or model card
            are made, and the model isn't compared with the pretrained body.

    Returns:
        The ``train`` JSON, without ``seconds``.
    """
    run, data = training.folder, training.data
    best = load_checkpoint(run.best_path)
    recogniser = make_recogniser(training.settings, data.classes, best.arrays, Calibration(), training.device.backend)
    train_photos = _sample(data.train_photos, training.settings.train.seed, console)
    with _beside(plotter, training, recogniser, len(train_photos)):
        logs = _logs_if_few(recogniser, data)
        recogniser.calibration = _calibration(training, best, recogniser, logs)
        console.info(about_calibration(recogniser))
        held_out = judge_photos(recogniser, data.held_out, data.held_out_numbers, logs)
        alone = held_out.alone
        likeliest = held_out.answers.likeliest[alone]
        background = _background(training, recogniser, likeliest, console)
        threshold = recogniser.threshold("auto")
        pixels, rows, labels = train_photos.pixels, train_photos.rows, train_photos.labels
        train_answers = recogniser.answers(pixels, rows, threshold, labels=labels)
    trained_on = judge(recogniser, train_answers, labels, threshold)
    warn_of_people_alike(held_out.figures["alike"], console)
    model = _model(training, recogniser, int(best.state["progress"]["best_epoch"]))
    judged = (held_out.figures, "held-out") if len(held_out.numbers) else (trained_on, "training")
    if plotter is not None:
        draw_pictures(run, metrics, model, judged, data.dataset, run.picture_paths, console, plotter, is_begun=True)
    result = {
        **_about(training, metrics),
        "best_epoch": model.best_epoch,
        "train": _summary(_losses(train_answers), trained_on),
        "validation": {
            **_summary(_losses(held_out.answers)[alone], held_out.figures),
            "several": held_out.figures["several"],
        },
        **_watched_figures(metrics),
        "restarts": trials,
        "init_from": read_json(run.init_from_path),
        **_profile_figures(metrics),
        "by_embeddings": recogniser.answers_by_embeddings,
        "kernel_change": metrics[-1]["kernel_change"],
        "background": None if background is None else asdict(background),
        "pretrained": compare_with_pretrained(training, likeliest, console) if plotter is not None else None,
    }
    report_training(run, metrics, model, data, held_out, result, plotter)
    return result


def _beside(
    plotter: Plotter | None, training: TrainingRun, recogniser: Recogniser, photos: int
) -> AbstractContextManager[None]:
    """Leaves a processor to the plotting process while few photos are judged, ``photos`` of them trained on."""
    if plotter is None or not plotter.draws_beside or training.device.name != "cpu":
        return nullcontext()
    judged = photos + len(training.data.held_out_numbers)
    if recogniser.answers_by_embeddings or judged * recogniser.multiply_adds > FEW:
        return nullcontext()
    from facecnn.kernels.cpu.jit import one_thread_fewer

    return one_thread_fewer()


def _sample(photos: PhotoSet, seed: int, console: Console) -> PhotoSet:
    """The photos, or some of them if there are more than ``MOST_JUDGED``."""
    if len(photos) <= MOST_JUDGED:
        return photos
    console.info(f"Of {len(photos)} photos trained on, {MOST_JUDGED} drawn at random show how well they are known")
    drawn = np.sort(np.random.default_rng(seed).choice(len(photos), MOST_JUDGED, replace=False))
    return PhotoSet(photos.pixels, photos.rows[drawn], photos.labels[drawn])


def _logs_if_few(recogniser: Recogniser, data: TrainingPhotos) -> Array | None:
    """The log-probabilities (crops, outputs) of all faces of the held-out photos, from which the model is calibrated
    and judged; None if they are too many to be in memory at a time."""
    rows = data.held_out.crops(data.held_out_numbers).rows
    if len(rows) * len(recogniser.classes) > MOST_NUMBERS:
        return None
    return recogniser.log_probabilities(data.held_out.pixels, rows)


def _calibration(training: TrainingRun, best: Checkpoint, recogniser: Recogniser, logs: Array | None) -> Calibration:
    """Calibrate the best model by the held-out photos with one face, and save it: of several, it isn't known which is
    the person's.

    ``logs`` (crops, outputs): of all held-out photos' faces, if they are few.
    """
    if best.state["calibration"] is not None:
        # The run had ended before: the photos may have changed since, but the model mustn't.
        return Calibration(**best.state["calibration"])
    data, settings = training.data, training.settings
    if logs is None:
        calibration = calibrate_by_some(settings, best.arrays, recogniser, data.validation)
    else:
        crops = data.held_out.crops(data.held_out_numbers)
        logs = logs[data.held_out.show_one_face(data.held_out_numbers)[crops.photo]]
        calibration = calibrate_for(settings, best.arrays, logs, data.validation.labels, len(data.dataset.people))
    training.folder.save_best(training.checkpoint(best.arrays, best.state["progress"], calibration))
    return calibration


def _background(
    training: TrainingRun, recogniser: Recogniser, likeliest: Int64Array, console: Console
) -> Background | None:
    """Measure how much the photos' surroundings give away, and write background.json.

    ``likeliest`` (n,): the model's answers to the held-out photos with one face.
    """
    run = training.folder
    background = judge_background(recogniser, training.settings.photos, training.data, likeliest)
    if background is None:
        return None
    try:
        before = read_json(run.background_path) or {}
    except CheckpointError:
        console.warning(f"{shown(run.background_path)} was damaged, and is made anew")
        before = {}
    background = replace(background, trained_hidden=before.get("trained_hidden"))
    write_json(run.background_path, asdict(background))
    if background.nearly_as_well:
        console.warning(findings.only_surroundings(background))
    return background


def _model(training: TrainingRun, recogniser: Recogniser, best_epoch: int) -> Model:
    """The calibrated model, as it would be read from best.safetensors."""
    return Model(
        path=training.folder.best_path,
        settings=training.settings,
        recogniser=recogniser,
        finder=training.data.dataset.finder,
        best_epoch=best_epoch,
        calibrated=True,
        trained_on=frozenset(row.tobytes().hex() for row in training.trained_on),
    )


def _about(training: TrainingRun, metrics: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    data, device = training.data, training.device
    return {
        "run": str(training.folder.path),
        "device": device.name,
        "device_description": device.description,
        "device_reason": device.reason,
        "classes": data.classes,
        "photos": data.counts,
        "epochs": metrics[-1]["epoch"],
    }


def _watched_figures(metrics: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The median speed, and the kernels that learned nothing at the end."""
    return {
        "photos_per_second": float(np.median([row["photos_per_second"] or 0.0 for row in metrics])),
        "dead_kernels": metrics[-1]["dead_kernels"],
        "asleep_kernels": next((row["asleep_kernels"] for row in metrics[::-1] if "asleep_kernels" in row), []),
    }


def _profile_figures(metrics: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Milliseconds a step of each layer and pass: medians over the timed epochs, if any."""
    timed = [row["milliseconds"] for row in metrics if row.get("milliseconds")]
    if not timed:
        return {}
    return {"milliseconds": {place: float(np.median([row.get(place, 0.0) for row in timed])) for place in timed[-1]}}


def _losses(answers: Answers) -> Float64Array:
    assert answers.about_labels is not None
    return answers.about_labels.losses


def _summary(losses: Float64Array, judged: Mapping[str, Any]) -> dict[str, Any]:
    """The mean of the losses (n,) of photos with one face, and the figures from ``judge`` that a summary has."""
    return {
        "loss": float(losses.mean()) if len(losses) else None,
        **{key: judged[key] for key in ("accuracy", "interval", "closed_set_accuracy", "known", "unknown")},
    }
