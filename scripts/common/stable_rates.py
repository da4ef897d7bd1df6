"""The largest stable learning rate of a single linear convolution: derived from its pictures, and measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from math import isfinite, prod, sqrt
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from facecnn.kernels.backend import Backend
from facecnn.learning.curvature import curvature_product, largest_curvature, largest_stable_rate
from facecnn.learning.optimizers import Momentum, Optimizer, Sgd
from facecnn.network.layers import Conv
from facecnn.network.loss import MeanSquaredError
from facecnn.network.network import Network

Array = npt.NDArray[np.float64]

FIRST, FACTOR = 1000.0, 10.0
"""The rates that are tried first, from large to small, until one learns: ever smaller by this factor."""
EXACT = 1.005
"""The bisection ends when the largest rate that learns and the smallest one that diverges are this close."""
STEPS = 300
GROWN, GONE = 1e6, 1e-8
"""Training ends early when the loss is this many times that of the start."""
DESCENT = Sgd()


@dataclass(frozen=True, kw_only=True)
class Task:
    """A convolution of one kernel to be trained."""

    x: Array
    """(N, H, W, C): the pictures, all in one batch."""
    size: int = 5
    summed: bool = False
    """The loss: half the sum of squared errors over all positions and pictures, else their mean squared error."""
    padding: Literal["valid", "same"] = "valid"
    has_bias: bool = False
    rule: Optimizer = DESCENT
    is_known: bool = False
    """Whether the target is what another kernel gives, else zero."""
    seed: int = 0


# -------------------------------------------------------------------------------------------------------- derivation


def second_moments(task: Task) -> tuple[Array, int]:
    """Mean over all positions of patch patch', and the number of positions. A bias sees a pixel that is always 1."""
    x, size = task.x, task.size
    if task.padding == "same":
        edges = ((size - 1) // 2, size // 2)
        x = np.pad(x, ((0, 0), edges, edges, (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(1, 2))
    patches = windows.reshape(prod(windows.shape[:3]), -1)
    if task.has_bias:
        patches = np.hstack([patches, np.ones((len(patches), 1))])
    return patches.T @ patches / len(patches), len(patches)


def curvatures(task: Task) -> Array:
    """The loss's curvatures, ascending: eigenvalues of its second derivative by the weights."""
    matrix, positions = second_moments(task)
    return np.asarray((positions if task.summed else 2) * np.linalg.eigvalsh(matrix))


def derived_limit(task: Task) -> float:
    """2 / the largest curvature; times 1 + m with a momentum of m."""
    factor = 1 + task.rule.momentum if isinstance(task.rule, Momentum) else 1
    return float(factor * 2 / curvatures(task)[-1])


# ------------------------------------------------------------------------------------------------------- measurement


class Convolution:
    """The network of a task, and its training."""

    objective = MeanSquaredError()

    def __init__(self, task: Task, backend: Backend, dtype: npt.DTypeLike = np.float32) -> None:
        count = len(task.x)
        layer = Conv(kernels=1, size=task.size, padding=task.padding, activation="identity")
        # Only a network that ends in units can be trained as a whole, so the layer's two passes are called here.
        self._network = network = Network((layer,), task.x.shape[1:], backend, count, dtype=dtype, keep="outputs")
        self._backend, self._rule, self._layer = backend, task.rule, network.stages[0].layer
        backend.copy_to_device(network.input, task.x.astype(dtype))
        self._weight = network.weights.parameters
        self._gradient, self._state = network.new_weights().parameters, network.new_weights().parameters
        context = network.context_for_backward(0, count)
        self._dout = backend.empty(context.out.shape, dtype)
        self._context = replace(
            context, training=True, dout=self._dout, dx=None, gradient=self._gradient.by_stage["conv1"]
        )
        trained = ("weight", "bias") if task.has_bias else ("weight",)
        self._ranges = [
            (start, start + prod(shape))
            for (_, name), (start, shape) in self._weight.offsets.items()
            if name in trained
        ]
        self._rows = (count, prod(context.out.shape[1:]))
        # The mean over a picture's outputs is divided by this: for half the sum, by 2 / outputs.
        total = 2 / self._rows[1] if task.summed else float(count)
        self._total = backend.to_device(np.array([total], dtype))
        self._losses, self._objectives = (backend.empty((count,), dtype) for _ in range(2))
        random = np.random.default_rng([task.seed, task.size])
        self.start, self.known = (random.standard_normal(self.weights) / task.size for _ in range(2))
        self._target = backend.to_device(np.zeros(self._rows, dtype))
        if task.is_known:
            backend.copy_to_device(self._target, self.outputs(self.known).astype(dtype))

    @property
    def weights(self) -> int:
        """Number of weights that are trained."""
        return sum(stop - start for start, stop in self._ranges)

    def _set(self, w: Array) -> None:
        done = 0
        for start, stop in self._ranges:
            part = w[done : done + stop - start].astype(self._network.dtype)
            self._backend.copy_to_device(self._weight.flat[start:stop], part)
            done += stop - start

    def _part(self, flat: Any) -> Array:
        """The trained part of a flat array on the device."""
        values = self._backend.to_host(flat).astype(np.float64)
        return np.concatenate([values[start:stop] for start, stop in self._ranges])

    def loss(self) -> float:
        """Run forward, and compute the loss and its derivative by the outputs."""
        backend, rows = self._backend, self._rows
        self._layer.forward(self._context)
        backend.mean_squared_error(
            self._losses,
            self._objectives,
            self._dout.reshape(rows),
            self._context.out.reshape(rows),
            self._target,
            self._total,
            self._network.workspace,
        )
        return float(backend.to_host(self._objectives).sum(dtype=np.float64))

    def descend(self, rate: float) -> Iterator[float]:
        """Yield the loss at the start and after each step of gradient descent, without end."""
        backend, dtype = self._backend, self._network.dtype
        self._set(self.start)
        backend.copy_to_device(self._state.flat, np.zeros(self._state.flat.shape, dtype))
        learning_rate = backend.to_device(np.array([rate], dtype))
        number = backend.to_device(np.zeros(1, np.int32))
        while True:
            yield self.loss()
            self._layer.backward(self._context)
            for start, stop in self._ranges:
                self._rule.update(
                    backend=backend,
                    weight=self._weight.flat[start:stop],
                    state=dict.fromkeys(self._rule.state_names, self._state.flat[start:stop]),  # momentum's only one
                    gradient=self._gradient.flat[start:stop],
                    learning_rate=learning_rate,
                    step=number,
                    decaying=0,
                    workspace=self._network.workspace,
                )

    def train(self, rate: float, steps: int) -> list[float]:
        """List the losses at the start and after each step, up to an early end."""
        losses: list[float] = []
        for loss in islice(self.descend(rate), steps + 1):
            losses.append(loss)
            if not GONE < loss / losses[0] < GROWN:
                break
        return losses

    def distances(self, rate: float, steps: int) -> list[float]:
        """List the distances from the known kernel, in its lengths, at the start and after each step."""
        length = np.linalg.norm(self.known)
        return [
            float(np.linalg.norm(self._part(self._weight.flat) - self.known) / length)
            for _ in islice(self.descend(rate), steps + 1)
        ]

    def diverges(self, rate: float, steps: int) -> bool:
        """Whether the loss grows in the second half of training.

        Without momentum it is a sum of terms a * q^step with a > 0, one for each curvature: such a sum can fall at
        first and then grow, but once it grows, it never falls again."""
        losses = self.train(rate, steps)
        if not isfinite(losses[-1]) or losses[-1] >= GROWN * losses[0]:
            return True
        return losses[-1] > GONE * losses[0] and losses[-1] > losses[steps // 2]

    def measured_limit(self, steps: int) -> float:
        """Find the rate between learning and diverging: rates from large to small, then bisection."""
        with np.errstate(over="ignore", invalid="ignore"):
            low = FIRST
            while self.diverges(low, steps):
                low /= FACTOR
            high = FACTOR * low
            while high / low > EXACT:
                middle = sqrt(low * high)
                low, high = (low, middle) if self.diverges(middle, steps) else (middle, high)
        return sqrt(low * high)

    # What the curvature of ``facecnn lr-find`` asks of a loss:

    def outputs(self, w: Array) -> Array:
        """Outputs (N, positions) at ``w``."""
        self._set(w)
        self._layer.forward(self._context)
        return self._backend.to_host(self._context.out).astype(np.float64).reshape(self._rows)

    def pull_back(self, w: Array, dout: Array) -> Array:
        """The gradient at ``w`` of the sum of outputs times ``dout`` (N, positions)."""
        self._set(w)
        self._layer.forward(self._context)
        self._backend.copy_to_device(self._dout, dout.reshape(self._dout.shape).astype(self._network.dtype))
        self._layer.backward(self._context)
        return self._part(self._gradient.flat)

    def shares(self) -> Array:
        """(N,): weights of the pictures in the loss."""
        return np.full(self._rows[0], 1 / self._rows[0])

    def lr_find(self) -> float:
        """The largest stable rate that the power iteration of ``facecnn lr-find`` gives; of the mean squared error."""
        loss: Any = self  # it has all that is asked of one
        product = curvature_product(loss, self.start)
        limit = largest_stable_rate(largest_curvature(product, self.weights, seed=0).largest, self._rule)
        assert limit is not None
        return limit


@dataclass(frozen=True)
class Limit:
    """The largest stable rate of a task."""

    derived: float
    measured: float

    @property
    def ratio(self) -> float:
        return self.measured / self.derived


def find_limit(task: Task, backend: Backend, steps: int) -> Limit:
    """Derive and measure."""
    return Limit(derived_limit(task), Convolution(task, backend).measured_limit(steps))
