"""Trainings that ranks share, for tests: ``mpiexec -n K python shared_training.py KIND`` prints what came of them.

KIND ``exact``: the networks of shipped configs on small pictures in float64; ``single``: in float32 on the CPU.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from functools import partial
from hashlib import sha256
from typing import Any

import numpy as np
import pytest

from facecnn.config import load
from facecnn.kernels import cpu, open_device, reference
from facecnn.learning.data import PhotoSet, TrainingData
from facecnn.learning.loop import Trainer
from facecnn.learning.progress import Recorder, StepReport
from facecnn.network.network import Network
from facecnn.parallel.launcher import launched
from facecnn.parallel.mpi import start
from facecnn.parallel.ranks import ALONE, Ranks

SIZES = {"seed": 16, "deep": 40, "default": 16}
"""Of the pictures; with these kernels and pools, deep needs the most."""
STEPS = 21
PHOTOS = 22


class Losses(Recorder):
    """Keeps the sum of losses after each step of an epoch, and what is saved."""

    every_step = True

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self.losses: list[float] = []
        self.validation: list[float] = []
        self.saved = ""

    def step(self, step: StepReport) -> None:
        self.losses.append(float(self._trainer.network.backend.to_host(self._trainer.step.totals)[0]))

    def epoch(self, metrics: Any) -> None:
        if metrics["validation_loss"] is not None:
            self.validation.append(metrics["validation_loss"])

    def save_last(self, arrays: Any, state: Any, *, interrupted: bool) -> None:
        digest = sha256(repr(state).encode())
        for name in sorted(arrays):
            digest.update(np.ascontiguousarray(arrays[name]).tobytes())
        self.saved = digest.hexdigest()


def make_trainer(config: str, backend: Any, ranks: Ranks, *, micro_batch_size: int | None = None) -> Trainer:
    """A training of a config's network on 22 photos in batches of 7 or 8, with all that its settings ask for."""
    settings = load(config).settings
    settings = replace(
        settings,
        photos=replace(settings.photos, size=SIZES[config]),
        train=replace(settings.train, epochs=STEPS // 3, least_steps=0, batch_size=8, average_weights=0.9),
    )
    generator = np.random.default_rng(0)
    labels = np.arange(PHOTOS + 5) % 2
    pixels = generator.integers(0, 256, (len(labels), *settings.photos.margin_shape), np.uint8)
    rows = np.arange(len(labels), dtype=np.int32)
    photos = PhotoSet(pixels, rows, labels)
    data = TrainingData(photos, np.arange(PHOTOS), photos.part(PHOTOS, len(labels)), 2)
    return Trainer(settings, data, backend, micro_batch_size=micro_batch_size, ranks=ranks)


def result(trainer: Trainer) -> dict[str, Any]:
    """What came of a training: losses, and a hash of all that was saved."""
    recorder = Losses(trainer)
    assert trainer.run(recorder)
    return {"losses": recorder.losses, "validation": recorder.validation, "saved": recorder.saved}


def results(kind: str, ranks: Ranks) -> dict[str, Any]:
    """The results of all configs."""
    if kind == "exact":
        open_device("reference")
        backend: Any = reference
    else:
        open_device("cpu", 1)
        backend = cpu
    with pytest.MonkeyPatch.context() as patch:
        if kind == "exact":
            patch.setattr("facecnn.learning.step.Network", partial(Network, dtype=np.float64))
        return {config: result(make_trainer(config, backend, ranks)) for config in SIZES}


def main() -> None:
    found = launched()
    ranks = ALONE if found is None else start(found, 60.0)
    made = results(sys.argv[1], ranks)
    if ranks.rank == 0:
        print(json.dumps(made))


if __name__ == "__main__":
    main()
