"""A chain of layers, and random numbers for it that lie far from every kink."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TypeVar

import numpy as np

from facecnn.arrays import Array
from facecnn.errors import FacecnnError
from facecnn.kernels import reference
from facecnn.kernels.backend import Backend
from facecnn.network.gradient_check.results import Name
from facecnn.network.layers import LayerContext, Shape
from facecnn.network.stages import Stage

STEP = 2e-5
"""h, by which each number is moved."""
CLEARANCE = 50 * STEP
"""Minimum distance between the two largest sums of a pool's window, and of a sum from its activation's kink."""
_DRAWS = 100
_CANDIDATES = 5
POINTS = ((-2, 1), (-1, -8), (1, 8), (2, -1))
"""Steps from a number, and the factor of the loss there (over 12 h)."""
_PHOTO_NUMBERS = 1000
_STEP_NUMBER = 7
"""Any number of updates; dropout's mask depends on it."""
Result = TypeVar("Result")


@dataclass(frozen=True)
class Numbers:
    """Random numbers for everything that forward reads; float64, but exact in float32."""

    x: Array
    weights: Mapping[str, Mapping[str, Array]]
    """Parameters and statistics, by layer and name."""
    photos: Array
    step: Array


def draw(stages: Sequence[Stage], count: int, seed: Sequence[int]) -> Numbers:
    """Draw the numbers of a chain for ``count`` photos."""
    generator = np.random.default_rng(seed)

    def normal(shape: Shape, factor: float = 1.0) -> Array:
        return np.asarray((factor * generator.standard_normal(shape)).astype(np.float32).astype(np.float64))

    weights: dict[str, dict[str, Array]] = {}
    for stage in stages:
        arrays = weights.setdefault(stage.name, {})
        for name, parameter in {**stage.parameters, **stage.statistics}.items():
            if parameter.start == "random":
                arrays[name] = normal(parameter.shape, 1.5 / np.sqrt(parameter.fan_in))
            else:
                arrays[name] = parameter.start + normal(parameter.shape, 0.25)
            if name.rpartition(".")[2] == "slope":
                # Slopes are trained and may become negative, where out and x have different signs: using one for the
                # other only shows then.
                arrays[name][::2] = -np.abs(arrays[name][::2])
    photos = generator.permutation(_PHOTO_NUMBERS)[:count].astype(np.int32)
    return Numbers(normal((count, *stages[0].shape)), weights, photos, np.array([_STEP_NUMBER], np.int32))


def far_from_kinks(
    stages: Sequence[Stage], count: int, seed: Sequence[int], clearance: float
) -> Iterator[tuple[Numbers, float]]:
    """Random numbers with all kinks at least ``clearance`` away, and how far; after these, the others, farthest
    first."""
    distances: list[tuple[float, int]] = []
    for number in range(_DRAWS):
        numbers = draw(stages, count, (*seed, number))
        distance = Chain(stages, numbers, reference).distance()
        if distance >= clearance:
            yield numbers, distance
        else:
            distances.append((distance, number))
    for distance, number in sorted(distances, reverse=True):
        yield draw(stages, count, (*seed, number)), distance


class CrossedKinkError(Exception):
    """A number's step led across a kink."""


def away_from_kinks(
    stages: Sequence[Stage], count: int, seed: Sequence[int], work: Callable[[Numbers], Result]
) -> tuple[Result, float]:
    """Run ``work`` on random numbers whose steps cross no kink; also returns the distance of the nearest kink."""
    for numbers, distance in islice(far_from_kinks(stages, count, seed, CLEARANCE), _CANDIDATES):
        try:
            return work(numbers), distance
        except CrossedKinkError:
            continue
    raise FacecnnError(
        f"no random numbers were found for which {', '.join(stage.name for stage in stages)} can be moved by {STEP:g} "
        "without crossing a kink of a pool or an activation: try another --seed, or fewer layers"
    )


class Chain:
    """Layers one after the other, each with arrays of its own, so that nothing is overwritten."""

    def __init__(self, stages: Sequence[Stage], numbers: Numbers, backend: Backend) -> None:
        self.stages = stages
        self.numbers = numbers
        count = len(numbers.x)
        self._outs: list[Array] = [np.zeros((count, *stage.out_shape)) for stage in stages]
        self._buffers: list[dict[str, Array]] = [
            {
                name: np.zeros((count, *buffer.shape) if buffer.per_photo else buffer.shape, buffer.dtype or np.float64)
                for name, buffer in stage.layer.buffers(stage.shape).items()
            }
            for stage in stages
        ]
        self._backend = backend
        self._workspace = backend.Workspace()
        self.forward()
        self._sides = [self._side(number) for number in range(len(stages))]

    def out(self, number: int) -> Array:
        """Output of layer ``number``."""
        return self._outs[number]

    def sums(self, number: int) -> Array:
        """Input of the activation and pool that are fused into a layer, which the fused kernel doesn't store."""
        return _sums(self.stages[number], self._context(number))

    def forward(self, first: int = 0) -> None:
        """Run the layers from number ``first`` on."""
        for number in range(first, len(self.stages)):
            self.stages[number].layer.forward(self._context(number))

    def backward(self, dout: Array) -> dict[Name, Array]:
        """Derivatives of sum(out * dout) with respect to every parameter and every layer's input."""
        found: dict[Name, Array] = {}
        for number in reversed(range(len(self.stages))):
            stage = self.stages[number]
            gradient = {name: np.zeros(parameter.shape) for name, parameter in stage.parameters.items()}
            dx = np.zeros((len(dout), *stage.shape))
            stage.layer.backward(replace(self._context(number), dout=dout, dx=dx, gradient=gradient))
            found |= {(stage.name, name): array for name, array in gradient.items()}
            found[stage.name, "input"] = dout = dx
        self.forward()  # backward may overwrite out
        return found

    def differences(self, array: Array, first: int, values: Callable[[], Sequence[float]]) -> list[Array]:
        """Derivatives of some ``values`` with respect to an array that layer ``first`` is the first to read.

        Raises CrossedKinkError where a step crossed a kink.
        """
        flat = array.reshape(-1)
        slopes: list[Array] = []
        for i in range(flat.size):
            original = flat[i]
            terms = []
            for steps, factor in POINTS:
                flat[i] = original + steps * STEP
                self.forward(first)
                if any(self._side(number) != self._sides[number] for number in range(first, len(self.stages))):
                    flat[i] = original
                    raise CrossedKinkError
                terms.append(factor * np.array(values()))
            flat[i] = original
            slopes.append(np.sum(terms, axis=0) / (12 * STEP))
        self.forward(first)
        return [column.reshape(array.shape) for column in np.array(slopes).T]

    def distance(self) -> float:
        """The smallest difference between the two largest elements of a pool's window, or distance from an activation's
        kink. Equal elements don't count: they can't move (behind a relu that is off)."""
        gaps = [gap for number, stage in enumerate(self.stages) for gap in _kinks(stage, self._context(number))]
        return min((float(gap[gap > 0].min(initial=np.inf)) for gap in gaps), default=np.inf)

    def _x(self, number: int) -> Array:
        return self._outs[number - 1] if number else self.numbers.x

    def _context(self, number: int) -> LayerContext:
        stage = self.stages[number]
        return LayerContext(
            backend=self._backend,
            workspace=self._workspace,
            training=True,
            number=stage.number,
            seed=0,
            step=self.numbers.step,
            photos=self.numbers.photos,
            x=self._x(number),
            out=self._outs[number],
            weights=self.numbers.weights[stage.name],
            buffers=self._buffers[number],
            dout=self._outs[number],
            dx=None,
            gradient={},
        )

    def _side(self, number: int) -> bytes:
        """The side of each of its kinks that a layer is on."""
        return b"".join(_sides(self.stages[number], self._context(number)))


def _sums(stage: Stage, context: LayerContext) -> Array:
    """See ``Chain.sums``."""
    if not stage.layer.fused():
        return context.out
    stage = sums_only(stage)
    out = np.zeros((len(context.x), *stage.out_shape))
    stage.layer.forward(replace(context, out=out, buffers={**context.buffers, "argmax": np.zeros(0, np.uint8)}))
    return out


def _kinks(stage: Stage, context: LayerContext) -> Iterator[Array]:
    """Distances from the kinks of a layer and of those that it holds."""
    for inner, inner_context in zip(stage.inner, stage.layer.inner_contexts(context), strict=True):
        yield from _kinks(inner, inner_context)
    yield from stage.layer.kinks(context.x, _sums(stage, context))


def _sides(stage: Stage, context: LayerContext) -> Iterator[bytes]:
    """The sides of the kinks of a layer and of those that it holds."""
    for inner, inner_context in zip(stage.inner, stage.layer.inner_contexts(context), strict=True):
        yield from _sides(inner, inner_context)
    for array in (context.buffers.get("argmax"), stage.layer.sides(context.x, context.out)):
        if array is not None:
            yield array.tobytes()


def sums_only(stage: Stage) -> Stage:
    """A layer without the activation and the pool that are fused into it."""
    layer = stage.layer.sums_only()
    return replace(stage, layer=layer, out_shape=layer.output_shape(stage.shape))
