"""Train a network on a folder of photos: from the first photo to the finished run folder."""

import gc
import shlex
import time
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from facecnn.config import Loaded, differences, from_dict, load, to_yaml
from facecnn.errors import CheckpointError, DeviceError, InterruptedTraining, OutputError, shown
from facecnn.jobs.compiling import compiling_for_training
from facecnn.jobs.console import Console
from facecnn.jobs.faces import finder_of_checkpoint
from facecnn.jobs.models import TRAINED_ON, check_arrays
from facecnn.jobs.plotting import Plotter
from facecnn.jobs.run_pictures import begin_plots
from facecnn.jobs.signals import Stopped, StopRequest
from facecnn.jobs.training.finish import finish
from facecnn.jobs.training.init_from import NO_MODEL, read_initial_weights
from facecnn.jobs.training.options import TrainOptions, check_place
from facecnn.jobs.training.photos import read_photos, read_photos_again
from facecnn.jobs.training.ranks import (
    SharedStop,
    check_suits_ranks,
    follow,
    options_for_rank,
    prepare_together,
    say_ranks,
    tell_others,
)
from facecnn.jobs.training.run import RunRecorder, TrainingRun
from facecnn.jobs.training.setup import (
    check_suits_optimizer,
    make_any_trainer,
    open_for_training,
    say_what_is_trained,
    trial_figures,
)
from facecnn.jobs.training.tracking import tracked
from facecnn.kernels import Device, available_threads
from facecnn.kernels.spinning import look_for_free_processors
from facecnn.learning.class_means import ClassMeansTrainer
from facecnn.parallel.ranks import ALONE, OtherRankFailed, Ranks
from facecnn.runs.checkpoint import load_checkpoint
from facecnn.runs.event_file import check_installed
from facecnn.runs.folder import RunFolder, write_json
from facecnn.runs.metrics import MetricsLog, read_metrics
from facecnn.runs.writing_thread import WritingThread


def train(loaded: Loaded, options: TrainOptions, console: Console, ranks: Ranks = ALONE) -> dict[str, Any]:
    """Train a network, or continue a run. Returns the ``train`` JSON, which is empty on other ranks than 0.

    Raises:
        FacecnnError: something is wrong with settings, photos, device or run folder, or the loss diverged.
        InterruptedTraining: a signal came; the run has been saved.
    """
    options = options_for_rank(options, ranks)
    if ranks.rank:
        follow(loaded, options, console, ranks)
        return {}
    if options.track:
        check_installed("--track")
    with ExitStack() as held:
        plotter = None
        if options.documents:  # first, so that it is ready when training begins
            threads = options.threads or available_threads()
            look_for_free_processors(threads)
            plotter = held.enter_context(Plotter(beside=threads > 1))
        device = open_for_training(options, console, say_why=True)
        say_ranks(ranks, console)
        ranks.busy()
        if options.resume is None:
            training = _begin(loaded, options, device, held, console, ranks)
        else:
            training = _resume(options.resume, options, device, held, console, ranks)
        return _run(training, options, plotter, held, console, ranks)


def _begin(
    loaded: Loaded, options: TrainOptions, device: Device, held: ExitStack, console: Console, ranks: Ranks
) -> TrainingRun:
    """Set up a new run. Its folder is made once everything else is ready."""
    check_place(options)
    check_suits_optimizer(loaded, options)
    check_suits_ranks(loaded, ranks)
    settings = loaded.settings
    compiling = held.enter_context(compiling_for_training(loaded, device, options.threads, console))
    prepare_together(loaded, options, ranks, console)
    data = read_photos(loaded, options, console)
    compiling.join_in()
    settings = replace(settings, photos=replace(settings.photos, folder=str(data.dataset.folder.absolute())))
    initial = NO_MODEL
    if options.init_from is not None:
        initial = read_initial_weights(options.init_from, loaded, data, options.strict, console)
    tell_others(loaded, data, options.out, ranks)
    trainer = make_any_trainer(
        loaded,
        data.dataset,
        data.training,
        device,
        validation=data.validation,
        profile=options.profile,
        initial_arrays=initial.arrays,
        ranks=ranks,
    )
    say_what_is_trained(trainer, data, console)
    run = held.enter_context(RunFolder.create(options.out, options.name, options.label, options.overwrite))
    training = TrainingRun(run, settings, data, trainer, device, _with_new(initial.trained_on, data.trained_on))
    run.write_start(options.label)
    run.write_config(to_yaml(settings))
    if initial.record is not None:
        write_json(run.init_from_path, initial.record)
    write_json(run.split_path, data.record())
    # So that a run can be resumed even if it is killed before its first step.
    run.save_last(training.checkpoint(trainer.arrays(), asdict(trainer.progress)))
    return training


def _resume(
    path: Path, options: TrainOptions, device: Device, held: ExitStack, console: Console, ranks: Ranks
) -> TrainingRun:
    """Restore a run as it was last saved. It is locked before anything in it is read."""
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
    check_suits_ranks(loaded, ranks)
    compiling = held.enter_context(compiling_for_training(loaded, device, options.threads, console))
    data = read_photos_again(
        run.read_split(),
        run.path,
        options.photos,
        loaded,
        finder_of_checkpoint(checkpoint.arrays, options.threads),
        options.strict,
        console,
    )
    compiling.join_in()
    if checkpoint.classes != data.classes:
        raise CheckpointError(f"{shown(run.path)}: its checkpoint knows other people than its split: start a new run")
    tell_others(loaded, data, run.path, ranks)
    trainer = make_any_trainer(
        loaded,
        data.dataset,
        data.training,
        device,
        validation=data.validation,
        profile=options.profile,
        fresh=False,
        ranks=ranks,
    )
    say_what_is_trained(trainer, data, console)
    try:
        trainer.restore(checkpoint.arrays, checkpoint.state["progress"])
        before = checkpoint.arrays[TRAINED_ON]
    except (KeyError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"{shown(run.path)}: its checkpoint doesn't fit its config.yaml ({error}): start a new run"
        ) from error
    progress = trainer.progress
    _forget_later_epochs(run, progress.epoch)
    if progress.finished:
        console.info(
            f"The run had ended, at epoch {progress.epoch}: only its results are made anew. To train its model "
            f"further, start a new run: --init-from {shlex.quote(shown(run.path))}"
        )
    elif not trainer.trials_left:
        console.info(f"Going on after epoch {progress.epoch}, step {progress.step}")
    return TrainingRun(run, settings, data, trainer, device, _with_new(before, data.trained_on))


def _forget_later_epochs(run: RunFolder, epoch: int) -> None:
    """Cut metrics off after an epoch. Raises CheckpointError if there are fewer."""
    MetricsLog(run.metrics_path).truncate_after(epoch)
    if len(read_metrics(run.metrics_path)) != epoch:
        raise CheckpointError(
            f"{shown(run.metrics_path)}: lines of the first {epoch} epochs are missing: put the file back, or start a "
            "new run"
        )


def _with_new(before: npt.NDArray[np.uint8], now: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The digests of photos trained on before, and those of ``now`` that are new."""
    known = {row.tobytes() for row in before}
    new = [row for row in now if row.tobytes() not in known]
    return np.concatenate([before, np.array(new, np.uint8).reshape(-1, 32)])


def _run(
    training: TrainingRun,
    options: TrainOptions,
    plotter: Plotter | None,
    held: ExitStack,
    console: Console,
    ranks: Ranks,
) -> dict[str, Any]:
    """Train to the end and finish the run, or stop at a signal."""
    folder, trainer = training.folder, training.trainer
    console.info(f"Run: {shown(folder.path)}")
    training.frames.start_again_after(trainer.progress.epoch, trainer.watch.start)
    started = time.perf_counter()
    go_on = f"Go on with: facecnn train --resume {shlex.quote(shown(folder.path))}"
    try:
        tracking = held.enter_context(tracked(training, options, console))
        with (
            StopRequest(listens=options.heeds_signals) as stop,
            WritingThread() as writing,
            console.training(trainer.epochs, trainer.steps) as display,
        ):
            recorder = RunRecorder(training, display, stop, console, writing, tracking)
            finished = trainer.run(recorder, SharedStop(stop, ranks))
        if not finished:
            assert stop.number is not None
            where = f"in epoch {trainer.progress.epoch + 1} of {trainer.epochs}, after step {trainer.progress.step}"
            if trainer.trials_left:
                where = f"with {trainer.trials_left} of {training.settings.train.restarts} initial weights left to try"
            raise InterruptedTraining(f"Stopped {where}, and saved.\n{go_on}", stop.number)
        trials, epoch = trial_figures(trainer), trainer.progress.epoch
        if trainer.watch.start and training.frames.read()[-1].epoch != epoch:  # it ended early
            training.frames.append(epoch, trainer.watch.kernels())
        metrics = read_metrics(folder.metrics_path)
        if plotter is not None and not isinstance(trainer, ClassMeansTrainer):
            begin_plots(folder, metrics, trainer.progress.best_epoch, plotter)
        # `finish` builds another network, for which a card may have no memory beside the trainer.
        del trainer, training.trainer
        # Nothing of the CPU's is part of a cycle of references; of a card's, that can't be known without one.
        if training.device.name != "cpu":
            gc.collect()
        ranks.busy()
        result = finish(training, metrics, trials, console, plotter)
        if tracking is not None:
            pictures = {"confusion": folder.confusion_path, "kernels_and_change": folder.kernels_path}
            tracking.finish(epoch, result, pictures)
    except OutputError as error:
        hint = f"\n{go_on}" if folder.last_path.exists() else ""
        raise OutputError(f"{error}{hint}") from error
    except OtherRankFailed as error:
        raise OtherRankFailed(f"{error}.\n{go_on}", error.exit_code) from error
    except DeviceError as error:
        raise DeviceError(f"{error}.\n{go_on}") from error
    except Stopped as stopped:
        raise InterruptedTraining(f"Stopped at once: what was saved before is good.\n{go_on}", stopped.number) from None
    return {**result, "seconds": time.perf_counter() - started}
