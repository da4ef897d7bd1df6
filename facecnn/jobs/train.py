"""Train a network on a folder of photos: from the first photo to the finished run folder."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from facecnn.config import Loaded, Settings, load, to_yaml
from facecnn.errors import (
    CheckpointError,
    InterruptedTraining,
    OutputError,
    PhotoError,
    shown,
)
from facecnn.jobs.console import Console, TrainingDisplay
from facecnn.jobs.models import make_checkpoint, make_recogniser
from facecnn.jobs.people import find_folder, photo_set, read_people
from facecnn.jobs.signals import Stopped, StopRequest
from facecnn.kernels import Device, open_device
from facecnn.learning.calibration import LEAST_PHOTOS, Calibration, calibrate
from facecnn.learning.schedules import Constant
from facecnn.learning.scores import confusion_matrix
from facecnn.learning.training import PhotoSet, StepReport, Trainer
from facecnn.network.layers import Conv, Dropout, Layer, with_outputs
from facecnn.network.loss import CrossEntropy
from facecnn.network.size import check_memory, measure, parameter_count
from facecnn.photos.dataset import Dataset
from facecnn.photos.folder import some
from facecnn.runs.checkpoint import Checkpoint, load_checkpoint
from facecnn.runs.folder import RunFolder, check_new_run
from facecnn.runs.metrics import MetricsLog, read_metrics
from facecnn.runs.plots import draw_confusion, draw_curves, draw_kernels

Array = npt.NDArray[Any]

OVERFIT_LOSS = 0.01
OVERFIT_STEPS = 3000


@dataclass(frozen=True)
class TrainOptions:
    """What the command line says besides the settings."""

    photos: Path | None = None
    label: str = "default"
    """The config's name, for the run's."""
    out: Path = Path("runs")
    name: str | None = None
    overwrite: bool = False
    resume: Path | None = None
    validation: Path | None = None
    device: str = "auto"
    threads: int | None = None
    strict: bool = False


@dataclass(frozen=True)
class _Data:
    """The photos of one training."""

    dataset: Dataset
    chosen: Array
    """Numbers of the photos to train on."""
    validation: PhotoSet
    validation_paths: tuple[str, ...]
    validation_folder: Path | None
    skipped: int

    @property
    def classes(self) -> list[str]:
        return list(self.dataset.classes)

    @property
    def trained_on(self) -> npt.NDArray[np.uint8]:
        digests = [bytes.fromhex(self.dataset.sha256[number]) for number in self.chosen]
        return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)


def train(loaded: Loaded, options: TrainOptions, console: Console) -> dict[str, Any]:
    """Train, and give back the figures of the finished run (the ``train`` JSON).

    Raises FacecnnError: whatever is wrong with settings, photos, device, run folder or the loss; InterruptedTraining
    after a signal, when the run has been saved.
    """
    device = open_for_training(options, console)
    run, checkpoint = None, None
    if options.resume is not None:
        run = RunFolder.open(options.resume)
        checkpoint = load_checkpoint(run.path, which="last")
        loaded = load(str(run.config_path))
    elif options.name is not None:
        check_new_run(options.out, options.name, options.overwrite)
    settings = loaded.settings
    data = _read_data(settings, options, run, console)
    settings = replace(settings, photos=replace(settings.photos, folder=str(data.dataset.folder.absolute())))
    trainer = make_trainer(loaded, data.dataset, data.chosen, data.validation, device)
    _say_what_is_trained(trainer, data, console)

    if run is None:
        run = RunFolder.create(options.out, options.name, options.label, options.overwrite)
    with run:
        if checkpoint is None:
            run.write_config(to_yaml(settings))
            run.write_split(_split_record(data))
            # Before the first step, so that a run that is killed can be resumed from its first moment on.
            run.save_last(
                make_checkpoint(
                    settings, data.classes, trainer.arrays(), asdict(trainer.progress), data.trained_on, None
                )
            )
        else:
            _restore(trainer, checkpoint, data, run, console)
        console.info(f"Run: {shown(run.path)}")
        started = time.perf_counter()
        go_on = f"Go on with: facecnn train --resume {shlex.quote(shown(run.path))}"
        try:
            with StopRequest() as stop, console.training(trainer.epochs, trainer.steps) as display:
                recorder = _RunRecorder(run, settings, data, trainer, display, stop)
                finished = trainer.run(recorder, stop)
            if not finished:
                assert stop.number is not None
                raise InterruptedTraining(
                    f"Stopped in epoch {trainer.progress.epoch + 1} of {trainer.epochs}, after step "
                    f"{trainer.progress.step}, and saved.\n{go_on}",
                    stop.number,
                )
            result = _finish(run, settings, data, trainer, device, console)
        except OutputError as error:
            hint = f"\n{go_on}" if run.last_path.exists() else ""
            raise OutputError(f"{error}{hint}") from error
        except Stopped as stopped:
            raise InterruptedTraining(
                f"Stopped at once: what was saved before is good.\n{go_on}", stopped.number
            ) from None
    return {**result, "seconds": time.perf_counter() - started}


def open_for_training(options: TrainOptions, console: Console) -> Device:
    """The device that the options ask for, and why it is that one, said. Raises DeviceError, UsageError."""
    device = open_device(options.device, options.threads)
    console.info(f"Device: {device.name} ({device.description}): {device.reason}")
    if device.notice is not None:
        console.info(device.notice)
    return device


# ------------------------------------------------------------------------------------------------------------ photos


def _read_data(settings: Settings, options: TrainOptions, run: RunFolder | None, console: Console) -> _Data:
    folder = find_folder(options.photos, settings.photos, console)
    dataset = read_people(folder, settings.photos, console, strict=options.strict, for_training=True)
    validation_folder = options.validation
    record = None
    if run is not None:
        record = run.read_split()
        if record.get("validation_folder") is not None:
            validation_folder = Path(record["validation_folder"])
    if record is not None:
        chosen, kept = _recorded_split(dataset, record, run, console)
    elif validation_folder is not None:
        chosen, kept = np.arange(len(dataset.labels)), np.zeros(0, np.int64)
    else:
        split = dataset.split(settings.train.seed)
        for warning in split.warnings:
            console.warning(warning)
        if options.strict and split.warnings:
            raise OutputError("--strict: the split gave the warnings above")
        chosen, kept = split.training, split.validation
    if validation_folder is None:
        paths = tuple(dataset.paths[number] for number in kept)
        return _Data(dataset, chosen, photo_set(dataset, kept), paths, None, len(dataset.skipped))
    other = read_people(validation_folder, settings.photos, console, strict=options.strict, for_training=False)
    labels = _labels_in(dataset, other, validation_folder)
    _warn_of_shared_photos(dataset, other, options.strict, console)
    return _Data(
        dataset,
        chosen,
        photo_set(other, labels=labels),
        other.paths,
        validation_folder.absolute(),
        len(dataset.skipped) + len(other.skipped),
    )


def _labels_in(dataset: Dataset, other: Dataset, folder: Path) -> Array:
    extra = [shown(name) for name in other.classes if name not in dataset.classes]
    if extra:
        raise PhotoError(
            f"{shown(folder)}: {some(extra)} can't be judged: not among the people to train on "
            f"({some([shown(name) for name in dataset.classes])})"
        )
    number = np.array([dataset.classes.index(name) for name in other.classes], np.int64)
    return number[other.labels]


def _warn_of_shared_photos(dataset: Dataset, other: Dataset, strict: bool, console: Console) -> None:
    own = set(dataset.sha256)
    shared = [shown(path) for path, digest in zip(other.paths, other.sha256, strict=True) if digest in own]
    if shared:
        console.warning(f"{len(shared)} photos are in both folders, so the validation flatters: {some(shared)}")
        if strict:
            raise OutputError("--strict: the same photos are trained on and judged by")
    missing = [shown(name) for name in dataset.classes if name not in other.classes]
    if missing:
        console.warning(f"no validation photos of {some(missing)}")


def _split_record(data: _Data) -> dict[str, Any]:
    dataset = data.dataset
    return {
        "classes": data.classes,
        "train": {dataset.paths[number]: dataset.sha256[number] for number in data.chosen.tolist()},
        "validation": list(data.validation_paths),
        "validation_folder": None if data.validation_folder is None else str(data.validation_folder),
    }


def _recorded_split(
    dataset: Dataset, record: dict[str, Any], run: RunFolder | None, console: Console
) -> tuple[Array, Array]:
    """The split that a run was started with, found again in its folder of photos."""
    assert run is not None
    before, now = set(record["classes"]), set(dataset.classes)
    if before != now:
        gone, new = some(sorted(map(shown, before - now))), some(sorted(map(shown, now - before)))
        raise PhotoError(
            f"{shown(dataset.folder)}: other people than when {shown(run.path)} was started "
            f"(gone: {gone or 'nobody'}; new: {new or 'nobody'}): start a new run"
        )
    number = {path: index for index, path in enumerate(dataset.paths)}
    wanted = [list(record["train"]), record["validation"] if record["validation_folder"] is None else []]
    chosen, kept = (np.array(sorted(number[path] for path in side if path in number), np.int64) for side in wanted)
    changed = sum(dataset.sha256[number[path]] != digest for path, digest in record["train"].items() if path in number)
    missing = len(wanted[0]) + len(wanted[1]) - len(chosen) - len(kept)
    added = len(dataset.paths) - len(chosen) - len(kept)
    if missing or changed or added:
        console.warning(
            f"the photos have changed since the run was started: {missing} gone, {changed} with other contents, "
            f"{added} new (left out): it goes on, but not to the same result"
        )
    return chosen, kept


# ---------------------------------------------------------------------------------------------------------- training


def make_trainer(loaded: Loaded, dataset: Dataset, chosen: Array, validation: PhotoSet, device: Device) -> Trainer:
    """The trainer for some of a data set's photos. Raises UsageError, with its place in the config, for a layer that
    doesn't fit, and for a network that memory is too small for."""
    settings, photos = loaded.settings, loaded.settings.photos
    outputs = len(dataset.classes)
    check_memory(loaded.plan(outputs), min(settings.train.batch_size, len(chosen)))
    return Trainer(
        layers=with_outputs(settings.network, outputs),
        input_shape=(photos.height, photos.width, photos.channels),
        loss=settings.loss,
        optimizer=settings.optimizer,
        schedule=settings.schedule,
        train=settings.train,
        augment=photos.augment,
        normalise=photos.normalise,
        photos=photo_set(dataset),
        chosen=chosen,
        validation=validation,
        people=len(dataset.people),
        outputs=outputs,
        kernels=device.kernels,
    )


def _say_what_is_trained(trainer: Trainer, data: _Data, console: Console) -> None:
    dataset = data.dataset
    counts = np.bincount(dataset.labels, minlength=len(dataset.classes))
    people = some([f"{shown(name)} {count}" for name, count in zip(dataset.classes, counts.tolist(), strict=True)], 6)
    size = measure(trainer.network.stages, trainer.batch_size)
    console.info(f"People: {people}; {len(data.chosen)} photos to train on, {len(data.validation)} held out")
    console.info(
        f"Network: {size.parameters:,} weights, {size.multiply_adds / 1e6:.1f} million multiply-adds a photo; "
        f"{trainer.epochs} epochs of {trainer.batches} step{'s' if trainer.batches > 1 else ''}"
    )
    if trainer.settings.batch_size > len(data.chosen):
        console.info(
            f"Batch size: {len(data.chosen)}, all there is (train.batch_size is {trainer.settings.batch_size})"
        )


class _RunRecorder:
    """Writes a training's results to its run folder and shows them."""

    def __init__(
        self,
        run: RunFolder,
        settings: Settings,
        data: _Data,
        trainer: Trainer,
        display: TrainingDisplay,
        stop: StopRequest,
    ) -> None:
        self._display = display
        self._stop = stop
        self._run = run
        self._settings = settings
        self._data = data
        self._trained_on = data.trained_on
        self._epochs = trainer.epochs
        self._log = MetricsLog(run.metrics_path)
        # What an interrupt leaves, and the state before the first step, are none to keep: the save at the next epoch's
        # end takes their place, so that last and previous end the same with and without an interrupt.
        self._rotate = 0 < trainer.progress.saved_at == trainer.progress.step

    def step(self, step: StepReport) -> None:
        self._stop.stepped = True
        self._display.step(step)

    def epoch(self, metrics: Mapping[str, Any]) -> None:
        self._log.append(metrics)
        self._display.epoch(metrics, self._epochs)

    def save_best(self, arrays: Mapping[str, Array], state: Mapping[str, Any]) -> None:
        self._run.save_best(self._checkpoint(arrays, state))

    def save_last(self, arrays: Mapping[str, Array], state: Mapping[str, Any], *, interrupted: bool) -> None:
        self._run.save_last(self._checkpoint(arrays, state), rotate=self._rotate and not interrupted)
        self._rotate = True

    def _checkpoint(self, arrays: Mapping[str, Array], state: Mapping[str, Any]) -> Checkpoint:
        return make_checkpoint(self._settings, self._data.classes, arrays, state, self._trained_on, None)


def _restore(trainer: Trainer, checkpoint: Checkpoint, data: _Data, run: RunFolder, console: Console) -> None:
    if checkpoint.classes != data.classes:
        raise CheckpointError(f"{shown(run.path)}: its checkpoint knows other people than its split: start a new run")
    try:
        trainer.restore(checkpoint.arrays, checkpoint.state["progress"])
    except (KeyError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"{shown(run.path)}: its checkpoint doesn't fit its config.yaml ({error}): start a new run"
        ) from error
    progress = trainer.progress
    MetricsLog(run.metrics_path).truncate_after(progress.epoch)
    if progress.finished:
        console.info("The run had ended: only its results are made anew.")
    else:
        console.info(f"Going on after epoch {progress.epoch}, step {progress.step}")


def _finish(
    run: RunFolder, settings: Settings, data: _Data, trainer: Trainer, device: Device, console: Console
) -> dict[str, Any]:
    """Calibrate the best model on the held-out photos, draw the pictures, and gather the figures."""
    best = load_checkpoint(run.best_path)
    classes, people = data.classes, len(data.dataset.people)
    recogniser = make_recogniser(settings, classes, best.arrays, Calibration(), device.kernels)
    train_photos = photo_set(data.dataset, data.chosen)
    train_logs = recogniser.log_probabilities(train_photos.pixels, train_photos.rows)
    logs = recogniser.log_probabilities(data.validation.pixels, data.validation.rows)
    labels = data.validation.labels
    calibration = calibrate(logs, labels, people)
    run.save_best(make_checkpoint(settings, classes, best.arrays, best.state["progress"], data.trained_on, calibration))
    if calibration.photos == 0:
        few = f"Held-out photos of known people: {int((labels < people).sum())}, fewer than {LEAST_PHOTOS}"
        named = ", and strangers are named as someone" if calibration.threshold is None else ""
        console.info(f"{few}: confidence is not calibrated{named}")
    metrics = read_metrics(run.metrics_path)
    best_epoch = int(best.state["progress"]["best_epoch"])
    draw_curves(run.curves_path, metrics, best_epoch)
    judged, what = (logs, labels) if len(labels) else (train_logs, train_photos.labels)
    title = f"{len(what)} {'held-out' if len(labels) else 'training'} photos"
    draw_confusion(run.confusion_path, confusion_matrix(what, judged.argmax(axis=1), len(classes)), classes, title)
    draw_kernels(
        run.kernels_path,
        [
            (stage.name, best.arrays[f"model.{stage.name}.weight"])
            for stage in recogniser.network.stages
            if isinstance(stage.layer, Conv)
        ],
    )
    return {
        "run": str(run.path),
        "device": device.name,
        "device_reason": device.reason,
        "classes": classes,
        "photos": {"train": len(data.chosen), "validation": len(labels), "skipped": data.skipped},
        "epochs": metrics[-1]["epoch"],
        "best_epoch": best_epoch,
        "train": _figures(train_logs, train_photos.labels, people),
        "validation": _figures(logs, labels, people),
        "photos_per_second": float(np.median([row["photos_per_second"] or 0.0 for row in metrics])),
        "dead_kernels": metrics[-1]["dead_kernels"],
        "kernel_change": metrics[-1]["kernel_change"],
    }


def _figures(logs: Array, labels: Array, people: int) -> dict[str, float | None]:
    """Mean loss over all outputs, and the share of known people's photos that get the right person's name."""
    known = labels < people
    right = logs[:, :people].argmax(axis=1) == labels
    return {
        "loss": float(-logs[np.arange(len(labels)), labels].mean()) if len(labels) else None,
        "accuracy": float(right[known].mean()) if known.any() else None,
    }


# ------------------------------------------------------------------------------------------- without making a run


def dry_run(loaded: Loaded, options: TrainOptions, console: Console) -> dict[str, Any]:
    """Everything up to the first step: photos, split, shapes, memory. Nothing is trained or written."""
    device = open_for_training(options, console)
    data = _read_data(loaded.settings, options, None, console)
    trainer = make_trainer(loaded, data.dataset, data.chosen, data.validation, device)
    _say_what_is_trained(trainer, data, console)
    size = measure(trainer.network.stages, trainer.batch_size)
    return {
        "device": device.name,
        "device_reason": device.reason,
        "classes": data.classes,
        "photos": {"train": len(data.chosen), "validation": len(data.validation), "skipped": data.skipped},
        "epochs": trainer.epochs,
        "steps": trainer.steps,
        "batch_size": trainer.batch_size,
        "parameters": size.parameters,
        "training_bytes": size.training_bytes,
        "layers": [
            {"name": s.name, "input": list(s.shape), "output": list(s.out_shape), "parameters": parameter_count(s)}
            for s in trainer.network.stages
        ],
    }


def overfit_batch(loaded: Loaded, options: TrainOptions, console: Console) -> dict[str, Any]:
    """Can the network learn one batch by heart? If not, something is wrong with it, whatever the photos are.

    Without augmentation, dropout, label smoothing, weight decay and averaging, at the optimizer's full rate. Raises
    OutputError if the loss of the batch has not fallen below 0.01 after 3,000 steps.
    """
    device = open_for_training(options, console)
    loaded = replace(loaded, settings=_overfit_settings(loaded.settings))
    folder = find_folder(options.photos, loaded.settings.photos, console)
    dataset = read_people(folder, loaded.settings.photos, console, strict=options.strict, for_training=True)
    chosen = _one_batch(dataset.labels, loaded.settings.train.batch_size)
    empty = photo_set(dataset, np.zeros(0, np.int64))
    trainer = make_trainer(loaded, dataset, chosen, empty, device)
    with console.training(trainer.epochs, trainer.steps) as display:
        recorder = _OverfitRecorder(display)
        trainer.run(recorder, lambda: recorder.reached)
    result = {
        "device": device.name,
        "device_reason": device.reason,
        "photos": len(chosen),
        "steps": recorder.steps,
        "loss": recorder.loss,
        "passed": recorder.reached,
    }
    if not recorder.reached:
        raise OutputError(
            f"--overfit-batch: the loss of {len(chosen)} photos is {recorder.loss:.4f} after {recorder.steps} steps, "
            f"not below {OVERFIT_LOSS}: the network is too small, or the learning rate is wrong"
        )
    return result


class _OverfitRecorder:
    """Ends the training when the batch is known by heart."""

    def __init__(self, display: TrainingDisplay) -> None:
        self._display = display
        self.steps = 0
        self.loss = float("inf")
        self.reached = False

    def step(self, step: StepReport) -> None:
        self.steps, self.loss = step.step, step.loss
        self.reached = step.loss < OVERFIT_LOSS
        self._display.step(step)

    def epoch(self, metrics: Mapping[str, Any]) -> None:
        pass

    def save_best(self, arrays: Mapping[str, Array], state: Mapping[str, Any]) -> None:
        pass

    def save_last(self, arrays: Mapping[str, Array], state: Mapping[str, Any], *, interrupted: bool) -> None:
        pass


def _overfit_settings(settings: Settings) -> Settings:
    layers: tuple[Layer, ...] = tuple(
        Dropout(rate=0.0) if isinstance(layer, Dropout) else layer for layer in settings.network
    )
    loss = replace(settings.loss, label_smoothing=0.0) if isinstance(settings.loss, CrossEntropy) else settings.loss
    return replace(
        settings,
        photos=replace(settings.photos, augment=None),
        network=layers,
        loss=loss,
        optimizer=replace(settings.optimizer, weight_decay=0.0),
        schedule=Constant(),
        train=replace(
            settings.train,
            epochs=OVERFIT_STEPS,
            least_steps=0,
            average_weights=None,
            stop_after_epochs_without_gain=None,
            stop_when_worst_loss_below=None,
        ),
    )


def _one_batch(labels: Sequence[int] | Array, size: int) -> Array:
    """Numbers of the first photos of every class in turn."""
    labels = np.asarray(labels)
    rank = np.zeros(len(labels), np.int64)
    for label in np.unique(labels):
        own = labels == label
        rank[own] = np.arange(own.sum())
    return np.sort(np.lexsort((labels, rank))[:size])
