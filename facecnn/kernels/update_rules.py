"""The arguments of the optimizers' formulas, by the names of their parameters, and how compiled loops pass them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from facecnn.kernels import formulas

_COMPLEMENT, _CORRECTION, _CORRECTED_RATE = "one_minus_", "bias_correction", "corrected_rate"
_COUPLED, _DECOUPLED = "weight_decay", "decoupled_weight_decay"


class Values(NamedTuple):
    """The arguments that all steps of a training run share."""

    numbers: list[float]
    betas: list[float]
    """The betas of the bias corrections."""
    coupled: float
    decoupled: float


@dataclass(frozen=True)
class UpdateRule:
    """An optimizer's step, with the names of its arguments."""

    step: Callable[..., Any]
    decay: Callable[..., Any]
    """Applied before the step."""
    state: tuple[str, ...]
    """Arrays shaped like the weights, zero at the start, that a step updates."""
    corrects_rate: bool
    """Whether it takes ``corrected_rate``, the rate divided by 1 - beta1^t. beta1 is then the first of ``betas``."""
    numbers: tuple[str, ...]
    """The arguments between the rate and the bias corrections."""
    betas: tuple[str, ...]
    """The settings of the bias corrections."""

    @property
    def decays(self) -> tuple[str, ...]:
        """The names by which weight decay may be passed."""
        return (_DECOUPLED,) if self.decay is formulas.decoupled_decay else (_COUPLED, _DECOUPLED)

    @property
    def settings(self) -> tuple[str, ...]:
        """The settings that its numbers are computed from."""
        return tuple(dict.fromkeys([*(name.removeprefix(_COMPLEMENT) for name in self.numbers), *self.betas]))

    def values(self, state: Sequence[Any], scalars: Mapping[str, float]) -> Values:
        """The values for these settings and this weight decay, by name.

        Raises ValueError for a missing or unknown name, and for a wrong number of state arrays.
        """
        name = self.step.__name__
        if len(state) != len(self.state):
            raise ValueError(f"{name} keeps {len(self.state)} arrays, not {len(state)}")
        if scalars.keys() - set(self.decays) != set(self.settings):
            raise ValueError(f"{name} takes {', '.join([*self.settings, *self.decays])}, not {', '.join(scalars)}")
        numbers = [
            1 - scalars[name.removeprefix(_COMPLEMENT)] if name.startswith(_COMPLEMENT) else scalars[name]
            for name in self.numbers
        ]
        coupled, decoupled = scalars.get(_COUPLED, 0.0), scalars.get(_DECOUPLED, 0.0)
        return Values(numbers, [scalars[name] for name in self.betas], coupled, decoupled)


@cache
def update_rule(name: str) -> UpdateRule:
    """The rule of an optimizer. Raises ValueError for an unknown name."""
    if name not in formulas.OPTIMIZERS:
        raise ValueError(f"there is no optimizer {name!r}, but {', '.join(formulas.OPTIMIZERS)}")
    step, decay = formulas.OPTIMIZERS[name]
    names = list(inspect.signature(step).parameters)
    corrects_rate = _CORRECTED_RATE in names
    rate = names.index(_CORRECTED_RATE if corrects_rate else "rate")
    numbers = [name for name in names[rate + 1 :] if not name.startswith(_CORRECTION)]
    betas = [name.replace(_CORRECTION, "beta") for name in names[rate + 1 + len(numbers) :]]
    if corrects_rate:
        betas.insert(0, "beta1")
    return UpdateRule(step, decay, tuple(names[2:rate]), corrects_rate, tuple(numbers), tuple(betas))


def map_tuple(compiled: Any, function: Any, count: int) -> Any:
    """``mapped(elements, other)``: ``function(element, other)`` of each of ``count`` elements, as a tuple. ``function``
    is compiled already. (A loop can't make a tuple in compiled code.)"""
    if count < 2:
        return compiled((lambda elements, other: (), lambda elements, other: (function(elements[0], other),))[count])
    rest = map_tuple(compiled, function, count - 1)

    def mapped(elements: Any, other: Any) -> Any:
        return (function(elements[0], other), *rest(elements[1:], other))

    return compiled(mapped)


def store_tuple(compiled: Any, count: int) -> Any:
    """``store(arrays, i, values)``: arrays[n][i] = values[n] for each of ``count`` arrays."""
    if count == 0:
        return compiled(lambda arrays, i, values: None)
    rest = store_tuple(compiled, count - 1)

    def store(arrays: Any, i: Any, values: Any) -> None:
        arrays[0][i] = values[0]
        rest(arrays[1:], i, values[1:])

    return compiled(store)
