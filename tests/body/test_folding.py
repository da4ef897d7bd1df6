"""Folding affine layers and normalisation into convolutions changes no result."""

import numpy as np
import numpy.typing as npt
import pytest

from facecnn.body.dat import BodyFile, Convolution
from facecnn.body.folding import folded, shapes

Numbers = npt.NDArray[np.float64]


def test_the_shapes_are_the_networks_and_every_weight_is_there(body: BodyFile) -> None:
    arrays = folded(body)
    assert {name: array.shape for name, array in arrays.items()} == shapes()
    assert list(arrays) == list(shapes())
    assert all(array.dtype == np.float32 and array.flags.c_contiguous for array in arrays.values())
    assert shapes()["conv1.weight"] == (32, 7, 7, 3)
    assert shapes()["residual4.conv1.weight"] == (64, 3, 3, 32)
    assert shapes()["residual14.conv2.bias"] == (256,)
    assert shapes()["dense1.weight"] == (128, 256)
    # Of 29 convolutions and the dense layer, which has a bias of zeros here.
    assert len(arrays) == 60
    assert sum(array.size for array in arrays.values()) == 5_607_488 + 128
    assert not arrays["dense1.bias"].any()


def as_dlib_computes(convolution: Convolution, window: Numbers) -> Numbers:
    """A convolution and its affine layer at one place: ``window`` is (rows, columns, input maps)."""
    results = []
    for kernel, bias, gamma, beta in zip(
        convolution.weight, convolution.bias, convolution.gamma, convolution.beta, strict=True
    ):
        total = float(bias)
        for channel, plane in enumerate(kernel):
            total += float((plane.astype(np.float64) * window[:, :, channel]).sum())
        results.append(float(gamma) * total + float(beta))
    return np.array(results)


def test_a_patch_of_a_photo(body: BodyFile) -> None:
    random = np.random.default_rng(5)
    arrays = folded(body)
    for _ in range(5):
        patch = random.integers(0, 256, (7, 7, 3)).astype(np.float64)
        expected = as_dlib_computes(body.convolutions[0], (patch - [122.782, 117.001, 104.298]) / 256)
        weight, bias = arrays["conv1.weight"].astype(np.float64), arrays["conv1.bias"]
        found = (weight * (patch / 255)).sum(axis=(1, 2, 3)) + bias
        # float32 weights: their rounding errors, of sums of 147 products.
        scale = np.abs(weight * (patch / 255)).sum(axis=(1, 2, 3)) + np.abs(bias)
        assert (np.abs(found - expected) < 1e-7 * scale).all()


@pytest.mark.parametrize(("number", "name"), [(1, "residual1.conv1"), (8, "residual4.conv2"), (28, "residual14.conv2")])
def test_a_patch_within_the_network(number: int, name: str, body: BodyFile) -> None:
    random = np.random.default_rng(number)
    arrays = folded(body)
    weight, bias = arrays[f"{name}.weight"].astype(np.float64), arrays[f"{name}.bias"]
    patch = random.uniform(0, 2, weight.shape[1:])
    expected = as_dlib_computes(body.convolutions[number], patch)
    found = (weight * patch).sum(axis=(1, 2, 3)) + bias
    scale = np.abs(weight * patch).sum(axis=(1, 2, 3)) + np.abs(bias)
    assert (np.abs(found - expected) < 1e-7 * scale).all()


def test_an_embedding_is_a_product_with_the_dense_weights(body: BodyFile) -> None:
    means = np.random.default_rng(6).random(256, np.float32)
    np.testing.assert_allclose(folded(body)["dense1.weight"] @ means, means @ body.dense, rtol=1e-5, atol=1e-6)
