"""The worker process of benchmark.py that runs facecnn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmark_work import Work, Worker, serve
from facecnn.kernels import Device, open_device
from facecnn.kernels.notes import slow
from facecnn.learning.step_rules import Piece
from facecnn.network.network import Network

STEPS = 10_000
"""The plan of an epoch, which then begins anew."""


class Facecnn:
    """facecnn on the processor or a card, its step recorded (``kernels.record``), as training does, or not."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._device: Device = open_device(options["device"], options["threads"])
        self._recorded: bool = options["recorded"]
        self._kernels = self._device.kernels
        self._network: Network

    @property
    def device(self) -> str:
        return self._device.description

    @property
    def waits_for_device(self) -> bool:
        return self._device.name != "cpu"

    @property
    def note(self) -> str | None:
        """Why the kernels are launched one by one although they should have been recorded, if so."""
        return next(iter(slow.texts), None)

    def training(self, work: Work, learning_rate: float) -> Callable[[], None]:
        kernels, count = self._kernels, len(work.pictures)
        network = self._filled(work, training=True)
        assert network.gradient is not None
        weights = network.weights
        state = {name: network.new_weights().parameters for name in work.optimizer.state_names}
        average = None if work.average_weights is None else network.new_weights()
        if average is not None:
            average.copy_from(weights)
        class_weights = kernels.to_device(np.ones(network.units, np.float32))
        photos, rows, labels = (kernels.to_device(np.zeros(count, np.int32)) for _ in range(3))
        rate = kernels.to_device(np.zeros(1, np.float32))
        number = kernels.to_device(np.zeros(1, np.int32))
        # As in training, a step finds its photos, its rate and its number by itself. Here all batches are the same one.
        order = [kernels.to_device(array) for array in (*[np.arange(count, dtype=np.int32)] * 2, work.labels)]
        starts = kernels.to_device(np.zeros(STEPS, np.int32))
        rates = kernels.to_device(np.full(STEPS, learning_rate, np.float32))
        cursor = kernels.to_device(np.zeros(2, np.int32))
        workspace = network.workspace
        pieces = [
            Piece(
                kernels=kernels,
                weight=weights.parameters.flat[first:last],
                state={name: values.flat[first:last] for name, values in state.items()},
                gradient=network.gradient.flat[first:last],
                learning_rate=rate,
                step=number,
                decaying=decaying,
                workspace=workspace,
            )
            for first, last, decaying in network.trained_ranges()
        ]

        def launch() -> None:
            kernels.take_batch(photos, rows, labels, rate, number, cursor, *order, starts, rates, workspace)
            network.forward(count, training=True, photos=photos, step=number)
            network.loss(count, labels, class_weights)
            network.backward(count, photos, number)
            for piece in pieces:
                work.optimizer.update(piece)
            if average is not None and work.average_weights is not None:
                for into, current in (
                    (average.parameters, weights.parameters),
                    (average.statistics, weights.statistics),
                ):
                    kernels.average_update(into.flat, current.flat, number, work.average_weights, workspace)

        run = self._as_asked(launch, network)
        steps = 0

        def step() -> None:
            nonlocal steps
            if steps == STEPS:
                kernels.copy_to_device(cursor, np.zeros(2, np.int32))
                steps = 0
            steps += 1
            run()

        return step

    def loss(self) -> float:
        return float(self._kernels.to_host(self._network.objectives).sum(dtype=np.float64))

    def predicting(self, work: Work) -> Callable[[], npt.NDArray[np.float32]]:
        network, count = self._filled(work, training=False), len(work.pictures)
        forward = self._as_asked(lambda: network.forward(count, for_backward=False), network)

        def answer() -> npt.NDArray[np.float32]:
            forward()
            logits = self._kernels.to_host(network.output[:count])
            powers = np.exp(logits - logits.max(axis=1, keepdims=True))
            return np.asarray(powers / powers.sum(axis=1, keepdims=True))

        return answer

    def milliseconds(self, step: Callable[[], object], steps: int) -> float:
        kernels, workspace = self._kernels, self._network.workspace
        start = kernels.mark(workspace)
        for _ in range(steps):
            step()
        return float(kernels.milliseconds(start, kernels.mark(workspace)))

    def _filled(self, work: Work, *, training: bool) -> Network:
        network = Network(work.layers, work.shape, self._kernels, len(work.pictures), loss=work.loss, training=training)
        network.weights.from_host(work.weights)
        self._kernels.copy_to_device(network.input, work.pictures)
        self._network = network
        return network

    def _as_asked(self, function: Callable[[], None], network: Network) -> Callable[[], None]:
        run: Callable[[], None] = self._kernels.record(function, network.workspace) if self._recorded else function
        return run


if __name__ == "__main__":
    serve(lambda options: Worker(Facecnn(options)))
