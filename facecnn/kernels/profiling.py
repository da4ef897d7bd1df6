"""A profile of a training step, kernel by kernel."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from typing import Any

from facecnn.kernels.backend import Backend

_HELD_UP = 10.0
"""Milliseconds of a spin kernel, behind which the kernels to be timed queue up."""

_WAITING = ("copy_to_device", "synchronise", "to_device", "to_host")
"""Functions that wait until the device has nothing more to do."""


class Profiler:
    """Stands in for a backend, and times each kernel on the device: by events on a card, by the clock on the CPU.

    The card must never wait for Python: the time between two events includes any idle time, and Python takes longer to
    launch a small kernel than the card to run it. So a spin kernel holds the card up whenever it may have caught up.

    ``announce`` names the layer and the direction that later launches are counted for.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._place = ("", "")
        self._marks: list[tuple[tuple[str, str], Any, Any]] = []
        self._sums: dict[tuple[str, str], float] = {}
        self._behind_until = 0.0
        """The card has something to do until then."""

    def __getattr__(self, name: str) -> Any:
        function = getattr(self._backend, name)
        if inspect.isfunction(function) and "workspace" in inspect.signature(function).parameters:
            function = self._timed(function, name)
            setattr(self, name, function)
        elif name in _WAITING:
            function = self._emptying(function)
            setattr(self, name, function)
        return function

    def announce(self, layer: str, way: str) -> None:
        """``conv1`` and ``forward`` or ``backward``; or another part of the step (``update``) and an empty string."""
        self._place = (layer, way)

    def record(self, function: Callable[[], None], workspace: Any) -> Callable[[], None]:
        """The function itself: a recording can't be timed kernel by kernel."""
        return function

    def _timed(self, function: Callable[..., None], name: str) -> Callable[..., None]:
        def run(*arguments: Any) -> None:
            workspace = arguments[-1]
            layer, way = self._place
            if time.perf_counter() >= self._behind_until:
                self._backend.hold_up(_HELD_UP, workspace)
                # Half of the time, since the card may run faster than in the calibration.
                self._behind_until = time.perf_counter() + _HELD_UP / 2000
            start = self._backend.mark(workspace)
            function(*arguments)
            stop = self._backend.mark(workspace)
            self._marks.append(((layer, "backward_weight" if name.endswith("_backward_weight") else way), start, stop))

        return run

    def _emptying(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            self._behind_until = 0.0
            return function(*arguments)

        return run

    def collect(self) -> None:
        """Add up the times since the last call; waits for the device."""
        self.synchronise()
        for place, start, stop in self._marks:
            self._sums[place] = self._sums.get(place, 0.0) + self._backend.milliseconds(start, stop)
        self._marks.clear()

    def take(self, steps: int) -> dict[str, float]:
        """Mean milliseconds per step over ``steps`` steps, by ``conv1 forward`` and so on; resets the sums."""
        self.collect()
        means = {" ".join(filter(None, place)): total / steps for place, total in self._sums.items()}
        self._sums.clear()
        return means
