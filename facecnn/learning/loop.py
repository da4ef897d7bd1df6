"""The training loop: epochs of steps, when they end, what is saved, and an exact way to stop and resume.

Every random number is a function of (seed, purpose, epoch or step, photo), and of nothing drawn before. So there is
little state to save, and a run that was interrupted and resumed ends with the same bits as one that wasn't.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from hashlib import sha256
from typing import Any, cast

import numpy as np

from facecnn.arrays import Array, Float64Array
from facecnn.errors import DivergedError
from facecnn.kernels.backend import Backend
from facecnn.kernels.profiling import Profiler
from facecnn.learning.batches import edges_of
from facecnn.learning.checks import check_settings
from facecnn.learning.data import PhotoSet, TrainingData, TrainingSettings
from facecnn.learning.full_batch import full_batch_step
from facecnn.learning.full_batch_optimizers import FullBatchOptimizer
from facecnn.learning.optimizers import ClassMeans
from facecnn.learning.progress import Progress, Recorder, StepReport
from facecnn.learning.restarts import choose_start
from facecnn.learning.scores import losses_and_hits
from facecnn.learning.step import Step, training_step
from facecnn.learning.update import INITIAL_PREFIX, named_below
from facecnn.learning.watching import KernelWatch
from facecnn.network.feeding import PhotoFeed
from facecnn.network.inference import blocks_of_log_probabilities, joined
from facecnn.network.initialisation import NOTHING
from facecnn.network.size import measure
from facecnn.network.stages import Stage
from facecnn.parallel.ranks import ALONE, Ranks, largest_share, share

LEAST_STEPS_BETWEEN_SAVES, MOST_STEPS_BETWEEN_SAVES = 100, 1000
"""Bounds of the number of steps between saves, which are made at an epoch's end."""

WORK_BETWEEN_SAVES = 2**37
"""Multiply-adds of the forward passes between saves, within these bounds: a second or two of training. A save takes
some milliseconds of another thread, with which the steps share the processors."""

VALIDATION_SHARE = 0.03
"""In short epochs judging the held-out photos takes at most this share of the time of the steps since the last time."""

PASSES_OF_A_STEP = 3
"""A photo's part of a step takes about as long as this number of forward passes."""

STEPS_BETWEEN_READINGS = 10
"""Number of steps after which loss and accuracy are read from the device; they also are at an epoch's end."""

LARGEST_LOSS = 1e6
"""Training has diverged if its mean loss is larger, even if finite: the right person's probability is then exp(-1e6),
and the weights are so large that no step leads back. This happens when gradients are clipped."""

STALLED = 8
"""Training ends after this many iterations of a full-batch optimizer in a row without a gain."""


class Trainer:
    """Trains one network on one set of photos."""

    def __init__(
        self,
        settings: TrainingSettings,
        data: TrainingData,
        backend: Backend,
        *,
        micro_batch_size: int | None = None,
        profile: bool = False,
        initial_arrays: Mapping[str, Array] = NOTHING,
        ranks: Ranks = ALONE,
    ) -> None:
        """Create the network and everything that training needs on the device.

        Args:
            settings: the network's last layer may have ``people`` units.
            micro_batch_size: maximum number of photos that are processed at a time; a larger batch is split into
                micro-batches, whose gradients are accumulated.
            profile: whether to time every kernel.
            initial_arrays: arrays of another model by name (``conv1.weight``), used in place of initial ones.
            ranks: the processes that share each batch; all of them have the same settings and data.

        Raises:
            LayerError, UsageError: the network or the settings don't fit.
            MemoryError: the device is too small.
            ValueError: an initial array has another shape.
        """
        self.settings, self.data, self._ranks = settings, data, ranks
        self._profiler = Profiler(backend) if profile else None
        if self._profiler is not None:
            backend = cast(Backend, self._profiler)
        self.step: Step = _step(settings, data, backend, micro_batch_size, ranks)
        check_settings(settings, data, self.step, initial_arrays.keys())
        self.network = self.step.arrays.network
        self.epochs, self.steps_per_epoch = self.step.epochs, self.step.steps_per_epoch
        self.batch_size = math.ceil(len(data.train_indices) / self.steps_per_epoch)
        self.own_batch_size = largest_share(self.batch_size, ranks)
        """Most photos of a batch that one rank has."""
        self.micro_batch_size = self.network.batch_size
        work = self.batch_size * measure(self.network.stages, self.batch_size).multiply_adds
        steps = max(LEAST_STEPS_BETWEEN_SAVES, WORK_BETWEEN_SAVES // max(1, work))
        self._steps_between_saves = min(MOST_STEPS_BETWEEN_SAVES, steps)
        self._edges = edges_of(len(data.train_indices), self.steps_per_epoch)
        self._initial_arrays = dict(initial_arrays)
        self._validation = self._feed(data.validation.part(*share(len(data.validation), ranks)))
        self._figures = (0.0, 0.0)
        self._best: tuple[dict[str, Array], dict[str, Any]] | None = None
        """The best model since the last save."""
        self.progress = Progress()
        self._reset(0)
        self.watch = KernelWatch(self.network)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The network's layers."""
        return self.network.stages

    @property
    def steps(self) -> int:
        """Number of updates in the whole training."""
        return self.epochs * self.steps_per_epoch

    @property
    def trials_left(self) -> int:
        """Number of initial weights that are still to be tried."""
        restarts = self.settings.train.restarts
        return restarts - len(self.progress.trials) if restarts > 1 else 0

    @property
    def start(self) -> int:
        """Number of the initial weights that are trained or, while there are trials left, tried next."""
        trials = self.progress.trials
        if self.trials_left or not trials:
            return len(trials)
        return int(np.argmin([math.inf if loss is None else loss for loss in trials]))

    @property
    def mirrors(self) -> bool:
        """Whether answers are averaged over a photo and its mirror image, which they are if training mirrors photos."""
        augment = self.settings.photos.augment
        return augment is not None and augment.mirror

    def run(self, recorder: Recorder, stop: Callable[[], bool] = lambda: False) -> bool:
        """Train to the end, after trying initial weights if there are several.

        Args:
            recorder: gets the results.
            stop: asked after each step, or group of steps (see ``Recorder.every_step``). Of several ranks, all must get
                the same answer.

        Returns:
            False if ``stop`` ended it; the state is saved then.

        Raises:
            DivergedError: the loss or a weight isn't finite; what was saved before stays. A trial that diverges only
                counts as lost, unless all do.
        """
        if self._ranks.size > 1:
            self._start_as_one()
        if self.trials_left and not choose_start(self, recorder, stop):
            return False
        return self.train(self.epochs, recorder, stop)

    def _start_as_one(self) -> None:
        """Take the state of rank 0, which may be a resumed one."""
        state = (self.arrays(), asdict(self.progress)) if self._ranks.rank == 0 else None
        arrays, progress = self._ranks.broadcast(state)
        if self._ranks.rank:
            self.restore(arrays, progress)

    def _stay_as_one(self) -> None:
        """Take the weights of rank 0 if others differ, as where a processor of another kind has rounded differently."""
        arrays = self.step.arrays.to_host()
        digest = sha256(b"".join(array.tobytes() for array in arrays.values())).digest()
        if len(set(self._ranks.gather(digest))) > 1:
            arrays = self._ranks.broadcast(arrays)
            if self._ranks.rank:
                self.step.arrays.from_host(arrays)

    def train(self, last: int, recorder: Recorder, stop: Callable[[], bool]) -> bool:
        """Train to the end of epoch ``last``; False if ``stop`` ended it, after the state was saved."""
        progress = self.progress
        while not progress.finished and progress.epoch < last:
            started, first = time.perf_counter(), progress.batch
            self._before_step()
            for made in self.step.epoch(progress, one_by_one=recorder.every_step):
                progress.batch += made
                progress.step += made
                recorder.step(self._report(made))
                if progress.batch < self.steps_per_epoch and stop():
                    self._read_totals()
                    self._check_weights()
                    self.save(recorder, interrupted=True)
                    return False
                self._before_step()
            self._end_epoch(recorder, first, time.perf_counter() - started)
            if not progress.finished and stop():
                if progress.saved_at != progress.step:
                    self.save(recorder, interrupted=True)
                return False
        return True

    def _before_step(self) -> None:
        if self.progress.batch + 1 == self.steps_per_epoch and self._is_looked_at_closely():
            self.watch.before_last_step()

    def _report(self, made: int) -> StepReport:
        """Report ``made`` steps. Figures are only read from the device now and then, because reading waits for it."""
        progress = self.progress
        seen = self._edges[progress.batch]
        if progress.batch == self.steps_per_epoch or (progress.step - 1) % STEPS_BETWEEN_READINGS < made:
            self._read_totals()
            self._figures = progress.totals[0] / seen, progress.totals[1] / seen
        return StepReport(progress.epoch + 1, self.epochs, progress.step, self.steps, seen, *self._figures)

    def objective(self) -> float:
        """The objective of the last step's batch. Waits for the device."""
        batch = self.progress.batch - 1
        photos = self._edges[batch + 1] - self._edges[batch]
        return float(self.network.backend.to_host(self.step.objectives[:photos]).sum())

    def _read_totals(self) -> None:
        totals = [float(value) for value in self.network.backend.to_host(self.step.totals)]
        if not math.isfinite(totals[0]):
            raise self._diverged(f"the loss is {totals[0]}")
        self.progress.totals = totals
        if self._profiler is not None:
            self._profiler.collect()

    def _diverged(self, what: str) -> DivergedError:
        return DivergedError(
            f"Training diverged in epoch {self.progress.epoch + 1}, step {self.progress.step}: {what}.\n"
            "Take a smaller learning rate (--set optimizer.learning_rate=...) or a longer warm-up "
            "(--set schedule.warmup=...). What was saved before is untouched."
        )

    def _check_weights(self) -> None:
        """The loss is that of the weights before a step; what the step did to them only shows in the next loss."""
        weights = self.network.weights
        for flat in (weights.parameters.flat, weights.statistics.flat):
            if not np.isfinite(self.network.backend.to_host(flat)).all():
                raise self._diverged("there are weights that are no longer numbers")

    def _end_epoch(self, recorder: Recorder, first_batch: int, seconds: float) -> None:
        """Evaluate an epoch, whose steps from ``first_batch`` on took ``seconds``, and save what is due."""
        progress, count = self.progress, len(self.data.train_indices)
        loss, accuracy, worst = progress.totals[0] / count, progress.totals[1] / count, progress.totals[2]
        self._check_weights()
        if loss > LARGEST_LOSS:
            raise self._diverged(f"the loss is {loss:.0e}")
        # Before the validation, which also runs forward.
        watched = self._watch()
        if self._profiler is not None:
            watched["milliseconds"] = self._profiler.take(self.steps_per_epoch - first_batch)
        is_last = self._is_last(worst)
        validation_loss, validation_accuracy = self._validate() if is_last or self._is_to_validate() else (None, None)
        # Without held-out photos the latest weights are the best.
        held_out = len(self.data.validation.labels) > 0
        judged = validation_loss if held_out else loss
        if judged is not None and not math.isfinite(judged):
            raise self._diverged(f"the validation loss is {judged}")
        progress.epoch, progress.batch, progress.totals = progress.epoch + 1, 0, [0.0, 0.0, 0.0]
        improved = judged is not None and (not held_out or progress.best_loss is None or judged < progress.best_loss)
        if improved:
            progress.best_loss, progress.best_epoch = judged, progress.epoch
        progress.finished = is_last or self._has_lost_patience()
        photos_seen = count - self._edges[first_batch]
        recorder.epoch(
            {
                "epoch": progress.epoch,
                "step": progress.step,
                "learning_rate": self.step.learning_rate(progress),
                "train_loss": loss,
                "train_accuracy": accuracy,
                "train_worst_loss": worst,
                "validation_loss": validation_loss,
                "validation_accuracy": validation_accuracy,
                "seconds": seconds,
                "photos_per_second": photos_seen / seconds if seconds > 0 else None,
                **watched,
            }
        )
        if judged is not None:
            progress.schedule = self.settings.schedule.after_epoch(progress.schedule, judged)
        if improved and held_out:
            self._best = self._snapshot()
        if progress.finished or progress.step - progress.saved_at >= self._steps_between_saves:
            progress.saved_at = progress.step
            if not held_out:
                self._best = self._snapshot()
            self.save(recorder, interrupted=False)

    def _is_last(self, worst: float) -> bool:
        """Whether the epoch that ends is the last, whatever the held-out photos say."""
        progress, worst_limit = self.progress, self.settings.train.stop_when_worst_loss_below
        return (
            progress.epoch + 1 >= self.epochs
            or progress.minimiser.get("stalled", 0) >= STALLED
            or (worst_limit is not None and worst < worst_limit)
        )

    def _has_lost_patience(self) -> bool:
        patience = self.settings.train.stop_after_epochs_without_gain
        return patience is not None and self.progress.epoch - self.progress.best_epoch >= patience

    def _is_to_validate(self) -> bool:
        """Whether the held-out photos are judged after this epoch: always if something depends on each epoch's figures,
        or the last time is many steps ago; else when it costs little by comparison (see ``VALIDATION_SHARE``)."""
        steps = self.progress.step - self.progress.validated_at
        photos_trained = steps * len(self.data.train_indices) / self.steps_per_epoch
        photos_judged = len(self.data.validation.labels) * (2 if self.mirrors else 1)
        return (
            self.settings.schedule.follows_loss
            or self.settings.train.stop_after_epochs_without_gain is not None
            or steps >= self.step.steps_between_validations
            or photos_judged <= VALIDATION_SHARE * PASSES_OF_A_STEP * photos_trained
        )

    def _is_looked_at_closely(self) -> bool:
        """Whether figures of every kernel are taken in this epoch."""
        first, between = self.progress.epoch * self.steps_per_epoch, self.step.steps_between_looks
        return (first + self.steps_per_epoch) // between > first // between or self.progress.epoch + 1 == self.epochs

    def _watch(self) -> dict[str, Any]:
        """The kernels' figures, after an epoch's last step and before anything else runs forward; on rank 0, which
        records them."""
        if self._ranks.rank:
            return {}
        start, stop = share(self._edges[-1] - self._edges[-2], self._ranks)
        last = stop - start
        return self.watch.figures(
            (last - 1) % self.micro_batch_size + 1,
            closely=self._is_looked_at_closely(),
            reach=self.step.reach(self.progress),
        )

    def _validate(self) -> tuple[float | None, float | None]:
        """Mean loss and accuracy on the held-out photos; strangers are a class as in training."""
        labels = self.data.validation.labels
        if not len(labels):
            return None, None
        self.progress.validated_at = self.progress.step
        own = labels[slice(*share(len(labels), self._ranks))]
        gathered = self._ranks.gather(losses_and_hits(self._blocks(self._validation), own))
        if self._profiler is not None:
            self._profiler.take(1)  # validation isn't part of a step
        losses, right = (np.concatenate(columns) for columns in zip(*gathered, strict=True))
        return float(losses.mean()), float(right.mean())

    def answers(self, photos: PhotoSet) -> Float64Array:
        """Log-probabilities (n, outputs) of photos without augmentation, by the weights that are used for answers."""
        return joined(self.blocks_of_answers(photos), self.data.outputs)

    def blocks_of_answers(self, photos: PhotoSet) -> Iterator[Float64Array]:
        """The rows of ``answers`` in blocks of successive photos."""
        return self._blocks(self._feed(photos))

    def _blocks(self, photos: PhotoFeed) -> Iterator[Float64Array]:
        normalise, weights = self.settings.photos.normalise, self.step.arrays.average
        return blocks_of_log_probabilities(self.network, photos, normalise, mirror=self.mirrors, weights=weights)

    def _feed(self, photos: PhotoSet) -> PhotoFeed:
        return PhotoFeed(self.network.backend, photos.pixels, photos.rows, self.micro_batch_size)

    def begin(self, progress: Progress) -> None:
        """Drop all that was trained except ``progress``, and set the initial weights that it implies."""
        self.progress = progress
        self._reset(self.start)
        self.watch.start = self.watch.kernels()
        if self._profiler is not None:
            self._profiler.take(1)  # a trial isn't part of the training

    def _reset(self, start: int) -> None:
        """Reset all arrays to initialisation ``start``. Number 0 uses the seed; the others add a multiple of 2^32,
        which no seed reaches."""
        train, arrays = self.settings.train, self.step.arrays
        arrays.reset()
        seed = train.seed + (start << 32)
        self.network.initialise(seed, train.initialisation, self._initial_photos, self._initial_arrays)
        if arrays.average is not None:
            arrays.average.copy_from(self.network.weights)
        self._best = None

    def _initial_photos(self) -> Array:
        return self.data.initial_photos(self.settings.train.seed, self.settings.photos, self.network.dtype)

    def arrays(self) -> dict[str, Array]:
        """All arrays that resuming needs, by name."""
        initial = {f"{INITIAL_PREFIX}{name}": array for name, array in self._initial_arrays.items()}
        return self.step.arrays.to_host() | initial

    def restore(self, arrays: Mapping[str, Array], progress: Mapping[str, Any]) -> None:
        """Go back to a saved state. Raises KeyError or ValueError if an array is missing or has another shape."""
        self.progress = Progress(**progress)
        self._initial_arrays = named_below(INITIAL_PREFIX, arrays)
        if self._initial_arrays or self.start != 0:
            self.begin(self.progress)
        self.step.arrays.from_host(arrays)

    def save(self, recorder: Recorder, *, interrupted: bool) -> None:
        """Save the state, and the best model since the last save, on rank 0."""
        if self._ranks.size > 1:
            self._stay_as_one()
        if self._ranks.rank:
            return
        if self._best is not None:
            recorder.save_best(*self._best)
            self._best = None
        recorder.save_last(self.arrays(), asdict(self.progress), interrupted=interrupted)

    def _snapshot(self) -> tuple[dict[str, Array], dict[str, Any]] | None:
        if self._ranks.rank:
            return None
        return self.step.arrays.model_to_host(), asdict(self.progress)


def _step(
    settings: TrainingSettings, data: TrainingData, backend: Backend, micro_batch_size: int | None, ranks: Ranks
) -> Step:
    if isinstance(settings.optimizer, FullBatchOptimizer):
        assert ranks.size == 1, "a full-batch optimizer's loss isn't shared"
        return full_batch_step(settings, settings.optimizer, data, backend, micro_batch_size)
    assert not isinstance(settings.optimizer, ClassMeans), "it makes no steps: see class_means.ClassMeansTrainer"
    return training_step(settings, settings.optimizer, data, backend, micro_batch_size, ranks)
