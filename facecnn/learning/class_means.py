"""Recognition by the nearest mean of embeddings: a head that is computed, not trained.

Each person's output is ``SCALE`` times the cosine between a face's embedding and the mean of that person's, and the
output for strangers is a constant. So one photo of a person is enough, people can be added and removed without the
others, and no photos of strangers are needed. The constants are in ``facecnn.body.threshold``.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from facecnn.arrays import Array, Float32Array, Float64Array
from facecnn.body.embedder import Embedder, installed_body
from facecnn.body.threshold import (
    FEW_PHOTOS,
    SCALE,
    highest_unknown_score,
    stranger_threshold,
    strangers_score,
    unit,
)
from facecnn.errors import UsageError
from facecnn.kernels.backend import Backend
from facecnn.learning.calibration import Calibration, CalibrationSettings
from facecnn.learning.data import PhotoSet, TrainingData, TrainingSettings
from facecnn.learning.progress import Progress, Recorder
from facecnn.learning.scores import losses_and_hits
from facecnn.network.inference import block_size, log_softmax
from facecnn.network.layers import Body, Dense, Layer, UnitLength, with_outputs
from facecnn.network.stages import Stage, plan

SHARPNESS = 30.0
"""Factor of the cosines where training goes on from class means. With ``SCALE`` every photo would be right beyond doubt
from the start, and give no gradient."""

EMBEDDINGS, OWNERS = "people.embeddings", "people.owners"
"""Names of a checkpoint's arrays (n, 128) and (n,) int32: the embeddings of which the head is made, and the person
(index among the classes) that each shows. With them people are added and removed."""


@dataclass(frozen=True)
class Head:
    """The last layer of a network that ends with unit_length and dense."""

    weight: Float32Array
    """(people + 1, 128); the last row, of strangers, is 0."""
    bias: Float32Array
    """(people + 1,)"""

    def log_probabilities(self, embeddings: Array) -> Float64Array:
        """(n, people + 1) for embeddings (n, 128)."""
        cosines = unit(embeddings) @ self.weight.T.astype(np.float64)
        return log_softmax(cosines + self.bias)

    def blocks(self, embeddings: Array) -> Iterator[Float64Array]:
        """The rows of ``log_probabilities`` in blocks of successive embeddings."""
        size = block_size(len(self.bias))
        for start in range(0, len(embeddings), size):
            yield self.log_probabilities(embeddings[start : start + size])


def head_of(embeddings: Array, owners: Array, people: int, strangers: float) -> Head:
    """The head for people of whom there is at least one embedding each.

    Args:
        embeddings: (n, 128)
        owners: (n,) int, the person of each; those from ``people`` on are strangers', which aren't used.
        strangers: their score, comparable to a cosine.
    """
    weight, bias = np.zeros((people + 1, embeddings.shape[1])), np.zeros(people + 1)
    order = np.argsort(owners, kind="stable")
    ends = np.searchsorted(owners, np.arange(people + 1), sorter=order)
    for person in range(people):
        own = embeddings[order[ends[person] : ends[person + 1]]]
        weight[person] = unit(own.sum(axis=0, dtype=np.float64)[None])[0]
        bias[person] = FEW_PHOTOS / len(own)
    bias[people] = strangers
    return Head((SCALE * weight).astype(np.float32), (SCALE * bias).astype(np.float32))


def threshold_in(arrays: Mapping[str, Array], settings: CalibrationSettings) -> float:
    """The score that a face must reach to be named by a model; see ``facecnn.body.threshold``.

    ``arrays``: the model's, among them ``EMBEDDINGS`` and ``OWNERS``.
    """
    return stranger_threshold(arrays[EMBEDDINGS], arrays[OWNERS], settings.false_accept_rate)


def calibration_by_distance(
    arrays: Mapping[str, Array], labels: Array, people: int, settings: CalibrationSettings
) -> Calibration:
    """The calibration of a model of class means, on which held-out photos have no influence.

    ``labels``: (n,) of the held-out photos; those from ``people`` on are strangers'.
    """
    known = int((labels < people).sum())
    return Calibration(
        threshold=highest_unknown_score(threshold_in(arrays, settings)),
        photos=known,
        strangers=len(labels) - known,
        false_accept_rate=settings.false_accept_rate,
    )


def has_head_of_means(layers: Sequence[Layer]) -> bool:
    """Whether a head of class means fits these layers: a body, unit_length, and dense for the people."""
    kinds = (Body, UnitLength, Dense)
    return len(layers) == len(kinds) and all(isinstance(*pair) for pair in zip(layers, kinds, strict=True))


def check_layers(layers: Sequence[Layer]) -> None:
    """Raise UsageError unless a head of class means fits these layers, and nothing else in them is to be trained."""
    if not has_head_of_means(layers) or layers[0] != Body():
        raise UsageError(
            "optimizer class_means: it computes the last layer from the embeddings of a body whose weights are kept, "
            "so the network must be body: dlib, unit_length, dense: people (see configs/pretrained.yaml)"
        )


def model_arrays(body: Mapping[str, Array], stages: Sequence[Stage], head: Head) -> dict[str, Array]:
    """The arrays of a model by the names under which they are saved; ``body``: those of its body, by name."""
    last = stages[-1].name
    arrays = {**body, f"{last}.weight": head.weight, f"{last}.bias": head.bias}
    return {f"model.{name}": array for name, array in arrays.items()}


def head_in(arrays: Mapping[str, Array], stages: Sequence[Stage]) -> Head:
    """The head among saved arrays. Raises KeyError if it isn't there."""
    last = f"model.{stages[-1].name}"
    return Head(arrays[f"{last}.weight"], arrays[f"{last}.bias"])


def initial_arrays_of_body(settings: TrainingSettings, data: TrainingData, backend: Backend) -> dict[str, Array]:
    """The initial weights of a network that begins with a body, by name: none for another network.

    They are the body's own and, for a network that a head of class means would fit, such a head, with ``SHARPNESS`` in
    place of ``SCALE``.

    Raises CheckpointError: the body's package isn't installed, or is damaged.
    """
    layers = settings.network
    if not isinstance(layers[0], Body):
        return {}
    body = installed_body()
    if not has_head_of_means(layers):
        return body
    embeddings = Embedder(backend, body).embed(data.photos.pixels, data.train_rows)
    head = head_of(embeddings, data.train_labels, int(data.train_labels.max()) + 1, 0.0)
    last = plan(with_outputs(layers, data.outputs), settings.photos.shape)[-1].name
    weight = head.weight[: data.outputs] * np.float32(SHARPNESS / SCALE)
    return {**body, f"{last}.weight": weight, f"{last}.bias": np.zeros(data.outputs, np.float32)}


def metrics_of(head: Head, embeddings: Array, labels: Array, seconds: float) -> dict[str, Any]:
    """The only line of a run's metrics.jsonl, without held-out photos.

    Args:
        embeddings: (n, 128) that it was made from.
        labels: (n,) whose they are; strangers are a class of their own.
    """
    losses, right = losses_and_hits(head.blocks(embeddings), labels)
    return {
        "epoch": 1,
        "step": 1,
        "learning_rate": None,
        "train_loss": float(losses.mean()),
        "train_accuracy": float(right.mean()),
        "train_worst_loss": float(losses.max()),
        "validation_loss": None,
        "validation_accuracy": None,
        "seconds": seconds,
        "photos_per_second": None,
        "kernel_change": {},
        "dead_kernels": [],
        "asleep_kernels": [],
    }


class NothingWatched:
    """Stands for a ``KernelWatch`` where no kernel is trained."""

    start: Mapping[str, Array] = {}

    def kernels(self) -> dict[str, Array]:
        return {}


class ClassMeansTrainer:
    """Computes a head of class means, without steps; otherwise it has what a ``loop.Trainer`` has."""

    epochs = steps = steps_per_epoch = 1
    trials_left = 0

    def __init__(self, settings: TrainingSettings, data: TrainingData, backend: Backend) -> None:
        """
        Raises:
            UsageError: the network isn't one for class means.
            CheckpointError: the body's package isn't installed, or damaged.
        """
        check_layers(settings.network)
        self.settings, self.data = settings, data
        self.batch_size = len(data.train_indices)
        self.stages = plan(with_outputs(settings.network, data.outputs), settings.photos.shape)
        self.progress = Progress()
        self.watch = NothingWatched()
        self._body = installed_body()
        self._embedder = Embedder(backend, self._body)
        self._head = Head(np.zeros((data.outputs, Body.EMBEDDING), np.float32), np.zeros(data.outputs, np.float32))
        self._made: dict[str, Array] = {}

    def run(self, recorder: Recorder, stop: Callable[[], bool] = lambda: False) -> bool:
        """Embed the photos, make the head and judge it. False if ``stop`` ended it before that."""
        if self.progress.finished:
            return True
        started = time.perf_counter()
        data, people = self.data, self.data.outputs - 1
        embeddings, owners = self._embedder.embed(data.photos.pixels, data.train_rows), data.train_labels
        if stop():
            return False
        known = owners < people
        self._made = {EMBEDDINGS: embeddings[known], OWNERS: owners[known].astype(np.int32)}
        threshold = threshold_in(self._made, self.settings.calibration)
        self._head = head_of(embeddings, owners, people, strangers_score(threshold))
        self.progress = Progress(epoch=1, step=1, best_epoch=1, saved_at=1, finished=True)
        recorder.epoch(self._metrics(embeddings, owners, time.perf_counter() - started))
        recorder.save_best(self.arrays(), asdict(self.progress))
        recorder.save_last(self.arrays(), asdict(self.progress), interrupted=False)
        return True

    def _metrics(self, embeddings: Array, labels: Array, seconds: float) -> dict[str, Any]:
        """The epoch's line of metrics.jsonl."""
        line = metrics_of(self._head, embeddings, labels, seconds)
        validation = self.data.validation
        if len(validation):
            losses, right = losses_and_hits(self.blocks_of_answers(validation), validation.labels)
            line |= {"validation_loss": float(losses.mean()), "validation_accuracy": float(right.mean())}
        return {**line, "photos_per_second": len(labels) / seconds}

    def answers(self, photos: PhotoSet) -> Float64Array:
        """Log-probabilities (n, people + 1) of photos."""
        return self._head.log_probabilities(self._embedder.embed(photos.pixels, photos.rows))

    def blocks_of_answers(self, photos: PhotoSet) -> Iterator[Float64Array]:
        """The rows of ``answers`` in blocks of successive photos."""
        return self._head.blocks(self._embedder.embed(photos.pixels, photos.rows))

    def arrays(self) -> dict[str, Array]:
        """All arrays of the model by the names under which they are saved; the head is zero before ``run``."""
        return model_arrays(self._body, self.stages, self._head) | self._made

    def restore(self, arrays: Mapping[str, Array], progress: Mapping[str, Any]) -> None:
        """Go back to a saved state. Raises KeyError if an array of the head is missing."""
        self.progress = Progress(**progress)
        self._head = head_in(arrays, self.stages)
        if self.progress.finished:
            self._made = {name: arrays[name] for name in (EMBEDDINGS, OWNERS)}
