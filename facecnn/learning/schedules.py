"""Schedules: the learning rate's course over a training, as a factor of the optimizer's rate."""

from __future__ import annotations

from math import cos, pi
from typing import ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from facecnn.settings import SETTINGS


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class _Schedule:
    """Linear warm-up, then what the schedule says."""

    warmup: float = Field(default=0.0, ge=0, le=1, description="share of the training in which the rate rises from 0")

    def factor(self, step: int, steps: int) -> float:
        """Factor of the learning rate for the update number ``step`` of ``steps``, counted from 0."""
        warm = round(self.warmup * steps)
        if step < warm:
            return (step + 1) / (warm + 1)
        return self.after_warmup((step - warm) / max(1, steps - warm))

    def after_warmup(self, progress: float) -> float:
        """The factor at ``progress``, which runs from 0 to 1."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class Constant(_Schedule):
    """The same rate throughout."""

    keyword: ClassVar[str] = "constant"

    name: Literal["constant"] = "constant"

    def after_warmup(self, progress: float) -> float:
        return 1.0


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class Step(_Schedule):
    """The rate falls by a factor at equal distances."""

    keyword: ClassVar[str] = "step"

    name: Literal["step"] = "step"
    drops: int = Field(default=2, ge=1, le=1000, description="how often the rate falls")
    factor_each: float = Field(default=0.1, gt=0, lt=1, description="what it is multiplied by each time")

    def after_warmup(self, progress: float) -> float:
        return self.factor_each ** min(self.drops, int(progress * (self.drops + 1)))


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class Cosine(_Schedule):
    """The rate falls along half a cosine (Loshchilov and Hutter 2017, without restarts)."""

    keyword: ClassVar[str] = "cosine"

    name: Literal["cosine"] = "cosine"
    floor: float = Field(default=0.0, ge=0, le=1, description="share of the rate that is left at the end")

    def after_warmup(self, progress: float) -> float:
        return self.floor + (1 - self.floor) * 0.5 * (1 + cos(pi * progress))


Schedule = Constant | Step | Cosine
SCHEDULES: dict[str, type[Schedule]] = {schedule.keyword: schedule for schedule in (Constant, Step, Cosine)}
"""Schedules by their names in the config."""
