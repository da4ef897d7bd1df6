"""The initial weights for training.

Random numbers are drawn on the host, keyed by seed and layer: they are the same on every device, and a layer's don't
depend on other layers. Biases start at 0, batch norm's scales at 1, prelu's slopes as set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import prod, sqrt
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from threadpoolctl import threadpool_limits

from facecnn.arrays import Array
from facecnn.errors import UsageError
from facecnn.network.layers import LayerContext, Parameter, shape_text
from facecnn.network.stages import Stage, all_layers

if TYPE_CHECKING:
    from facecnn.network.network import Network

Initialisation: TypeAlias = Literal["he", "xavier", "lecun", "orthogonal", "lsuv", "zca_patches"]

NOTHING: Mapping[str, Array] = MappingProxyType({})

PATCHES = 4096
"""Number of patches that ``zca_patches`` looks at."""
_SOFTENING = 0.01
"""Share of the mean variance that is added to each before dividing by its root, so that flat patches stay small."""
_PHOTOS_AT_ONCE = 4
"""Photos at a time for which a conv layer runs without its activation and pool."""


def initialise(
    network: Network,
    how: Initialisation,
    seed: int,
    photos: Callable[[], Array] | None = None,
    given: Mapping[str, Array] = NOTHING,
) -> None:
    """Overwrite all weights and statistics of a network.

    ``he``           standard deviation gain / sqrt(fan_in), gain: of the activation that follows (He et al. 2015)
    ``xavier``       standard deviation sqrt(2 / (fan_in + fan_out)) (Glorot and Bengio 2010)
    ``lecun``        standard deviation 1 / sqrt(fan_in) (LeCun et al. 1998)
    ``orthogonal``   orthogonal rows of norm gain, or columns if there are fewer (Saxe et al. 2014)
    ``lsuv``         orthogonal, then layer after layer divided by the standard deviation of its outputs for ``photos``
                     before its activation (Mishkin and Matas 2016: layer-sequential unit variance)
    ``zca_patches``  he; the first conv layer's kernels are whitened patches of ``photos`` (Coates et al. 2011)

    Args:
        how: one of the above.
        photos: gives (n, H, W, C) on the host, like the network's input; only called for the last two. lsuv uses as
            many as the network's batch has.
        given: arrays by name that are used as they are; lsuv scales the other layers to these.

    Raises:
        UsageError: patches can't be the first layer's kernels.
        ValueError: a given array has another shape.
    """
    arrays = draw(network.stages, seed, how)
    if how == "zca_patches" and f"{network.stages[0].name}.weight" not in given:
        assert photos is not None
        arrays |= _patches_for(network.stages, photos(), seed)
    arrays |= given
    network.weights.from_host(arrays)
    if how == "lsuv":
        assert photos is not None
        _scale_to_unit_variance(network, photos(), arrays, given)


def draw(stages: Sequence[Stage], seed: int, how: Initialisation) -> dict[str, Array]:
    """The part of ``initialise`` that needs no photos: arrays by name, on the host, float64."""
    arrays: dict[str, Array] = {}
    layers = all_layers(stages)
    for place, stage in enumerate(layers):
        generator = _generator(seed, stage.number)
        for name, parameter in {**stage.parameters, **stage.statistics}.items():
            if parameter.start != "random":
                array = np.full(parameter.shape, parameter.start)
            elif how in ("orthogonal", "lsuv"):
                array = _orthogonal(parameter, generator) * gain_after(layers, place)
            else:
                variance = 1 / parameter.fan_in
                if how == "xavier":
                    variance = 2 / (parameter.fan_in + parameter.fan_out)
                gain = gain_after(layers, place) if how in ("he", "zca_patches") else 1.0
                array = generator.standard_normal(parameter.shape) * (gain * sqrt(variance))
            arrays[f"{stage.name}.{name}"] = array
    return arrays


def _generator(seed: int, number: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[seed, number]))


def gain_after(stages: Sequence[Stage], number: int) -> float:
    """Gain of the first activation at or after a layer, before the next layer with weights to scale."""
    for later, stage in enumerate(stages[number:]):
        if later > 0 and any(parameter.decays for parameter in stage.parameters.values()):
            break
        gain = stage.layer.gain()
        if gain is not None:
            return gain
    return 1.0


def _orthogonal(parameter: Parameter, generator: np.random.Generator) -> Array:
    """Uniformly distributed weights with orthonormal rows (of a kernel, unit or neuron), or with orthonormal columns if
    there are more rows than inputs."""
    shape, matrices = parameter.shape, parameter.matrices
    rows, columns = shape[0], prod(shape[1:]) // matrices
    normal = generator.standard_normal((matrices, max(rows, columns), min(rows, columns)))
    with threadpool_limits(1):  # BLAS sums in another order with more threads
        q, r = np.linalg.qr(normal)
    # With these signs the factorisation is unique; else some matrices would come up more often than others.
    q *= np.sign(np.diagonal(r, axis1=1, axis2=2))[:, None, :]
    weight = q if rows >= columns else q.swapaxes(1, 2)
    return np.asarray(weight.reshape(shape) if matrices == 1 else np.moveaxis(weight, 0, -1).reshape(shape))


def _scale_to_unit_variance(
    network: Network, photos: Array, arrays: Mapping[str, Array], given: Mapping[str, Array]
) -> None:
    """Divide each layer's weights, unless ``given``, by its outputs' standard deviation before the activation.

    With biases of 0 outputs are proportional to the weights, so one division does what the paper's loop does. Batch
    norm uses the batch's statistics, as in training; there is no dropout.
    """
    backend, count = network.backend, min(len(photos), network.batch_size)
    backend.copy_to_device(network.input[:count], photos[:count].astype(network.dtype))
    for number, planned in enumerate(network.stages):
        stage = replace(planned, layer=planned.layer.without_randomness())
        context = network.context(number, count, training=stage.layer.uses_batch_statistics)
        _scale(stage, stage.name, context, given)
    for name, running in network.weights.statistics.named.items():
        backend.copy_to_device(running, arrays[name].astype(network.dtype))


def _scale(stage: Stage, name: str, context: LayerContext, given: Mapping[str, Array]) -> None:
    """Scale the weights of a layer, or of the layers that it holds, and run it. ``name``: its whole name."""
    for inner, inner_context in zip(stage.inner, stage.layer.inner_contexts(context), strict=True):
        _scale(inner, f"{name}.{inner.name}", inner_context, given)
    parameter = stage.parameters.get("weight")
    if parameter is not None and parameter.start == "random" and f"{name}.weight" not in given:
        deviation = _deviation(stage, context)
        if deviation > 0:  # 0 if each photo is of one colour
            weight, backend = context.weights["weight"], context.backend
            scaled = backend.to_host(weight) / deviation
            backend.copy_to_device(weight, scaled.astype(context.x.dtype))
    stage.layer.forward(context)


def _deviation(stage: Stage, context: LayerContext) -> float:
    """Standard deviation over all of a layer's outputs for ``context.x``, before activation and pool."""
    layer, backend, count = stage.layer, context.backend, len(context.x)
    if not layer.has_kernels:  # others have no fused activation
        layer.forward(context)
        return float(backend.to_host(context.out).astype(np.float64).std())
    plain = layer.sums_only()
    out = backend.empty((min(count, _PHOTOS_AT_ONCE), *plain.output_shape(stage.shape)), context.out.dtype)
    total = squares = 0.0
    for start in range(0, count, _PHOTOS_AT_ONCE):
        x = context.x[start : start + _PHOTOS_AT_ONCE]
        part = out[: len(x)]
        plain.forward(replace(context, x=x, out=part, buffers={"argmax": backend.empty((0,), np.uint8)}))
        values = backend.to_host(part).astype(np.float64)
        total += float(values.sum())
        squares += float(np.square(values).sum())
    elements = count * prod(plain.output_shape(stage.shape))
    return sqrt(max(0.0, squares / elements - (total / elements) ** 2))


def _patches_for(stages: Sequence[Stage], photos: Array, seed: int) -> dict[str, Array]:
    """The first layer's kernels from patches of ``photos``, each of norm gain, which those of ``he`` have on
    average."""
    stage, layer = stages[0], stages[0].layer
    if not layer.has_kernels:
        raise UsageError(
            f"train.initialisation zca_patches: the first layer must be conv, whose kernels look like patches of a "
            f"photo, but it is {layer.keyword}: choose another initialisation"
        )
    shape = stage.parameters["weight"].shape
    if shape[1] > photos.shape[1] or shape[2] > photos.shape[2]:
        raise UsageError(
            f"train.initialisation zca_patches: kernels of {shape[1]}x{shape[2]} are larger than the photos "
            f"({shape_text(stage.shape)}): choose another initialisation"
        )
    kernels = zca_patches(photos, shape, _generator(seed, 0)) * gain_after(stages, 0)
    return {f"{stage.name}.weight": kernels}


def zca_patches(photos: Array, shape: tuple[int, ...], generator: np.random.Generator) -> Array:
    """Kernels of ``shape`` (K, rows, columns, C) that are whitened patches of photos (n, H, W, C), of norm 1.

    Random patches lose their mean and are divided by their standard deviation. The half with more contrast is whitened:
    x V (D + e)^(-1/2) V', where V D V' is their covariance (zero-phase component analysis). This removes what
    neighbouring pixels have in common, and leaves edges. The kernels are K of them.
    """
    count, rows, columns, _ = shape
    number = max(PATCHES, 2 * count)
    which = generator.integers(len(photos), size=number)
    tops = generator.integers(photos.shape[1] - rows + 1, size=number)
    lefts = generator.integers(photos.shape[2] - columns + 1, size=number)
    patches = np.array(
        [photos[n, y : y + rows, x : x + columns].ravel() for n, y, x in zip(which, tops, lefts, strict=True)],
        np.float64,
    )
    patches -= patches.mean(axis=1, keepdims=True)
    variances = np.square(patches).mean(axis=1)
    most = np.argsort(-variances, kind="stable")[: number // 2]
    softened = variances[most] + _SOFTENING * variances.mean() + np.finfo(np.float64).tiny
    patches = patches[most] / np.sqrt(softened)[:, None]
    with threadpool_limits(1):
        values, vectors = np.linalg.eigh(patches.T @ patches / len(patches))
        scales = 1 / np.sqrt(np.maximum(values, 0) + _SOFTENING * values.mean() + np.finfo(np.float64).tiny)
        chosen = patches[generator.choice(len(patches), count, replace=False)]
        whitened = (chosen @ vectors * scales) @ vectors.T
    norms = np.sqrt(np.square(whitened).sum(axis=1, keepdims=True))
    if not (norms > 0).all():
        raise UsageError(
            "train.initialisation zca_patches: nothing but plain patches, as the kernels are of a single pixel or the "
            "photos of one colour: choose another initialisation"
        )
    return np.asarray((whitened / norms).reshape(shape))
