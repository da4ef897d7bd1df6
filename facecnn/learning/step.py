"""A training step: a batch, forward pass, loss, backward pass, and the update of the weights."""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Protocol
from weakref import proxy

import numpy as np

from facecnn.arrays import Array
from facecnn.errors import UsageError
from facecnn.kernels.backend import Backend
from facecnn.learning.batches import Batches, BatchSlot, StepGroup
from facecnn.learning.data import TrainingData, TrainingSettings
from facecnn.learning.optimizers import Optimizer
from facecnn.learning.progress import Progress
from facecnn.learning.schedules import Schedule
from facecnn.learning.update import TrainedArrays, WeightUpdate
from facecnn.learning.watching import STEPS_BETWEEN_LOOKS
from facecnn.network.feeding import PhotoFeed
from facecnn.network.layers import Layer, with_outputs
from facecnn.network.network import MicroBatch, Network
from facecnn.parallel.ranks import ALONE, Ranks, largest_share


class Step(Protocol):
    """What the training loop runs: a training step, or an iteration of a full-batch optimizer."""

    arrays: TrainedArrays
    epochs: int
    steps_per_epoch: int
    steps_between_looks: int
    """If epochs are shorter than this, only some are looked at closely (``watching``)."""
    steps_between_validations: int
    """Minimum number of steps from one judging of the held-out photos, at an epoch's end, to the next."""
    streamed: bool
    """Whether photos are sent to the device batch by batch because its memory doesn't hold them all."""
    objectives: Array
    """(photos of a batch,) on the device: each photo's part of the last batch's objective."""
    totals: Array
    """(3,) on the device: sum of losses, right answers and largest loss of the epoch so far."""

    def epoch(self, progress: Progress, *, one_by_one: bool) -> Iterator[int]:
        """Run the remaining steps of an epoch. Yields the number of steps made, after each step if ``one_by_one``, else
        after each group."""

    def learning_rate(self, progress: Progress) -> float:
        """Learning rate of the last step, or its counterpart."""

    def reach(self, progress: Progress) -> float:
        """Number of steps like the last one in a whole run at the full learning rate."""


class BatchSource(Protocol):
    """A source of batches for training steps: ``Batches``, or a benchmark's substitute."""

    steps_per_epoch: int
    largest: int
    streamed: bool
    learning_rate: Array
    step: Array

    def epoch(self, progress: Progress, rates: Sequence[float], *, one_by_one: bool) -> Iterator[StepGroup]: ...
    def take(self, slot: BatchSlot) -> Array: ...
    def micro_batches(self, slot: BatchSlot) -> Iterator[MicroBatch]: ...


class TrainingStep:
    """Trains on one batch after another."""

    steps_between_looks = STEPS_BETWEEN_LOOKS
    steps_between_validations = 200

    def __init__(
        self, batches: BatchSource, update: WeightUpdate, schedule: Schedule, epochs: int, class_weights: Array
    ) -> None:
        """``class_weights`` (units,) on the host: weight of each class's photos in the loss."""
        self._batches, self._update, self._schedule = batches, update, schedule
        self.arrays = update.arrays
        self._network = network = update.arrays.network
        self.epochs, self.steps_per_epoch = epochs, batches.steps_per_epoch
        self.streamed = batches.streamed
        self._class_weights = network.backend.to_device(class_weights.astype(network.dtype))
        self.objectives: Array = network.backend.empty((batches.largest,), network.dtype)
        self.totals: Array = network.backend.to_device(np.zeros(3, network.dtype))
        self._ranks = network.ranks
        self._own_totals: Array = network.backend.to_device(np.zeros(3, network.dtype))
        """``totals`` of one step and this rank's photos, if several ranks share each batch."""
        self._recorded: dict[StepGroup, Callable[[], None]] = {}

    def epoch(self, progress: Progress, *, one_by_one: bool) -> Iterator[int]:
        """See ``Step.epoch``. Only launches kernels: nothing is copied to the host or waited for."""
        rates = self._rates(progress, progress.step - progress.batch, self.steps_per_epoch)
        self._network.backend.copy_to_device(self.totals, np.array(progress.totals, self._network.dtype))
        for group in self._batches.epoch(progress, rates, one_by_one=one_by_one):
            run = self._recorded.get(group)
            if run is None:
                # Weakly, or the step would only be freed by the garbage collector, together with all its arrays.
                launch = partial(TrainingStep._launch, proxy(self), group)
                run = self._network.backend.record(launch, self._network.workspace)
                self._recorded[group] = run
            run()
            yield len(group)

    def _launch(self, group: StepGroup) -> None:
        """Launch the kernels of a group's steps: always the same ones, so that they can be recorded."""
        network, batches = self._network, self._batches
        for slot in group:
            labels = batches.take(slot)
            network.weigh(labels, self._class_weights)
            shared = self._ranks.size > 1
            if shared:
                network.backend.on_host(self._ranks.add_up, (network.loss_divisor,), network.workspace)
            totals = self._own_totals if shared else self.totals
            for micro_batch in batches.micro_batches(slot):
                network.forward_backward(micro_batch, self._class_weights, self.objectives, totals)
            network.announce("update", "")
            if shared:
                assert network.gradient is not None
                arrays = network.gradient.flat, self._own_totals, self.totals
                network.backend.on_host(self._add_up, arrays, network.workspace)
            self._update.launch(batches.learning_rate, batches.step)

    def _add_up(self, gradient: Array, own_totals: Array, totals: Array) -> None:
        """Add up the ranks' gradients, and add their totals to the epoch's; sets ``own_totals`` to 0."""
        self._ranks.add_up(gradient)
        for added in self._ranks.stack(own_totals):
            totals[:2] += added[:2]
            totals[2] = np.maximum(totals[2], added[2])  # NaN if one of them is
        own_totals[...] = 0

    def learning_rate(self, progress: Progress) -> float:
        [rate] = self._rates(progress, progress.step - 1, 1)
        return rate

    def reach(self, progress: Progress) -> float:
        rate = self.learning_rate(progress)
        full = self._update.optimizer.learning_rate / rate if rate > 0 else math.inf
        return self.epochs * self.steps_per_epoch * full

    def _rates(self, progress: Progress, first: int, count: int) -> list[float]:
        """Learning rates of ``count`` steps from step ``first`` on."""
        rate, factor = self._update.optimizer.learning_rate, self._schedule.factor
        steps, memory = self.epochs * self.steps_per_epoch, progress.schedule
        return [rate * factor(step, steps, memory) for step in range(first, first + count)]


def training_step(
    settings: TrainingSettings,
    optimizer: Optimizer,
    data: TrainingData,
    backend: Backend,
    micro_batch_size: int | None,
    ranks: Ranks = ALONE,
) -> TrainingStep:
    """The step of training; see ``loop.Trainer``. Raises UsageError where a rank has no photo of a batch."""
    train, count = settings.train, len(data.train_indices)
    steps_per_epoch = train.steps_per_epoch(count)
    if count // steps_per_epoch < ranks.size:
        raise UsageError(
            f"train.batch_size {train.batch_size}: with {count} photos to train on there are batches of "
            f"{count // steps_per_epoch}, of which {ranks.size} ranks can't have one each: take a larger batch_size or "
            "start fewer ranks"
        )
    batch_size = largest_share(math.ceil(count / steps_per_epoch), ranks)
    layers = with_outputs(settings.network, data.outputs)
    network = training_network(settings, layers, backend, batch_size, micro_batch_size)
    network.ranks = ranks
    update = WeightUpdate(network, optimizer, train.average_weights)
    # Photos get the memory that is left, so they come last.
    feed = PhotoFeed(backend, data.photos.pixels, data.train_rows, batch_size)
    batches = Batches(network, feed, data, settings.photos, steps_per_epoch)
    return TrainingStep(batches, update, settings.schedule, train.epochs_for(count), data.class_weights(settings.loss))


def training_network(
    settings: TrainingSettings, layers: Sequence[Layer], backend: Backend, batch_size: int, micro_batch_size: int | None
) -> Network:
    """A network to train, with room for ``micro_batch_size`` photos of a batch, or for all of them."""
    size = min(batch_size, micro_batch_size or batch_size)
    train = settings.train
    return Network(
        layers,
        settings.photos.shape,
        backend,
        size,
        loss=settings.loss,
        seed=train.seed,
        frozen=train.freeze,
        accumulate_gradients=size < batch_size,
    )
