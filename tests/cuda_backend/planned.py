"""What a card would be asked for, found out without one."""

from __future__ import annotations

from typing import Any

import numpy as np

from contract.harness import Inout, Out
from facecnn.kernels import cuda
from facecnn.kernels.cuda.planning import Launch, PlannedArray, planning
from facecnn.learning.progress import Recorder
from machine.cuda_roofline import planned_trainer


def launches_of_training(config: str) -> list[Launch]:
    """Of one step, and of the answers for a batch."""
    with planning() as launches:
        trainer = planned_trainer(config)
        trainer.run(Recorder())
        trainer.answers(trainer.data.photos)
        return launches


def launches_of_case(name: str, arguments: tuple[Any, ...]) -> list[Launch]:
    """Of one case of ``contract.harness.check``."""
    with planning() as launches:
        passed = [_planned(argument) for argument in arguments]
        getattr(cuda, name)(*passed, cuda.Workspace())
        return launches


def _planned(argument: Any) -> Any:
    if isinstance(argument, tuple):
        return tuple(map(_planned, argument))
    if isinstance(argument, Out):
        return PlannedArray(argument.shape, np.float32 if argument.dtype is None else argument.dtype)
    array = argument.array if isinstance(argument, Inout) else argument
    if isinstance(array, np.ndarray):
        return PlannedArray(array.shape, np.float32 if array.dtype.kind == "f" else array.dtype)
    return argument
