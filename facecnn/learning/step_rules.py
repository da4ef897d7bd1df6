"""Step rules: how one gradient becomes one change of the weights.

Each is a small set of settings over flat buffers: ``state_names`` says which arrays of the parameters' shape it keeps
(they are saved with a checkpoint), ``update`` changes weights and state in place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass as plain_dataclass
from typing import Any, ClassVar, Literal, Protocol

import numpy.typing as npt
from pydantic import Field
from pydantic.dataclasses import dataclass

from facecnn.kernels.protocol import Kernels
from facecnn.settings import SETTINGS

Array = npt.NDArray[Any]


@plain_dataclass(frozen=True)
class Piece:
    """A piece of the flat parameters, P numbers, with all that one update of it needs."""

    kernels: Kernels
    weight: Array
    """(P,), to be changed in place."""
    state: Mapping[str, Array]
    """(P,) for each of the rule's ``state_names``, to be changed in place."""
    gradient: Array
    """(P,)"""
    learning_rate: Array
    """(1,)"""
    step: Array
    """(1,) int32: updates made so far."""
    decaying: int
    """Weight decay applies to so many elements, from the first on."""
    workspace: Any


class StepRule(Protocol):
    """What the training loop needs of an optimizer that works step by step."""

    @property
    def learning_rate(self) -> float:
        """The largest rate; a schedule scales it."""

    @property
    def state_names(self) -> tuple[str, ...]:
        """Names of the arrays, shaped like the flat parameters and zero at the start, that the rule keeps."""

    def update(self, piece: Piece) -> None:
        """Change ``piece.weight`` and ``piece.state`` in place."""


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class Momentum:
    """Stochastic gradient descent with momentum; weight decay is part of the gradient (L2)."""

    keyword: ClassVar[str] = "momentum"

    name: Literal["momentum"] = "momentum"
    learning_rate: float = Field(default=0.01, gt=0, description="largest rate; the schedule scales it")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="share of the last step that is kept")
    weight_decay: float = Field(
        default=0.0, ge=0, description="pull of the weights towards 0; never on biases and batch norm"
    )

    @property
    def state_names(self) -> tuple[str, ...]:
        return ("velocity",)

    def update(self, piece: Piece) -> None:
        piece.kernels.momentum_update(
            piece.weight,
            piece.state["velocity"],
            piece.gradient,
            piece.learning_rate,
            self.momentum,
            False,
            self.weight_decay,
            piece.decaying,
            piece.workspace,
        )


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""

    keyword: ClassVar[str] = "adamw"

    name: Literal["adamw"] = "adamw"
    learning_rate: float = Field(default=0.001, gt=0, description="largest rate; the schedule scales it")
    beta1: float = Field(default=0.9, ge=0, lt=1, description="memory of the gradient's mean")
    beta2: float = Field(default=0.999, ge=0, lt=1, description="memory of the gradient's square")
    epsilon: float = Field(default=1e-8, gt=0, description="added to the root of the square")
    weight_decay: float = Field(
        default=0.01, ge=0, description="pull of the weights towards 0; never on biases and batch norm"
    )

    @property
    def state_names(self) -> tuple[str, ...]:
        return ("mean", "variance")

    def update(self, piece: Piece) -> None:
        piece.kernels.adam_update(
            piece.weight,
            piece.state["mean"],
            piece.state["variance"],
            piece.gradient,
            piece.learning_rate,
            piece.step,
            self.beta1,
            self.beta2,
            self.epsilon,
            self.weight_decay,
            piece.decaying,
            piece.workspace,
        )


Optimizer = Momentum | AdamW
OPTIMIZERS: dict[str, type[Optimizer]] = {rule.keyword: rule for rule in (Momentum, AdamW)}
"""Optimizers by their names in the config."""
