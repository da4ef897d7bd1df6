"""Step rules: how one gradient becomes one change of the weights.

Each is a small set of settings over flat buffers: ``state_names`` says which arrays of the parameters' shape it keeps
(they are saved with a checkpoint), ``update`` changes weights and state in place. In the formulas w is a weight, g its
gradient, rate the learning rate at the time; all is done number by number.

Weight decay, which never concerns biases and batch norm, comes in two kinds. Added to the gradient, g + weight_decay *
w, it is the derivative of a penalty, weight_decay / 2 * the sum of squares (L2), and is scaled as the gradient is.
Decoupled, w -= rate * weight_decay * w before all else, it is the same for every weight (Loshchilov and Hutter 2019).
For ``sgd`` they are one and the same; ``adam`` and ``adamw`` differ by nothing else; ``lion`` is made for the second.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass as plain_dataclass
from typing import Any, ClassVar, Literal

import numpy.typing as npt
from pydantic import Field
from pydantic.dataclasses import dataclass

from facecnn.kernels.protocol import Kernels
from facecnn.settings import SETTINGS

Array = npt.NDArray[Any]

_RATE = "largest rate; the schedule scales it"
_DECAY = "pull of the weights towards 0; never on biases and batch norm"
_SQUARE_MEMORY = "memory of the gradient's square"
_EPSILON = "added to the root of the square"


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


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class StepRule(ABC):
    """What all step rules have: a rate, weight decay, and what is done to the gradient before.

    ``clip`` scales a gradient that is longer than this down to it, with the 2-norm over all trained parameters
    (Pascanu, Mikolov and Bengio 2013; torch.nn.utils.clip_grad_norm_). ``noise`` then adds normal numbers with the
    standard deviation noise / (1 + t)^noise_decay, t the updates made so far (Neelakantan et al. 2015, who write the
    variance, eta / (1 + t)^gamma: noise is the root of their eta, noise_decay half of their gamma).
    """

    learning_rate: float = Field(default=0.01, gt=0, description=_RATE)
    weight_decay: float = Field(default=0.0, ge=0, description=_DECAY)
    clip: float | None = Field(
        default=None, gt=0, description="a gradient longer than this (2-norm over all) is scaled down to it | null"
    )
    noise: float = Field(default=0.0, ge=0, description="deviation of normal noise that is added to the gradient")
    noise_decay: float = Field(default=0.55, ge=0, description="after t steps it is divided by (1 + t)^noise_decay")

    @property
    @abstractmethod
    def state_names(self) -> tuple[str, ...]:
        """Names of the arrays, shaped like the flat parameters and zero at the start, that the rule keeps."""

    @abstractmethod
    def update(self, piece: Piece) -> None:
        """Change ``piece.weight`` and ``piece.state`` in place."""

    @property
    def changes_gradient(self) -> bool:
        """Whether ``change_gradient`` has anything to do."""
        return self.clip is not None or self.noise > 0

    def change_gradient(
        self, kernels: Kernels, out: Array, gradient: Array, counts: Array, seed: int, step: Array, workspace: Any
    ) -> None:
        """out (P,) = ``gradient`` (P,), clipped and then with noise, on those elements that ``counts`` (P / 4,) name
        (see ``add_noise``); what is not trained must be 0 in ``gradient``. ``step`` (1,): updates made so far."""
        if self.clip is not None:
            kernels.clip_gradient(out, gradient, self.clip, workspace)
            gradient = out
        if self.noise > 0:
            kernels.add_noise(out, gradient, counts, seed, self.noise, self.noise_decay, step, workspace)


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class Sgd(StepRule):
    """Stochastic gradient descent (Robbins and Monro 1951): w -= rate * (g + weight_decay * w)."""

    keyword: ClassVar[str] = "sgd"

    name: Literal["sgd"] = "sgd"

    @property
    def state_names(self) -> tuple[str, ...]:
        return ()

    def update(self, piece: Piece) -> None:
        piece.kernels.sgd_update(
            piece.weight, piece.gradient, piece.learning_rate, self.weight_decay, piece.decaying, piece.workspace
        )


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class _EitherDecay(StepRule, ABC):
    """Step rules in which weight decay may be of either kind."""

    decoupled: bool = Field(
        default=False, description="weight_decay is taken from the weights themselves, not added to the gradient"
    )


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class _WithVelocity(_EitherDecay, ABC):
    """The two kinds of momentum."""

    ahead: ClassVar[bool]
    """Whether the gradient is taken as if the next step had been made."""

    momentum: float = Field(default=0.9, ge=0, lt=1, description="share of the last step that is kept")

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
            self.ahead,
            self.weight_decay,
            self.decoupled,
            piece.decaying,
            piece.workspace,
        )


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class Momentum(_WithVelocity):
    """Stochastic gradient descent with momentum (Polyak 1964; Sutskever et al. 2013).

    v = momentum * v + g; w -= rate * v.
    """

    keyword: ClassVar[str] = "momentum"
    ahead: ClassVar[bool] = False

    name: Literal["momentum"] = "momentum"


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class Nesterov(_WithVelocity):
    """Stochastic gradient descent with Nesterov's momentum (Nesterov 1983; Sutskever et al. 2013).

    v = momentum * v + g; w -= rate * (g + momentum * v).
    """

    keyword: ClassVar[str] = "nesterov"
    ahead: ClassVar[bool] = True

    name: Literal["nesterov"] = "nesterov"


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class RMSprop(_EitherDecay):
    """RMSprop (Tieleman and Hinton 2012): steps of about the same length for every weight.

    v = beta2 * v + (1 - beta2) * g^2; w -= rate * g / (sqrt(v) + epsilon).
    """

    keyword: ClassVar[str] = "rmsprop"

    name: Literal["rmsprop"] = "rmsprop"
    learning_rate: float = Field(default=0.001, gt=0, description=_RATE)
    beta2: float = Field(default=0.99, ge=0, lt=1, description=_SQUARE_MEMORY)
    epsilon: float = Field(default=1e-8, gt=0, description=_EPSILON)

    @property
    def state_names(self) -> tuple[str, ...]:
        return ("variance",)

    def update(self, piece: Piece) -> None:
        piece.kernels.rmsprop_update(
            piece.weight,
            piece.state["variance"],
            piece.gradient,
            piece.learning_rate,
            self.beta2,
            self.epsilon,
            self.weight_decay,
            self.decoupled,
            piece.decaying,
            piece.workspace,
        )


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class Adagrad(_EitherDecay):
    """Adagrad (Duchi, Hazan and Singer 2011): a weight's steps get shorter the more it has moved already.

    s += g^2; w -= rate * g / (sqrt(initial_squares + s) + epsilon).
    """

    keyword: ClassVar[str] = "adagrad"

    name: Literal["adagrad"] = "adagrad"
    initial_squares: float = Field(default=0.0, ge=0, description="what the sum of the gradient's squares starts from")
    epsilon: float = Field(default=1e-10, gt=0, description=_EPSILON)

    @property
    def state_names(self) -> tuple[str, ...]:
        return ("squares",)

    def update(self, piece: Piece) -> None:
        piece.kernels.adagrad_update(
            piece.weight,
            piece.state["squares"],
            piece.gradient,
            piece.learning_rate,
            self.initial_squares,
            self.epsilon,
            self.weight_decay,
            self.decoupled,
            piece.decaying,
            piece.workspace,
        )


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class _WithMoments(StepRule, ABC):
    """The two kinds of Adam."""

    decoupled: ClassVar[bool]

    learning_rate: float = Field(default=0.001, gt=0, description=_RATE)
    beta1: float = Field(default=0.9, ge=0, lt=1, description="memory of the gradient's mean")
    beta2: float = Field(default=0.999, ge=0, lt=1, description=_SQUARE_MEMORY)
    epsilon: float = Field(default=1e-8, gt=0, description=_EPSILON)

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
            self.decoupled,
            piece.decaying,
            piece.workspace,
        )


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class Adam(_WithMoments):
    """Adam (Kingma and Ba 2015), with weight decay in the gradient.

    m = beta1 * m + (1 - beta1) * g; v = beta2 * v + (1 - beta2) * g^2; at the t-th step
    w -= rate * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon).
    """

    keyword: ClassVar[str] = "adam"
    decoupled: ClassVar[bool] = False

    name: Literal["adam"] = "adam"


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class AdamW(_WithMoments):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019): w -= rate * weight_decay * w, then as ``adam``."""

    keyword: ClassVar[str] = "adamw"
    decoupled: ClassVar[bool] = True

    name: Literal["adamw"] = "adamw"
    weight_decay: float = Field(default=0.01, ge=0, description=_DECAY)


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class Lion(StepRule):
    """Lion (Chen et al. 2023): every weight moves by the rate, only the sign of its gradient counts.

    w -= rate * (sign(beta1 * m + (1 - beta1) * g) + weight_decay * w); m = beta2 * m + (1 - beta2) * g. As its steps
    are longer than Adam's, its authors take a rate 3 to 10 times smaller, and a weight decay as many times larger.
    """

    keyword: ClassVar[str] = "lion"

    name: Literal["lion"] = "lion"
    learning_rate: float = Field(default=0.0001, gt=0, description=_RATE)
    weight_decay: float = Field(default=0.1, ge=0, description=_DECAY)
    beta1: float = Field(default=0.9, ge=0, lt=1, description="share of the mean in the direction of a step")
    beta2: float = Field(default=0.99, ge=0, lt=1, description="memory of the gradient's mean")

    @property
    def state_names(self) -> tuple[str, ...]:
        return ("mean",)

    def update(self, piece: Piece) -> None:
        piece.kernels.lion_update(
            piece.weight,
            piece.state["mean"],
            piece.gradient,
            piece.learning_rate,
            self.beta1,
            self.beta2,
            self.weight_decay,
            piece.decaying,
            piece.workspace,
        )


Optimizer = Sgd | Momentum | Nesterov | RMSprop | Adagrad | Adam | AdamW | Lion
OPTIMIZERS: dict[str, type[Optimizer]] = {
    rule.keyword: rule for rule in (Sgd, Momentum, Nesterov, RMSprop, Adagrad, Adam, AdamW, Lion)
}
"""Optimizers by their names in the config."""
