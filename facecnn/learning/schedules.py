"""Learning-rate schedules, as factors of the optimizer's rate, above 0 and at most 1.

All but ``plateau`` are functions of the step alone. ``plateau`` depends on the loss; what it remembers between epochs
is saved with the training, so that a resumed run has the same rates.
"""

import math
from bisect import bisect_right
from collections.abc import Mapping
from functools import lru_cache
from itertools import accumulate
from math import cos, pi
from types import MappingProxyType
from typing import ClassVar, Literal, TypeAlias, get_args

from pydantic import Field
from pydantic.dataclasses import dataclass

from facecnn.settings import SETTINGS

Memory: TypeAlias = Mapping[str, float]
"""What a schedule remembers; empty at the start. Plain numbers, to be saved as JSON."""

NOTHING: Memory = MappingProxyType({})


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class Schedule:
    """Linear warm-up, then a schedule."""

    follows_loss: ClassVar[bool] = False
    """Whether ``after_epoch`` looks at the loss, so that it has to be known after each epoch."""
    warmup: float = Field(default=0.0, ge=0, le=1, description="share of the training in which the rate rises from 0")

    def factor(self, step: int, steps: int, memory: Memory = NOTHING) -> float:
        """Factor of the learning rate for update ``step`` of ``steps``, counted from 0."""
        warm = round(self.warmup * steps)
        if step < warm:
            return (step + 1) / (warm + 1)
        return self._after_warmup(step - warm, steps - warm)

    def _after_warmup(self, step: int, steps: int) -> float:
        """Factor for ``step`` of the ``steps`` after the warm-up; 1 for the first."""
        return 1.0

    def after_epoch(self, memory: Memory, loss: float) -> dict[str, float]:
        """What to remember after an epoch with this ``loss``: the validation loss if there is one."""
        return {}


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class Constant(Schedule):
    """The same rate throughout."""

    name: Literal["constant"] = "constant"


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class Step(Schedule):
    """The rate falls at equal intervals: factor_each^k in interval k of drops + 1."""

    name: Literal["step"] = "step"
    drops: int = Field(default=2, ge=1, le=1000, description="how often the rate falls")
    factor_each: float = Field(default=0.1, gt=0, lt=1, description="factor by which it falls each time")

    def _after_warmup(self, step: int, steps: int) -> float:
        return self.factor_each ** (step * (self.drops + 1) // steps)


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class Exponential(Schedule):
    """The rate falls by the same factor in every step: end^(t / T)."""

    name: Literal["exponential"] = "exponential"
    end: float = Field(default=0.01, gt=0, le=1, description="share of the rate that is left at the end")

    def _after_warmup(self, step: int, steps: int) -> float:
        return math.pow(self.end, step / steps)


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class Cosine(Schedule):
    """The rate falls along half a cosine, and starts again at each restart.

    In a cycle of T steps: floor + (1 - floor) (1 + cos(pi t / T)) / 2 (SGDR: Loshchilov and Hutter 2017, equation 5).
    The restarts divide the training so that each cycle is ``stretch`` times as long as the one before (T_mult there).
    """

    name: Literal["cosine"] = "cosine"
    floor: float = Field(default=0.0, ge=0, le=1, description="share of the rate that is left at the end")
    restarts: int = Field(default=0, ge=0, le=100, description="how often the full rate comes back")
    stretch: float = Field(default=1.0, ge=1, le=4, description="length of each cycle relative to the one before")

    def _after_warmup(self, step: int, steps: int) -> float:
        bounds = _cycles(steps, self.restarts, self.stretch)
        # With fewer steps than cycles some are empty; this finds the cycle that holds the step.
        cycle = bisect_right(bounds, step)
        start, stop = bounds[cycle - 1], bounds[cycle]
        return _cosine(1.0, self.floor, (step - start) / (stop - start))


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class OneCycle(Schedule):
    """The rate rises from a small one to the full one, and falls to almost nothing (Smith and Topin 2018).

    The last step of the rise has the full rate, the last step of the training ``end``. The optimizer's momentum stays
    as it is; Smith also cycles that.
    """

    name: Literal["one_cycle"] = "one_cycle"
    warmup: float = Field(default=0.3, ge=0, le=1, description="share of the training in which the rate rises")
    start: float = Field(default=0.04, gt=0, le=1, description="share of the rate at the beginning")
    end: float = Field(default=4e-6, gt=0, le=1, description="share of the rate that is left at the end")
    shape: Literal["cosine", "linear"] = Field(default="cosine", description="of both sides: cosine | linear")

    def factor(self, step: int, steps: int, memory: Memory = NOTHING) -> float:
        peak, last = max(0, round(self.warmup * steps) - 1), steps - 1
        between = _cosine if self.shape == "cosine" else _linear
        if step < peak:
            return between(self.start, 1.0, step / peak)
        return between(1.0, self.end, (step - peak) / (last - peak)) if last > peak else 1.0


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class Polynomial(Schedule):
    """The rate falls as a power of the remaining share of the training: floor + (1 - floor) (1 - t / T)^power."""

    name: Literal["polynomial"] = "polynomial"
    power: float = Field(default=1.0, gt=0, le=10, description="1: along a line; more: fast at first")
    floor: float = Field(default=0.0, ge=0, le=1, description="share of the rate that is left at the end")

    def _after_warmup(self, step: int, steps: int) -> float:
        return self.floor + (1 - self.floor) * math.pow(1 - step / steps, self.power)


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class Plateau(Schedule):
    """The rate falls when the loss stops falling: that of the validation, or of the training if nothing is held out.

    The rule is that of PyTorch's ReduceLROnPlateau.
    """

    follows_loss = True
    name: Literal["plateau"] = "plateau"
    patience: int = Field(default=10, ge=0, description="tolerated epochs without gain; the next lowers the rate")
    factor_each: float = Field(default=0.1, gt=0, lt=1, description="factor by which the rate falls each time")
    threshold: float = Field(default=1e-4, ge=0, lt=1, description="share by which the loss must fall to count as gain")
    cooldown: int = Field(default=0, ge=0, description="epochs after each fall that don't count")
    floor: float = Field(default=0.001, gt=0, le=1, description="share of the rate that it never falls below")

    def factor(self, step: int, steps: int, memory: Memory = NOTHING) -> float:
        return super().factor(step, steps) * memory.get("factor", 1.0)

    def after_epoch(self, memory: Memory, loss: float) -> dict[str, float]:
        factor, best = memory.get("factor", 1.0), memory.get("best")
        without_gain, cooling = memory.get("without_gain", 0), memory.get("cooling", 0)
        if best is None or loss < best * (1 - self.threshold):
            best, without_gain = loss, 0
        else:
            without_gain += 1
        if cooling > 0:
            cooling, without_gain = cooling - 1, 0
        if without_gain > self.patience:
            factor, cooling, without_gain = max(factor * self.factor_each, self.floor), self.cooldown, 0
        return {"factor": factor, "best": best, "without_gain": without_gain, "cooling": cooling}


@lru_cache(maxsize=4)
def _cycles(steps: int, restarts: int, stretch: float) -> tuple[int, ...]:
    """First step of each cycle, and the end of the last one."""
    ends = list(accumulate(stretch**cycle for cycle in range(restarts + 1)))
    return (0, *(round(steps * end / ends[-1]) for end in ends))


def _cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * 0.5 * (1 + cos(pi * progress))


def _linear(start: float, end: float, progress: float) -> float:
    return start + (end - start) * progress


SCHEDULES: dict[str, type[Schedule]] = {
    kind.name: kind for kind in get_args(Constant | Step | Exponential | Cosine | OneCycle | Polynomial | Plateau)
}
"""Schedules by their names in the config."""
