"""The training loop: steps, epochs, what is kept of them, and an exact way to stop and go on.

Everything random is a function of (seed, what for, epoch or step, photo), nothing of what was drawn before. So the
state that has to be saved is small, and a training that was interrupted and resumed ends with the same bits as one that
was not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from facecnn.errors import DivergedError, UsageError
from facecnn.kernels.protocol import AUGMENTATION_NONE, Kernels, Normalise
from facecnn.learning.schedules import Schedule
from facecnn.learning.settings import TrainSettings
from facecnn.learning.step_rules import StepRule
from facecnn.learning.watching import KernelWatch
from facecnn.network.inference import log_probabilities
from facecnn.network.layers import BatchNorm, Layer, Shape
from facecnn.network.loss import CrossEntropy, Loss
from facecnn.network.network import Network, fitting
from facecnn.photos.preparation import AugmentSettings

Array = npt.NDArray[Any]

STEPS_BETWEEN_SAVES = 25
"""The run is saved after the first epoch that ends so many steps or more after the last save."""

_ORDER_PURPOSE = 2**32
"""Second word of the key of the shuffles, apart from those of the initial weights."""


@dataclass(frozen=True)
class PhotoSet:
    """Prepared photos; arrays on the host."""

    pixels: Array
    """(P, H + 2 my, W + 2 mx, C) uint8, each with its margin."""
    rows: Array
    """(n,): the row of ``pixels`` of each photo."""
    labels: Array
    """(n,): the output that each photo belongs to."""

    def __len__(self) -> int:
        return len(self.labels)


class Recorder(Protocol):
    """Where a training's results go."""

    def step(self, step: StepReport) -> None:
        """Called after every step."""

    def epoch(self, metrics: Mapping[str, Any]) -> None:
        """Called after every epoch with one line of figures."""

    def save_best(self, arrays: Mapping[str, Array], state: Mapping[str, Any]) -> None:
        """Keep the model with the lowest validation loss so far."""

    def save_last(self, arrays: Mapping[str, Array], state: Mapping[str, Any], *, interrupted: bool) -> None:
        """Keep all that resuming needs."""


@dataclass(frozen=True)
class StepReport:
    """Where a training stands after a step; loss and accuracy are those of the epoch so far."""

    epoch: int
    epochs: int
    step: int
    steps: int
    photos: int
    loss: float
    accuracy: float
    objective: float
    """Of the step's batch: the number that training lowers."""


@dataclass
class Progress:
    """All of a training's state that is no array; with the arrays it is enough to go on to the same bits."""

    epoch: int = 0
    """Epochs that are complete."""
    batch: int = 0
    """Steps made in the epoch after those."""
    step: int = 0
    totals: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    """Sum of losses, right answers and worst loss of the epoch so far."""
    best_loss: float | None = None
    best_epoch: int = 0
    saved_at: int = 0
    """The step of the last save at an epoch's end."""
    finished: bool = False


class Trainer:
    """Trains one network on one set of photos."""

    def __init__(
        self,
        *,
        layers: Sequence[Layer],
        input_shape: Shape,
        loss: Loss,
        optimizer: StepRule,
        schedule: Schedule,
        train: TrainSettings,
        augment: AugmentSettings | None,
        normalise: Normalise,
        photos: PhotoSet,
        chosen: Array,
        validation: PhotoSet,
        outputs: int,
        kernels: Kernels,
    ) -> None:
        """Train on the photos number ``chosen`` of ``photos`` and judge by ``validation``, which may be empty.

        ``outputs`` counts the people, and one more where photos of unknown people are there. Raises LayerError and
        UsageError where the network doesn't fit.
        """
        self.settings = train
        self.photos = photos
        self.chosen = chosen
        self.validation = validation
        self.outputs = outputs
        self.kernels = kernels
        self.optimizer = optimizer
        self.schedule = schedule
        self.normalise: Normalise = normalise
        self.augment = augment
        self.progress = Progress()
        self._best: tuple[dict[str, Array], dict[str, Any]] | None = None
        """The best model since the last save."""

        count = len(chosen)
        self.batches = max(1, math.ceil(count / train.batch_size))
        self.epochs = max(train.epochs, math.ceil(train.least_steps / self.batches))
        self.batch_size = math.ceil(count / self.batches)
        self._refuse_what_cannot_be(loss)
        self.network = Network(
            layers, input_shape, kernels, self.batch_size, loss=loss, seed=train.seed, frozen=train.freeze
        )
        self.network.initialise(train.seed)
        self._refuse_single_numbers()
        self.watch = KernelWatch(self.network)
        self._average = self.network.new_weights() if train.average_weights is not None else None
        if self._average is not None:
            self._average.copy_from(self.network.weights)

        dtype = self.network.dtype
        self._state = {name: self.network.new_weights().parameters for name in optimizer.state_names}
        self._ranges = self.network.trained_ranges()
        if not self._ranges:
            raise UsageError(f"train.freeze {train.freeze}: no layer is left to train: freeze fewer")

        self._pixels = kernels.resident(photos.pixels)
        self._order_photos = kernels.empty((count,), np.int32)
        self._order_rows = kernels.empty((count,), np.int32)
        self._order_labels = kernels.empty((count,), np.int32)
        self._order_targets = kernels.empty((count, outputs), dtype)
        self._parameters = kernels.to_device(np.tile(AUGMENTATION_NONE, (self.batch_size, 1)))
        self._class_weights = kernels.to_device(self._weights_of_classes(loss).astype(dtype))
        self._epoch_number = kernels.to_device(np.zeros(1, np.int32))
        self._step_number = kernels.to_device(np.zeros(1, np.int32))
        self._learning_rate = kernels.to_device(np.zeros(1, dtype))
        self._totals = kernels.to_device(np.zeros(3, dtype))

    def _refuse_what_cannot_be(self, loss: Loss) -> None:
        """Stops that would never come."""
        if self.settings.stop_after_epochs_without_gain is not None and not len(self.validation):
            raise UsageError(
                "train.stop_after_epochs_without_gain: there are no held-out photos whose loss could fall: raise "
                "photos.validation, or leave it out"
            )
        if self.settings.stop_when_worst_loss_below is not None and not isinstance(loss, CrossEntropy):
            raise UsageError(
                "train.stop_when_worst_loss_below: the cross-entropy is meant, which mean_squared_error does not bring "
                "down: leave it out, or take the loss cross_entropy"
            )

    def _refuse_single_numbers(self) -> None:
        """Batch norm of units needs two photos at least: of a single number the deviation is 0."""
        if len(self.chosen) // self.batches > 1:
            return
        for stage in self.network.stages[self.network.first_trained :]:
            if isinstance(stage.layer, BatchNorm) and math.prod(stage.shape[:-1]) == 1:
                raise UsageError(
                    f"train.batch_size {self.settings.batch_size}: with {len(self.chosen)} photos to train on there "
                    f"are batches of one photo, of which {stage.name} can learn nothing: take a larger batch_size, or "
                    "leave batch_norm of units out"
                )

    @property
    def steps(self) -> int:
        """Updates in the whole training."""
        return self.epochs * self.batches

    def _weights_of_classes(self, loss: Loss) -> Array:
        if not isinstance(loss, CrossEntropy) or loss.class_weights is None:
            return np.ones(self.outputs)
        counts = np.bincount(self.photos.labels[self.chosen], minlength=self.outputs)
        return np.asarray(counts.sum() / (self.outputs * np.maximum(counts, 1)))

    # ------------------------------------------------------------------------------------------------------ saving

    def model_arrays(self) -> dict[str, Array]:
        """The weights that answer: their moving average where there is one."""
        return (self._average or self.network.weights).to_host()

    def arrays(self) -> dict[str, Array]:
        """All arrays that resuming needs, by name."""
        arrays = {f"model.{name}": array for name, array in self.model_arrays().items()}
        if self._average is not None:
            arrays |= {f"training.{name}": array for name, array in self.network.weights.to_host().items()}
        for state, values in self._state.items():
            arrays |= {f"{state}.{name}": self.kernels.to_host(array) for name, array in values.named.items()}
        return arrays

    def restore(self, arrays: Mapping[str, Array], progress: Mapping[str, Any]) -> None:
        """Go back to a saved state; raises KeyError or ValueError where arrays are missing or of another shape."""
        self.progress = Progress(**progress)
        model = {name.removeprefix("model."): array for name, array in arrays.items() if name.startswith("model.")}
        if self._average is None:
            self.network.weights.from_host(model)
        else:
            self._average.from_host(model)
            prefix = "training."
            self.network.weights.from_host(
                {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
            )
        for state, values in self._state.items():
            for name, view in values.named.items():
                self.kernels.copy_to_device(view, fitting(arrays, f"{state}.{name}", view))

    # ---------------------------------------------------------------------------------------------------- training

    def run(self, recorder: Recorder, stop: Callable[[], bool] = lambda: False) -> bool:
        """Train to the end, or until ``stop`` says so after a step; then the state is saved and False returned.

        Raises DivergedError when the loss or a weight is no longer a number; what was saved before stays as it was.
        """
        progress = self.progress
        while not progress.finished:
            started = time.perf_counter()
            first = progress.batch
            self._begin_epoch()
            for batch in range(first, self.batches):
                self._train_step(batch)
                progress.batch, progress.step = batch + 1, progress.step + 1
                recorder.step(self._report())
                if batch + 1 < self.batches and stop():
                    self._demand_finite_weights()
                    self._save(recorder, interrupted=True)
                    return False
            self._end_epoch(recorder, first, time.perf_counter() - started)
            if not progress.finished and stop():
                if progress.saved_at != progress.step:
                    self._save(recorder, interrupted=True)
                return False
        return True

    def _bounds(self, batch: int) -> tuple[int, int]:
        """Batches are equal within one photo, so that batch norm never meets a small rest."""
        count = len(self.chosen)
        return batch * count // self.batches, (batch + 1) * count // self.batches

    def _begin_epoch(self) -> None:
        epoch = self.progress.epoch
        generator = np.random.Generator(np.random.Philox(key=[self.settings.seed, _ORDER_PURPOSE + epoch]))
        order = self.chosen[generator.permutation(len(self.chosen))]
        labels = self.photos.labels[order].astype(np.int32)
        copy = self.kernels.copy_to_device
        copy(self._order_photos, order.astype(np.int32))
        copy(self._order_rows, self.photos.rows[order].astype(np.int32))
        copy(self._order_labels, labels)
        copy(self._order_targets, np.eye(self.outputs, dtype=self.network.dtype)[labels])
        copy(self._epoch_number, np.array([epoch], np.int32))
        copy(self._totals, np.array(self.progress.totals, self.network.dtype))

    def _train_step(self, batch: int) -> None:
        kernels, network, step = self.kernels, self.network, self.progress.step
        start, stop = self._bounds(batch)
        count = stop - start
        photos, labels = self._order_photos[start:stop], self._order_labels[start:stop]
        rate = self.optimizer.learning_rate * self.schedule.factor(step, self.steps)
        kernels.copy_to_device(self._step_number, np.array([step], np.int32))
        kernels.copy_to_device(self._learning_rate, np.array([rate], network.dtype))

        parameters = self._parameters[:count]
        if self.augment is not None:
            a = self.augment
            kernels.draw_augmentation(
                parameters,
                photos,
                self._epoch_number,
                self.settings.seed,
                a.mirror,
                a.shift,
                a.zoom,
                a.rotate,
                a.gamma,
                a.contrast,
                a.brightness,
                a.blur,
                a.erase,
                network.workspace,
            )
        kernels.prepare_photos(
            network.input[:count],
            self._pixels,
            self._order_rows[start:stop],
            parameters,
            self.normalise,
            network.workspace,
        )
        network.forward(count, training=True, photos=photos, step=self._step_number)
        network.loss(count, labels, self._class_weights, self._order_targets[start:stop])
        kernels.add_to_totals(self._totals, network.losses[:count], network.output[:count], labels, network.workspace)
        network.backward(count, photos, self._step_number)
        assert network.gradient is not None
        weight, gradient = network.weights.parameters.flat, network.gradient.flat
        for first, last, decaying in self._ranges:
            state = {name: values.flat[first:last] for name, values in self._state.items()}
            self.optimizer.update(
                kernels,
                weight[first:last],
                state,
                gradient[first:last],
                self._learning_rate,
                self._step_number,
                decaying,
                network.workspace,
            )
        if self._average is not None:
            assert self.settings.average_weights is not None
            for average, current in (
                (self._average.parameters, network.weights.parameters),
                (self._average.statistics, network.weights.statistics),
            ):
                kernels.average_update(
                    average.flat, current.flat, self._step_number, self.settings.average_weights, network.workspace
                )

    def _report(self) -> StepReport:
        progress = self.progress
        progress.totals = [float(value) for value in self.kernels.to_host(self._totals)]
        start, seen = self._bounds(progress.batch - 1)
        loss = progress.totals[0] / seen
        if not math.isfinite(loss):
            raise self._diverged(f"the loss is {loss}")
        return StepReport(
            epoch=progress.epoch + 1,
            epochs=self.epochs,
            step=progress.step,
            steps=self.steps,
            photos=seen,
            loss=loss,
            accuracy=progress.totals[1] / seen,
            objective=float(self.kernels.to_host(self.network.objectives[: seen - start]).sum()),
        )

    def _diverged(self, what: str) -> DivergedError:
        return DivergedError(
            f"Training diverged in epoch {self.progress.epoch + 1}, step {self.progress.step}: {what}.\n"
            "Take a smaller learning rate (--set optimizer.learning_rate=...) or a longer warm-up "
            "(--set schedule.warmup=...). What was saved before is untouched."
        )

    def _demand_finite_weights(self) -> None:
        """The loss is that of the weights before a step; what the step made of them shows only in the next loss."""
        weights = self.network.weights
        for flat in (weights.parameters.flat, weights.statistics.flat):
            if not np.isfinite(self.kernels.to_host(flat)).all():
                raise self._diverged("there are weights that are no longer numbers")

    def _end_epoch(self, recorder: Recorder, first_batch: int, seconds: float) -> None:
        progress = self.progress
        count = len(self.chosen)
        loss_sum, right, worst = progress.totals
        self._demand_finite_weights()
        validation_loss, validation_accuracy = self._validate()
        if validation_loss is not None and not math.isfinite(validation_loss):
            raise self._diverged(f"the validation loss is {validation_loss}")
        judged = validation_loss if validation_loss is not None else loss_sum / count
        progress.epoch, progress.batch, progress.totals = progress.epoch + 1, 0, [0.0, 0.0, 0.0]
        # Without photos to judge by, the latest weights are the best.
        improved = validation_loss is None or progress.best_loss is None or judged < progress.best_loss
        if improved:
            progress.best_loss, progress.best_epoch = judged, progress.epoch
        patience, worst_limit = self.settings.stop_after_epochs_without_gain, self.settings.stop_when_worst_loss_below
        progress.finished = (
            progress.epoch >= self.epochs
            or (patience is not None and progress.epoch - progress.best_epoch >= patience)
            or (worst_limit is not None and worst < worst_limit)
        )
        photos_seen = count - self._bounds(first_batch)[0]
        recorder.epoch(
            {
                "epoch": progress.epoch,
                "step": progress.step,
                "learning_rate": float(self.kernels.to_host(self._learning_rate)[0]),
                "train_loss": loss_sum / count,
                "train_accuracy": right / count,
                "train_worst_loss": worst,
                "validation_loss": validation_loss,
                "validation_accuracy": validation_accuracy,
                "seconds": seconds,
                "photos_per_second": photos_seen / seconds if seconds > 0 else None,
                **self.watch.figures(),
            }
        )
        if improved and validation_loss is not None:
            self._best = self._snapshot()
        if progress.finished or progress.step - progress.saved_at >= STEPS_BETWEEN_SAVES:
            progress.saved_at = progress.step
            if validation_loss is None:
                self._best = self._snapshot()
            self._save(recorder, interrupted=False)

    def _snapshot(self) -> tuple[dict[str, Array], dict[str, Any]]:
        return {f"model.{name}": array for name, array in self.model_arrays().items()}, asdict(self.progress)

    def _save(self, recorder: Recorder, *, interrupted: bool) -> None:
        if self._best is not None:
            recorder.save_best(*self._best)
            self._best = None
        recorder.save_last(self.arrays(), asdict(self.progress), interrupted=interrupted)

    def _validate(self) -> tuple[float | None, float | None]:
        """Mean loss, and the share of photos whose largest output is their own, strangers' too, as in training."""
        if not len(self.validation):
            return None, None
        answers = self.answers(self.validation)
        labels = self.validation.labels
        return (
            float(-answers[np.arange(len(labels)), labels].mean()),
            float((answers.argmax(axis=1) == labels).mean()),
        )

    def answers(self, photos: PhotoSet) -> npt.NDArray[np.float64]:
        """Log-probabilities (n, outputs) of photos, not augmented, by the weights that answer."""
        return log_probabilities(
            self.network,
            self.kernels.resident(photos.pixels),
            photos.rows,
            self.normalise,
            mirror=self.mirrors,
            weights=self._average,
        )

    @property
    def mirrors(self) -> bool:
        """Whether answers are averaged over the photo and its mirror image: where training mirrors too."""
        return self.augment is not None and self.augment.mirror
