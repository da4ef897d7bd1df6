"""Optimizers: how a gradient becomes a change of the weights.

Each is a class of settings; its step is a formula in ``facecnn.kernels.formulas``, which a backend applies to flat
arrays in place. In the formulas here w is a weight, g its gradient and rate the current learning rate.

Weight decay never applies to biases and batch norm, and comes in two kinds. Added to the gradient, g + weight_decay *
w, it is the derivative of a penalty, weight_decay / 2 * the sum of squares (L2), and is scaled like the gradient.
Decoupled, w -= rate * weight_decay * w before the step, it is the same for every weight (Loshchilov and Hutter 2019).
For ``sgd`` the two are the same; ``adam`` and ``adamw`` differ in nothing else; ``lion`` is made for the second.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, get_args

from pydantic import Field
from pydantic.dataclasses import dataclass

from facecnn.arrays import Array
from facecnn.kernels.backend import Backend
from facecnn.kernels.update_rules import update_rule
from facecnn.settings import SETTINGS

_RATE = "largest rate; the schedule scales it"
_DECAY = "pull of the weights towards 0; never on biases and batch norm"
_SQUARE_MEMORY = "decay of the mean of the gradient's square"
_EPSILON = "added to the root of the square"


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class Optimizer:
    """Settings of all optimizers: learning rate, weight decay, and changes to the gradient.

    ``clip`` scales a longer gradient down to this norm, the 2-norm over all trained parameters (Pascanu, Mikolov and
    Bengio 2013; torch.nn.utils.clip_grad_norm_). ``noise`` then adds normal noise with the standard deviation
    noise / (1 + t)^noise_decay after t updates (Neelakantan et al. 2015, who give the variance, eta / (1 + t)^gamma:
    noise is the root of their eta, noise_decay half of their gamma).
    """

    learning_rate: float = Field(default=0.01, gt=0, description=_RATE)
    weight_decay: float = Field(default=0.0, ge=0, description=_DECAY)
    clip: float | None = Field(
        default=None, gt=0, description="a gradient longer than this (2-norm over all) is scaled down to it | null"
    )
    noise: float = Field(default=0.0, ge=0, description="standard deviation of normal noise added to the gradient")
    noise_decay: float = Field(default=0.55, ge=0, description="after t steps it is divided by (1 + t)^noise_decay")

    @property
    def name(self) -> str:
        """Its name in the config, which is that of its step among the formulas unless ``rule`` has another."""
        raise NotImplementedError

    @property
    def rule(self) -> str:
        """Name of its step among the formulas."""
        return self.name

    @property
    def _decouples(self) -> bool:
        """Whether weight decay is decoupled."""
        return False

    @property
    def state_names(self) -> tuple[str, ...]:
        """Names of its state: arrays like the flat parameters, 0 at the start, which are saved in checkpoints."""
        return update_rule(self.rule).state

    def update(
        self,
        backend: Backend,
        weight: Array,
        state: Mapping[str, Array],
        gradient: Array,
        learning_rate: Array,
        step: Array,
        decaying: int,
        workspace: Any,
    ) -> None:
        """Make one step, in place.

        Args:
            weight: (P,), a part of the flat parameters.
            state: (P,) for each of ``state_names``.
            gradient: (P,)
            learning_rate: (1,)
            step: (1,) int32, number of updates made before.
            decaying: number of weights, from the first, to which weight decay applies.
        """
        scalars = {name: getattr(self, name) for name in update_rule(self.rule).settings}
        scalars["decoupled_weight_decay" if self._decouples else "weight_decay"] = self.weight_decay
        arrays = tuple(state[name] for name in self.state_names)
        backend.optimizer_update(weight, arrays, gradient, learning_rate, step, self.rule, scalars, decaying, workspace)

    @property
    def changes_gradient(self) -> bool:
        """Whether ``change_gradient`` does anything."""
        return self.clip is not None or self.noise > 0

    def change_gradient(
        self, backend: Backend, out: Array, gradient: Array, counts: Array, seed: int, step: Array, workspace: Any
    ) -> None:
        """Clip a gradient and add noise.

        Args:
            out: (P,), the result.
            gradient: (P,); must be 0 where nothing is trained.
            counts: (P / 4,), the elements that get noise; see ``add_noise``.
            step: (1,) int32, number of updates made before.
        """
        if self.clip is not None:
            backend.clip_gradient(out, gradient, self.clip, workspace)
            gradient = out
        if self.noise > 0:
            backend.add_noise(out, gradient, counts, seed, self.noise, self.noise_decay, step, workspace)


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class _EitherDecay(Optimizer):
    """Optimizers with a choice of weight decay."""

    decoupled: bool = Field(
        default=False, description="weight_decay is taken from the weights themselves, not added to the gradient"
    )

    @property
    def _decouples(self) -> bool:
        return self.decoupled


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class Sgd(Optimizer):
    """Stochastic gradient descent (Robbins and Monro 1951): w -= rate * (g + weight_decay * w)."""

    name: Literal["sgd"] = "sgd"


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class Momentum(_EitherDecay):
    """Stochastic gradient descent with momentum (Polyak 1964; Sutskever et al. 2013).

    v = momentum * v + g; w -= rate * v.
    """

    momentum: float = Field(default=0.9, ge=0, lt=1, description="share of the last step that is kept")
    name: Literal["momentum"] = "momentum"


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class Nesterov(_EitherDecay):
    """Stochastic gradient descent with Nesterov's momentum (Nesterov 1983; Sutskever et al. 2013).

    v = momentum * v + g; w -= rate * (g + momentum * v).
    """

    momentum: float = Field(default=0.9, ge=0, lt=1, description="share of the last step that is kept")
    name: Literal["nesterov"] = "nesterov"


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class RMSprop(_EitherDecay):
    """RMSprop (Tieleman and Hinton 2012): steps of about the same length for all weights.

    v = beta2 * v + (1 - beta2) * g^2; w -= rate * g / (sqrt(v) + epsilon).
    """

    name: Literal["rmsprop"] = "rmsprop"
    learning_rate: float = Field(default=0.001, gt=0, description=_RATE)
    beta2: float = Field(default=0.99, ge=0, lt=1, description=_SQUARE_MEMORY)
    epsilon: float = Field(default=1e-8, gt=0, description=_EPSILON)


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class Adagrad(_EitherDecay):
    """Adagrad (Duchi, Hazan and Singer 2011): a weight's steps shrink the more it has moved.

    s += g^2; w -= rate * g / (sqrt(initial_squares + s) + epsilon).
    """

    name: Literal["adagrad"] = "adagrad"
    initial_squares: float = Field(default=0.0, ge=0, description="initial sum of the gradient's squares")
    epsilon: float = Field(default=1e-10, gt=0, description=_EPSILON)


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class _WithMoments(Optimizer):
    """Settings of both Adams."""

    learning_rate: float = Field(default=0.001, gt=0, description=_RATE)
    beta1: float = Field(default=0.9, ge=0, lt=1, description="decay of the gradient's mean")
    beta2: float = Field(default=0.999, ge=0, lt=1, description=_SQUARE_MEMORY)
    epsilon: float = Field(default=1e-8, gt=0, description=_EPSILON)
    rule: ClassVar[str] = "adam"


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class Adam(_WithMoments):
    """Adam (Kingma and Ba 2015), with weight decay in the gradient.

    m = beta1 * m + (1 - beta1) * g; v = beta2 * v + (1 - beta2) * g^2; at the t-th step
    w -= rate * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon).
    """

    name: Literal["adam"] = "adam"


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class AdamW(_WithMoments):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019): w -= rate * weight_decay * w, then as ``adam``."""

    name: Literal["adamw"] = "adamw"
    weight_decay: float = Field(default=0.01, ge=0, description=_DECAY)
    _decouples: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class Lion(Optimizer):
    """Lion (Chen et al. 2023): every weight moves by the rate; only the sign of its gradient counts.

    w -= rate * (sign(beta1 * m + (1 - beta1) * g) + weight_decay * w); m = beta2 * m + (1 - beta2) * g. Its steps are
    longer than Adam's, so its authors take a rate 3 to 10 times smaller, and weight decay larger by the same factor.
    """

    name: Literal["lion"] = "lion"
    learning_rate: float = Field(default=0.0001, gt=0, description=_RATE)
    weight_decay: float = Field(default=0.1, ge=0, description=_DECAY)
    beta1: float = Field(default=0.9, ge=0, lt=1, description="share of the mean in the direction of a step")
    beta2: float = Field(default=0.99, ge=0, lt=1, description="decay of the gradient's mean")
    _decouples: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class ClassMeans:
    """No steps at all: the last layer is computed from the means of each person's embeddings, which an earlier layer
    gives whose weights are kept. See ``facecnn.learning.class_means``."""

    name: Literal["class_means"] = "class_means"
    state_names: ClassVar[tuple[str, ...]] = ()


AnyOptimizer = Sgd | Momentum | Nesterov | RMSprop | Adagrad | Adam | AdamW | Lion
OPTIMIZERS: dict[str, type[AnyOptimizer]] = {kind.name: kind for kind in get_args(AnyOptimizer)}
"""By their names in the config."""
