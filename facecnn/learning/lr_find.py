"""Learning-rate range test (Smith 2017): train with a rate that rises in every step, and watch the loss."""

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass as plain_dataclass

import numpy as np
from pydantic.dataclasses import dataclass

from facecnn.errors import DivergedError
from facecnn.learning.full_batch_optimizers import Vector
from facecnn.learning.loop import Trainer
from facecnn.learning.progress import Recorder, StepReport
from facecnn.learning.schedules import NOTHING, Memory, Schedule
from facecnn.settings import SETTINGS

LOWEST, HIGHEST = 1e-5, 10.0
"""First and last rate of a range test."""
DIVERGED = 2.0
"""The test ends when the smoothed loss is this many times that of the start: the rest would show nothing more."""
LOW = 0.15
"""The loss is low if at most this share of its whole fall is missing."""
LEAST_FALL = 0.05
"""A loss that falls by a smaller share says nothing about rates."""
_MEMORY = 0.2
"""Range of the smoothing in decades of rates, to either side."""


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class Ramp(Schedule):
    """The rate grows by a constant factor in each of ``length`` steps, from LOWEST / HIGHEST to 1, and stays there."""

    length: int

    def factor(self, step: int, steps: int, memory: Memory = NOTHING) -> float:
        return math.pow(LOWEST / HIGHEST, max(0.0, 1 - step / max(1, self.length - 1)))


class _LossRecorder(Recorder):
    """Keeps each step's loss, and knows when to stop."""

    def __init__(self, trainer: Trainer, steps: int, progress: Callable[[int], None]) -> None:
        self._trainer, self._steps, self._progress = trainer, steps, progress
        self._decay = _decay(steps)
        self._sum = self._weight = 0.0
        self.losses: list[float] = []
        self.diverged = False

    def step(self, step: StepReport) -> None:
        self._progress(step.step)
        loss = self._trainer.objective()
        if not math.isfinite(loss):
            self.diverged = True
            return
        self.losses.append(loss)
        # A moving average with bias correction: the sum over the sum of its weights.
        self._sum = self._decay * self._sum + loss
        self._weight = self._decay * self._weight + 1
        start = float(np.mean(self.losses[: max(1, self._steps // 20)]))
        self.diverged = self._sum / self._weight > DIVERGED * start

    def stop(self) -> bool:
        return self.diverged or len(self.losses) == self._steps


@plain_dataclass(frozen=True)
class Losses:
    """The result of one range test."""

    losses: Vector
    """(n,): loss of each step's batch, before the step."""
    diverged: bool
    """Whether it ended before the highest rate because the loss grew too large."""


def range_test(trainer: Trainer, steps: int, progress: Callable[[int], None] = lambda done: None) -> Losses:
    """Train from the trainer's weights with a rising rate.

    ``trainer``: made with ``Ramp(length=steps)``, the learning rate HIGHEST, and enough epochs not to end before.
    """
    recorder = _LossRecorder(trainer, steps, progress)
    with suppress(DivergedError):
        trainer.run(recorder, recorder.stop)
    return Losses(np.array(recorder.losses), recorder.diverged or len(recorder.losses) < steps)


def _decay(steps: int) -> float:
    """Decay of the moving average in a step."""
    return math.exp(-math.log10(HIGHEST / LOWEST) / (_MEMORY * max(1, steps - 1)))


def smoothed(losses: Vector, decay: float) -> Vector:
    """Each loss averaged with those around it, weighted by decay^distance.

    Weights are normalised, so that the ends aren't pulled to 0, and symmetric, so that a fall isn't delayed.
    """
    steps = np.arange(len(losses))
    weights = decay ** np.abs(steps[:, None] - steps)
    return np.asarray(weights @ losses / weights.sum(axis=1))


@plain_dataclass(frozen=True)
class RangeTest:
    """The mean of several range tests."""

    rates: Vector
    """(N,): the rate of each step."""
    single: tuple[Vector, ...]
    """The losses of each test, (n,) with n <= N."""
    smooth: Vector
    """(n,): their smoothed mean, up to the last step of the longest."""
    diverged: bool
    """Whether all tests ended early."""

    @property
    def low(self) -> tuple[float, float] | None:
        """First and last rate at which the loss is low; None if it never fell."""
        start, lowest = self.smooth[0], self.smooth.min()
        if start - lowest < LEAST_FALL * start:
            return None
        low = np.flatnonzero(self.smooth <= lowest + LOW * (start - lowest))
        return float(self.rates[low[0]]), float(self.rates[low[-1]])

    @property
    def middle(self) -> float | None:
        """Geometric mean of the ends of ``low``, to two digits; None if the loss never fell.

        The usual rules, the rate of the steepest fall (Gugger 2018) or a tenth of that of the minimum, assume a curve
        that falls right before it rises. With small batches of two people it falls early, or in stages, and is flat and
        noisy for two decades: the steepest point is one to three decades too low, and the minimum anywhere on the
        floor. But all such curves show the floor's two ends: learning gets fast enough at the first, steps too long at
        the second.
        """
        if self.low is None:
            return None
        return _two_digits(math.sqrt(self.low[0] * self.low[1]))


def suggested_rate(test: RangeTest, curvature: float | None) -> float | None:
    """``test.middle``, but at most 1 / ``curvature``; None if the loss never fell.

    A range test sees only the first steps. These can survive an unstable rate: the loss falls, but the damage (kernels
    thrown to where they get no gradient) shows at the end of a whole run, whose result is then a matter of luck.
    1 / curvature is half the largest stable rate of gradient descent, and the rate with the largest decrease that is
    guaranteed (the descent lemma: Nesterov 2004, "Introductory Lectures on Convex Optimization", section 1.2.3); the
    other half is left for small batches, whose curvature varies.

    Args:
        test: from fresh weights.
        curvature: the largest at those, of the loss of all photos; None, or not above 0, if it sets no limit, as for
            optimizers that scale the steps of each weight.
    """
    if test.middle is None or curvature is None or curvature <= 0:
        return test.middle
    return min(test.middle, _two_digits(1 / curvature))


def _two_digits(rate: float) -> float:
    return float(f"{rate:.2g}")


def gather(tests: Sequence[Losses], steps: int) -> RangeTest:
    """Average range tests of ``steps`` steps. After an early end a test counts with the loss that ended it. Losses are
    limited to that, so that a single explosion doesn't hide the others."""
    limit = DIVERGED * float(np.mean([test.losses[: max(1, steps // 20)].mean() for test in tests]))
    longest = max(len(test.losses) for test in tests)
    padded = [np.pad(test.losses, (0, longest - len(test.losses)), constant_values=limit) for test in tests]
    return RangeTest(
        rates=HIGHEST * (LOWEST / HIGHEST) ** (1 - np.arange(steps) / max(1, steps - 1)),
        single=tuple(test.losses for test in tests),
        smooth=smoothed(np.minimum(padded, limit).mean(axis=0), _decay(steps)),
        diverged=all(test.diverged for test in tests),
    )
