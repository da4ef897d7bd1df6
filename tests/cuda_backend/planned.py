"""What a card would be asked for, found out without one."""

from __future__ import annotations

import numpy as np

from facecnn.kernels import cuda
from facecnn.kernels.cases import Case, placed
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


def launches_of_case(case: Case) -> list[Launch]:
    with planning() as launches:
        arguments, _ = placed(case.arguments, np.float32, lambda array, written: PlannedArray(array.shape, array.dtype))
        getattr(cuda, case.kernel)(*arguments, cuda.Workspace())
        return launches
