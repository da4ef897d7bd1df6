"""What of the error reaches the kernels and neurons of the seed network before training, at any picture size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np

from common.figures import BLUE, GREEN, GREY, ORANGE, PURPLE
from facecnn.arrays import Array
from facecnn.config import load
from facecnn.kernels.backend import Backend
from facecnn.kernels.protocol import AUGMENTATION_NONE
from facecnn.learning.optimizers import AnyOptimizer
from facecnn.network.layers import Activate, Conv, Dense, with_outputs
from facecnn.network.network import MicroBatch, Network
from facecnn.network.weights import Weights
from facecnn.photos.dataset import Dataset, load_dataset

SEED = load("seed").settings
SHIPPED = cast(AnyOptimizer, SEED.optimizer)
RATE = SHIPPED.learning_rate
"""The learning rate of the steps that are compared."""
PLACES = 1000
"""Places of a map, at most, by which sizes are measured."""
BATCH = 16


@dataclass(frozen=True)
class Initialisation:
    """Random weights for the neurons, in place of the network's own."""

    draw: Callable[[np.random.Generator, tuple[int, ...], int], Array] | None
    """Draws weights of a shape, given the number of places; None: He et al.'s, as shipped."""
    growth: float
    """The kernels' gradient should grow with n^growth."""
    colour: str


INITIALISATIONS = {
    "he": Initialisation(None, 0.0, BLUE),
    "0.01": Initialisation(lambda noise, shape, n: 0.01 * noise.standard_normal(shape), 0.5, ORANGE),
    "uniform": Initialisation(lambda noise, shape, n: noise.uniform(-0.5, 0.5, shape), 0.5, PURPLE),
    "1/n": Initialisation(lambda noise, shape, n: noise.standard_normal(shape) / n, -0.5, GREEN),
    "average": Initialisation(lambda noise, shape, n: np.full(shape, 1 / n), 0.0, GREY),
}
"""With standard deviation sqrt(2 / n); 0.01; from -0.5 to 0.5; with standard deviation 1 / n; all 1 / n."""


def apply(initialisation: str, weights: Weights, seed: int) -> None:
    """Overwrite the neurons' weights."""
    draw = INITIALISATIONS[initialisation].draw
    if draw is not None:
        arrays = weights.to_host()
        shape = arrays["neuron1.weight"].shape
        arrays["neuron1.weight"] = draw(np.random.default_rng(seed), shape, shape[1] * shape[2])
        weights.from_host(arrays)


def read_photos(folder: Path, size: int) -> Dataset:
    """Read the people's photos as the seed network sees them, at another size."""
    return load_dataset(folder, replace(SEED.photos, size=size))


def noise_like(photos: Dataset) -> Dataset:
    """Put white noise in the place of the photos."""
    pixels = np.random.default_rng(0).integers(0, 256, photos.pixels.shape, dtype=np.uint8)
    return replace(photos, pixels=pixels)


@dataclass(frozen=True)
class Measured:
    """Figures of untrained networks with one initialisation and size; means over seeds."""

    places: int
    """n, the number of a neuron's weights."""
    weight: float
    """Root mean square of the neurons' weights: the share of a neuron's error that each place of its map gets."""
    loss: float
    kernel: float
    """Norm of the gradient of one kernel."""
    neuron: float
    """Norm of the gradient of one neuron."""
    kernel_step: float
    """How far a step of gradient descent at RATE moves a kernel, in its lengths."""
    neuron_step: float
    share: float
    """The kernels' share of the squared gradient, that is of the loss that a small step of gradient descent removes."""
    map_mean: float
    """Mean of y, the pooled maps."""
    map_size: float
    """Root mean square of y."""
    sent_x: float
    """Root mean square, over places, of what a place would send to the kernel if its neuron's weight were 1: the length
    of the sum over the photos of the neuron's error times the pixels under the winner."""
    common_x: float
    """Length of the mean over places of the same: what all places send alike."""
    sent_y: float
    """Root mean square of a neuron's gradient by one weight: the sum over the photos of its error times y."""


def measure(photos: Dataset, backend: Backend, seeds: int) -> dict[str, Measured]:
    """Measure what reaches the kernels at the start, for each initialisation. The loss is the mean over some photos."""
    settings, people = photos.settings, len(photos.classes)
    # Evenly from all people, whose photos come one after the other.
    chosen = np.linspace(0, len(photos.labels) - 1, min(BATCH, len(photos.labels))).round().astype(np.int64)
    shape = (settings.height, settings.width, settings.channels)
    network = Network(with_outputs(SEED.network, people), shape, backend, len(chosen), loss=SEED.loss)
    backend.prepare_photos(
        network.input,
        backend.to_device(photos.pixels),
        backend.to_device(photos.rows[chosen].astype(np.int32)),
        backend.to_device(np.tile(AUGMENTATION_NONE, (len(chosen), 1))),
        settings.normalise,
        network.workspace,
    )
    labels = backend.to_device(photos.labels[chosen].astype(np.int32))
    alike = backend.to_device(np.ones(people, np.float32))
    totals = backend.to_device(np.zeros(3, np.float32))
    found = {}
    for name in INITIALISATIONS:
        figures: list[list[float]] = []
        for seed in range(seeds):
            network.initialise(seed)
            apply(name, network.weights, seed)
            network.weigh(labels, alike)
            network.forward_backward(MicroBatch(0, labels), alike, network.objectives, totals)
            figures.append(_figures(network))
        mean = [float(value) for value in np.mean(figures, axis=0)]
        _, rows, columns, _ = network.weights.by_stage["neuron1"]["weight"].shape
        found[name] = Measured(rows * columns, *mean)
    return found


def _figures(network: Network) -> list[float]:
    """The fields of Measured after the places."""
    assert network.gradient is not None
    to_host = network.backend.to_host
    weights, gradient = network.weights.to_host(), {k: to_host(v) for k, v in network.gradient.named.items()}

    def lengths(arrays: Mapping[str, Array]) -> tuple[Array, Array]:
        kernels, neurons = arrays["conv1.weight"], arrays["neuron1.weight"]
        return (
            np.linalg.norm(kernels.reshape(len(kernels), -1), axis=1),
            np.linalg.norm(neurons.reshape(-1, neurons.shape[-1]), axis=0),
        )

    (kernel, neuron), (kernel_length, neuron_length) = lengths(gradient), lengths(weights)
    return [
        float(np.sqrt((weights["neuron1.weight"] ** 2).mean())),
        float(to_host(network.losses).mean()),
        kernel.mean(),
        neuron.mean(),
        RATE * (kernel / kernel_length).mean(),
        RATE * (neuron / neuron_length).mean(),
        float((kernel**2).sum() / sum((array.astype(np.float64) ** 2).sum() for array in gradient.values())),
        *_sizes(network, weights),
    ]


def _errors(network: Network, weights: Mapping[str, Array]) -> Array:
    """Derivative of the loss by the outputs of the neurons, (photos, neurons)."""
    to_host = network.backend.to_host
    errors = to_host(network.dlogits).astype(np.float64)
    for stage in reversed(network.stages[2:]):
        if isinstance(stage.layer, Dense):
            errors = errors @ weights[f"{stage.name}.weight"]
        else:
            assert isinstance(stage.layer, Activate)
            out = to_host(network.output_of(stage.name, network.batch_size))
            errors = errors * np.where(out > 0, 1, stage.layer.slope)
    return errors


def _sizes(network: Network, weights: Mapping[str, Array]) -> list[float]:
    """The fields of Measured from ``map_mean`` on: means over the kernels, by some of the places."""
    to_host, count = network.backend.to_host, network.batch_size
    y, x = (to_host(array).astype(np.float64) for array in (network.output_of("conv1", count), network.input))
    winners, errors = to_host(network.context(0, count).buffers["argmax"]), _errors(network, weights)
    layer, size = network.stages[0].layer, weights["conv1.weight"].shape[1]
    assert isinstance(layer, Conv)
    places = np.linspace(0, y[0, ..., 0].size - 1, min(PLACES, y[0, ..., 0].size)).astype(int)
    rows, columns = np.unravel_index(places, y.shape[1:3])
    patches = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(1, 2))
    sent_x, common_x, sent_y = [], [], []
    for kernel in range(y.shape[-1]):
        sent, gradient = np.zeros((len(places), weights["conv1.weight"][0].size)), np.zeros(len(places))
        for photo in range(count):
            won, own = winners[photo, rows, columns, kernel], y[photo, rows, columns, kernel]
            under = patches[photo, 2 * rows + won // 2, 2 * columns + won % 2].reshape(len(places), -1)
            sent += errors[photo, kernel] * np.where(own > 0, 1, layer.slope)[:, None] * under
            gradient += errors[photo, kernel] * own
        sent_x.append(np.sqrt((sent**2).sum(axis=1).mean()))
        common_x.append(np.linalg.norm(sent.mean(axis=0)))
        sent_y.append(np.sqrt((gradient**2).mean()))
    return [float(y.mean()), float(np.sqrt((y**2).mean())), *(float(np.mean(v)) for v in (sent_x, common_x, sent_y))]


def growth(found: Sequence[Measured], value: Callable[[Measured], float]) -> float:
    """Fit the exponent of n with which a value grows: the slope of its logarithm."""
    logs = np.log([[one.places, value(one)] for one in found])
    return float(np.polyfit(logs[:, 0], logs[:, 1], 1)[0])
