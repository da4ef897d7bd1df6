"""dlib's network in fewer arrays: affine layers and the input's normalisation become part of the convolutions.

The arithmetic is in float64. Every step is exact or rounded once, whatever the processor, so that the result has the
same bits everywhere.
"""

import math
from collections.abc import Iterator

import numpy as np

from facecnn.arrays import Float32Array, Float64Array
from facecnn.body.dat import FIRST_KERNELS, RESIDUALS, UNITS, BodyFile, Convolution
from facecnn.network.layers import Shape

FIRST = "conv1"
LAST = "dense1"


def names() -> Iterator[str]:
    """The convolutions' names, in the file's order: ``conv1``, ``residual1.conv1``, ``residual1.conv2`` and so on."""
    yield FIRST
    for number in range(1, len(RESIDUALS) + 1):
        yield from (f"residual{number}.conv1", f"residual{number}.conv2")


def shapes() -> dict[str, Shape]:
    """The shapes of all arrays, in the layouts of ``facecnn.network.layers``: (kernels, rows, columns, input maps)."""
    weights: list[Shape] = [(FIRST_KERNELS, 7, 7, 3)]
    maps = FIRST_KERNELS
    for kernels, _ in RESIDUALS:
        weights += [(kernels, 3, 3, maps), (kernels, 3, 3, kernels)]
        maps = kernels
    found: dict[str, Shape] = {}
    for name, shape in [*zip(names(), weights, strict=True), (LAST, (UNITS, maps))]:
        found |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return found


def folded(body: BodyFile) -> dict[str, Float32Array]:
    """The network's arrays by name, with the shapes of ``shapes()``.

    The first convolution is for colours from 0 to 1, that is, divided by 255.
    """
    arrays: dict[str, Float32Array] = {}
    for name, convolution in zip(names(), body.convolutions, strict=True):
        weight, bias = _without_affine(convolution)
        if name == FIRST:
            weight, bias = _without_normalisation(weight, bias, body.mean)
        arrays[f"{name}.weight"] = np.ascontiguousarray(np.moveaxis(weight, 1, -1), np.float32)
        arrays[f"{name}.bias"] = bias.astype(np.float32)
    arrays[f"{LAST}.weight"] = np.ascontiguousarray(body.dense.T)
    arrays[f"{LAST}.bias"] = np.zeros(UNITS, np.float32)
    return arrays


def _without_affine(convolution: Convolution) -> tuple[Float64Array, Float64Array]:
    """γ(w∗x + b) + β = (γw)∗x + (γb + β)."""
    gamma = convolution.gamma.astype(np.float64)
    weight = convolution.weight * gamma[:, None, None, None]
    return weight, convolution.bias * gamma + convolution.beta


def _without_normalisation(
    weight: Float64Array, bias: Float64Array, mean: tuple[float, float, float]
) -> tuple[Float64Array, Float64Array]:
    """w∗(255u − m)/256 + b = (255/256 w)∗u + (b − Σ wm/256): every window is whole, as there is no padding."""
    products = weight * (np.array(mean) / 256)[None, :, None, None]
    # np.sum adds in an order that depends on the processor.
    sums = np.array([math.fsum(kernel.ravel()) for kernel in products])
    return weight * (255 / 256), bias - sums
