"""The layers of dlib's face network, against the same network written out in NumPy, and which of them are trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from facecnn.arrays import Array
from facecnn.kernels import cpu, reference
from facecnn.network.gradient_check.shrinking import shrink
from facecnn.network.layers import Body, Conv, Dense, LayerError, Shape, UnitLength
from facecnn.network.layers.body import face_layers
from facecnn.network.network import Network
from facecnn.network.size import measure
from facecnn.network.stages import plan

PICTURE = (150, 150, 3)
NAMES = ["conv1", "pool1", *(f"residual{number}" for number in range(1, 15)), "pool2", "dense1"]


def in_numpy(x: Array, arrays: Mapping[str, Array]) -> Array:
    """The network as dlib builds it (dnn_face_recognition_ex.cpp): planes first, affine layers folded."""

    def conv(x: Array, name: str, stride: int, padding: int) -> Array:
        weight, bias = arrays[f"{name}.weight"].transpose(0, 3, 1, 2), arrays[f"{name}.bias"]
        x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
        windows = np.lib.stride_tricks.sliding_window_view(x, weight.shape[2:], axis=(2, 3))[:, :, ::stride, ::stride]
        return np.asarray(np.einsum("ncyxrs,kcrs->nkyx", windows, weight, optimize=True) + bias[:, None, None])

    def add(one: Array, other: Array) -> Array:
        total = np.zeros(np.maximum(one.shape, other.shape))
        for part in (one, other):
            total[: part.shape[0], : part.shape[1], : part.shape[2], : part.shape[3]] += part
        return total

    x = np.maximum(conv(x.transpose(0, 3, 1, 2), "conv1", 2, 0), 0)
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(2, 3))[:, :, ::2, ::2]
    x = windows.max(axis=(4, 5))
    for number, halves in enumerate([0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 1, 0, 0, 1], 1):
        branch = np.maximum(conv(x, f"residual{number}.conv1", 2 if halves else 1, 0 if halves else 1), 0)
        branch = conv(branch, f"residual{number}.conv2", 1, 1)
        if halves:
            rows, columns = x.shape[2] // 2 * 2, x.shape[3] // 2 * 2
            x = (x[:, :, :rows:2, :columns:2] + x[:, :, 1:rows:2, :columns:2]
                 + x[:, :, :rows:2, 1:columns:2] + x[:, :, 1:rows:2, 1:columns:2]) / 4  # fmt: skip
        x = np.maximum(add(branch, x), 0)
    return np.asarray(x.mean(axis=(2, 3)) @ arrays["dense1.weight"].T + arrays["dense1.bias"])


def drawn(network: Network) -> dict[str, Array]:
    """Random weights, with biases, which leave numbers at about their size in every block."""
    generator = np.random.default_rng(0)
    return {
        f"{stage.name}.{name}": generator.standard_normal(parameter.shape) * (
            0.2 if name.endswith("bias") else 1 / np.sqrt(parameter.fan_in)
        )
        for stage in network.stages
        for name, parameter in stage.parameters.items()
    }  # fmt: skip


@pytest.mark.parametrize(
    ("backend", "dtype", "tolerance"),
    [(reference, np.float64, 1e-10), pytest.param(cpu, np.float32, 1e-5, marks=pytest.mark.slow)],
    ids=["reference", "cpu"],
)
def test_the_layers_compute_what_dlibs_network_does(backend: Any, dtype: Any, tolerance: float) -> None:
    network = Network(face_layers(4, 6), PICTURE, backend, 2, dtype=dtype, keep="outputs")
    arrays = drawn(network)
    network.weights.from_host(arrays)
    x = np.random.default_rng(1).uniform(-0.5, 0.5, (2, *PICTURE))
    backend.copy_to_device(network.input, x.astype(dtype))
    network.forward(2)
    expected = in_numpy(x, arrays)
    np.testing.assert_allclose(network.output, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def test_its_stages_shapes_and_sizes_are_those_of_dlibs_network() -> None:
    stages = plan([Body(name="dlib"), UnitLength(), Dense(units=3)], PICTURE)
    body = stages[:-2]
    assert [stage.name for stage in body] == NAMES
    assert [stage.name for stage in stages[-2:]] == ["unit_length1", "dense2"]
    shapes = {stage.name: stage.out_shape for stage in body}
    assert shapes["conv1"] == (72, 72, 32)
    assert shapes["residual3"] == (35, 35, 32)
    assert shapes["residual7"] == (17, 17, 64)
    assert shapes["residual10"] == (8, 8, 128)
    assert shapes["residual13"] == (4, 4, 256)
    assert shapes["residual14"] == (2, 2, 256)
    assert shapes["dense1"] == (128,)
    size = measure(body, 1)
    # 5,607,488 floats when affine layers are folded; here the dense layer has a bias besides.
    assert size.parameters == 5_607_488 + 128
    assert size.multiply_adds == pytest.approx(270.85e6, rel=1e-3)


def test_a_body_keeps_its_weights() -> None:
    head = (UnitLength(), Dense(units=3))
    network = Network((Body(name="dlib"), *head), PICTURE, reference, 1, frozen=0)
    assert network.trained == {"unit_length1", "dense2"}
    trained = sum(stop - start for start, stop, _ in network.trained_ranges())
    assert trained == 3 * 128 + 16  # the bias, and the gap after it
    assert [stage.name for stage in network.stages][network.first_trained] == "dense2"


@pytest.mark.parametrize(
    ("blocks", "trained"), [(0, []), (1, ["residual14", "pool2", "dense1"]), (14, NAMES[2:])], ids=str
)
def test_the_last_blocks_of_a_body_are_trained_if_wanted(blocks: int, trained: list[str]) -> None:
    stages = plan([Body(name="dlib", trained_blocks=blocks), Dense(units=3)], PICTURE)
    assert [stage.name for stage in stages if stage.is_trained(0)] == [*trained, "dense2"]
    assert [stage.name for stage in stages if stage.is_trained(1)] == ["dense2"]


@pytest.mark.parametrize(
    ("layers", "shape", "said"),
    [
        ([Conv(kernels=3), Body(name="dlib")], (152, 152, 3), r"network\[1\] body: .*the network's first layer"),
        (
            [Body(name="dlib")],
            (150, 150, 1),
            r"network\[0\] body: .*150x150, 1 map: set photos\.size: 150 and photos\.c",
        ),
        ([Body(name="dlib")], (150, 140, 3), r"network\[0\] body: .*150x140, 3 maps: set photos\.size: 150"),
    ],
    ids=["not first", "grey", "another size"],
)
def test_a_body_is_refused_where_it_can_not_be(layers: Any, shape: Shape, said: str) -> None:
    with pytest.raises(LayerError, match=said):
        plan(layers, shape)


def test_a_gradient_check_makes_its_layers_small() -> None:
    small = shrink([Body(name="dlib"), UnitLength(), Dense(units="people")], PICTURE)
    stages = plan(small.layers, small.shape)
    assert [stage.name for stage in stages] == [*NAMES, "unit_length1", "dense2"]
    assert max(stage.out_shape[-1] for stage in stages) <= 4
    assert all(stage.is_trained(0) for stage in stages)
