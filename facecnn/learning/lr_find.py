"""Which learning rate? A range test (Smith 2017): train with a rate that rises in every step, and watch the loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass as plain_dataclass
from typing import ClassVar

import numpy as np
from pydantic.dataclasses import dataclass

from facecnn.errors import DivergedError
from facecnn.learning.full_batch_optimizers import Vector
from facecnn.learning.loop import Trainer
from facecnn.learning.progress import Recorder, StepReport
from facecnn.learning.schedules import NOTHING, Memory, Schedule
from facecnn.settings import SETTINGS

LOWEST, HIGHEST = 1e-5, 10.0
"""Rates that a range test begins and ends with."""
DIVERGED = 2.0
"""A smoothed loss so many times that of the start ends the test: more is not learned from what comes."""
LOW = 0.15
"""The loss is low where no more than this share of its whole fall is missing."""
LEAST_FALL = 0.05
"""A loss that has not fallen by this share of itself says nothing about rates."""
_MEMORY = 0.2
"""Decades of rates that the smoothing looks back and ahead."""


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class Ramp(Schedule):
    """The rate rises by the same factor in each of ``length`` steps, from LOWEST / HIGHEST to 1, and stays there."""

    keyword: ClassVar[str] = "ramp"

    length: int

    def factor(self, step: int, steps: int, memory: Memory = NOTHING) -> float:
        return math.pow(LOWEST / HIGHEST, max(0.0, 1 - step / max(1, self.length - 1)))


class _Losses(Recorder):
    """A recorder that keeps each step's loss, and knows when to stop."""

    def __init__(self, trainer: Trainer, steps: int, progress: Callable[[int], None]) -> None:
        self._trainer, self._steps, self._progress = trainer, steps, progress
        self._keep = _keep(steps)
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
        # A moving average that begins with the first loss instead of 0: the sum over the sum of its weights.
        self._sum = self._keep * self._sum + loss
        self._weight = self._keep * self._weight + 1
        start = float(np.mean(self.losses[: max(1, self._steps // 20)]))
        self.diverged = self._sum / self._weight > DIVERGED * start

    def stop(self) -> bool:
        return self.diverged or len(self.losses) == self._steps


@plain_dataclass(frozen=True)
class Losses:
    """What came of one range test."""

    losses: Vector
    """(n,): of each step's batch, before the step."""
    diverged: bool
    """Whether it ended before the highest rate, as the loss grew too large."""


def range_test(trainer: Trainer, steps: int, progress: Callable[[int], None] = lambda done: None) -> Losses:
    """Train from the trainer's weights with a rising rate.

    The trainer was made with ``Ramp(length=steps)``, the learning rate HIGHEST, and so many epochs that it doesn't end
    before. ``progress`` is called with the steps made.
    """
    recorder = _Losses(trainer, steps, progress)
    with suppress(DivergedError):
        trainer.run(recorder, recorder.stop)
    return Losses(np.array(recorder.losses), recorder.diverged or len(recorder.losses) < steps)


def _keep(steps: int) -> float:
    """What the moving average keeps of itself from step to step."""
    return math.exp(-math.log10(HIGHEST / LOWEST) / (_MEMORY * max(1, steps - 1)))


def smoothed(losses: Vector, keep: float) -> Vector:
    """Each loss averaged with those around it, weighted by keep^distance.

    The weights are divided by their sum, so that neither end leans to 0 (bias correction); and as they look ahead as
    far as back, no fall comes out later than it was.
    """
    places = np.arange(len(losses))
    weights = keep ** np.abs(places[:, None] - places)
    return np.asarray(weights @ losses / weights.sum(axis=1))


@plain_dataclass(frozen=True)
class RangeTest:
    """The mean of several range tests."""

    rates: Vector
    """(N,): the rate of each step."""
    single: tuple[Vector, ...]
    """The losses of each test, (n,) with n <= N."""
    smooth: Vector
    """(n,): their smoothed mean, up to the last step of any."""
    diverged: bool
    """Whether all ended early."""

    @property
    def low(self) -> tuple[float, float] | None:
        """The first and the last rate at which the loss is low; None where it never fell."""
        start, lowest = self.smooth[0], self.smooth.min()
        if start - lowest < LEAST_FALL * start:
            return None
        low = np.flatnonzero(self.smooth <= lowest + LOW * (start - lowest))
        return float(self.rates[low[0]]), float(self.rates[low[-1]])

    @property
    def middle(self) -> float | None:
        """The middle, by factors, of the rates at which the loss is low, in two digits; None where it never fell.

        The usual rules, the rate of the steepest fall (Gugger 2018) or a tenth of the lowest place's, take a curve for
        granted that falls right before it rises. With small batches of two people it falls early, or in stages, and is
        flat and noisy for two decades: the steepest place is then one to three decades too low, and the lowest one
        anywhere on the floor. Both of the floor's ends are seen in all such curves: where it is reached, learning is
        fast enough, and where it is left, steps become too long.
        """
        if self.low is None:
            return None
        return _two_digits(math.sqrt(self.low[0] * self.low[1]))


def suggested_rate(test: RangeTest, curvature: float | None) -> float | None:
    """The middle of the rates at which the loss is low, but at most 1 / ``curvature``; None where it never fell.

    A range test sees the first steps only. Those a rate beyond the stable ones can stand: the loss falls, and what is
    lost on the way (kernels thrown to where they get no error any more) shows at the end of a whole training, which
    becomes a matter of luck. 1 / curvature is half the largest stable rate of plain gradient descent, and the rate
    whose steps are sure to lower the loss by most (the descent lemma: Nesterov 2004, "Introductory Lectures on Convex
    Optimization", section 1.2.3); the other half is left for the noise of small batches, whose curvature varies.

    Args:
        test: from fresh weights.
        curvature: the largest at those, of the loss of all photos; None, or not above 0, where it sets no limit, as for
            optimizers that scale the steps of each weight by themselves.
    """
    if test.middle is None or curvature is None or curvature <= 0:
        return test.middle
    return min(test.middle, _two_digits(1 / curvature))


def _two_digits(rate: float) -> float:
    return float(f"{rate:.2g}")


def gather(tests: Sequence[Losses], steps: int) -> RangeTest:
    """The mean of range tests of so many steps. A test that ended early counts from there on with the loss at which
    it was ended; no loss counts as more, so that a single explosion doesn't hide the others."""
    limit = DIVERGED * float(np.mean([test.losses[: max(1, steps // 20)].mean() for test in tests]))
    longest = max(len(test.losses) for test in tests)
    padded = [np.pad(test.losses, (0, longest - len(test.losses)), constant_values=limit) for test in tests]
    return RangeTest(
        rates=HIGHEST * (LOWEST / HIGHEST) ** (1 - np.arange(steps) / max(1, steps - 1)),
        single=tuple(test.losses for test in tests),
        smooth=smoothed(np.minimum(padded, limit).mean(axis=0), _keep(steps)),
        diverged=all(test.diverged for test in tests),
    )
