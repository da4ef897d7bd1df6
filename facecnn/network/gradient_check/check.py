"""The checks: in float64 against finite differences, and on a device against float64."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from facecnn.arrays import Array
from facecnn.kernels import reference
from facecnn.kernels.backend import Backend
from facecnn.network.gradient_check.chain import (
    POINTS,
    STEP,
    Chain,
    Numbers,
    away_from_kinks,
    far_from_kinks,
    sums_only,
)
from facecnn.network.gradient_check.results import TOLERANCE, Name, Part, Row, compared
from facecnn.network.gradient_check.shrinking import Shrunk, smallest_picture
from facecnn.network.layers import Layer, Shape
from facecnn.network.loss import CrossEntropy, Loss
from facecnn.network.network import MicroBatch, Network
from facecnn.network.stages import Stage, plan

DEVICE_CLEARANCE = 1e-4
"""``CLEARANCE`` for a comparison with float32, whose rounding mustn't change a pool's winner."""
DEVICE_TOLERANCE = 1e-3
"""Largest error of a gradient in float32, which has seven digits; batch norm over few photos loses some of them."""


@dataclass(frozen=True)
class Check:
    """Result of ``check_gradients``."""

    alone: tuple[Row, ...]
    """Each layer by itself, and the loss."""
    parts: tuple[Part, ...]
    """The network as it grows, layer by layer, up to the loss."""
    distance: float
    """From the nearest kink; infinite if there is none."""

    @property
    def passed(self) -> bool:
        return all(row.passed for row in self.alone) and all(part.passed for part in self.parts)


@dataclass(frozen=True)
class Comparison:
    """Result of ``compare_device``."""

    rows: tuple[Row, ...]
    distance: float

    @property
    def passed(self) -> bool:
        return all(row.passed for row in self.rows)


def check_gradients(small: Shrunk, loss: Loss, *, seed: int = 0, backend: Backend = reference) -> Check:
    """Compare every element of every derivative of a shrunk network with finite differences, in float64.

    First comes each layer alone, with random input: an error shows at the layer that makes it. Then comes the network
    as it grows: an error first shows in the part that brings it in. The last part is the whole network with its loss,
    as training computes it. Raises FacecnnError if no random numbers are far enough from kinks.
    """
    stages = small.stages
    alone: list[Row] = []
    distances: list[float] = []
    for number, stage in enumerate(stages):
        shape = stage.shape if len(stage.shape) == 1 else smallest_picture((stage.layer,), stage.shape)
        one = replace(stage, shape=shape, out_shape=stage.layer.output_shape(shape))

        def by_itself(numbers: Numbers, one: Stage = one, number: int = number) -> list[Row]:
            return _layer_rows(one, numbers, backend, (seed, 1, number))

        rows, distance = away_from_kinks([one], small.photos, (seed, 0, number), by_itself)
        alone += rows
        distances.append(distance)
    alone.append(_loss_row(small, loss, backend, seed))
    parts, distance = away_from_kinks(
        stages, small.photos, (seed, 3), lambda numbers: _checked_parts(small, loss, numbers, backend, seed)
    )
    return Check(tuple(alone), tuple(parts), min(*distances, distance))


def _layer_rows(stage: Stage, numbers: Numbers, backend: Backend, seed: Sequence[int]) -> list[Row]:
    """Check the parameters and the input of one layer."""
    chain = Chain([stage], numbers, backend)
    dout = _random_dout(chain.out(0).shape, seed)

    def values() -> Sequence[float]:
        return [float((chain.out(0) * dout).sum())]

    found = chain.backward(dout)
    arrays = {name: numbers.weights[stage.name][name] for name in stage.parameters} | {"input": numbers.x}
    expected = {(stage.name, name): chain.differences(array, 0, values)[0] for name, array in arrays.items()}
    return compared(found, expected, TOLERANCE)


def _loss_row(small: Shrunk, loss: Loss, backend: Backend, seed: int) -> Row:
    """Check the derivatives of the loss with respect to the network's outputs."""
    labels, class_weights = _labels(small, loss, seed)
    network = Network(small.layers, small.shape, backend, small.photos, loss=loss, dtype=np.float64)
    out = network.output
    out[...] = _random_dout(out.shape, (seed, 4))
    expected = np.zeros(out.shape)
    for index in np.ndindex(out.shape):
        original = out[index]
        for steps, factor in POINTS:
            out[index] = original + steps * STEP
            network.loss(small.photos, labels, class_weights)
            expected[index] += factor / (12 * STEP) * float(network.objectives.sum())
        out[index] = original
    network.loss(small.photos, labels, class_weights)
    (row,) = compared({("loss", "input"): network.dlogits}, {("loss", "input"): expected}, TOLERANCE)
    return row


@dataclass(frozen=True)
class _Grown:
    """The network up to a layer."""

    name: str
    """What is new in it."""
    stages: Sequence[Stage]
    sums_only: bool
    """Whether the last layer is without its activation and pool."""


def _growing(stages: Sequence[Stage]) -> list[_Grown]:
    """The network as it grows; a convolution first comes without what is fused into it."""
    parts: list[_Grown] = []
    for number, stage in enumerate(stages):
        before, plus = stages[:number], "+ " if number else ""
        fused = stage.layer.fused()
        if fused:
            parts.append(_Grown(f"{plus}{stage.name}, its sums only", [*before, sums_only(stage)], True))
            plus = "+ "
        new = f"{stage.name}'s {' and '.join(fused)}" if fused else stage.name
        parts.append(_Grown(f"{plus}{new}", [*before, stage], False))
    return [part for part in parts if any(stage.parameters for stage in part.stages)]


def _random_dout(shape: Shape, seed: Sequence[int]) -> Array:
    dout = np.random.default_rng(seed).standard_normal(shape)
    return np.asarray(dout.astype(np.float32).astype(np.float64))


def _checked_parts(small: Shrunk, loss: Loss, numbers: Numbers, backend: Backend, seed: int) -> list[Part]:
    """Check every parameter in the network up to each layer, and in all of it with its loss.

    Each number is moved once for all parts, whose outputs come from the same forward pass. The gradient of the last
    part is taken from the network as training uses it.
    """
    stages, count = small.stages, small.photos
    parts = _growing(stages)
    douts = [_random_dout((count, *part.stages[-1].out_shape), (seed, 2, n)) for n, part in enumerate(parts)]
    found = [Chain(p.stages, numbers, backend).backward(dout) for p, dout in zip(parts, douts, strict=True)]

    labels, class_weights = _labels(small, loss, seed)
    network = _network(small.layers, small, loss, numbers, backend, np.float64)
    network.weigh(labels, class_weights)
    batch = MicroBatch(0, labels, numbers.photos, numbers.step)
    network.forward_backward(batch, class_weights, network.objectives, np.zeros(3))
    found.append(_gradients(network))

    chain = Chain(stages, numbers, backend)
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
    rows_of_parts = (compared(there, array, TOLERANCE) for there, array in zip(found, expected, strict=True))
    return [Part(name, tuple(rows)) for name, rows in zip(names, rows_of_parts, strict=True)]


def _labels(small: Shrunk, loss: Loss, seed: int) -> tuple[Array, Array]:
    """Random labels, and a weight for each output, which differ if the loss weights classes."""
    (units,) = small.stages[-1].out_shape
    generator = np.random.default_rng((seed, 5))
    labels = generator.integers(0, units, small.photos).astype(np.int32)
    weighs = isinstance(loss, CrossEntropy) and loss.class_weights is not None
    return labels, generator.uniform(0.5, 1.5, units) if weighs else np.ones(units)


def _network(
    layers: Sequence[Layer], small: Shrunk, loss: Loss, numbers: Numbers, backend: Backend, dtype: Any
) -> Network:
    network = Network(layers, small.shape, backend, small.photos, loss=loss, dtype=dtype)
    network.weights.from_host(
        {f"{stage}.{name}": array for stage, arrays in numbers.weights.items() for name, array in arrays.items()}
    )
    backend.copy_to_device(network.input, numbers.x.astype(dtype))
    return network


def _gradients(network: Network) -> dict[Name, Array]:
    assert network.gradient is not None
    return {
        (stage.name, name): network.backend.to_host(network.gradient.by_stage[stage.name][name])
        for stage in network.stages
        for name in stage.parameters
    }


def compare_device(small: Shrunk, loss: Loss, backend: Backend, *, seed: int = 0) -> Comparison:
    """Compare every parameter's gradient on a device, in float32, with the reference in float64, from the same numbers.

    The picture is the shrunk one, but kernels and units are as many as in the config, so that the same compiled kernels
    run as in training. ``dout`` is random; the row ``loss`` has the loss's derivatives with respect to the outputs.
    """
    stages = plan(small.full, small.shape)
    numbers, distance = next(far_from_kinks(stages, small.photos, (seed, 6), DEVICE_CLEARANCE))
    labels, class_weights = _labels(small, loss, seed)
    dout = _random_dout((small.photos, *stages[-1].out_shape), (seed, 7))

    def run(backend: Backend, dtype: Any) -> dict[Name, Array]:
        network = _network(small.full, small, loss, numbers, backend, dtype)
        photos, step, labels_there = (backend.to_device(array) for array in (numbers.photos, numbers.step, labels))
        network.forward(small.photos, training=True, photos=photos, step=step)
        network.loss(small.photos, labels_there, backend.to_device(class_weights.astype(dtype)))
        dlogits = backend.to_host(network.dlogits)
        network.backward(small.photos, photos, step, backend.to_device(dout.astype(dtype)))
        return {**_gradients(network), ("loss", "input"): dlogits}

    rows = compared(run(backend, np.float32), run(reference, np.float64), DEVICE_TOLERANCE)
    return Comparison(tuple(rows), distance)
