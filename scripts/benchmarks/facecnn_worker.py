"""The worker process of benchmark.py that runs facecnn."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.work import Work, Worker, serve
from common.ready_batches import ReadyBatches
from facecnn.kernels import Device, open_device
from facecnn.kernels.notes import slow
from facecnn.learning.progress import Progress
from facecnn.learning.schedules import Constant
from facecnn.learning.step import TrainingStep
from facecnn.learning.update import WeightUpdate
from facecnn.network.network import Keep, Network

STEPS = 10_000
"""Steps of an epoch, after which another one begins."""


class Facecnn:
    """facecnn on the processor or a card. Its steps are recorded (``backend.record``), as in training, or not."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._device: Device = open_device(options["device"], options["threads"])
        self._backend: Any = self._device.backend
        if not options["recorded"]:
            as_it_is = {"record": lambda function, workspace: function}
            self._backend = SimpleNamespace(**{**vars(self._backend), **as_it_is})
        self._network: Network
        self._step: TrainingStep

    @property
    def device(self) -> str:
        return self._device.description

    @property
    def waits_for_device(self) -> bool:
        return self._device.name != "cpu"

    @property
    def note(self) -> str | None:
        """Why the kernels couldn't be recorded, if so, and are launched one by one."""
        return next(iter(slow.texts), None)

    def training(self, work: Work, learning_rate: float) -> Callable[[], None]:
        network = self._filled(work, "gradients")
        optimizer = replace(work.optimizer, learning_rate=learning_rate)
        self._step = step = TrainingStep(
            ReadyBatches(network, network.input, work.labels, len(work.pictures), STEPS),
            WeightUpdate(network, optimizer, work.average_weights),
            Constant(),
            epochs=1,
            class_weights=np.ones(network.units),
        )
        if step.arrays.average is not None:
            step.arrays.average.copy_from(network.weights)
        steps: Iterator[int] = iter(())

        def run() -> None:
            nonlocal steps
            if next(steps, 0) == 0:  # the epoch is over
                steps = step.epoch(Progress(), one_by_one=True)
                next(steps)

        return run

    def loss(self) -> float:
        return float(self._backend.to_host(self._step.objectives).sum(dtype=np.float64))

    def predicting(self, work: Work) -> Callable[[], npt.NDArray[np.float32]]:
        network, count = self._filled(work, "last_output" if work.embeds else "outputs"), len(work.pictures)
        forward = self._backend.record(lambda: network.forward(count, for_backward=False), network.workspace)

        def answer() -> npt.NDArray[np.float32]:
            forward()
            logits = self._backend.to_host(network.output[:count])
            if work.embeds:
                return np.asarray(logits)
            powers = np.exp(logits - logits.max(axis=1, keepdims=True))
            return np.asarray(powers / powers.sum(axis=1, keepdims=True))

        return answer

    def milliseconds(self, step: Callable[[], object], steps: int) -> float:
        backend, workspace = self._backend, self._network.workspace
        start = backend.mark(workspace)
        for _ in range(steps):
            step()
        return float(backend.milliseconds(start, backend.mark(workspace)))

    def _filled(self, work: Work, keep: Keep) -> Network:
        network = Network(work.layers, work.shape, self._backend, len(work.pictures), loss=work.loss, keep=keep)
        network.weights.from_host(work.weights)
        self._backend.copy_to_device(network.input, work.pictures)
        self._network = network
        return network


if __name__ == "__main__":
    serve(lambda options: Worker(Facecnn(options)))
