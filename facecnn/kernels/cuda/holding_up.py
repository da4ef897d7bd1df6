"""A spin kernel that keeps the card busy while Python launches the kernels to be timed.

Python takes longer to launch a small kernel than the card takes to run it. An idle card waits for each launch, and the
time between two events around a kernel is mostly Python's. Behind a kernel that runs for some milliseconds, launches
and events queue up, and then run back to back.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from facecnn.kernels.cuda.driver import SIMULATED, cuda, kernel, launch
from facecnn.kernels.cuda.memory import Array, Workspace, mark, milliseconds, synchronise
from facecnn.kernels.cuda.planning import is_planning

_TRIED = 2**20
"""Turns of the calibration run: some milliseconds in all."""

_MOST = 2**30


@kernel
def spin(out: Array, turns: Any) -> None:
    # One thread; each turn depends on the one before, and the output on all of them.
    value = out[0]
    for _ in range(turns):
        value = value * np.float32(0.5) + np.float32(1)
    out[0] = value


_turns_of_a_millisecond: dict[int, float] = {}
"""By card."""


def _try_out(workspace: Workspace) -> float:
    """Turns per millisecond, measured after the kernel is compiled."""
    _spin(1, workspace)
    synchronise()
    start = mark(workspace)
    _spin(_TRIED, workspace)
    return _TRIED / max(milliseconds(start, mark(workspace)), 1e-3)


def _spin(turns: int, workspace: Workspace) -> None:
    launch(spin, 1, 1, workspace, workspace.array("spun", (1,)), turns)


def hold_up(at_least: float, workspace: Workspace) -> None:
    """Keep the card busy for about ``at_least`` milliseconds before it runs what is launched next."""
    if SIMULATED or is_planning():
        return
    card = cuda.get_current_device().id
    if card not in _turns_of_a_millisecond:
        _turns_of_a_millisecond[card] = _try_out(workspace)
    _spin(min(_MOST, int(at_least * _turns_of_a_millisecond[card])), workspace)
