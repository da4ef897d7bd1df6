"""Cross-validation: train several times, leaving out different photos each time, and judge by the photos left out.

Each run trains on all photos outside its fold, to the end, and its last weights are judged, so the fold's photos have
no part in choosing them. Strangers in ``unknown/`` are trained on but not judged. Without held-out photos there is no
threshold, so the figure is ``closed_set_accuracy``; a photo with several faces counts as right if the likeliest person
of any of them is right.

A calibrated run holds out part of its photos, as ``train`` does, to choose the epoch and to set temperature and
threshold. Its fold is judged as ``predict`` answers, strangers included.
"""

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any, TypeVar

import numpy as np

from facecnn.arrays import Array
from facecnn.config import Loaded
from facecnn.errors import DeviceError, UsageError, shown
from facecnn.jobs.console import Console, TrainingDisplay
from facecnn.jobs.judgement import judge_photos, warn_of_people_alike
from facecnn.jobs.models import calibrate_by_some, make_recogniser
from facecnn.jobs.people import output_names, photo_set, read_all_people
from facecnn.jobs.sharing import check_same_photos, find_shared_folder, prepare_beforehand, warn_of_lost
from facecnn.jobs.training.options import TrainOptions
from facecnn.jobs.training.ranks import options_for_rank
from facecnn.jobs.training.recorders import ShowingRecorder
from facecnn.jobs.training.setup import AnyTrainer, make_any_trainer, open_for_training, trial_figures
from facecnn.kernels import Device
from facecnn.learning import scores
from facecnn.learning.calibration import Calibration
from facecnn.learning.data import PhotoSet
from facecnn.learning.scores import Likely
from facecnn.parallel.ranks import ALONE, PortionSize, Ranks, Silent
from facecnn.photos.dataset import Dataset
from facecnn.photos.folder import some
from facecnn.photos.folder_faces import folder_faces

_LINES = 3
"""Epochs of each fold that a log lists."""


def cross_validate(
    loaded: Loaded,
    options: TrainOptions,
    folds: int,
    console: Console,
    *,
    calibrated: bool = False,
    ranks: Ranks = ALONE,
) -> dict[str, Any]:
    """Train and judge every fold. No run is written.

    Args:
        calibrated: hold out part of each run's training photos, as described above.
        ranks: the processes that share the folds, with the same arguments.

    Returns:
        The ``cross-validate`` JSON; empty on other ranks than 0. The prediction for a photo with several faces has the
        ``probabilities`` of its main face, and ``faces`` with ``box`` and ``probabilities`` of each.

    Raises:
        UsageError: a person has fewer photos than there are folds, or nothing would be held out.
        DeviceError: a fold was given to two ranks, and neither has answered.
        FacecnnError: as from ``train``.
    """
    if calibrated and not loaded.settings.photos.validation:
        raise UsageError("--calibrate holds out part of the photos, but photos.validation is 0: set it to 0.2, say")
    if not calibrated:
        loaded = without_early_stopping(loaded)
    options = options_for_rank(options, ranks)
    device = open_for_training(options, console)
    ranks.busy()
    folder = find_shared_folder(options.photos, loaded, console, ranks)
    prepare_beforehand(folder, loaded, options.threads, ranks, console)
    ranks.busy()
    dataset = read_all_people(folder, loaded, console, options.threads, strict=options.strict)
    parts = _usable_folds(dataset, folds)
    seen = sha256(repr((dataset.paths, dataset.sha256)).encode()).hexdigest()
    check_same_photos(dataset.folder, seen, ranks)
    trained = _Folds(loaded, dataset, parts, device, console, calibrated=calibrated)
    judged = ranks.share_out(folds, trained.train, PortionSize(largest=1))
    if ranks.rank:
        return {}
    trained.report(judged)
    warn_of_lost(ranks, console)
    predictions = [
        prediction
        for number, (_, photos, likely) in enumerate(judged, start=1)
        for prediction in _predictions(dataset, photos, number, likely)
    ]
    _warn_of_indistinguishable(dataset.people, predictions, console)
    return {
        "device": device.name,
        "device_reason": device.reason,
        "classes": list(dataset.people),
        **_combined([figures for figures, _, _ in judged]),
        "predictions": predictions,
    }


_Judged = tuple[dict[str, Any], Array, Likely]
"""A fold's figures, the numbers of its photos of known people, and how likely each person is in their crops."""


class _Folds:
    """Trains and judges folds, some of which other ranks may train."""

    def __init__(
        self,
        loaded: Loaded,
        dataset: Dataset,
        parts: Sequence[Array],
        device: Device,
        console: Console,
        *,
        calibrated: bool,
    ) -> None:
        self._loaded, self._dataset, self._parts = loaded, dataset, parts
        self._device, self._console = device, console
        self._train_fold = _train_calibrated if calibrated else _train_to_the_end
        self._reported: set[int] = set()

    def train(self, start: int, stop: int, done: Callable[[int], None]) -> list[_Judged]:
        """Train and judge the folds with indices from ``start`` to ``stop``."""
        judged = []
        for index in range(start, stop):
            # What reference cycles keep of the last fold would be collected too rarely: the arrays of all folds would
            # pile up.
            gc.collect()
            fold, label = self._parts[index], self._label(index)
            judged.append(self._train_fold(self._loaded, self._dataset, fold, self._device, self._console, label))
            self._report(index, judged[-1][0])
            done(len(judged))
        return judged

    def report(self, judged: Sequence[_Judged | Silent]) -> None:
        """Show the figures of the folds that other ranks have trained. Raises DeviceError for one that none has."""
        for index, result in enumerate(judged):
            if isinstance(result, Silent):
                raise DeviceError(f"{self._label(index)} wasn't trained: {result.reason}")
            if index not in self._reported:
                self._report(index, result[0])

    def _label(self, index: int) -> str:
        return f"Fold {index + 1} of {len(self._parts)}"

    def _report(self, index: int, figures: Mapping[str, Any]) -> None:
        self._reported.add(index)
        self._console.info(
            f"{self._label(index)}: {100 * figures['accuracy']:.1f} % of {figures['photos']} photos named right, "
            f"{figures['seconds']:.0f} s"
        )


def _predictions(dataset: Dataset, judged: Array, fold: int, likely: Likely) -> list[dict[str, Any]]:
    """``predictions`` of the JSON for the photos ``judged``, whose crops show ``likely`` people."""
    of_faces = dataset.crops(judged).by_photo(likely.named(dataset.people))
    predictions = []
    for number, rows in zip(judged.tolist(), of_faces, strict=True):
        prediction = {
            "path": dataset.paths[number],
            "fold": fold,
            "truth": dataset.classes[dataset.labels[number]],
            "probabilities": rows[0],
        }
        if len(rows) > 1:
            faces = zip(dataset.faces[number], rows, strict=True)
            prediction["faces"] = [{"box": list(face.box), "probabilities": row} for face, row in faces]
        predictions.append(prediction)
    return predictions


def _train_to_the_end(
    loaded: Loaded, dataset: Dataset, fold: Array, device: Device, console: Console, label: str
) -> _Judged:
    """Train on all photos outside the fold, and judge the last weights by the known people's photos in it."""
    trainer, figures = train_outside(loaded, dataset, fold, device, console, label)
    own, judged, likely = judge_likeliest(trainer, dataset, fold)
    return {**own, "accuracy": own["closed_set_accuracy"], **figures}, judged, likely  # there is no threshold


def judge_likeliest(trainer: AnyTrainer, dataset: Dataset, fold: Array) -> _Judged:
    """Judge a trainer's weights by the known people's photos of a fold, by the likeliest person alone."""
    judged = fold[dataset.labels[fold] < len(dataset.people)]
    crops = dataset.crops(judged)
    labels = dataset.labels[judged][crops.photo]
    people, start = len(dataset.people), 0
    found = [Likely.of(np.zeros((0, people)))]
    own = np.zeros(len(labels))
    for logs in trainer.blocks_of_answers(PhotoSet(dataset.pixels, crops.rows, labels)):
        probabilities = scores.over_people(logs, people)
        part = slice(start, start + len(logs))
        own[part] = probabilities[np.arange(len(logs)), labels[part]]
        found.append(Likely.of(probabilities))
        start = part.stop
    likely = Likely.joined(found)
    right = np.bincount(crops.photo[likely.first == labels], minlength=len(judged)) > 0
    alone = dataset.show_one_face(judged)[crops.photo]
    figures = {
        "closed_set_accuracy": float(right.mean()),
        "log_loss": scores.log_loss(own[alone]),
        "photos": len(judged),
    }
    return figures, judged, likely


def without_early_stopping(loaded: Loaded) -> Loaded:
    """The settings for training runs that hold out no photos to decide when to stop."""
    train = replace(loaded.settings.train, stop_after_epochs_without_gain=None)
    return replace(loaded, settings=replace(loaded.settings, train=train))


def train_outside(
    loaded: Loaded, dataset: Dataset, fold: Array, device: Device, console: Console, label: str, lines: int = _LINES
) -> tuple[AnyTrainer, dict[str, Any]]:
    """Train on all photos outside the fold, to the end. Returns the trainer, and figures of the run.

    ``lines``: epochs that a log lists.
    """
    chosen = np.setdiff1d(np.arange(len(dataset.paths)), fold)
    trainer = make_any_trainer(loaded, dataset, folder_faces(dataset, chosen), device)
    return trainer, _train(trainer, ShowingRecorder, console, label, lines)[0]


def _train_calibrated(
    loaded: Loaded, dataset: Dataset, fold: Array, device: Device, console: Console, label: str
) -> _Judged:
    """Train as ``train`` does on the photos outside the fold, and judge the fold as ``predict`` answers."""
    settings, people = loaded.settings, len(dataset.people)
    split = dataset.split(settings.train.seed, np.setdiff1d(np.arange(len(dataset.paths)), fold))
    held_out = photo_set(dataset, split.validation[dataset.show_one_face(split.validation)])
    trainer = make_any_trainer(loaded, dataset, folder_faces(dataset, split.training), device, validation=held_out)
    figures, recorder = _train(trainer, _BestRecorder, console, label)
    del trainer  # a card may have no memory for another network beside it
    gc.collect()
    classes = output_names(settings, dataset)
    recogniser = make_recogniser(settings, classes, recorder.best, Calibration(), device.backend)
    recogniser.calibration = calibrate_by_some(settings, recorder.best, recogniser, held_out)
    judged = judge_photos(recogniser, dataset, fold)
    known = dataset.labels[fold] < people
    kept = ("accuracy", "closed_set_accuracy", "log_loss", "expected_calibration_error", "known", "several", "unknown")
    return (
        {
            **{key: judged.figures[key] for key in kept},
            "photos": int(known.sum()),
            "held_out": len(split.validation),
            "temperature": recogniser.calibration.temperature,
            "threshold": recogniser.calibration.threshold,
            **figures,
        },
        fold[known],
        judged.answers.likely.among(known[judged.answers.photo]),
    )


class _BestRecorder(ShowingRecorder):
    """Keeps the weights with the lowest loss on the held-out photos."""

    def __init__(self, epochs: int, display: TrainingDisplay, console: Console, label: str = "") -> None:
        super().__init__(epochs, display, console, label)
        self.best: dict[str, Array] = {}

    def save_best(self, arrays: Mapping[str, Array], state: Mapping[str, Any]) -> None:
        self.best = {name: np.array(array) for name, array in arrays.items()}


_AnyRecorder = TypeVar("_AnyRecorder", bound=ShowingRecorder)


def _train(
    trainer: AnyTrainer, make_recorder: type[_AnyRecorder], console: Console, label: str, lines: int = _LINES
) -> tuple[dict[str, Any], _AnyRecorder]:
    """Train to the end. Returns the figures that every fold has, and the recorder."""
    started = time.perf_counter()
    with console.training(trainer.epochs, trainer.steps, label, lines=lines) as display:
        recorder = make_recorder(trainer.epochs, display, console, label)
        trainer.run(recorder)
    return {
        "seconds": time.perf_counter() - started,
        "train_loss": recorder.last["train_loss"],
        "epochs": recorder.last["epoch"],
        "restarts": trial_figures(trainer),
        "kernel_change": recorder.last["kernel_change"],
        "dead_kernels": recorder.last["dead_kernels"],
    }, recorder


def _combined(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """``folds`` of the JSON, and means and counts over them. Only calibrated models refuse anybody."""
    accuracies = [result["accuracy"] for result in results]
    accuracy = float(np.mean(accuracies))
    figures = {
        "folds": results,
        "mean": accuracy,
        "std": float(np.std(accuracies)),
        "accuracy": accuracy,
        "closed_set_accuracy": float(np.mean([result["closed_set_accuracy"] for result in results])),
    }
    if "known" not in results[0]:
        return figures
    strangers = [result["unknown"] for result in results if result["unknown"] is not None]
    counted = {
        what: {key: sum(result[what][key] for result in results) for key in results[0][what]}
        for what in ("known", "several")
    }
    return {
        **figures,
        **counted,
        "unknown": {key: sum(one[key] for one in strangers) for key in ("photos", "named", "refused")}
        if strangers
        else None,
    }


def _warn_of_indistinguishable(people: Sequence[str], predictions: Sequence[dict[str, Any]], console: Console) -> None:
    """Warn of people whom the answers don't tell apart, judged by photos with one face."""
    number = {name: index for index, name in enumerate(people)}
    alone = [photo for photo in predictions if "faces" not in photo]
    truth = [number[photo["truth"]] for photo in alone]
    named = [number[max(photo["probabilities"], key=photo["probabilities"].get)] for photo in alone]
    confusion = scores.Confusion.of(np.array(truth, np.int64), np.array(named, np.int64), len(people))
    warn_of_people_alike([(people[one], people[other]) for one, other in scores.indistinguishable(confusion)], console)


def _usable_folds(dataset: Dataset, folds: int) -> tuple[Array, ...]:
    parts = dataset.folds(folds)
    problem = fold_problem(dataset, parts)
    if problem is not None:
        raise UsageError(f"--folds {folds}: {problem}")
    return parts


def fold_problem(dataset: Dataset, parts: Sequence[Array]) -> str | None:
    """Why folds can't be used, if they can't.

    Near-duplicates stay in one fold, which may leave a fold with nothing to judge, or nothing to train on.
    """
    for fold in parts:
        trained = np.bincount(np.delete(dataset.labels, fold), minlength=len(dataset.classes))
        lost = [dataset.classes[label] for label in np.flatnonzero(trained == 0).tolist()]
        if lost:
            names = some([shown(name) for name in lost])
            return f"all photos of {names} look alike, so they go into one fold: add different ones"
        if not (dataset.labels[fold] < len(dataset.people)).any():
            return "so many photos look alike that a fold is left empty: lower --folds"
    return None
