"""Train a network on a folder of photos: from the first photo to the finished run folder."""

from __future__ import annotations

import gc
import shlex
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from facecnn.config import Loaded, Settings, differences, from_dict, load, to_yaml
from facecnn.errors import CheckpointError, InterruptedTraining, OutputError, shown
from facecnn.jobs import training_photos
from facecnn.jobs.background import judge_background
from facecnn.jobs.console import Console, TrainingDisplay
from facecnn.jobs.faces import finder_of_checkpoint
from facecnn.jobs.init_from import NO_MODEL, read_initial_weights
from facecnn.jobs.judgement import judge, judge_photos
from facecnn.jobs.models import TRAINED_ON, Model, about_calibration, check_arrays, make_checkpoint, make_recogniser
from facecnn.jobs.report import report_training
from facecnn.jobs.run_pictures import draw_pictures
from facecnn.jobs.signals import Stopped, StopRequest
from facecnn.jobs.training_photos import TrainingPhotos
from facecnn.jobs.training_setup import (
    TrainOptions,
    TrialRecorder,
    check_place,
    make_trainer,
    open_for_training,
    say_what_is_trained,
    trial_figures,
)
from facecnn.kernels import Device
from facecnn.learning.calibration import Calibration, calibrate
from facecnn.learning.loop import Trainer
from facecnn.learning.progress import StepReport
from facecnn.learning.watching import KernelNews
from facecnn.recognition import Recogniser
from facecnn.reports import findings
from facecnn.reports.facts import Background
from facecnn.runs.checkpoint import Checkpoint, load_checkpoint
from facecnn.runs.folder import RunFolder, read_json, write_json
from facecnn.runs.frames import KernelFrames, frame_epochs
from facecnn.runs.metrics import MetricsLog, read_metrics

Array = npt.NDArray[Any]


def train(loaded: Loaded, options: TrainOptions, console: Console) -> dict[str, Any]:
    """Train, and give back the figures of the finished run (the ``train`` JSON).

    Raises FacecnnError: whatever is wrong with settings, photos, device, run folder or the loss; InterruptedTraining
    after a signal, when the run has been saved.
    """
    device = open_for_training(options, console, say_why=True)
    with ExitStack() as held:
        if options.resume is None:
            training = _begin(loaded, options, device, held, console)
        else:
            training = _resume(options.resume, options, device, held, console)
        return training.run_to_the_end(console)


def _begin(loaded: Loaded, options: TrainOptions, device: Device, held: ExitStack, console: Console) -> _Training:
    """A new run: its folder is made when all else is ready."""
    check_place(options)
    settings = loaded.settings
    data = training_photos.read(options.photos, options.validation, loaded, options.strict, console, options.threads)
    settings = replace(settings, photos=replace(settings.photos, folder=str(data.dataset.folder.absolute())))
    initial = NO_MODEL
    if options.init_from is not None:
        initial = read_initial_weights(options.init_from, loaded, data, options.strict, console)
    trainer = make_trainer(
        loaded,
        data.dataset,
        data.training,
        data.validation,
        device,
        profile=options.profile,
        initial_arrays=initial.arrays,
    )
    say_what_is_trained(trainer, data, console)
    run = held.enter_context(RunFolder.create(options.out, options.name, options.label, options.overwrite))
    training = _Training(run, settings, data, trainer, device, _together(initial.trained_on, data.trained_on))
    run.write_start(options.label)
    run.write_config(to_yaml(settings))
    if initial.record is not None:
        write_json(run.init_from_path, initial.record)
    write_json(run.split_path, data.record())
    # Before the first step, so that a run that is killed can be resumed from its first moment on.
    run.save_last(training.checkpoint(trainer.arrays(), asdict(trainer.progress)))
    return training


def _resume(path: Path, options: TrainOptions, device: Device, held: ExitStack, console: Console) -> _Training:
    """A run as it was saved last. Nothing of it is read before it is locked."""
    run = held.enter_context(RunFolder.open(path))
    checkpoint = load_checkpoint(run.path, which="last")
    loaded = load(str(run.config_path))
    settings = loaded.settings
    changed = differences(
        from_dict(checkpoint.settings), replace(settings, photos=replace(settings.photos, folder=None))
    )
    if changed:
        raise CheckpointError(
            f"{shown(run.config_path)}: other settings than the run was started with ({'; '.join(changed)}): put them "
            "back, or start a new run"
        )
    check_arrays(run.last_path, checkpoint, settings)
    data = training_photos.read_again(
        run,
        options.photos,
        loaded,
        finder_of_checkpoint(checkpoint.arrays, options.threads),
        options.strict,
        console,
    )
    if checkpoint.classes != data.classes:
        raise CheckpointError(f"{shown(run.path)}: its checkpoint knows other people than its split: start a new run")
    trainer = make_trainer(loaded, data.dataset, data.training, data.validation, device, profile=options.profile)
    say_what_is_trained(trainer, data, console)
    try:
        trainer.restore(checkpoint.arrays, checkpoint.state["progress"])
        before = checkpoint.arrays[TRAINED_ON]
    except (KeyError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"{shown(run.path)}: its checkpoint doesn't fit its config.yaml ({error}): start a new run"
        ) from error
    progress = trainer.progress
    log = MetricsLog(run.metrics_path)
    log.truncate_after(progress.epoch)
    if len(read_metrics(run.metrics_path)) != progress.epoch:
        raise CheckpointError(
            f"{shown(run.metrics_path)}: lines of the first {progress.epoch} epochs are missing: put the file back, or "
            "start a new run"
        )
    if progress.finished:
        console.info(
            f"The run had ended, at epoch {progress.epoch}: only its results are made anew. To train its model "
            f"further, start a new run: --init-from {shlex.quote(shown(run.path))}"
        )
    elif not trainer.trials_left:
        console.info(f"Going on after epoch {progress.epoch}, step {progress.step}")
    return _Training(run, settings, data, trainer, device, _together(before, data.trained_on))


def _together(before: npt.NDArray[np.uint8], now: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The photos trained on before, and those that have come to be trained on since."""
    known = {row.tobytes() for row in before}
    new = [row for row in now if row.tobytes() not in known]
    return np.concatenate([before, np.array(new, np.uint8).reshape(-1, 32)])


class _Training:
    """A training in its run folder, which is locked."""

    def __init__(
        self,
        run: RunFolder,
        settings: Settings,
        data: TrainingPhotos,
        trainer: Trainer,
        device: Device,
        trained_on: npt.NDArray[np.uint8],
    ) -> None:
        self.run = run
        self.settings = settings
        self.data = data
        self.trainer = trainer
        self.device = device
        self.trained_on = trained_on
        self.frames = KernelFrames(run.frames_path, trainer.watch.start)

    def checkpoint(
        self, arrays: Mapping[str, Array], progress: Mapping[str, Any], calibration: Calibration | None = None
    ) -> Checkpoint:
        data, finder = self.data, self.data.dataset.finder
        return make_checkpoint(self.settings, data.classes, arrays, progress, self.trained_on, finder, calibration)

    def run_to_the_end(self, console: Console) -> dict[str, Any]:
        run, trainer = self.run, self.trainer
        console.info(f"Run: {shown(run.path)}")
        self.frames.start_again_after(trainer.progress.epoch, trainer.watch.start)
        started = time.perf_counter()
        go_on = f"Go on with: facecnn train --resume {shlex.quote(shown(run.path))}"
        try:
            with StopRequest() as stop, console.training(trainer.epochs, trainer.steps) as display:
                finished = trainer.run(_RunRecorder(self, display, stop, console), stop)
            if not finished:
                assert stop.number is not None
                where = f"in epoch {trainer.progress.epoch + 1} of {trainer.epochs}, after step {trainer.progress.step}"
                if trainer.trials_left:
                    where = f"with {trainer.trials_left} of {self.settings.train.restarts} initial weights left to try"
                raise InterruptedTraining(f"Stopped {where}, and saved.\n{go_on}", stop.number)
            trials = trial_figures(trainer)
            if trainer.watch.start and self.frames.read()[-1].epoch != trainer.progress.epoch:  # sooner than planned
                self.frames.append(trainer.progress.epoch, trainer.watch.kernels())
            # What is left to do asks for a network of its own, which a card may have no room for beside the training.
            # Arrays and the steps that are recorded with them refer to each other, so they don't go by themselves.
            del trainer, self.trainer
            gc.collect()
            result = self._finish(trials, console)
        except OutputError as error:
            hint = f"\n{go_on}" if run.last_path.exists() else ""
            raise OutputError(f"{error}{hint}") from error
        except Stopped as stopped:
            raise InterruptedTraining(
                f"Stopped at once: what was saved before is good.\n{go_on}", stopped.number
            ) from None
        return {**result, "seconds": time.perf_counter() - started}

    def _finish(self, trials: list[dict[str, Any]] | None, console: Console) -> dict[str, Any]:
        """Calibrate the best model on the held-out photos, draw the pictures, and gather and report the figures."""
        run, data = self.run, self.data
        best = load_checkpoint(run.best_path)
        recogniser = make_recogniser(self.settings, data.classes, best.arrays, Calibration(), self.device.kernels)
        train_photos, validation = data.train_photos, data.validation
        train_logs = recogniser.log_probabilities(train_photos.pixels, train_photos.rows)
        crops = data.held_out.crops(data.held_out_numbers)
        all_logs = recogniser.log_probabilities(data.held_out.pixels, crops.rows)
        # Those of the photos with one face, of which it is known whose it is.
        logs = all_logs[data.held_out.show_one_face(data.held_out_numbers)[crops.photo]]
        recogniser.calibration = self._calibrate(best, logs, validation.labels)
        console.info(about_calibration(recogniser))
        background = self._judge_background(recogniser, logs, console)
        threshold = recogniser.threshold("auto")
        trained_on = judge(recogniser, recogniser.answers_from(train_logs, threshold), train_photos.labels, threshold)
        held_out = judge_photos(recogniser, data.held_out, data.held_out_numbers, all_logs)
        for one, other in held_out.figures["alike"]:
            console.warning(findings.one_person_twice(shown(one), shown(other)))
        model = self._model(recogniser, int(best.state["progress"]["best_epoch"]))
        judged = (held_out.figures, "held-out") if len(held_out.numbers) else (trained_on, "training")
        draw_pictures(run, model, judged, data.dataset, run.picture_paths, console)
        metrics = read_metrics(run.metrics_path)
        result = {
            "run": str(run.path),
            "device": self.device.name,
            "device_description": self.device.description,
            "device_reason": self.device.reason,
            "classes": data.classes,
            "photos": {"train": len(data.chosen), "validation": len(data.held_out_numbers), "skipped": data.skipped},
            "epochs": metrics[-1]["epoch"],
            "best_epoch": model.best_epoch,
            "train": _summary(train_logs, train_photos.labels, trained_on),
            "validation": {
                **_summary(logs, validation.labels, held_out.figures),
                "several": held_out.figures["several"],
            },
            **_watched_figures(metrics),
            "restarts": trials,
            "init_from": read_json(run.init_from_path),
            **_profile_figures(metrics),
            "kernel_change": metrics[-1]["kernel_change"],
            "background": None if background is None else asdict(background),
        }
        report_training(run, model, data, held_out, result)
        return result

    def _calibrate(self, best: Checkpoint, logs: Array, labels: Array) -> Calibration:
        """Set temperature and threshold on held-out photos with one face, and save them with the best model, whose
        answers to these are ``logs`` (photos, outputs)."""
        if best.state["calibration"] is not None:
            # The run had ended before: its photos may have changed since, its model must not.
            return Calibration(**best.state["calibration"])
        people = len(self.data.dataset.people)
        calibration = calibrate(logs, labels, people, self.settings.calibration)
        self.run.save_best(self.checkpoint(best.arrays, best.state["progress"], calibration))
        return calibration

    def _judge_background(self, recogniser: Recogniser, logs: Array, console: Console) -> Background | None:
        """Measure and note how much the photos' surroundings tell; None where that can't be measured."""
        run = self.run
        background = judge_background(recogniser, self.settings.photos, self.data, logs)
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

    def _model(self, recogniser: Recogniser, best_epoch: int) -> Model:
        """The calibrated model, as it would be read from best.safetensors."""
        return Model(
            path=self.run.best_path,
            settings=self.settings,
            recogniser=recogniser,
            finder=self.data.dataset.finder,
            best_epoch=best_epoch,
            calibrated=True,
            trained_on=frozenset(row.tobytes().hex() for row in self.trained_on),
        )


class _RunRecorder(TrialRecorder):
    """Writes a training's results to its run folder and shows them."""

    def __init__(self, training: _Training, display: TrainingDisplay, stop: StopRequest, console: Console) -> None:
        super().__init__(display, console)
        self._training = training
        self._stop = stop
        self._log = MetricsLog(training.run.metrics_path)
        # What an interrupt leaves, and the states before the first step, are none to keep as previous: the next save
        # takes their place, so that last and previous end the same with and without an interrupt.
        progress = training.trainer.progress
        self._rotate = 0 < progress.saved_at == progress.step
        trainer = training.trainer
        self._news = KernelNews(trainer.network.stages, read_metrics(training.run.metrics_path))
        self._frame_epochs = frame_epochs(trainer.epochs) if trainer.watch.start else set()

    def trial_step(self, start: int, step: StepReport) -> None:
        self._stop.stepped = True
        super().trial_step(start, step)

    def chosen(self, start: int) -> None:
        super().chosen(start)
        self._training.frames.start_again_after(0, self._training.trainer.watch.start)

    def step(self, step: StepReport) -> None:
        self._stop.stepped = True
        self._display.step(step)

    def epoch(self, metrics: Mapping[str, Any]) -> None:
        trainer = self._training.trainer
        self._log.append(metrics)
        if metrics["epoch"] in self._frame_epochs:
            self._training.frames.append(metrics["epoch"], trainer.watch.kernels())
        self._display.epoch(metrics, trainer.epochs)
        for message in self._news.of(metrics):
            self._console.warning(message)

    def save_best(self, arrays: Mapping[str, Array], state: Mapping[str, Any]) -> None:
        self._training.run.save_best(self._training.checkpoint(arrays, state))

    def save_last(self, arrays: Mapping[str, Array], state: Mapping[str, Any], *, interrupted: bool) -> None:
        self._log.sync()
        self._training.run.save_last(self._training.checkpoint(arrays, state), rotate=self._rotate)
        self._rotate = state["saved_at"] > 0


def _watched_figures(metrics: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The median speed, and the kernels that learned nothing at the end."""
    return {
        "photos_per_second": float(np.median([row["photos_per_second"] or 0.0 for row in metrics])),
        "dead_kernels": metrics[-1]["dead_kernels"],
        "asleep_kernels": next((row["asleep_kernels"] for row in metrics[::-1] if "asleep_kernels" in row), []),
    }


def _profile_figures(metrics: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Milliseconds a step of each layer and pass: medians over the epochs that were timed, if any was."""
    timed = [row["milliseconds"] for row in metrics if row.get("milliseconds")]
    if not timed:
        return {}
    return {"milliseconds": {place: float(np.median([row.get(place, 0.0) for row in timed])) for place in timed[-1]}}


def _summary(logs: Array, labels: Array, judged: Mapping[str, Any]) -> dict[str, Any]:
    """Of some photos: mean loss over all outputs of those with one face, and the figures that ``judge`` gave which a
    summary needs."""
    return {
        "loss": 0.0 - float(logs[np.arange(len(labels)), labels].mean()) if len(labels) else None,
        **{key: judged[key] for key in ("accuracy", "interval", "closed_set_accuracy", "known", "unknown")},
    }
