"""Initialisations: the spread of each, right angles, unit variance, and the same numbers for the same seed."""

from __future__ import annotations

from dataclasses import replace
from math import prod, sqrt
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facecnn.errors import UsageError
from facecnn.kernels import cpu, reference
from facecnn.network.initialisation import Initialisation, zca_patches
from facecnn.network.layers import Activate, BatchNorm, Conv, Dense, Dropout, Layer, Neuron, PRelu, Shape
from facecnn.network.network import Network

ALL = get_args(Initialisation)
SHAPE = (14, 12, 3)
LAYERS: tuple[Layer, ...] = (
    Conv(kernels=6, size=3, padding="same", activation="relu", pool=2),
    BatchNorm(),
    Dropout(rate=0.5),
    Conv(kernels=8, size=(3, 2), activation="tanh"),
    Neuron(per_kernel=3, activation="leaky_relu", slope=0.1),
    Dense(units=10, activation="sigmoid"),
    Dense(units=4),
)


def photos(count: int = 24, shape: Shape = SHAPE, seed: int = 0) -> Any:
    """Smooth random pictures, not centred."""
    noise = np.random.default_rng(seed).standard_normal((count, *shape))
    return 0.5 + sum(np.roll(noise, (y, x), axis=(1, 2)) for y in range(3) for x in range(3)) / 3


def made(
    how: Any, layers: tuple[Layer, ...] = LAYERS, shape: Shape = SHAPE, *, backend: Any = reference, seed: int = 5,
    batch_size: int = 16, dtype: Any = np.float64,
) -> Network:  # fmt: skip
    network = Network(layers, shape, backend, batch_size, dtype=dtype, keep="outputs")
    network.initialise(seed, how, lambda: photos(shape=shape))
    return network


def weight_of(network: Network, number: int = 0) -> Any:
    return network.weights.by_stage[network.stages[number].name]["weight"]


@settings(deadline=None, derandomize=True, max_examples=40)
@given(
    how=st.sampled_from(["he", "xavier", "lecun", "orthogonal"]),
    layer=st.one_of(
        st.builds(
            Conv,
            kernels=st.integers(24, 40),
            size=st.sampled_from([3, 5]),
            activation=st.sampled_from(["relu", "tanh", "leaky_relu"]),
            slope=st.just(0.5),
        ),
        st.builds(Dense, units=st.integers(40, 80), activation=st.sampled_from(["relu", "sigmoid"])),
        st.builds(Neuron, per_kernel=st.integers(8, 12), activation=st.sampled_from(["identity", "relu"])),
    ),
    seed=st.integers(0, 2**32 - 1),
)
def test_variance_of_a_layers_weights(how: Any, layer: Any, seed: int) -> None:
    shape = (12, 12, 12)
    weight = weight_of(made(how, (layer, Dense(units=2)), shape, seed=seed))
    gain = {"relu": sqrt(2), "leaky_relu": sqrt(2 / 1.25)}.get(layer.activation, 1.0)
    if isinstance(layer, Conv):
        size = prod(weight.shape[1:3])
        fan_in, fan_out = size * 12, size * layer.kernels
        rows = layer.kernels
    elif isinstance(layer, Neuron):
        fan_in, fan_out, rows = 144, layer.per_kernel, layer.per_kernel
    else:
        fan_in, fan_out, rows = prod(shape), layer.units, layer.units
    assert rows <= fan_in, "else orthogonal columns have another variance"
    variance = {"xavier": 2 / (fan_in + fan_out), "lecun": 1 / fan_in}.get(how, gain**2 / fan_in)
    # n normal numbers tell their variance within sqrt(2 / n); four times that is never exceeded here.
    assert float(np.square(weight).mean()) == pytest.approx(variance, rel=4 * sqrt(2 / weight.size))


@settings(deadline=None, derandomize=True, max_examples=30)
@given(units=st.integers(1, 40), inputs=st.integers(1, 40), seed=st.integers(0, 2**32 - 1))
def test_orthogonal_matrices_are_orthogonal(units: int, inputs: int, seed: int) -> None:
    weight = weight_of(made("orthogonal", (Dense(units=units), Dense(units=2)), (inputs,), seed=seed))
    product = weight @ weight.T if units <= inputs else weight.T @ weight
    np.testing.assert_allclose(product, np.eye(min(units, inputs)), atol=1e-12)


def test_kernels_and_the_neurons_of_each_map_are_at_right_angles() -> None:
    network = made("orthogonal")
    kernels = weight_of(network, 0).reshape(6, -1)
    np.testing.assert_allclose(kernels @ kernels.T, 2 * np.eye(6), atol=1e-12)  # relu's gain, squared
    neurons = np.moveaxis(weight_of(network, 4), -1, 0).reshape(8, 3, -1)
    np.testing.assert_allclose(
        neurons @ neurons.swapaxes(1, 2), np.broadcast_to(2 / 1.01 * np.eye(3), (8, 3, 3)), atol=1e-12
    )


def test_no_direction_is_preferred_among_orthogonal_matrices() -> None:
    first = np.array([weight_of(made("orthogonal", (Dense(units=2),), (2,), seed=seed)) for seed in range(200)])
    assert abs(first.mean(axis=0)).max() < 4 * sqrt(1 / 2) / sqrt(200)
    assert {bool(sign) for sign in np.linalg.det(first) > 0} == {True, False}


@pytest.mark.parametrize("with_norm", [True, False])
def test_lsuv_gives_every_layer_unit_variance_before_its_activation(with_norm: bool) -> None:
    layers = tuple(layer for layer in LAYERS if with_norm or not isinstance(layer, BatchNorm))
    network = made("lsuv", layers)
    # The same layers, taken apart so that what comes before each activation can be seen, and without dropout.
    apart: list[Layer] = []
    for stage in network.stages:
        layer = stage.layer
        if isinstance(layer, Conv):
            apart += [replace(layer, activation="identity", pool=None), Activate(name=layer.activation)]
            if layer.pool is not None:
                apart += [*replace(layer, kernels=1, activation="gelu").expand()[2:]]
        elif not isinstance(layer, Dropout):
            apart.append(layer)
    plain = Network(apart, SHAPE, reference, 16, dtype=np.float64)
    plain.weights.from_host(network.weights.to_host())
    plain.input[...] = photos()[:16]
    plain.forward(16, training=True)
    weighted = [number for number, stage in enumerate(plain.stages) if any(p.decays for p in stage.parameters.values())]
    assert len(weighted) == 5
    for number in weighted:
        assert float(plain.context(number, 16).out.std()) == pytest.approx(1, rel=1e-9), plain.stages[number].name


def test_lsuv_leaves_running_statistics_as_they_start() -> None:
    arrays = made("lsuv").weights.to_host()
    assert not arrays["batch_norm1.running_mean"].any()
    assert (arrays["batch_norm1.running_variance"] == 1).all()


def test_lsuv_of_black_photos_leaves_the_weights_as_they_are() -> None:
    network = Network(LAYERS, SHAPE, reference, 4, dtype=np.float64)
    network.initialise(5, "lsuv", lambda: np.zeros((4, *SHAPE)))
    assert all(np.isfinite(array).all() for array in network.weights.to_host().values())
    assert (weight_of(network) == weight_of(made("orthogonal"))).all()


@pytest.mark.parametrize("how", [pytest.param(how, marks=pytest.mark.slow) if how == "lsuv" else how for how in ALL])
def test_same_seed_same_bits_on_every_device_and_another_seed_others(how: Any) -> None:
    first, second, other = (made(how, seed=seed, dtype=np.float32).weights.to_host() for seed in (5, 5, 6))
    on_cpu = made(how, backend=cpu, dtype=np.float32).weights.to_host()
    for name, array in first.items():
        assert array.tobytes() == second[name].tobytes(), name
        if how == "lsuv":  # what a layer gives is rounded in another way on each device
            np.testing.assert_allclose(on_cpu[name], array, rtol=1e-4, err_msg=name)
        else:
            assert array.tobytes() == on_cpu[name].tobytes(), name
        if name.endswith(".weight"):
            assert not np.allclose(other[name], array), name


@pytest.mark.parametrize("how", ALL)
def test_biases_start_at_zero_and_batch_norm_at_one(how: Any) -> None:
    for name, array in made(how).weights.to_host().items():
        if name.endswith((".bias", ".shift", ".running_mean")):
            assert not array.any(), name
        elif name.endswith((".scale", ".running_variance")):
            assert (array == 1).all(), name


@pytest.mark.parametrize("how", ALL)
@pytest.mark.parametrize("slope", [0.25, 0.5])
def test_learned_slopes_start_where_they_are_set_and_give_their_gain_to_the_weights(how: Any, slope: float) -> None:
    learned: tuple[Layer, ...] = (Conv(kernels=6, activation="identity"), PRelu(slope=slope), Dense(units=2))
    given: tuple[Layer, ...] = (Conv(kernels=6, activation="leaky_relu", slope=slope), Dense(units=2))
    network = made(how, learned)
    assert network.weights.to_host()["prelu1.slope"].tolist() == [slope] * 6
    np.testing.assert_allclose(weight_of(network), weight_of(made(how, given)), rtol=1e-12)


def test_patches_are_the_first_kernels_only() -> None:
    he, patches = made("he").weights.to_host(), made("zca_patches").weights.to_host()
    assert [name for name in he if not np.array_equal(he[name], patches[name])] == ["conv1.weight"]
    norms = np.linalg.norm(patches["conv1.weight"].reshape(6, -1), axis=1)
    assert norms == pytest.approx([sqrt(2)] * 6)  # relu's gain: as long as those of he are on average


def test_patches_are_whitened() -> None:
    generator = np.random.default_rng(3)
    shape = (2000, 3, 3, 1)
    smooth = photos(200, (14, 12, 1))
    patches = zca_patches(smooth, shape, generator).reshape(2000, -1)
    # Neighbours in the photos are alike, in the kernels they hardly are; and no kernel sees brightness.
    alike = np.corrcoef(smooth[:, :, :-1].ravel(), smooth[:, :, 1:].ravel())[0, 1]
    correlations = np.corrcoef(patches.T) - np.eye(9)
    assert alike > 0.6
    assert np.abs(correlations).max() < 0.3
    assert np.abs(patches.sum(axis=1)).max() < 1e-9


def test_patches_are_those_with_the_most_contrast() -> None:
    generator = np.random.default_rng(3)
    striped = np.repeat(generator.standard_normal((8, 12, 1, 1)), 12, axis=2)
    striped[6:] = 0.01 * striped[6:].swapaxes(1, 2)  # two photos are striped the other way, but faintly
    patches = zca_patches(striped, (40, 3, 3, 1), generator)
    assert np.ptp(patches, axis=2).max() < 1e-9


@pytest.mark.parametrize(
    ("layers", "shape", "pictures", "match"),
    [
        ((Dense(units=2),), (8, 8, 1), photos, "the first layer must be conv.*it is dense"),
        (
            (Conv(kernels=2, size=9, padding="same"), Dense(units=2)),
            (8, 8, 1),
            photos,
            "kernels of 9x9 are larger than the photos",
        ),
        ((Conv(kernels=2, size=3), Dense(units=2)), (8, 8, 1), None, "nothing but plain patches"),
        ((Conv(kernels=2, size=1), Dense(units=2)), (8, 8, 1), photos, "nothing but plain patches"),
    ],
)
def test_patches_that_cannot_be_kernels_are_refused(layers: Any, shape: Shape, pictures: Any, match: str) -> None:
    network = Network(layers, shape, reference, 2)
    with pytest.raises(UsageError, match=match):
        network.initialise(0, "zca_patches", lambda: np.zeros((3, *shape)) if pictures is None else photos(3, shape))
