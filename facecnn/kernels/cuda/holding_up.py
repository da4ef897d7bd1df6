"""Something for the card to do while Python launches what is to be timed.

Python takes longer to launch a kernel than a small one takes to run. So a card that does at once what it is asked for
waits for each next kernel, and the time between two events around it is mostly Python's. Behind a kernel that takes
some milliseconds launches queue up, events too, and are then worked on one right after the other.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from facecnn.kernels.cuda.driver import SIMULATED, cuda, kernel, launch
from facecnn.kernels.cuda.memory import Array, Workspace, mark, milliseconds, synchronise
from facecnn.kernels.cuda.planning import is_planning

_TRIED = 2**20
"""Turns by which it is found out how long one takes: some milliseconds in all."""

_MOST = 2**30


@kernel
def spin(out: Array, turns: Any) -> None:
    # One thread; each turn waits for the sum of the one before, and what comes out depends on all of them.
    value = out[0]
    for _ in range(turns):
        value = value * np.float32(0.5) + np.float32(1)
    out[0] = value


_turns_of_a_millisecond: dict[int, float] = {}
"""By card."""


def _try_out(workspace: Workspace) -> float:
    """How many turns a millisecond has, once the kernel is compiled."""
    _spin(1, workspace)
    synchronise()
    start = mark(workspace)
    _spin(_TRIED, workspace)
    return _TRIED / max(milliseconds(start, mark(workspace)), 1e-3)


def _spin(turns: int, workspace: Workspace) -> None:
    launch(spin, 1, 1, workspace, workspace.array("spun", (1,)), turns)


def hold_up(at_least: float, workspace: Workspace) -> None:
    """Let the card be busy for so many milliseconds, about, before it does what it is asked for next."""
    if SIMULATED or is_planning():
        return
    card = cuda.get_current_device().id
    if card not in _turns_of_a_millisecond:
        _turns_of_a_millisecond[card] = _try_out(workspace)
    _spin(min(_MOST, int(at_least * _turns_of_a_millisecond[card])), workspace)
