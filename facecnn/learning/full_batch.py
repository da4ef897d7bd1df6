"""Full-batch training: the loss of all photos as a function of the weights, and an optimizer's iteration on it, which
is an epoch."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from facecnn.arrays import Array, Float64Array
from facecnn.kernels.backend import Backend
from facecnn.kernels.protocol import AUGMENTATION_NONE, Normalise
from facecnn.learning.data import TrainingData, TrainingSettings
from facecnn.learning.full_batch_optimizers import FullBatchOptimizer, Memory, Point, Vector
from facecnn.learning.progress import Progress
from facecnn.learning.step import training_network
from facecnn.learning.update import TrainedArrays
from facecnn.network.feeding import PhotoFeed
from facecnn.network.inference import prepare_in_batches
from facecnn.network.layers import with_outputs
from facecnn.network.loss import CrossEntropy, Loss
from facecnn.network.network import MicroBatch, Network


class FullBatchLoss:
    """Loss and gradient over all photos of a feed, without augmentation; batch norm uses their own statistics.

    A vector holds all trained weights, range after range of the flat parameters. They are rounded to the network's
    dtype when used. If the network takes fewer photos at a time, gradients of micro-batches are accumulated.
    """

    def __init__(
        self,
        network: Network,
        photos: PhotoFeed,
        labels: Array,
        class_weights: Array,
        normalise: Normalise,
        weight_decay: float,
    ) -> None:
        """
        Args:
            network: must accumulate gradients if it takes fewer photos than there are.
            labels: (n,) int32 on the host.
            class_weights: (units,) on the device.
            weight_decay: half of it times the sum of squared weights is added to the loss.
        """
        backend = network.backend
        count = len(labels)
        self._network = network
        self._photos = photos
        self._normalise: Normalise = normalise
        self._decay = weight_decay
        self._ranges = network.trained_ranges()
        self._class_weights = class_weights
        self._labels = backend.to_device(labels)
        self._parameters = backend.to_device(np.tile(AUGMENTATION_NONE, (network.batch_size, 1)))
        self.at: Vector | None = None
        """Where ``evaluate`` was last; the network, ``objectives`` and ``totals`` still hold its results."""
        self.objectives: Array = backend.empty((count,), network.dtype)
        """Each photo's part of the loss, on the device, after ``evaluate``."""
        self.totals: Array = backend.to_device(np.zeros(3, network.dtype))
        """Of all photos, on the device; see ``add_to_totals``."""

    def pieces(self, vector: Vector) -> list[Vector]:
        """Views of a vector, one for each trained range of the flat parameters."""
        sizes = [stop - start for start, stop, _ in self._ranges]
        return np.split(vector, np.cumsum(sizes)[:-1])

    def gather(self, flat: Array) -> Vector:
        """The trained part of a flat array on the device, as a vector."""
        every = self._network.backend.to_host(flat)
        return np.concatenate([every[start:stop] for start, stop, _ in self._ranges]).astype(np.float64)

    def scatter(self, flat: Array, vector: Vector) -> None:
        """Write a vector into the trained part of a flat array on the device."""
        for (start, stop, _), piece in zip(self._ranges, self.pieces(vector), strict=True):
            self._network.backend.copy_to_device(flat[start:stop], piece.astype(self._network.dtype))

    def here(self) -> Point:
        """The network's own weights with their loss and gradient."""
        w = self.gather(self._network.weights.parameters.flat)
        return Point(w, *self.evaluate(w))

    def evaluate(self, w: Vector) -> tuple[float, Vector]:
        """Loss and gradient at ``w``; the network keeps these weights."""
        network, backend = self._network, self._network.backend
        backend.copy_to_device(self.totals, np.zeros(3, network.dtype))
        network.weigh(self._labels, self._class_weights)
        for start, stop in self._inputs(w):
            micro_batch = MicroBatch(start, self._labels[start:stop])
            network.forward_backward(micro_batch, self._class_weights, self.objectives, self.totals)
        assert network.gradient is not None
        gradient = self.gather(network.gradient.flat)
        loss = float(backend.to_host(self.objectives).sum(dtype=np.float64))
        rounded = w.astype(network.dtype).astype(np.float64)
        for (_, _, decaying), piece, slope in zip(
            self._ranges, self.pieces(rounded), self.pieces(gradient), strict=True
        ):
            loss += 0.5 * self._decay * float(piece[:decaying] @ piece[:decaying])
            slope[:decaying] += self._decay * piece[:decaying]
        self.at = w
        return loss, gradient

    def outputs(self, w: Vector) -> Float64Array:
        """Outputs (n, units) at ``w``; the network keeps these weights."""
        network, outputs = self._network, []
        for start, stop in self._inputs(w):
            network.forward(stop - start, training=True)
            outputs.append(network.backend.to_host(network.output[: stop - start]))
        return np.concatenate(outputs).astype(np.float64)

    def pull_back(self, w: Vector, dout: Float64Array) -> Vector:
        """Gradient at ``w`` of the sum of outputs times ``dout`` (n, units); the network keeps these weights."""
        network = self._network
        for start, stop in self._inputs(w):
            network.forward(stop - start, training=True)
            upstream = network.backend.to_device(np.ascontiguousarray(dout[start:stop], network.dtype))
            network.backward(stop - start, dout=upstream, is_first=start == 0)
        assert network.gradient is not None
        return self.gather(network.gradient.flat)

    def shares(self) -> Float64Array:
        """(n,): weights of the photos in the loss; they sum to 1."""
        to_host = self._network.backend.to_host
        is_entropy = isinstance(self._network.objective, CrossEntropy)
        labels = to_host(self._labels)
        weights = to_host(self._class_weights)[labels].astype(np.float64) if is_entropy else np.ones(len(labels))
        return np.asarray(weights / weights.sum())

    @property
    def objective(self) -> Loss:
        """The loss function."""
        return self._network.objective

    def _inputs(self, w: Vector) -> Iterator[tuple[int, int]]:
        """Set the weights, and fill the network's input with one micro-batch after another: yields (start, stop)."""
        self.at = None
        self.scatter(self._network.weights.parameters.flat, w)
        return prepare_in_batches(self._network, self._photos, self._normalise, self._parameters)


class FullBatchStep:
    """An iteration of a full-batch optimizer for the training loop: see ``step.Step``."""

    steps_per_epoch = 1
    steps_between_looks = 1  # an iteration takes longer than a look
    steps_between_validations = 1  # it may change the weights as much as many steps

    def __init__(
        self, loss: FullBatchLoss, arrays: TrainedArrays, optimizer: FullBatchOptimizer, epochs: int, *, streamed: bool
    ) -> None:
        self.loss, self.arrays, self._optimizer = loss, arrays, optimizer
        self.epochs, self.streamed = epochs, streamed
        self.objectives, self.totals = loss.objectives, loss.totals
        self._point: Point | None = None
        """The result of the last iteration."""

    def epoch(self, progress: Progress, *, one_by_one: bool) -> Iterator[int]:
        """See ``Step.epoch``. The result is rounded as when it is saved, so that resumed training has the same bits."""
        loss, network, state = self.loss, self.arrays.network, self.arrays.state
        backend, statistics = network.backend, network.weights.statistics.flat
        running = backend.to_host(statistics)
        if self._point is None or not np.array_equal(self._point.w, loss.gather(network.weights.parameters.flat)):
            self._point = loss.here()
        vectors = {name: loss.gather(values.flat) for name, values in state.items()}
        memory = Memory(vectors, dict(progress.minimiser))
        found = self._optimizer.iterate(loss.evaluate, self._point, memory)
        memory.numbers["stalled"] = memory.numbers.get("stalled", 0) + 1 if found is self._point else 0
        # Points that were only tried must affect neither the running statistics nor what is reported.
        if statistics.size or loss.at is not found.w:
            backend.copy_to_device(statistics, running)
            found = Point(found.w, *loss.evaluate(found.w))
        self._point = replace(found, w=found.w.astype(network.dtype).astype(np.float64))
        for name, vector in memory.vectors.items():
            loss.scatter(state[name].flat, vector)
        progress.minimiser = memory.numbers
        yield 1

    def learning_rate(self, progress: Progress) -> float:
        return progress.minimiser.get("step_length", 0.0)

    def reach(self, progress: Progress) -> float:
        return self.epochs


def full_batch_step(
    settings: TrainingSettings,
    optimizer: FullBatchOptimizer,
    data: TrainingData,
    backend: Backend,
    micro_batch_size: int | None,
) -> FullBatchStep:
    """The step of training with a full-batch optimizer; see ``loop.Trainer``."""
    train, count = settings.train, len(data.train_indices)
    layers = [layer.without_randomness().for_whole_set() for layer in with_outputs(settings.network, data.outputs)]
    if not any(layer.uses_batch_statistics for layer in layers):  # these need all photos together
        micro_batch_size = min(micro_batch_size or train.batch_size, train.batch_size)
    network = training_network(settings, layers, backend, count, micro_batch_size)
    arrays = TrainedArrays(network, optimizer.state_names)
    # Photos get the memory that is left, so they come last.
    feed = PhotoFeed(backend, data.photos.pixels, data.train_rows, network.batch_size)
    labels = data.train_labels.astype(np.int32)
    class_weights = backend.to_device(data.class_weights(settings.loss).astype(network.dtype))
    loss = FullBatchLoss(network, feed, labels, class_weights, settings.photos.normalise, optimizer.weight_decay)
    return FullBatchStep(loss, arrays, optimizer, train.epochs, streamed=feed.streamed)
