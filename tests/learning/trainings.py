"""Small trainings for the tests: photos of two people that differ, and a recorder that keeps all it is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from facecnn.config import load
from facecnn.kernels import cpu
from facecnn.learning import progress
from facecnn.learning.data import PhotoSet, TrainingData
from facecnn.learning.loop import Trainer
from facecnn.learning.optimizers import AdamW
from facecnn.learning.progress import StepReport
from facecnn.learning.schedules import Cosine
from facecnn.learning.settings import TrainSettings
from facecnn.network.layers import BatchNorm, Dropout, Layer
from facecnn.network.loss import CrossEntropy
from facecnn.photos.preparation import AugmentSettings

SIDE, MARGIN = 12, 2
CONFIG = load("smoke").settings
SMOKE: tuple[Layer, ...] = CONFIG.network
"""The layers of the smoke config, which takes any size: what is compiled for it serves all trainings here."""
RICH: tuple[Layer, ...] = (SMOKE[0], BatchNorm(), Dropout(rate=0.2), *SMOKE[1:])
"""The same with all that depends on the batch or on chance."""
PLAIN = AugmentSettings(
    mirror=False, shift=0.0, zoom=0.0, rotate=0.0, gamma=0.0, contrast=0.0, brightness=0.0, blur=0.0, erase=0.0
)


def photos_of(labels: Any, seed: int = 0) -> PhotoSet:
    """Noise, and for every person a bright bar at a place of its own."""
    generator = np.random.default_rng(seed)
    labels = np.asarray(labels)
    side = SIDE + 2 * MARGIN
    pixels = generator.integers(0, 120, (len(labels), side, side, 1), np.uint8)
    for photo, label in zip(pixels, labels, strict=True):
        photo[3 + 4 * label : 5 + 4 * label, 3:-3] += np.uint8(120)
    return PhotoSet(pixels, np.arange(len(labels), dtype=np.int32), labels)


class Recorder(progress.Recorder):
    """Keeps everything, arrays as bytes, so that two trainings can be compared."""

    def __init__(self, *, every_step: bool = True) -> None:
        self.every_step = every_step
        self.steps: list[StepReport] = []
        self.epochs: list[dict[str, Any]] = []
        self.bests: list[tuple[dict[str, bytes], dict[str, Any]]] = []
        self.lasts: list[tuple[dict[str, bytes], dict[str, Any]]] = []
        self.saved: tuple[dict[str, Any], dict[str, Any]] | None = None
        """The arrays and the state of the last save, to restore a training from."""
        self.interrupted: list[bool] = []
        self.trial_steps: list[tuple[int, StepReport]] = []
        self.trials: list[float | None] = []
        self.start: int | None = None

    def step(self, step: StepReport) -> None:
        self.steps.append(step)

    def epoch(self, metrics: Mapping[str, Any]) -> None:
        self.epochs.append(dict(metrics))

    def trial_step(self, start: int, step: StepReport) -> None:
        self.trial_steps.append((start, step))

    def tried(self, losses: Sequence[float | None]) -> None:
        self.trials = list(losses)

    def chosen(self, start: int) -> None:
        self.start = start

    def save_best(self, arrays: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        self.bests.append((in_bytes(arrays), dict(state)))

    def save_last(self, arrays: Mapping[str, Any], state: Mapping[str, Any], *, interrupted: bool) -> None:
        self.lasts.append((in_bytes(arrays), dict(state)))
        self.saved = (dict(arrays), dict(state))
        self.interrupted.append(interrupted)

    def figures(self) -> list[dict[str, Any]]:
        """The epochs' figures but for those that tell the time."""
        return [
            {name: value for name, value in epoch.items() if name not in ("seconds", "photos_per_second")}
            for epoch in self.epochs
        ]


def in_bytes(arrays: Mapping[str, Any]) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in arrays.items()}


LABELS = np.arange(22) % 2
HELD_OUT = np.arange(6) % 2


def make_trainer(layers: tuple[Layer, ...] = SMOKE, **changes: Any) -> Trainer:
    """A training of 22 photos in batches of at most 8, unless ``changes`` say otherwise.

    ``train`` may be a dictionary of the fields that differ.
    """
    own = {
        "size": SIDE,
        "augment": changes.pop("augment", replace(PLAIN, mirror=True, shift=0.1)),
        "normalise": changes.pop("normalise", "standardise"),
    }
    settings = replace(
        CONFIG,
        photos=replace(CONFIG.photos, **own),
        network=layers,
        loss=changes.pop("loss", CrossEntropy()),
        optimizer=changes.pop("optimizer", AdamW(learning_rate=0.01)),
        schedule=changes.pop("schedule", Cosine(warmup=0.1)),
        train=replace(TrainSettings(epochs=3, batch_size=8, seed=1), **changes.pop("train", {})),
    )
    photos = changes.pop("photos", photos_of(LABELS))
    data = TrainingData(
        photos=photos,
        train_indices=changes.pop("train_indices", np.arange(len(photos))),
        validation=changes.pop("validation", photos_of(HELD_OUT, seed=9)),
        outputs=changes.pop("outputs", 2),
    )
    return Trainer(settings, data, changes.pop("backend", cpu), **changes)


def trained(trainer: Trainer) -> Recorder:
    """What came of a whole training."""
    recorder = Recorder()
    assert trainer.run(recorder)
    return recorder
