"""What first_card.py measures of speed: each kernel of a step, beside its estimate, and photos that are sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from statistics import median
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt

from facecnn.kernels import open_device
from facecnn.kernels.profiling import Profiler
from facecnn.learning.progress import Recorder
from machine.cuda_roofline import planned_trainer, step_of
from machine.kernel_time import Card, kernel_time


class Figures(Recorder):
    """Keeps the figures of each epoch."""

    every_step = False

    def __init__(self) -> None:
        self.epochs: list[Mapping[str, Any]] = []

    def epoch(self, metrics: Mapping[str, Any]) -> None:
        self.epochs.append(metrics)

    def of(self, name: str) -> list[Any]:
        return [epoch[name] for epoch in self.epochs]


class KernelTimes(Profiler):
    """By the function, where the profiler goes by the way through a layer."""

    def _timed(self, function: Callable[..., None], name: str) -> Callable[..., None]:
        run = super()._timed(function, name)

        def timed(*arguments: Any) -> None:
            run(*arguments)
            _, start, stop = self._marks[-1]
            self._marks[-1] = ((self._place[0], name), start, stop)

        return timed


def kernel_times(config: str, batch: int, steps: int, device: str = "cuda") -> dict[str, Any]:
    """Microseconds a step of each kernel function in each layer, as ``train --profile`` times them."""
    times = KernelTimes(open_device(device).backend)
    # Of an epoch's only step: the first is to compile, and the last, which is watched, isn't made.
    trainer = planned_trainer(config, times, batch_size=batch, epochs=steps + 2, picture=noise)
    figures = Figures()

    def stop() -> bool:
        if len(figures.epochs) == 1:
            times.take(1)
        return len(figures.epochs) > steps

    trainer.run(figures, stop=stop)
    assert len(figures.epochs) == steps + 1
    taken = {place: 1000 * milliseconds for place, milliseconds in times.take(steps).items()}
    return {"batch": batch, "steps": steps, "microseconds": taken}


def estimated(config: str, batch: int) -> dict[str, Any]:
    """The like of ``kernel_times``, by kernel_time.py for an H100, with the number of launches."""
    card, microseconds, launches = Card(), {}, {}
    for layer, name, planned in step_of(config, batch).planned:
        place = f"{layer} {name}"
        seconds = sum(kernel_time(launch, card).seconds + card.node_seconds for launch in planned)
        microseconds[place] = microseconds.get(place, 0.0) + 1e6 * seconds
        launches[place] = launches.get(place, 0) + len(planned)
    return {"batch": batch, "microseconds": microseconds, "launches": launches}


def sent(config: str, photos: int, epochs: int, batch: int) -> dict[str, Any]:
    """Photos a second, of noise: the median of the epochs after the first two."""
    backend = open_device("cuda").backend
    found: dict[str, Any] = {"photos": photos, "batch": batch}
    for name in ("resident", "streamed"):
        full = mock.patch.object(backend, "resident", side_effect=MemoryError) if name == "streamed" else nullcontext()
        with full:
            trainer = planned_trainer(config, backend, batch_size=batch, epochs=epochs, count=photos, picture=noise)
        assert trainer.step.streamed == (name == "streamed")
        figures = Figures()
        trainer.run(figures)
        found[name] = median(figures.of("photos_per_second")[2:] or figures.of("photos_per_second"))
        found["photo_bytes"] = int(trainer.data.photos.pixels[0].nbytes)
    return found


def noise(shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Photos that need no decoding."""
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
