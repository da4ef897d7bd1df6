"""A training step as a CUDA graph: recorded once, then played back by one call, so that Python's time for some forty
launches doesn't hold up the card."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from facecnn.kernels.cuda.driver import SIMULATED
from facecnn.kernels.cuda.memory import Array, Workspace, copy_to_device, to_host
from facecnn.kernels.cuda.planning import is_planning
from facecnn.kernels.notes import slow

_said = False
"""Whether the user has been told that recording failed: the reason is the same for all."""

_host_calls = 0
"""Calls of ``on_host`` so far."""


def record(function: Callable[[], None], workspace: Workspace) -> Callable[[], None]:
    """Record ``function``, which always launches the same kernels, as a CUDA graph; returns a function to call instead.

    The first call runs it plainly, which compiles the kernels and grows the workspace; the second captures it; later
    calls replay the graph. If capture fails, it always runs plainly.
    """
    return _Recorded(function, workspace)


def on_host(function: Callable[..., None], arrays: Sequence[Array], workspace: Workspace) -> None:
    """Wait for the kernels before, and call ``function`` with copies of the arrays, which are copied back. A graph
    can't do that: what contains it isn't recorded."""
    global _host_calls
    _host_calls += 1
    if is_planning():
        return
    copies = [to_host(array) for array in arrays]
    function(*copies)
    for array, copy in zip(arrays, copies, strict=True):
        copy_to_device(array, copy)


class _Recorded:
    def __init__(self, function: Callable[[], None], workspace: Workspace) -> None:
        self._function = function
        self._workspace = workspace
        self._calls = 0
        self._play: Callable[[], None] | None = None
        self._calls_host = False

    def __call__(self) -> None:
        self._calls += 1
        before = _host_calls
        if self._calls == 2 and not self._calls_host and not SIMULATED and not is_planning():
            try:
                self._play = _recording(self._function, self._workspace)
            except Exception as error:  # whatever the driver or an older cuda-core says: plain launches do the same
                _say_why_not(error)
        if self._play is not None:
            self._play()
        else:
            self._function()
            self._calls_host = _host_calls > before


def _say_why_not(error: Exception) -> None:
    global _said
    if not _said:
        _said = True
        slow.add(
            f"the kernels of a step can't be recorded as a CUDA graph ({type(error).__name__}: {error}), so they are "
            "launched one by one: results are the same, but the card waits for Python before each of them, which takes "
            "longer than most kernels of a small network"
        )


def _recording(function: Callable[[], None], workspace: Workspace) -> Callable[[], None]:
    from cuda.core import Device

    device = Device()
    device.set_current()
    builder: Any = device.create_graph_builder()
    before = workspace.stream
    try:
        builder.begin_building()
        workspace.stream = builder
        function()
        graph = builder.end_building().complete()
    except BaseException:
        with suppress(Exception):  # of a capture that has failed, closing fails, too
            builder.close()
        raise
    finally:
        workspace.stream = before
    return lambda: graph.launch(device.default_stream)
