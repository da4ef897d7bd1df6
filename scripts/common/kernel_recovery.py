"""Looks for kernels that are known only by their outputs, by training; many at once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from common.sample_photos import sample_photos
from common.stable_rates import Task, derived_limit
from facecnn.kernels import reference
from facecnn.kernels.backend import Backend
from facecnn.kernels.protocol import Normalise, PoolKind
from facecnn.learning.optimizers import Optimizer, Sgd

Array = npt.NDArray[np.float64]
AnyFloats = npt.NDArray[Any]
"""float64 with the reference backend, else float32."""

SIZE = 5
SIDE = 36
"""Pixels a side of a picture; the convolution leaves 32, which every pool divides."""
RECOVERED = 0.01
"""A kernel counts as recovered within this distance of the true one, in its lengths."""
KERNELS, STARTS, PICTURES, FRESH = range(4)
"""Streams of random numbers: all trials share kernels, starts and pictures."""

DESCENT = Sgd(learning_rate=0.1)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A way to look for the kernel."""

    pools: tuple[int, ...]
    """Sides of the windows, each for an equal part of the steps; results are judged with the last one."""
    steps: int
    rule: Optimizer | None = DESCENT
    """None: gradient descent with half of the largest stable rate without pooling."""
    kind: PoolKind = "max"
    pictures: int = 1
    fresh: bool = False
    """New pictures for every step."""
    distance: float | None = None
    """Of the start from the true kernel, in lengths of it; None: a random start."""
    starts: int = 1
    """Random starts, of which the one with the least error at the end counts."""
    source: Normalise | None = None
    """None: white noise; otherwise a photo of a face, normalised in this way."""
    ones: bool = False
    """The true kernel has equal weights, all 1 / SIZE: it is as long as the random ones are on average."""
    pools_first: bool = False
    """The picture is pooled, not the convolution's result. It is larger, for as many outputs as in the other order."""
    centred: bool = False
    """The mean of what is convolved is subtracted."""

    def pictures_for(self, pool: int, random: np.random.Generator) -> Array:
        """Make what is convolved, (N, rows, columns, 1)."""
        side = pool * ((SIDE - SIZE + 1) // pool + SIZE - 1) if self.pools_first else SIDE
        x = face(self.source, side) if self.source else random.standard_normal((self.pictures, side, side, 1))
        if self.pools_first:
            pooled, window = np.empty((len(x), side // pool, side // pool, 1)), (pool, pool)
            argmax = np.empty(pooled.shape, np.int32)
            reference.pool_forward(pooled, argmax, x, "max", window, window, reference.Workspace())
            x = pooled
        return x - x.mean() if self.centred else x

    def rule_for(self, x: AnyFloats) -> Optimizer:
        """The optimizer, with its rate for the pictures ``x``."""
        return self.rule or replace(DESCENT, learning_rate=derived_limit(Task(x=x.astype(np.float64), size=SIZE)) / 2)


def face(normalise: Normalise, side: int = SIDE) -> Array:
    """Load a sample person's photo, (1, side, side, 1), scaled to the noise's mean square of 1."""
    x = sample_photos(("s1/1",), side, normalise)
    return np.asarray(x / np.sqrt((x**2).mean()))


@dataclass(frozen=True)
class Outcome:
    """The result of a trial with S kernels, each looked for by a kernel of its own."""

    true: Array
    """(S, rows, columns)"""
    found: Array
    """(S, rows, columns)"""
    distance: Array
    """(steps + 1, S): from the true kernel, in lengths of it."""
    error: Array
    """(steps + 1, S): mean squared error, as a share of the targets' mean square."""
    agreement: Array
    """(steps + 1, S): share of the windows in which the same position wins as with the true kernel."""

    @property
    def recovered(self) -> npt.NDArray[np.bool_]:
        return np.asarray(self.distance[-1] <= RECOVERED)

    @property
    def steps_needed(self) -> int | None:
        """Median over those that were recovered."""
        steps = (self.distance <= RECOVERED).argmax(axis=0)[self.recovered]
        return int(np.median(steps)) if len(steps) else None


class Forward:
    """A convolution without bias or activation, and a pool, for S kernels (S, rows, columns, 1) at once."""

    def __init__(self, x: AnyFloats, kernels: int, pool: int, kind: PoolKind, backend: Backend) -> None:
        """``backend`` has its arrays on the host: reference or cpu."""
        side = (x.shape[1] - SIZE + 1) // pool
        self._backend, self._workspace = backend, backend.Workspace()
        self._x, self._window, self._averaged = x, (pool, pool), kind == "average"
        self._fused = 1 if self._averaged else pool
        self.out: AnyFloats = backend.empty((len(x), side, side, kernels), x.dtype)
        self.winners = backend.empty(self.out.shape, np.uint8)
        self._sums = self.out
        if self._averaged:
            self._sums = backend.empty((len(x), side * pool, side * pool, kernels), x.dtype)
        self._zeros = backend.to_device(np.zeros(kernels, x.dtype))

    def __call__(self, weight: AnyFloats) -> AnyFloats:
        """Compute the pooled outputs (N, rows, columns, S)."""
        backend, result, block = self._backend, (self._sums, self.winners), self._block
        backend.conv_forward(*result, self._x, weight, self._zeros, *block)
        if self._averaged:
            window = self._window
            backend.pool_forward(self.out, self.winners, self._sums, "average", window, window, self._workspace)
        return self.out

    def backward(self, dweight: AnyFloats, dout: AnyFloats) -> None:
        """Compute the gradient by the weights from that by the outputs."""
        backend, dbias = self._backend, np.empty_like(self._zeros)
        if self._averaged:
            dsums = np.empty_like(self._sums)
            backend.pool_backward(dsums, dout, self.winners, "average", self._window, self._window, self._workspace)
            dout = dsums
        backend.conv_backward_weight(dweight, dbias, dout, self._sums, self.winners, self._x, *self._block)

    @property
    def _block(self) -> tuple[Any, ...]:
        return (0, 0), "identity", 0.0, self._fused, self._workspace


def run(trial: Trial, kernels: int, seed: int, backend: Backend) -> Outcome:
    """Look for ``kernels`` kernels, each with ``trial.starts`` starts of its own.

    They are the maps of one convolution, which share pictures and nothing else.
    """
    dtype = np.float64 if backend is reference else np.float32
    noise = {stream: np.random.default_rng([seed, stream]) for stream in (KERNELS, STARTS, PICTURES, FRESH)}
    true, weight = starts(trial, kernels, noise[KERNELS], noise[STARTS], dtype)
    gradient, lengths, workspace = np.empty_like(weight), _lengths(true), backend.Workspace()
    history, pool = [], 0
    for step in range(trial.steps + 1):
        due = trial.pools[min(step * len(trial.pools) // trial.steps, len(trial.pools) - 1)]
        if step == 0:
            x = trial.pictures_for(due, noise[PICTURES]).astype(dtype)
            rule = trial.rule_for(x)
            state = {name: np.zeros(weight.size, dtype) for name in rule.state_names}
            rate = np.array([rule.learning_rate], dtype)
        if trial.fresh or due != pool:
            pool, x = due, trial.pictures_for(due, noise[FRESH]).astype(dtype) if trial.fresh else x
            windows = 1 if trial.pools_first else pool
            model, target = (Forward(x, len(true), windows, trial.kind, backend) for _ in range(2))
            target(true)
        error, dout = _squared_error(model(weight), target.out)
        same = (model.winners == target.winners).mean(axis=(0, 1, 2))
        history.append((_lengths(weight - true) / lengths, error, same))
        if step < trial.steps:
            model.backward(gradient, dout)
            rule.update(
                backend=backend,
                weight=weight.reshape(-1),
                state=state,
                gradient=gradient.reshape(-1),
                learning_rate=rate,
                step=np.array([step], np.int32),
                decaying=0,
                workspace=workspace,
            )
    distance, error, agreement = (np.array(column) for column in zip(*history, strict=True))
    best = np.arange(kernels) * trial.starts + error[-1].reshape(kernels, -1).argmin(axis=1)
    chosen = [array[:, best] for array in (distance, error, agreement)]
    return Outcome(true[best, ..., 0], weight[best, ..., 0], *chosen)


def starts(
    trial: Trial, kernels: int, of_kernels: np.random.Generator, of_starts: np.random.Generator, dtype: npt.DTypeLike
) -> tuple[AnyFloats, AnyFloats]:
    """Draw true kernels and where the search for them starts, both (kernels * starts, SIZE, SIZE, 1)."""
    count, shape = kernels * trial.starts, (SIZE, SIZE, 1)
    drawn = of_kernels.standard_normal((kernels, *shape)) / SIZE
    true = np.repeat(np.full_like(drawn, 1 / SIZE) if trial.ones else drawn, trial.starts, axis=0)
    weight = of_starts.standard_normal((count, *shape)) / SIZE
    if trial.distance is not None:
        weight = true + weight * (trial.distance * _lengths(true) / _lengths(weight))[:, None, None, None]
    return true.astype(dtype), weight.astype(dtype)


def _lengths(kernels: AnyFloats) -> Array:
    return np.asarray(np.linalg.norm(kernels.reshape(len(kernels), -1), axis=1), np.float64)


def _squared_error(out: AnyFloats, target: AnyFloats) -> tuple[Array, AnyFloats]:
    """Compute each kernel's mean squared error, as a share of its target's mean square (S,), and the derivative of the
    mean squared error by the outputs. To the loss every kernel is a row of its own."""
    rows, targets = (np.ascontiguousarray(array.reshape(-1, array.shape[-1]).T) for array in (out, target))
    errors, objectives, dout = np.empty(len(rows), out.dtype), np.empty(len(rows), out.dtype), np.empty_like(rows)
    total = np.ones(1, out.dtype)
    reference.mean_squared_error(errors, objectives, dout, rows, targets, total, reference.Workspace())
    return errors / (targets.astype(np.float64) ** 2).mean(axis=1), np.ascontiguousarray(dout.T).reshape(out.shape)
