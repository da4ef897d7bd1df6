"""Are the gradients right? What backward computes, held against differences of what forward computes.

For a number w among the weights, and a loss L that depends on it, five points give the derivative to the fourth order
(Abramowitz and Stegun 1964, 25.3.6):

    dL/dw = (L(w - 2h) - 8 L(w - h) + 8 L(w + h) - L(w + 2h)) / 12h

That takes nothing but forward, so it can be trusted where the algebra of backward can't. It costs four forward passes
for each number, so a network is made small first (``shrink``): the layers stay what they are, with fewer kernels and
units, on a picture just large enough.

What would spoil the comparison, and what is done about it:
    Kinks. Where a pool's winner changes, or a relu's input its sign, within the step, the loss has no derivative there.
    Random numbers are drawn anew until every such place is far away; a kink that is crossed all the same is noticed.
    Symmetry. A loss that is a plain sum of the outputs, or a square picture, hides indices that changed places. Here L
    is the sum of outputs times random numbers (``dout``), and pictures are wider than high.
    Rounding. Everything is float64, in which a step of 2e-5 leaves errors of about 1e-9.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, TypeAlias, TypeVar

import numpy as np

from facecnn.errors import FacecnnError
from facecnn.kernels import reference
from facecnn.kernels.protocol import Kernels
from facecnn.network.layers import (
    Activate,
    Array,
    BatchNorm,
    Call,
    Conv,
    Dense,
    Layer,
    LayerError,
    Neuron,
    Pool,
    PRelu,
    Shape,
    with_outputs,
)
from facecnn.network.loss import CrossEntropy, Loss
from facecnn.network.network import Network, Stage, plan

STEP = 2e-5
"""h: how far each number is moved."""
CLEARANCE = 50 * STEP
"""How far from each other the two largest sums of a pool's window shall be, and a sum from its activation's kink."""
TOLERANCE = 1e-6
"""Largest error of a gradient in float64, in parts of the array's largest element."""
DEVICE_CLEARANCE = 1e-4
"""The same distance for a comparison with float32, whose rounding mustn't choose another winner."""
DEVICE_TOLERANCE = 1e-3
"""Largest error of a gradient in float32: it keeps seven digits, of which batch norm over few photos loses some."""

PEOPLE = 3
"""Outputs of a shrunk network: with two, the loss's derivatives by them are each other's negative."""
_MAPS = ((2, 3), (1, 2), (1, 1))
"""Rows and columns that every map shall have at least; the next choice where that makes too large a picture."""
_LARGEST_PICTURE = 1600
_DRAWS = 100
_CANDIDATES = 5
_KINKED = ("relu", "leaky_relu")
_POINTS = ((-2, 1), (-1, -8), (1, 8), (2, -1))
"""Steps away from a number, and the factor of the loss there (over 12 h)."""
_PHOTO_NUMBERS = 1000
_STEP_NUMBER = 7
"""Any number of updates made so far: dropout's mask depends on it."""

Name: TypeAlias = tuple[str, str]
"""``("conv1", "weight")``; ``("conv1", "input")`` for the derivative by a layer's input."""
Result = TypeVar("Result")


@dataclass(frozen=True)
class Fault:
    """Where an array of derivatives is most wrong, and how."""

    place: tuple[int, ...]
    found: float
    expected: float
    likeness: str | None
    """What the whole array is: ``0.25 times the right one``, ``the right one upside down``; None where none fits."""


@dataclass(frozen=True)
class Row:
    """How one array of derivatives did."""

    name: str
    """The layer's, or ``loss``."""
    parameter: str
    """``weight``, ``bias``, ``scale``, ``shift``, or ``input`` for what a layer passes down."""
    elements: int
    max_relative_error: float
    """Largest difference, in parts of the array's largest element, or of a tenth of the largest of all arrays
    where that is larger; not a number where a derivative isn't one."""
    tolerance: float
    fault: Fault | None = None
    """None if it passed."""

    @property
    def passed(self) -> bool:
        return self.fault is None


@dataclass(frozen=True)
class Part:
    """How all parameters did in the network up to a layer."""

    name: str
    rows: tuple[Row, ...]

    @property
    def elements(self) -> int:
        return sum(row.elements for row in self.rows)

    @property
    def worst(self) -> Row:
        return worst(self.rows)

    @property
    def passed(self) -> bool:
        return all(row.passed for row in self.rows)


@dataclass(frozen=True)
class Shrunk:
    """A network with the config's layers, small enough to check every element."""

    layers: tuple[Layer, ...]
    """With few kernels and units."""
    full: tuple[Layer, ...]
    """With all kernels and units, for the same picture."""
    shape: Shape
    """The picture: rows, columns, maps."""
    photos: int

    @property
    def stages(self) -> tuple[Stage, ...]:
        return plan(self.layers, self.shape)


@dataclass(frozen=True)
class Check:
    """What ``check_gradients`` found."""

    alone: tuple[Row, ...]
    """Each layer by itself, and the loss."""
    parts: tuple[Part, ...]
    """The network as it grows, layer by layer, up to the loss."""
    distance: float
    """From the nearest kink; infinite where there is none."""

    @property
    def passed(self) -> bool:
        return all(row.passed for row in self.alone) and all(part.passed for part in self.parts)


@dataclass(frozen=True)
class Comparison:
    """What ``compare_device`` found."""

    rows: tuple[Row, ...]
    distance: float

    @property
    def passed(self) -> bool:
        return all(row.passed for row in self.rows)


def worst(rows: Sequence[Row]) -> Row:
    """The row with the largest error for what it may be; one that isn't a number before all others."""
    return max(rows, key=lambda row: np.inf if np.isnan(row.max_relative_error) else row.max_relative_error)


# ----------------------------------------------------------------------------------------------------- a small network


def shrink(layers: Sequence[Layer], shape: Shape) -> Shrunk:
    """The same layers with two or three kernels, neurons and units each, on the smallest picture that leaves something
    to see: maps of 2x3 at least, or of 1x2 or 1x1 where that would make a large picture.

    ``shape`` (rows, columns, maps) is the config's picture. Kernel sizes, pools, padding and activations stay. Raises
    LayerError where a layer doesn't fit.
    """
    full = with_outputs(layers, PEOPLE)
    stages = plan(full, shape)
    if len(stages[-1].out_shape) != 1:
        error = LayerError("the network's last layer must give units: end it with `- dense: {units: people}`")
        error.index = len(layers) - 1
        raise error
    small: list[Layer] = []
    for layer in full:
        summing = sum(isinstance(before, Conv | Neuron | Dense) for before in small)
        small.append(_with_few_maps(layer, 2 + summing % 2))
    norm = any(isinstance(layer, BatchNorm) for layer in layers)
    return Shrunk(tuple(small), full, _smallest_picture(small, shape), 4 if norm else 2)


def _with_few_maps(layer: Layer, count: int) -> Layer:
    """Neighbours get different counts, so that input and output maps can't be mistaken for each other."""
    if isinstance(layer, Conv):
        return replace(layer, kernels=min(layer.kernels, count))
    if isinstance(layer, Neuron):
        return replace(layer, per_kernel=min(layer.per_kernel, count))
    if isinstance(layer, Dense):
        return replace(layer, units=min(int(layer.units), count + 1))
    return layer


def _smallest_picture(layers: Sequence[Layer], shape: Shape) -> Shape:
    original = plan(layers, shape)
    for least in _MAPS:
        sides = []
        for axis in (0, 1):

            def is_enough(side: int, axis: int = axis, least: int = least[axis]) -> bool:
                picture = (*shape[:axis], side, *shape[axis + 1 :])
                try:
                    stages = plan(layers, picture)
                except LayerError:
                    return False
                return all(
                    len(now) == 1 or now[axis] >= min(least, before[axis])
                    for stage, whole in zip(stages, original, strict=True)
                    for now, before in ((stage.shape, whole.shape), (stage.out_shape, whole.out_shape))
                )

            sides.append(1 + bisect_left(range(1, shape[axis]), True, key=is_enough))
        if sides[0] * sides[1] <= _LARGEST_PICTURE:
            break
    return (*sides, shape[2])


# ------------------------------------------------------------------------------------------------------ random numbers


@dataclass(frozen=True)
class _Numbers:
    """Random numbers for all that a network's forward reads; float64 that float32 holds, too."""

    x: Array
    weights: Mapping[str, Mapping[str, Array]]
    """Parameters and statistics, by layer and name."""
    photos: Array
    step: Array


def _draw(stages: Sequence[Stage], count: int, seed: Sequence[int]) -> _Numbers:
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
        if isinstance(stage.layer, PRelu):
            # Slopes are learned and may fall below 0, where out has another sign than x: who takes one for the other
            # is right as long as they don't.
            arrays["slope"][::2] = -np.abs(arrays["slope"][::2])
    photos = generator.permutation(_PHOTO_NUMBERS)[:count].astype(np.int32)
    return _Numbers(normal((count, *stages[0].shape)), weights, photos, np.array([_STEP_NUMBER], np.int32))


def _far_from_kinks(
    stages: Sequence[Stage], count: int, seed: Sequence[int], clearance: float
) -> Iterator[tuple[_Numbers, float]]:
    """Random numbers for which all kinks are at least ``clearance`` away, with how far; failing that, the farthest."""
    distances: list[tuple[float, int]] = []
    for number in range(_DRAWS):
        numbers = _draw(stages, count, (*seed, number))
        distance = _Chain(stages, numbers, reference).distance()
        if distance >= clearance:
            yield numbers, distance
        else:
            distances.append((distance, number))
    for distance, number in sorted(distances, reverse=True):
        yield _draw(stages, count, (*seed, number)), distance


class _CrossedKinkError(Exception):
    """A number's step led over a kink."""


def _away_from_kinks(
    stages: Sequence[Stage], count: int, seed: Sequence[int], work: Callable[[_Numbers], Result]
) -> tuple[Result, float]:
    """``work``'s result on random numbers that no step leads over a kink from, and the distance of the nearest."""
    for numbers, distance in islice(_far_from_kinks(stages, count, seed, CLEARANCE), _CANDIDATES):
        try:
            return work(numbers), distance
        except _CrossedKinkError:
            continue
    raise FacecnnError(
        f"no random numbers were found for which {', '.join(stage.name for stage in stages)} can be moved by {STEP:g} "
        "without crossing a kink of a pool or an activation: try another --seed, or fewer layers"
    )


# ------------------------------------------------------------------------------------------- layers one after the other


class _Chain:
    """Some layers one after the other, with every array of its own: nothing is overwritten, all can be looked at."""

    def __init__(self, stages: Sequence[Stage], numbers: _Numbers, kernels: Kernels) -> None:
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
        self._kernels = kernels
        self._workspace = kernels.Workspace()
        self.forward()
        self._sides = [self._side(number) for number in range(len(stages))]

    def out(self, number: int) -> Array:
        """Of layer ``number``."""
        return self._outs[number]

    def sums(self, number: int) -> Array:
        """Of a convolution: what its activation and pool are given, which the fused kernel keeps to itself."""
        stage = _sums_only(self.stages[number])
        out = np.zeros((len(self.numbers.x), *stage.out_shape))
        stage.layer.forward(replace(self._call(number), out=out, buffers={"argmax": np.zeros(0, np.uint8)}))
        return out

    def forward(self, first: int = 0) -> None:
        """From layer number ``first`` on."""
        for number in range(first, len(self.stages)):
            self.stages[number].layer.forward(self._call(number))

    def backward(self, dout: Array) -> dict[Name, Array]:
        """The derivatives of sum(out * dout) by every parameter and every layer's input."""
        found: dict[Name, Array] = {}
        for number in reversed(range(len(self.stages))):
            stage = self.stages[number]
            gradient = {name: np.zeros(parameter.shape) for name, parameter in stage.parameters.items()}
            dx = np.zeros((len(dout), *stage.shape))
            stage.layer.backward(replace(self._call(number), dout=dout, dx=dx, gradient=gradient))
            found |= {(stage.name, name): array for name, array in gradient.items()}
            found[stage.name, "input"] = dout = dx
        self.forward()  # backward may overwrite out
        return found

    def differences(self, array: Array, first: int, values: Callable[[], Sequence[float]]) -> list[Array]:
        """The derivatives of each of some ``values`` by an array that layer number ``first`` is the lowest to read.

        Raises _CrossedKinkError.
        """
        flat = array.reshape(-1)
        slopes: list[Array] = []
        for i in range(flat.size):
            kept = flat[i]
            terms = []
            for steps, factor in _POINTS:
                flat[i] = kept + steps * STEP
                self.forward(first)
                if any(self._side(number) != self._sides[number] for number in range(first, len(self.stages))):
                    flat[i] = kept
                    raise _CrossedKinkError
                terms.append(factor * np.array(values()))
            flat[i] = kept
            slopes.append(np.sum(terms, axis=0) / (12 * STEP))
        self.forward(first)
        return [column.reshape(array.shape) for column in np.array(slopes).T]

    def distance(self) -> float:
        """The smallest difference of the two largest elements of a pool's window, or distance from an activation's
        kink. Exact equality doesn't count: it is that of elements which stand still (behind a relu that is off)."""
        gaps = [gap for number in range(len(self.stages)) for gap in self._gaps(number)]
        return min((float(gap[gap > 0].min(initial=np.inf)) for gap in gaps), default=np.inf)

    def _x(self, number: int) -> Array:
        return self._outs[number - 1] if number else self.numbers.x

    def _call(self, number: int) -> Call:
        stage = self.stages[number]
        return Call(
            kernels=self._kernels,
            workspace=self._workspace,
            training=True,
            number=number,
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
        """On which side of all its kinks a layer is."""
        layer = self.stages[number].layer
        argmax = self._buffers[number].get("argmax")
        side = b"" if argmax is None else argmax.tobytes()
        if isinstance(layer, Conv | Activate) and _activation(layer) in _KINKED:
            side += (self._outs[number] > 0).tobytes()
        if isinstance(layer, PRelu):
            side += (self._x(number) > 0).tobytes()
        return side

    def _gaps(self, number: int) -> Iterator[Array]:
        stage, x = self.stages[number], self._x(number)
        layer = stage.layer
        if isinstance(layer, Conv):
            out = self.sums(number)
            if isinstance(layer.pool, int):
                ordered = _ordered_windows(out, (layer.pool, layer.pool), (layer.pool, layer.pool))
                yield ordered[..., -1] - ordered[..., -2]
                out = ordered[..., -1]
            if layer.activation in _KINKED:
                yield np.abs(out)
        elif isinstance(layer, PRelu) or (isinstance(layer, Activate) and layer.name in _KINKED):
            yield np.abs(x)
        elif isinstance(layer, Pool) and layer.kind == "max":
            size, stride = layer.window(stage.shape)
            ordered = _ordered_windows(_up_to_the_last_window(x, stage.out_shape, size, stride), size, stride)
            if ordered.shape[-1] > 1:
                yield ordered[..., -1] - ordered[..., -2]


def _sums_only(stage: Stage) -> Stage:
    """A convolution without its activation and pool."""
    assert isinstance(stage.layer, Conv)
    layer = replace(stage.layer, activation="identity", pool=None)
    return replace(stage, layer=layer, out_shape=layer.output_shape(stage.shape))


def _activation(layer: Conv | Activate) -> str:
    return layer.activation if isinstance(layer, Conv) else layer.name


def _up_to_the_last_window(maps: Array, out_shape: Shape, size: tuple[int, int], stride: tuple[int, int]) -> Array:
    """Maps (N, H, W, C) with rows and columns of -inf behind their edges, where windows reach over them."""
    over = [max(0, (out_shape[axis] - 1) * stride[axis] + size[axis] - maps.shape[1 + axis]) for axis in (0, 1)]
    return np.pad(maps, ((0, 0), (0, over[0]), (0, over[1]), (0, 0)), constant_values=-np.inf)


def _ordered_windows(maps: Array, size: tuple[int, int], stride: tuple[int, int]) -> Array:
    """(N, H', W', C, elements of a window), each window in ascending order."""
    windows = np.lib.stride_tricks.sliding_window_view(maps, size, axis=(1, 2))[:, :: stride[0], :: stride[1]]
    return np.sort(windows.reshape(*windows.shape[:4], -1), axis=-1)


# ------------------------------------------------------------------------------------------------------------ the check


def check_gradients(
    small: Shrunk,
    loss: Loss,
    *,
    seed: int = 0,
    kernels: Kernels = reference,
) -> Check:
    """Every element of every derivative of a shrunk network against differences, with ``kernels`` in float64.

    First each layer alone, with random numbers in the place of its input: a mistake shows at the layer that makes it.
    Then the network as it grows: the mistake shows first at the part that brings it in. The last part is the whole
    network with its loss, as training computes it. Raises FacecnnError where no random numbers lie away from kinks.
    """
    stages = small.stages
    alone: list[Row] = []
    distances: list[float] = []
    for number, stage in enumerate(stages):
        shape = stage.shape if len(stage.shape) == 1 else _smallest_picture((stage.layer,), stage.shape)
        one = replace(stage, shape=shape, out_shape=stage.layer.output_shape(shape))

        def by_itself(numbers: _Numbers, one: Stage = one, number: int = number) -> list[Row]:
            return _layer_rows(one, numbers, kernels, (seed, 1, number))

        rows, distance = _away_from_kinks([one], small.photos, (seed, 0, number), by_itself)
        alone += rows
        distances.append(distance)
    alone.append(_loss_row(small, loss, kernels, seed))
    parts, distance = _away_from_kinks(
        stages, small.photos, (seed, 3), lambda numbers: _checked_parts(small, loss, numbers, kernels, seed)
    )
    return Check(tuple(alone), tuple(parts), min(*distances, distance))


def _layer_rows(stage: Stage, numbers: _Numbers, kernels: Kernels, seed: Sequence[int]) -> list[Row]:
    """The parameters and the input of one layer."""
    chain = _Chain([stage], numbers, kernels)
    dout = _random_dout(chain.out(0).shape, seed)

    def values() -> Sequence[float]:
        return [float((chain.out(0) * dout).sum())]

    found = chain.backward(dout)
    arrays = {name: numbers.weights[stage.name][name] for name in stage.parameters} | {"input": numbers.x}
    expected = {(stage.name, name): chain.differences(array, 0, values)[0] for name, array in arrays.items()}
    return _compared(found, expected, TOLERANCE)


def _loss_row(small: Shrunk, loss: Loss, kernels: Kernels, seed: int) -> Row:
    """The loss's derivatives by the network's outputs."""
    labels, class_weights = _labels(small, loss, seed)
    network = Network(small.layers, small.shape, kernels, small.photos, loss=loss, dtype=np.float64)
    out = network.output
    out[...] = _random_dout(out.shape, (seed, 4))
    expected = np.zeros(out.shape)
    for place in np.ndindex(out.shape):
        kept = out[place]
        for steps, factor in _POINTS:
            out[place] = kept + steps * STEP
            network.loss(small.photos, labels, class_weights)
            expected[place] += factor / (12 * STEP) * float(network.objectives.sum())
        out[place] = kept
    network.loss(small.photos, labels, class_weights)
    (row,) = _compared({("loss", "input"): network.dlogits}, {("loss", "input"): expected}, TOLERANCE)
    return row


@dataclass(frozen=True)
class _Grown:
    """The network up to a layer."""

    name: str
    """What is new in it."""
    stages: Sequence[Stage]
    sums_only: bool
    """Whether the last one is a convolution without its activation and pool."""


def _growing(stages: Sequence[Stage]) -> list[_Grown]:
    """The network as it grows; a convolution comes without what is fused to it first."""
    parts: list[_Grown] = []
    for number, stage in enumerate(stages):
        before, plus = stages[:number], "+ " if number else ""
        fused = _fused(stage.layer)
        if fused:
            parts.append(_Grown(f"{plus}{stage.name}, its sums only", [*before, _sums_only(stage)], True))
            plus = "+ "
        new = f"{stage.name}'s {' and '.join(fused)}" if fused else stage.name
        parts.append(_Grown(f"{plus}{new}", [*before, stage], False))
    return [part for part in parts if any(stage.parameters for stage in part.stages)]


def _fused(layer: Layer) -> list[str]:
    """What a convolution does besides summing up."""
    if not isinstance(layer, Conv):
        return []
    pool = [] if layer.pool is None else [f"pool of {layer.pool}x{layer.pool}"]
    return pool if layer.activation == "identity" else [layer.activation, *pool]


def _random_dout(shape: Shape, seed: Sequence[int]) -> Array:
    dout = np.random.default_rng(seed).standard_normal(shape)
    return np.asarray(dout.astype(np.float32).astype(np.float64))


def _checked_parts(small: Shrunk, loss: Loss, numbers: _Numbers, kernels: Kernels, seed: int) -> list[Part]:
    """Every parameter of the network up to each layer, and of all of it with its loss.

    Each number is moved once for all parts: their outputs are all there after one forward. The gradient of the last
    part is taken from the network as training uses it.
    """
    stages, count = small.stages, small.photos
    parts = _growing(stages)
    douts = [_random_dout((count, *part.stages[-1].out_shape), (seed, 2, n)) for n, part in enumerate(parts)]
    found = [_Chain(p.stages, numbers, kernels).backward(dout) for p, dout in zip(parts, douts, strict=True)]

    labels, class_weights = _labels(small, loss, seed)
    network = _network(small.layers, small, loss, numbers, kernels, np.float64)
    network.forward(count, training=True, photos=numbers.photos, step=numbers.step)
    network.loss(count, labels, class_weights)
    network.backward(count, numbers.photos, numbers.step)
    found.append(_gradients(network))

    chain = _Chain(stages, numbers, kernels)
    expected: list[dict[Name, Array]] = [{} for _ in found]
    for number, stage in enumerate(stages):
        first = next((n for n, part in enumerate(parts) if len(part.stages) > number), len(parts))

        def values(first: int = first) -> Sequence[float]:
            result = []
            for part, dout in zip(parts[first:], douts[first:], strict=True):
                last = len(part.stages) - 1
                out = chain.sums(last) if part.sums_only else chain.out(last)
                result.append(float((out * dout).sum()))
            network.output[...] = chain.out(len(stages) - 1)
            network.loss(count, labels, class_weights)
            return [*result, float(network.objectives.sum())]

        for name in stage.parameters:
            slopes = chain.differences(numbers.weights[stage.name][name], number, values)
            for gradients, array in zip(expected[first:], slopes, strict=True):
                gradients[stage.name, name] = array
    names = [*(part.name for part in parts), "the whole network with the loss"]
    compared = (_compared(there, array, TOLERANCE) for there, array in zip(found, expected, strict=True))
    return [Part(name, tuple(rows)) for name, rows in zip(names, compared, strict=True)]


def _labels(small: Shrunk, loss: Loss, seed: int) -> tuple[Array, Array]:
    """Random labels, and a weight for each output: different ones where the loss is set to weigh people."""
    (units,) = small.stages[-1].out_shape
    generator = np.random.default_rng((seed, 5))
    labels = generator.integers(0, units, small.photos).astype(np.int32)
    weighs = isinstance(loss, CrossEntropy) and loss.class_weights is not None
    return labels, generator.uniform(0.5, 1.5, units) if weighs else np.ones(units)


def _network(
    layers: Sequence[Layer], small: Shrunk, loss: Loss, numbers: _Numbers, kernels: Kernels, dtype: Any
) -> Network:
    network = Network(layers, small.shape, kernels, small.photos, loss=loss, dtype=dtype)
    network.weights.from_host(
        {f"{stage}.{name}": array for stage, arrays in numbers.weights.items() for name, array in arrays.items()}
    )
    kernels.copy_to_device(network.input, numbers.x.astype(dtype))
    return network


def _gradients(network: Network) -> dict[Name, Array]:
    assert network.gradient is not None
    return {
        (stage.name, name): network.kernels.to_host(network.gradient.by_stage[stage.name][name])
        for stage in network.stages
        for name in stage.parameters
    }


def _compared(found: Mapping[Name, Array], expected: Mapping[Name, Array], tolerance: float) -> list[Row]:
    """A row for each expected array.

    An array may be zero but for rounding (a bias below batch norm, which takes it out again), so that none is measured
    by less than a tenth of the largest of all.
    """
    largest = max((float(np.abs(array).max(initial=0)) for array in expected.values()), default=0.0)
    rows = []
    for (name, parameter), array in expected.items():
        scale = max(float(np.abs(array).max(initial=0)), largest / 10, np.finfo(np.float64).tiny)
        errors = np.abs(found[name, parameter] - array) / scale
        error = float(errors.max(initial=0))  # keeps NaN
        fault = None if error <= tolerance else _fault(found[name, parameter], array, errors, tolerance * scale)
        rows.append(Row(name, parameter, array.size, error, tolerance, fault))
    return rows


def _fault(found: Array, expected: Array, errors: Array, allowed: float) -> Fault:
    place = np.unravel_index(int(errors.argmax()), errors.shape)  # of a NaN, if there is one
    return Fault(
        tuple(int(index) for index in place),
        float(found[place]),
        float(expected[place]),
        _likeness(found, expected, allowed),
    )


def _likeness(found: Array, expected: Array, allowed: float) -> str | None:
    """Whether an array is another one turned, flipped, transposed or multiplied."""
    changed = {}
    if expected.ndim == 4:
        changed = {
            "the right one turned by 180 degrees": expected[:, ::-1, ::-1],
            "the right one upside down": expected[:, ::-1],
            "the right one mirrored": expected[:, :, ::-1],
            "the right one with rows and columns exchanged": expected.transpose(0, 2, 1, 3),
            "the right one with input and output maps exchanged": expected.transpose(3, 1, 2, 0),
        }
    if expected.ndim == 2:
        changed = {"the right one with rows and columns exchanged": expected.T}
    for what, array in changed.items():
        if array.shape == found.shape and np.abs(found - array).max() <= allowed:
            return what
    if np.isfinite(found).all() and expected.any():
        factor = float((found * expected).sum() / (expected * expected).sum())
        if np.abs(found - factor * expected).max() <= allowed:
            return f"{factor:.4g} times the right one"
    return None


# ---------------------------------------------------------------------------------------------------------- the device


def compare_device(small: Shrunk, loss: Loss, kernels: Kernels, *, seed: int = 0) -> Comparison:
    """Every parameter's gradient on a device, in float32, against the reference in float64, from the same numbers.

    The picture is the shrunk one, kernels and units are as many as the config's: these are the kernels that training
    runs. ``dout`` is random; the row ``loss`` holds the loss's derivatives by the outputs.
    """
    stages = plan(small.full, small.shape)
    numbers, distance = next(_far_from_kinks(stages, small.photos, (seed, 6), DEVICE_CLEARANCE))
    labels, class_weights = _labels(small, loss, seed)
    dout = _random_dout((small.photos, *stages[-1].out_shape), (seed, 7))

    def run(kernels: Kernels, dtype: Any) -> dict[Name, Array]:
        network = _network(small.full, small, loss, numbers, kernels, dtype)
        photos, step, labels_there = (kernels.to_device(array) for array in (numbers.photos, numbers.step, labels))
        network.forward(small.photos, training=True, photos=photos, step=step)
        network.loss(small.photos, labels_there, kernels.to_device(class_weights.astype(dtype)))
        dlogits = kernels.to_host(network.dlogits)
        network.backward(small.photos, photos, step, kernels.to_device(dout.astype(dtype)))
        return {**_gradients(network), ("loss", "input"): dlogits}

    rows = _compared(run(kernels, np.float32), run(reference, np.float64), DEVICE_TOLERANCE)
    return Comparison(tuple(rows), distance)
