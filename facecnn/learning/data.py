"""The input of training: its settings, and the photos to train on and to validate with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from facecnn.arrays import Array
from facecnn.kernels import reference
from facecnn.kernels.protocol import AUGMENTATION_NONE
from facecnn.learning.calibration import CalibrationSettings
from facecnn.learning.full_batch_optimizers import FullBatchOptimizer
from facecnn.learning.optimizers import ClassMeans, Optimizer
from facecnn.learning.schedules import Schedule
from facecnn.learning.settings import TrainSettings
from facecnn.network.layers import Layer
from facecnn.network.loss import CrossEntropy, Loss
from facecnn.photos.preparation import PhotoSettings

_PURPOSE = 2**33
"""Second word of the Philox key that chooses photos for initial weights; the weights and the shuffles (``batches``)
have others."""

_INITIAL_PHOTOS = 64
"""Number of photos for initialisations that depend on photos."""


class TrainingSettings(Protocol):
    """The settings of training: ``facecnn.config.Settings``, which this folder can't import."""

    @property
    def photos(self) -> PhotoSettings: ...
    @property
    def network(self) -> tuple[Layer, ...]: ...
    @property
    def loss(self) -> Loss: ...
    @property
    def optimizer(self) -> Optimizer | FullBatchOptimizer | ClassMeans: ...
    @property
    def schedule(self) -> Schedule: ...
    @property
    def train(self) -> TrainSettings: ...
    @property
    def calibration(self) -> CalibrationSettings: ...


@dataclass(frozen=True)
class PhotoSet:
    """Prepared photos, on the host."""

    pixels: Array
    """(P, H + 2 my, W + 2 mx, C) uint8, each with its margin."""
    rows: Array
    """(n,): each photo's row of ``pixels``."""
    labels: Array
    """(n,): the output of each photo's class."""

    def __len__(self) -> int:
        return len(self.labels)

    def part(self, start: int, stop: int) -> PhotoSet:
        """The photos from ``start`` to ``stop``."""
        return PhotoSet(self.pixels, self.rows[start:stop], self.labels[start:stop])


@dataclass(frozen=True)
class TrainingData:
    """The photos of a training run."""

    photos: PhotoSet
    train_indices: Array
    """(n,): indices in ``photos`` of those to train on."""
    validation: PhotoSet
    """Held-out photos; there may be none."""
    outputs: int
    """The people, and one more if there are photos of strangers."""

    @property
    def train_rows(self) -> Array:
        """(n,): rows of ``photos.pixels`` to train on."""
        return self.photos.rows[self.train_indices]

    @property
    def train_labels(self) -> Array:
        """(n,): labels of the photos to train on."""
        return self.photos.labels[self.train_indices]

    def class_weights(self, loss: Loss) -> Array:
        """(outputs,): weight of each class's photos in the loss."""
        if not isinstance(loss, CrossEntropy) or loss.class_weights is None:
            return np.ones(self.outputs)
        counts = np.bincount(self.train_labels, minlength=self.outputs)
        return np.asarray(counts.sum() / (self.outputs * np.maximum(counts, 1)))

    def initial_photos(self, seed: int, settings: PhotoSettings, dtype: npt.DTypeLike) -> Array:
        """Photos (n, H, W, C) for initialisations that depend on photos: without augmentation, and prepared on the
        host, so that they are the same on every device."""
        generator = np.random.Generator(np.random.Philox(key=[seed, _PURPOSE]))
        count = min(len(self.train_indices), _INITIAL_PHOTOS)
        rows = self.photos.rows[np.sort(generator.choice(self.train_indices, count, replace=False))].astype(np.int32)
        prepared: Array = np.empty((count, *settings.shape), dtype)
        parameters, normalise = np.tile(AUGMENTATION_NONE, (count, 1)), settings.normalise
        reference.prepare_photos(prepared, self.photos.pixels, rows, parameters, normalise, reference.Workspace())
        return prepared
