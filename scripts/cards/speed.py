"""The speed that first_card.py measures: each kernel of a step, with its estimate, and photos that are streamed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from statistics import median
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt

from common.recording import EpochMetrics
from facecnn.kernels import open_device
from facecnn.kernels.profiling import Profiler
from machine.cuda_roofline import planned_trainer, step_of
from machine.kernel_time import Card, kernel_time


class KernelTimes(Profiler):
    """Times by kernel function, where the profiler has forward and backward of each layer."""

    def _timed(self, function: Callable[..., None], name: str) -> Callable[..., None]:
        run = super()._timed(function, name)

        def timed(*arguments: Any) -> None:
            run(*arguments)
            _, start, stop = self._marks[-1]
            self._marks[-1] = ((self._place[0], name), start, stop)

        return timed


def kernel_times(config: str, batch: int, steps: int, device: str = "cuda") -> dict[str, Any]:
    """Time each kernel function in each layer, as ``train --profile`` does, in microseconds per step."""
    times = KernelTimes(open_device(device).backend)
    # An epoch is one step: the first one compiles, and the last one, which also watches the kernels, isn't run.
    trainer = planned_trainer(config, times, batch_size=batch, epochs=steps + 2, picture=noise)
    metrics = EpochMetrics()

    def stop() -> bool:
        if len(metrics.epochs) == 1:
            times.take(1)
        return len(metrics.epochs) > steps

    trainer.run(metrics, stop=stop)
    assert len(metrics.epochs) == steps + 1
    taken = {place: 1000 * milliseconds for place, milliseconds in times.take(steps).items()}
    return {"batch": batch, "steps": steps, "microseconds": taken}


def estimated(config: str, batch: int) -> dict[str, Any]:
    """Estimate the same with kernel_time.py for an H100, and count the launches."""
    card = Card()
    microseconds: dict[str, float] = {}
    launches: dict[str, int] = {}
    for layer, name, planned in step_of(config, batch).planned:
        place = f"{layer} {name}"
        seconds = sum(kernel_time(launch, card).seconds + card.node_seconds for launch in planned)
        microseconds[place] = microseconds.get(place, 0.0) + 1e6 * seconds
        launches[place] = launches.get(place, 0) + len(planned)
    return {"batch": batch, "microseconds": microseconds, "launches": launches}


def sent(config: str, photos: int, epochs: int, batch: int) -> dict[str, Any]:
    """Measure photos per second, resident and streamed: the median of the epochs after the first two."""
    backend = open_device("cuda").backend
    found: dict[str, Any] = {"photos": photos, "batch": batch}
    for name in ("resident", "streamed"):
        full = mock.patch.object(backend, "resident", side_effect=MemoryError) if name == "streamed" else nullcontext()
        with full:
            trainer = planned_trainer(config, backend, batch_size=batch, epochs=epochs, count=photos, picture=noise)
        assert trainer.step.streamed == (name == "streamed")
        metrics = EpochMetrics()
        trainer.run(metrics)
        found[name] = median(metrics.of("photos_per_second")[2:] or metrics.of("photos_per_second"))
        found["photo_bytes"] = int(trainer.data.photos.pixels[0].nbytes)
    return found


def noise(shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Make photos that need no decoding."""
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
