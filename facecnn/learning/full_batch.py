"""Training on all photos at once: an epoch is one iteration of line_search, lbfgs or newton_cg."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from facecnn.kernels.protocol import Kernels
from facecnn.learning.data import TrainingData, TrainingSettings
from facecnn.learning.full_batch_optimizers import FullBatchOptimizer, Memory, Point
from facecnn.learning.progress import Progress
from facecnn.learning.step import training_network
from facecnn.learning.update import TrainedArrays
from facecnn.learning.whole_set import WholeSet
from facecnn.network.feeding import PhotoFeed
from facecnn.network.layers import with_outputs

Array = npt.NDArray[Any]


class FullBatchStep:
    """An iteration of a full-batch optimizer, as the training loop takes it: see ``step.Step``."""

    steps_per_epoch = 1
    steps_between_looks = 1  # an iteration takes longer than a look

    def __init__(
        self, whole: WholeSet, arrays: TrainedArrays, optimizer: FullBatchOptimizer, epochs: int, *, streamed: bool
    ) -> None:
        self.whole, self.arrays, self._optimizer = whole, arrays, optimizer
        self.epochs, self.streamed = epochs, streamed
        self.objectives, self.totals = whole.objectives, whole.totals
        self._point: Point | None = None
        """The weights that the last iteration ended with."""

    def epoch(self, progress: Progress, *, one_by_one: bool) -> Iterator[int]:
        """See ``Step.epoch``. What an iteration leaves is rounded as it is saved, so that a resumed training has the
        same bits."""
        whole, network, state = self.whole, self.arrays.network, self.arrays.state
        kernels, statistics = network.kernels, network.weights.statistics.flat
        running = kernels.to_host(statistics)
        if self._point is None or not np.array_equal(self._point.w, whole.gather(network.weights.parameters.flat)):
            self._point = whole.here()
        vectors = {name: whole.gather(values.flat) for name, values in state.items()}
        memory = Memory(vectors, dict(progress.minimiser))
        found = self._optimizer.iterate(whole.evaluate, self._point, memory)
        memory.numbers["stalled"] = memory.numbers.get("stalled", 0) + 1 if found is self._point else 0
        # Points that were only tried must not count in the running statistics, nor in what is reported.
        if statistics.size or whole.at is not found.w:
            kernels.copy_to_device(statistics, running)
            found = Point(found.w, *whole.evaluate(found.w))
        self._point = replace(found, w=found.w.astype(network.dtype).astype(np.float64))
        for name, vector in memory.vectors.items():
            whole.scatter(state[name].flat, vector)
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
    kernels: Kernels,
    micro_batch_size: int | None,
) -> FullBatchStep:
    """The iteration of a training with a full-batch optimizer; see ``loop.Trainer``."""
    train, count = settings.train, len(data.train_indices)
    layers = [layer.without_randomness().for_whole_set() for layer in with_outputs(settings.network, data.outputs)]
    if not any(layer.uses_batch_statistics for layer in layers):  # which needs all photos together
        micro_batch_size = min(micro_batch_size or train.batch_size, train.batch_size)
    network = training_network(settings, layers, kernels, count, micro_batch_size)
    arrays = TrainedArrays(network, optimizer.state_names)
    # Photos take the memory that is left, so they come after all that is large.
    feed = PhotoFeed(kernels, data.photos.pixels, data.train_rows, network.batch_size)
    labels = data.train_labels.astype(np.int32)
    class_weights = kernels.to_device(data.class_weights(settings.loss).astype(network.dtype))
    whole = WholeSet(network, feed, labels, class_weights, settings.photos.normalise, optimizer.weight_decay)
    return FullBatchStep(whole, arrays, optimizer, train.epochs, streamed=feed.streamed)
