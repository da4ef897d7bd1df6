"""Where a step's time goes."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from typing import Any

from facecnn.kernels.backend import Backend

_HELD_UP = 10.0
"""Milliseconds for which a card is busy with nothing, while what is to be timed queues up behind."""

_WAITING = ("copy_to_device", "synchronise", "to_device", "to_host")
"""Functions that wait until the device has nothing more to do."""


class Profiler:
    """Stands in for a backend, and times each kernel on the device: by events on a card, by the clock on the CPU.

    A card must never wait for Python meanwhile: the time between two events holds all that lies between them, and
    Python takes longer for a launch than a small kernel runs. So the card is held up, again and again, for longer than
    until the next time; what it does besides only puts it further behind.

    ``announce`` says for which layer, and which way through it, the kernels are that are asked for from then on.
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
        """``conv1`` and ``forward`` or ``backward``; or what is no layer (``update``) and an empty string."""
        self._place = (layer, way)

    def record(self, function: Callable[[], None], workspace: Any) -> Callable[[], None]:
        """The function itself: what is recorded can't be timed kernel by kernel."""
        return function

    def _timed(self, function: Callable[..., None], name: str) -> Callable[..., None]:
        def run(*arguments: Any) -> None:
            workspace = arguments[-1]
            layer, way = self._place
            if time.perf_counter() >= self._behind_until:
                self._backend.hold_up(_HELD_UP, workspace)
                # Half of the time, since the card may run faster than when it was tried how long it takes.
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
        """Add up what was timed since the last time; waits for the device."""
        self.synchronise()
        for place, start, stop in self._marks:
            self._sums[place] = self._sums.get(place, 0.0) + self._backend.milliseconds(start, stop)
        self._marks.clear()

    def take(self, steps: int) -> dict[str, float]:
        """Milliseconds a step, ``conv1 forward`` and so on, over ``steps`` steps; and start anew."""
        self.collect()
        means = {" ".join(filter(None, place)): total / steps for place, total in self._sums.items()}
        self._sums.clear()
        return means
