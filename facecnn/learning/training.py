"""The training loop: steps, epochs, what is kept of them, and an exact way to stop and go on.

Everything random is a function of (seed, what for, epoch or step, photo), nothing of what was drawn before. So the
state that has to be saved is small, and a training that was interrupted and resumed ends with the same bits as one that
was not.

With ``train.restarts`` the initial weights are the best of several (multi-start): each are trained for some epochs, and
those that end with the lowest training loss are then trained from the beginning, as if nothing had been tried. So the
trials cost ``restarts * restart_epochs`` epochs more, and the training is, to the bit, the one that these weights alone
would have had.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from facecnn.errors import DivergedError, UsageError
from facecnn.kernels import reference
from facecnn.kernels.profiling import Profiler
from facecnn.kernels.protocol import AUGMENTATION_NONE, Kernels, Normalise
from facecnn.learning.batches import Batches, Place, Stretch, edges_of
from facecnn.learning.full_batch_optimizers import FullBatchOptimizer, Memory, Point
from facecnn.learning.schedules import Schedule, course
from facecnn.learning.settings import TrainSettings
from facecnn.learning.step_rules import Piece, StepRule
from facecnn.learning.watching import STEPS_BETWEEN_LOOKS, KernelWatch
from facecnn.learning.whole_set import WholeSet
from facecnn.network.feeding import PhotoFeed
from facecnn.network.inference import log_probabilities
from facecnn.network.initialisation import NOTHING
from facecnn.network.layers import Layer, Shape
from facecnn.network.loss import CrossEntropy, Loss
from facecnn.network.network import Network, fitting
from facecnn.photos.preparation import AugmentSettings

Array = npt.NDArray[Any]

STEPS_BETWEEN_SAVES = 25
"""The run is saved after the first epoch that ends so many steps or more after the last save."""

STEPS_BETWEEN_READINGS = 10
"""Loss and accuracy are read from the device after so many steps, and at an epoch's end."""

LARGEST_LOSS = 1e6
"""A mean loss beyond which a training has diverged, though it still is a number: the right person's probability is
exp(-1e6) then, and weights have grown so far that no step finds back. It shows where gradients are clipped."""

STALLED = 8
"""A training ends when a minimiser has found nothing better so many times in a row."""

TAKEN = "taken."
"""Before the names, in a saved training, of the arrays of another model that it began with."""

_START_PURPOSE = 2**33
"""Second word of the key of the choice of photos that initial weights are made for, apart from those of the initial
weights and of the shuffles (``batches``)."""

_PHOTOS_TO_START_FROM = 64
"""Initialisations that look at photos look at so many."""


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


class Recorder:
    """Where a training's results go; this one keeps nothing of them."""

    every_step: bool = True
    """Whether ``step`` is to be called after each. If not, several with small batches are made in one go
    (``batches.Stretch``), which takes less time."""

    def step(self, step: StepReport) -> None:
        """Called after every step, or after all that were made in one go, with the last one's report."""

    def epoch(self, metrics: Mapping[str, Any]) -> None:
        """Called after every epoch with one line of figures."""

    def trial_step(self, start: int, step: StepReport) -> None:
        """The like of ``step`` in the trial of the initial weights number ``start``."""

    def tried(self, losses: Sequence[float | None]) -> None:
        """Called when a trial has ended, with the losses of all so far; None of one that diverged."""

    def chosen(self, start: int) -> None:
        """Called after all trials, when the weights are the initial ones number ``start``, which will be trained."""

    def save_best(self, arrays: Mapping[str, Array], state: Mapping[str, Any]) -> None:
        """Keep the model with the lowest validation loss so far."""

    def save_last(self, arrays: Mapping[str, Array], state: Mapping[str, Any], *, interrupted: bool) -> None:
        """Keep all that resuming needs."""


class StepReport(NamedTuple):
    """Where a training stands after a step; loss and accuracy are those that were read last."""

    epoch: int
    epochs: int
    step: int
    steps: int
    photos: int
    loss: float
    """Of the epoch's photos so far, as is the accuracy."""
    accuracy: float


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
    minimiser: dict[str, float] = field(default_factory=dict)
    """The numbers that a minimiser remembers."""
    schedule: dict[str, float] = field(default_factory=dict)
    """What the schedule remembers of the epochs."""
    saved_at: int = 0
    """The step of the last save at an epoch's end."""
    finished: bool = False
    trials: list[float | None] = field(default_factory=list)
    """The training loss that each of the initial weights tried so far ended its trial with; None where it diverged."""


class _Trial(Recorder):
    """Passes on the steps of a trial and keeps the loss that it ended with; nothing is saved."""

    def __init__(self, recorder: Recorder, start: int, epochs: int, steps: int) -> None:
        self.every_step = recorder.every_step
        self._recorder = recorder
        self._start = start
        self._epochs, self._steps = epochs, steps
        self.loss: float | None = None

    def step(self, step: StepReport) -> None:
        self._recorder.trial_step(self._start, step._replace(epochs=self._epochs, steps=self._steps))

    def epoch(self, metrics: Mapping[str, Any]) -> None:
        self.loss = metrics["train_loss"]


class Trainer:
    """Trains one network on one set of photos."""

    def __init__(
        self,
        *,
        layers: Sequence[Layer],
        input_shape: Shape,
        loss: Loss,
        optimizer: StepRule | FullBatchOptimizer,
        schedule: Schedule,
        train: TrainSettings,
        augment: AugmentSettings | None,
        normalise: Normalise,
        photos: PhotoSet,
        chosen: Array,
        validation: PhotoSet,
        outputs: int,
        kernels: Kernels,
        part_size: int | None = None,
        profile: bool = False,
        taken: Mapping[str, Array] = NOTHING,
    ) -> None:
        """Train on the photos number ``chosen`` of ``photos`` and judge by ``validation``, which may be empty.

        ``outputs`` counts the people, and one more where photos of unknown people are there. ``part_size``: so many
        photos of a batch at most are worked on at a time, and their gradients added up. ``profile``: time every
        kernel. ``taken``: arrays of another model by name (``conv1.weight``) that take the place of initial ones.
        Raises LayerError and UsageError where the network doesn't fit, MemoryError where the device is too small,
        ValueError for a taken array of another shape.
        """
        self.settings = train
        self.photos = photos
        self.chosen = chosen
        self.validation = validation
        self.outputs = outputs
        self._profiler = Profiler(kernels) if profile else None
        self.kernels: Kernels = self._profiler or kernels
        self.optimizer = optimizer
        self.schedule = schedule
        self.normalise: Normalise = normalise
        self._mirrors = augment is not None and augment.mirror
        self.progress = Progress()

        count = len(chosen)
        self._minimiser = optimizer if isinstance(optimizer, FullBatchOptimizer) else None
        if self._minimiser is None:
            self.epochs, self.batches = course(train, count)
        else:  # each step sees all photos, and has its own way to a loss without chance in it
            self.batches, self.epochs = 1, train.epochs
            train = replace(train, average_weights=None)
            self.settings = train
            layers = [layer.without_randomness().for_whole_set() for layer in layers]
            if not any(layer.uses_batch_statistics for layer in layers):
                part_size = min(part_size or train.batch_size, train.batch_size)
        self.batch_size = math.ceil(count / self.batches)
        self._edges = edges_of(count, self.batches)
        self._refuse_what_cannot_be(loss)
        self.part_size = min(self.batch_size, part_size or self.batch_size)
        self.network = Network(
            layers,
            input_shape,
            self.kernels,
            self.part_size,
            loss=loss,
            seed=train.seed,
            frozen=train.freeze,
            in_parts=self.part_size < self.batch_size,
        )
        self._taken = dict(taken)
        self._refuse_single_numbers()
        self._refuse_equal_starts()
        self._average = self.network.new_weights() if train.average_weights is not None else None

        dtype = self.network.dtype
        self._state = {name: self.network.new_weights().parameters for name in optimizer.state_names}
        self._ranges = self.network.trained_ranges()
        if not self._ranges:
            raise UsageError(f"train.freeze {train.freeze}: no layer is left to train: freeze fewer")
        # The gradient as the step rule gets it, where that is clipped or noisy. The network's own, which KernelWatch
        # reads, stays what backward found: a kernel that gets no error must not look alive for the noise.
        self._changed_gradient: Array | None = None
        if isinstance(optimizer, StepRule) and optimizer.changes_gradient:
            self._changed_gradient = self.network.new_weights().parameters.flat
            self._noise_counts = kernels.to_device(self._count_trained())

        self._objectives = kernels.empty((self.batch_size,), dtype)
        self._class_weights = kernels.to_device(self._weights_of_classes(loss).astype(dtype))
        self._totals = kernels.to_device(np.zeros(3, dtype))
        self._figures = (0.0, 0.0)
        self._steps: dict[Stretch, Callable[[], None]] = {}
        whole_size = self.batch_size if self._minimiser is None else self.part_size
        self._feed = PhotoFeed(kernels, photos.pixels, photos.rows[chosen], whole_size)
        self._validation_feed = PhotoFeed(kernels, validation.pixels, validation.rows, self.part_size)
        self._memory = Memory()
        self._point: Point | None = None
        self._best: tuple[dict[str, Array], dict[str, Any]] | None = None
        """The best model since the last save."""
        if self._minimiser is not None:
            labels = photos.labels[chosen].astype(np.int32)
            self.whole = WholeSet(
                self.network, self._feed, labels, self._class_weights, normalise, self._minimiser.weight_decay
            )
            """The loss of all photos to train on, which only a minimiser's training has."""
            self._totals, self._objectives = self.whole.totals, self.whole.objectives
        else:
            self._batches = Batches(
                self.network,
                self._feed,
                photos.labels,
                chosen,
                edges=self._edges,
                in_parts=self.part_size < self.batch_size,
                augment=augment,
                normalise=normalise,
                seed=train.seed,
            )
        self._initialise(0)
        self.watch = KernelWatch(self.network)

    def _initialise(self, start: int) -> None:
        """The initial weights number ``start``, with nothing made of them yet. Number 0 are those of the seed itself;
        the key of the others' random numbers is a multiple of 2^32 above it, where no seed lies."""
        network = self.network
        for values in (network.weights.parameters, network.weights.statistics, *self._state.values()):
            if values.named:  # also what lies between them: a trial that diverged may have left there what is no number
                self.kernels.copy_to_device(values.flat, np.zeros(values.flat.shape, network.dtype))
        seed, how = self.settings.seed + (start << 32), self.settings.initialisation
        network.initialise(seed, how, self._photos_to_start_from, self._taken)
        if self._average is not None:
            self._average.copy_from(network.weights)
        self._memory, self._point, self._best = Memory(), None, None

    def _photos_to_start_from(self) -> Array:
        """Some of the photos to train on, not augmented; prepared on the host, so that they are the same everywhere."""
        generator = np.random.Generator(np.random.Philox(key=[self.settings.seed, _START_PURPOSE]))
        count = min(len(self.chosen), _PHOTOS_TO_START_FROM)
        rows = self.photos.rows[np.sort(generator.choice(self.chosen, count, replace=False))].astype(np.int32)
        prepared: Array = np.empty((count, *self.network.input.shape[1:]), self.network.dtype)
        parameters = np.tile(AUGMENTATION_NONE, (count, 1))
        reference.prepare_photos(prepared, self.photos.pixels, rows, parameters, self.normalise, reference.Workspace())
        return prepared

    def _refuse_what_cannot_be(self, loss: Loss) -> None:
        """Stops that would never come, and trials that are longer than what they are trials for."""
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
        if self.settings.restarts > 1 and self.settings.restart_epochs > self.epochs:
            raise UsageError(
                f"train.restart_epochs {self.settings.restart_epochs}: longer than the training that a trial is the "
                f"beginning of, which has {self.epochs} epochs: take fewer"
            )

    def _refuse_single_numbers(self) -> None:
        """Batch norm of units needs two photos at least: of a single number the deviation is 0."""
        if len(self.chosen) // self.batches > 1:
            return
        for stage in self.network.stages[self.network.first_trained :]:
            if stage.layer.uses_batch_statistics and math.prod(stage.shape[:-1]) == 1:
                raise UsageError(
                    f"train.batch_size {self.settings.batch_size}: with {len(self.chosen)} photos to train on there "
                    f"are batches of one photo, of which {stage.name} can learn nothing: take a larger batch_size, or "
                    "leave batch_norm of units out"
                )

    def _refuse_equal_starts(self) -> None:
        """Where nothing is drawn, there is nothing to choose from."""
        drawn = {
            f"{stage.name}.{name}"
            for stage in self.network.stages
            for name, parameter in stage.parameters.items()
            if parameter.start == "random"
        }
        if self.settings.restarts > 1 and drawn <= self._taken.keys():
            raise UsageError(
                f"train.restarts {self.settings.restarts}: all initial weights are taken from another model, so there "
                "are no others to try: leave it at 1"
            )

    @property
    def photos_are_streamed(self) -> bool:
        """Whether the device's memory is too small for all photos, so that they are sent batch by batch."""
        return self._feed.streamed

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
        return arrays | {f"{TAKEN}{name}": array for name, array in self._taken.items()}

    def restore(self, arrays: Mapping[str, Array], progress: Mapping[str, Any]) -> None:
        """Go back to a saved state; raises KeyError or ValueError where arrays are missing or of another shape."""
        self.progress = Progress(**progress)
        self._taken = {name.removeprefix(TAKEN): array for name, array in arrays.items() if name.startswith(TAKEN)}
        if self._taken or self.start != 0:
            self._begin(self.progress)
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
        if self._minimiser is not None:
            vectors = {name: self.whole.gather(values.flat) for name, values in self._state.items()}
            self._memory, self._point = Memory(vectors, dict(self.progress.minimiser)), None

    # ---------------------------------------------------------------------------------------------------- training

    def run(self, recorder: Recorder, stop: Callable[[], bool] = lambda: False) -> bool:
        """Train to the end, or until ``stop`` says so after a step (see ``Recorder.every_step``); then the state is
        saved and False returned. Initial weights are tried before, where there are several and they haven't been.

        Raises DivergedError when the loss or a weight is no longer a number; what was saved before stays as it was. A
        trial that diverges only counts as lost, unless all do.
        """
        if self.trials_left and not self._choose_start(recorder, stop):
            return False
        return self._train(self.epochs, recorder, stop)

    @property
    def trials_left(self) -> int:
        """Initial weights that are still to be tried before the training."""
        restarts = self.settings.restarts
        return restarts - len(self.progress.trials) if restarts > 1 else 0

    @property
    def start(self) -> int:
        """The number of the initial weights that are trained or, while there are trials left, tried next."""
        trials = self.progress.trials
        if self.trials_left or not trials:
            return len(trials)
        return int(np.argmin([math.inf if loss is None else loss for loss in trials]))

    def _begin(self, progress: Progress) -> None:
        """Nothing but ``progress`` is left of what was trained; the weights are the initial ones that it leads to."""
        self.progress = progress
        self._initialise(self.start)
        self.watch.start = self.watch.kernels()

    def _choose_start(self, recorder: Recorder, stop: Callable[[], bool]) -> bool:
        """Try each of the initial weights for some epochs, and begin with those that learned best.

        They are judged by the training loss of the trial's last epoch, and not by held-out photos. What a bad start
        shows is that it doesn't learn, which the photos trained on show as well, and there are more of them; held-out
        ones would choose once more, beside the best epoch, what they are to judge afterwards, and where they are few,
        the luckiest of several starts looks better than it is. It also is the same rule where nothing is held out.

        All trials see the same order, augmentation and dropout, so that they differ by their initial weights only.
        After each, the losses so far are saved; a trial that was interrupted is made anew, to the same loss.
        """
        epochs = self.settings.restart_epochs
        diverged: DivergedError | None = None
        while self.trials_left:
            trials = self.progress.trials
            trial = _Trial(recorder, len(trials), epochs, epochs * self.batches)
            try:
                goes_on = self._train(epochs, trial, stop)
                ended = goes_on or self.progress.epoch == epochs
            except DivergedError as error:
                goes_on, ended, diverged, trial.loss = True, True, error, None
            if self._profiler is not None:
                self._profiler.take(1)  # what a trial took is no part of the training
            if ended:
                trials = [*trials, trial.loss]
                recorder.tried(trials)
            if len(trials) == self.settings.restarts and all(loss is None for loss in trials):
                raise DivergedError(f"Each of {len(trials)} initial weights diverged when tried. {diverged}")
            self._begin(Progress(trials=trials))
            self._save(recorder, interrupted=not goes_on)
            if not goes_on:
                return False
        recorder.chosen(self.start)
        return True

    def _train(self, last: int, recorder: Recorder, stop: Callable[[], bool]) -> bool:
        """Train to the end of epoch ``last``, or until ``stop`` says so; then the state is saved and False returned."""
        progress = self.progress
        while not progress.finished and progress.epoch < last:
            started = time.perf_counter()
            first = progress.batch
            self._before_step()
            for made in self._steps_of_epoch(recorder.every_step):
                progress.batch, progress.step = progress.batch + made, progress.step + made
                recorder.step(self._report(made))
                self._before_step()
                if progress.batch < self.batches and stop():
                    self._read_totals()
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
        """The batch's photos in the epoch's order: the first one's number, and that of the one after the last."""
        return self._edges[batch], self._edges[batch + 1]

    def _before_step(self) -> None:
        if self.progress.batch + 1 == self.batches and self._is_looked_at_closely():
            self.watch.before_last_step()

    def _steps_of_epoch(self, single: bool) -> Iterator[int]:
        """Train what is left of an epoch; how many steps were made, each time. Kernels are only asked for: nothing is
        copied to the host or waited for."""
        if self._minimiser is not None:
            self._minimise(self._minimiser)
            yield 1
            return
        progress = self.progress
        rates = self._rates_of(progress.step - progress.batch, self.batches)
        self.kernels.copy_to_device(self._totals, np.array(progress.totals, self.network.dtype))
        for stretch in self._batches.epoch(progress.epoch, progress.batch, progress.step, rates, single=single):
            steps = self._steps.get(stretch)
            if steps is None:
                steps = self.kernels.record(partial(self._launch_steps, stretch), self.network.workspace)
                self._steps[stretch] = steps
            steps()
            yield len(stretch.photos)

    def _rates_of(self, first: int, count: int) -> list[float]:
        """The learning rates of so many steps."""
        assert not isinstance(self.optimizer, FullBatchOptimizer)
        rate, factor = self.optimizer.learning_rate, self.schedule.factor
        steps, memory = self.steps, self.progress.schedule
        return [rate * factor(step, steps, memory) for step in range(first, first + count)]

    def _minimise(self, minimiser: FullBatchOptimizer) -> None:
        """One iteration over the whole training set. What it leaves is rounded as it is saved, so that going on from
        what was saved gives the same bits."""
        network, whole, memory = self.network, self.whole, self._memory
        statistics = network.weights.statistics.flat
        running = self.kernels.to_host(statistics)
        if self._point is None:
            self._point = whole.here()
        found = minimiser.iterate(whole.evaluate, self._point, memory)
        memory.numbers["stalled"] = memory.numbers.get("stalled", 0) + 1 if found is self._point else 0
        # Places that were only tried must not count in the running statistics, nor in what is reported.
        if statistics.size or whole.at is not found.w:
            self.kernels.copy_to_device(statistics, running)
            found = Point(found.w, *whole.evaluate(found.w))
        self._point = replace(found, w=found.w.astype(network.dtype).astype(np.float64))
        for name, values in self._state.items():
            vector = memory.vectors.get(name)
            if vector is not None:
                whole.scatter(values.flat, vector)
                memory.vectors[name] = whole.gather(values.flat)
        self.progress.minimiser = dict(memory.numbers)

    def _launch_steps(self, stretch: Stretch) -> None:
        """All kernels of the steps with these batches; the same ones every time."""
        for place in stretch.places():
            self._launch_step(place)

    def _launch_step(self, place: Place) -> None:
        network, step, class_weights = self.network, self._batches.step, self._class_weights
        network.weigh(self._batches.take(place), class_weights)
        for start, photos, labels, x in self._batches.parts(place):
            size = len(photos)
            network.forward(size, training=True, photos=photos, step=step, x=x)
            network.announce("loss", "")
            objectives = self._objectives[start : start + size]
            network.loss(size, labels, class_weights, is_part=True, objectives=objectives)
            losses, outputs = network.losses[:size], network.output[:size]
            self.kernels.add_to_totals(self._totals, losses, outputs, labels, network.workspace)
            network.backward(size, photos, step, is_first=start == 0, x=x)
        network.announce("update", "")
        self._update()

    def _count_trained(self) -> Array:
        """(P / 4,) uint8: so many of each four numbers of the flat parameters, from the first of them on, are trained.
        The others are frozen, or fill the gap to the next array, which starts at a multiple of 16."""
        parameters = self.network.weights.parameters
        trained = np.zeros(parameters.flat.size, np.uint8)
        for start, shape in parameters.offsets.values():
            if any(first <= start < last for first, last, _ in self._ranges):
                trained[start : start + math.prod(shape)] = 1
        return np.asarray(trained.reshape(-1, 4).sum(axis=1, dtype=np.uint8))

    def _update(self) -> None:
        kernels, network = self.kernels, self.network
        assert network.gradient is not None
        assert not isinstance(self.optimizer, FullBatchOptimizer)
        weight, gradient = network.weights.parameters.flat, network.gradient.flat
        if self._changed_gradient is not None:
            out, seed, step = self._changed_gradient, self.settings.seed, self._batches.step
            self.optimizer.change_gradient(kernels, out, gradient, self._noise_counts, seed, step, network.workspace)
            gradient = out
        for first, last, decaying in self._ranges:
            state = {name: values.flat[first:last] for name, values in self._state.items()}
            self.optimizer.update(
                Piece(
                    kernels=kernels,
                    weight=weight[first:last],
                    state=state,
                    gradient=gradient[first:last],
                    learning_rate=self._batches.learning_rate,
                    step=self._batches.step,
                    decaying=decaying,
                    workspace=network.workspace,
                )
            )
        if self._average is not None:
            assert self.settings.average_weights is not None
            for average, current in (
                (self._average.parameters, network.weights.parameters),
                (self._average.statistics, network.weights.statistics),
            ):
                kernels.average_update(
                    average.flat, current.flat, self._batches.step, self.settings.average_weights, network.workspace
                )

    def _report(self, made: int) -> StepReport:
        """After so many steps since the last one. The figures are read from the device once in a while only, since
        reading waits for it."""
        progress = self.progress
        _, seen = self._bounds(progress.batch - 1)
        if progress.batch == self.batches or (progress.step - 1) % STEPS_BETWEEN_READINGS < made:
            self._read_totals()
            self._figures = progress.totals[0] / seen, progress.totals[1] / seen
        return StepReport(progress.epoch + 1, self.epochs, progress.step, self.steps, seen, *self._figures)

    def objective(self) -> float:
        """The number that training lowers, of the last step's batch. Waits for the device."""
        start, stop = self._bounds(self.progress.batch - 1)
        return float(self.kernels.to_host(self._objectives[: stop - start]).sum())

    def _read_totals(self) -> None:
        totals = [float(value) for value in self.kernels.to_host(self._totals)]
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

    def _demand_finite_weights(self) -> None:
        """The loss is that of the weights before a step; what the step made of them shows only in the next loss."""
        weights = self.network.weights
        for flat in (weights.parameters.flat, weights.statistics.flat):
            if not np.isfinite(self.kernels.to_host(flat)).all():
                raise self._diverged("there are weights that are no longer numbers")

    def _is_looked_at_closely(self) -> bool:
        """Whether the figures of every kernel are taken in this epoch."""
        first = self.progress.epoch * self.batches
        between = STEPS_BETWEEN_LOOKS if self._minimiser is None else 1  # whose steps take longer than a look
        return (first + self.batches) // between > first // between or self.progress.epoch + 1 == self.epochs

    def _watch(self) -> dict[str, Any]:
        """The figures of the kernels, after an epoch's last step and before anything else runs forward."""
        start, stop = self._bounds(self.batches - 1)
        reach: float = self.steps
        if not isinstance(self.optimizer, FullBatchOptimizer):
            [rate] = self._rates_of(self.progress.step - 1, 1)
            reach *= self.optimizer.learning_rate / rate if rate > 0 else math.inf
        return self.watch.figures(
            (stop - start - 1) % self.part_size + 1, closely=self._is_looked_at_closely(), reach=reach
        )

    def _end_epoch(self, recorder: Recorder, first_batch: int, seconds: float) -> None:
        progress = self.progress
        count = len(self.chosen)
        loss_sum, right, worst = progress.totals
        self._demand_finite_weights()
        if loss_sum / count > LARGEST_LOSS:
            raise self._diverged(f"the loss is {loss_sum / count:.0e}")
        # Taken before the validation, which runs forward, too.
        watched = self._watch()
        profile = None if self._profiler is None else self._profiler.take(self.batches - first_batch)
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
            or (self._minimiser is not None and progress.minimiser["stalled"] >= STALLED)
            or (patience is not None and progress.epoch - progress.best_epoch >= patience)
            or (worst_limit is not None and worst < worst_limit)
        )
        if self._profiler is not None:
            self._profiler.take(1)  # what the validation took is not a step's
        photos_seen = count - self._bounds(first_batch)[0]
        recorder.epoch(
            {
                "epoch": progress.epoch,
                "step": progress.step,
                "learning_rate": (
                    self._rates_of(progress.step - 1, 1)[0]
                    if self._minimiser is None
                    else self._memory.numbers.get("step_length", 0.0)
                ),
                "train_loss": loss_sum / count,
                "train_accuracy": right / count,
                "train_worst_loss": worst,
                "validation_loss": validation_loss,
                "validation_accuracy": validation_accuracy,
                "seconds": seconds,
                "photos_per_second": photos_seen / seconds if seconds > 0 else None,
                **watched,
                **({} if profile is None else {"milliseconds": profile}),
            }
        )
        progress.schedule = self.schedule.after_epoch(progress.schedule, judged)
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
        answers = self._answers(self._validation_feed)
        labels = self.validation.labels
        return (
            0.0 - float(answers[np.arange(len(labels)), labels].mean()),  # not -0.0
            float((answers.argmax(axis=1) == labels).mean()),
        )

    def answers(self, photos: PhotoSet) -> npt.NDArray[np.float64]:
        """Log-probabilities (n, outputs) of photos, not augmented, by the weights that answer."""
        return self._answers(PhotoFeed(self.kernels, photos.pixels, photos.rows, self.part_size))

    def _answers(self, photos: PhotoFeed) -> npt.NDArray[np.float64]:
        return log_probabilities(self.network, photos, self.normalise, mirror=self.mirrors, weights=self._average)

    @property
    def mirrors(self) -> bool:
        """Whether answers are averaged over the photo and its mirror image: where training mirrors too."""
        return self._mirrors
