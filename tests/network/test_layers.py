"""Layers: shapes, what is refused and how, and which blocks the fused kernels do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from facecnn.errors import UsageError
from facecnn.kernels import reference
from facecnn.network.layers import (
    Activate,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    Layer,
    LayerError,
    Neuron,
    Pool,
    PoolSettings,
    PRelu,
    Residual,
    Shape,
    UnitLength,
    with_outputs,
)
from facecnn.network.network import Network
from facecnn.network.stages import plan

MAPS = (7, 6, 3)


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (Conv(kernels=5), MAPS, (5, 4, 5)),
        (Conv(kernels=5, padding="same"), MAPS, (7, 6, 5)),
        (Conv(kernels=5, size=(2, 4)), MAPS, (6, 3, 5)),
        (Conv(kernels=5, size=(2, 4), padding="same"), MAPS, (7, 6, 5)),
        (Conv(kernels=5, size=(7, 6)), MAPS, (1, 1, 5)),
        (Conv(kernels=5, stride=2), MAPS, (3, 2, 5)),
        (Conv(kernels=5, size=(2, 4), stride=(4, 1)), MAPS, (2, 3, 5)),
        (Conv(kernels=5, size=3, stride=9), MAPS, (1, 1, 5)),
        (Conv(kernels=5, stride=(1, 2), pool=2), MAPS, (2, 1, 5)),
        (Conv(kernels=5, pool=2), MAPS, (2, 2, 5)),
        (Conv(kernels=5, pool=2, padding="same"), MAPS, (3, 3, 5)),
        (Conv(kernels=5, size=1, pool=PoolSettings(size=3, stride=2)), MAPS, (3, 2, 5)),
        (Conv(kernels=5, size=1, pool=PoolSettings(size=(3, 1), kind="average")), MAPS, (2, 6, 5)),
        (Pool(size=2), MAPS, (3, 3, 3)),
        (Pool(size=(3, 2), stride=1), MAPS, (5, 5, 3)),
        (Pool(size=2, stride=(3, 4)), MAPS, (2, 2, 3)),
        (Pool(size="global"), MAPS, (1, 1, 3)),
        (Pool(size=2, edges="keep"), MAPS, (4, 3, 3)),
        (Pool(size=(2, 3), stride=(5, 6), edges="keep"), MAPS, (2, 1, 3)),
        (Pool(size="global", edges="keep"), MAPS, (1, 1, 3)),
        (Conv(kernels=5, size=1, pool=PoolSettings(size=4, edges="keep")), MAPS, (2, 2, 5)),
        (PRelu(), MAPS, MAPS),
        (PRelu(), (4,), (4,)),
        (Activate(name="relu"), MAPS, MAPS),
        (Activate(name="relu"), (4,), (4,)),
        (BatchNorm(), MAPS, MAPS),
        (BatchNorm(), (4,), (4,)),
        (Dropout(rate=0.5), MAPS, MAPS),
        (Neuron(), MAPS, (3,)),
        (Neuron(per_kernel=4), MAPS, (12,)),
        (Dense(units=9), MAPS, (9,)),
        (Dense(units=9), (4,), (9,)),
        (UnitLength(), (4,), (4,)),
        (Residual(layers=(Conv(kernels=3, padding="same"),)), MAPS, MAPS),
        (Residual(layers=(Conv(kernels=5),)), MAPS, (7, 6, 5)),
        (Residual(layers=(Conv(kernels=2, pool=2),), shortcut=PoolSettings(size=3)), MAPS, (2, 2, 3)),
        (Residual(layers=(Conv(kernels=2, pool=2),), shortcut=PoolSettings(size=(2, 3))), MAPS, (3, 2, 3)),
    ],
    ids=repr,
)
def test_output_shapes(layer: Layer, shape: Shape, expected: Shape) -> None:
    assert plan([layer], shape)[-1].out_shape == expected


@pytest.mark.parametrize(
    ("layer", "weights"),
    [
        (Conv(kernels=5, size=(2, 4)), {"weight": (5, 2, 4, 3), "bias": (5,)}),
        (Neuron(per_kernel=4), {"weight": (4, 7, 6, 3), "bias": (4, 3)}),
        (Dense(units=9), {"weight": (9, 126), "bias": (9,)}),
        (BatchNorm(), {"scale": (3,), "shift": (3,)}),
        (PRelu(), {"slope": (3,)}),
        (Dropout(rate=0.1), {}),
    ],
    ids=repr,
)
def test_parameters_and_what_decays(layer: Layer, weights: dict[str, Shape]) -> None:
    (stage,) = plan([layer], MAPS)
    assert {name: parameter.shape for name, parameter in stage.parameters.items()} == weights
    assert {name for name, parameter in stage.parameters.items() if parameter.decays} == {"weight"} & set(weights)


@settings(deadline=None, derandomize=True, max_examples=300)
@given(side=st.integers(1, 30), size=st.integers(1, 9), stride=st.integers(1, 9))
def test_kept_windows_start_inside_and_are_no_more_than_cover_the_map(side: int, size: int, stride: int) -> None:
    assume(size <= side)
    (_, windows, _) = Pool(size=(1, size), stride=stride, edges="keep").output_shape((1, side, 1))
    last = (windows - 1) * stride
    assert last < side
    assert last + size >= side or last + stride >= side, "another window would start inside and is needed"
    assert windows == 1 or last - stride + size < side, "the last window isn't needed"


def test_where_same_padding_cannot_be_even_there_is_less_of_it_above_and_to_the_left() -> None:
    layers = [Conv(kernels=1, size=(2, 4), padding="same", activation="identity"), Dense(units=15)]
    network = Network(layers, (3, 5, 1), reference, 1, dtype=np.float64)
    network.weights.by_stage["conv1"]["weight"][0, :, :, 0] = [[1, 2, 3, 4], [5, 6, 7, 8]]
    network.weights.by_stage["dense1"]["weight"][...] = np.eye(15)
    network.input[0, 1, 2, 0] = 1
    network.forward(1)
    # One column of zeros to the left, two to the right, a row below: out[y, x] = weight[1 - y, 2 - x + 1].
    assert network.output.reshape(3, 5).tolist() == [[8, 7, 6, 5, 0], [4, 3, 2, 1, 0], [0, 0, 0, 0, 0]]


def test_multiply_adds_count_each_weight_at_each_place() -> None:
    layers = [Conv(kernels=5, size=(2, 4), pool=2), Neuron(per_kernel=2), Dense(units=3)]
    counts = [stage.layer.multiply_adds(stage.shape) for stage in plan(layers, MAPS)]
    assert counts == [6 * 3 * 5 * 2 * 4 * 3, 2 * 3 * 1 * 5, 10 * 3]


def test_multiply_adds_with_a_stride_count_only_the_places_that_are_taken() -> None:
    (stage,) = plan([Conv(kernels=32, size=7, stride=2)], (150, 150, 3))
    assert stage.layer.multiply_adds(stage.shape) == 72 * 72 * 32 * 7 * 7 * 3


def kinds(conv: Conv) -> list[str]:
    return [layer.keyword for layer in conv.expand()]


@pytest.mark.parametrize("activation", ["identity", "sigmoid", "tanh", "relu", "leaky_relu"])
@pytest.mark.parametrize(
    "pool", [None, 1, 2, 3, 16, PoolSettings(size=2), PoolSettings(size=(3, 3), stride=3)], ids=repr
)
def test_monotonic_activations_and_square_max_pools_side_by_side_are_one_block(activation: Any, pool: Any) -> None:
    assert kinds(Conv(kernels=1, activation=activation, pool=pool)) == ["conv"]


@pytest.mark.parametrize(
    "pool",
    [
        PoolSettings(size=2, kind="average"),
        PoolSettings(size=3, stride=2),
        PoolSettings(size=2, stride=3),
        PoolSettings(size=(2, 3)),
        PoolSettings(size=2, stride=(2, 1)),
        PoolSettings(size=2, edges="keep"),
        17,
    ],
    ids=repr,
)
def test_other_pools_are_layers_of_their_own(pool: Any) -> None:
    conv, after = Conv(kernels=2, activation="tanh", pool=pool).expand()
    assert isinstance(conv, Conv)
    assert (conv.activation, conv.pool) == ("tanh", None)
    wanted = PoolSettings(size=pool) if isinstance(pool, int) else pool
    assert after == Pool(size=wanted.size, stride=wanted.stride, kind=wanted.kind, edges=wanted.edges)


@pytest.mark.parametrize("pool", [2, PoolSettings(size=3, stride=2)], ids=repr)
@pytest.mark.parametrize("stride", [2, (1, 2), (3, 1)])
def test_with_a_stride_every_pool_is_a_layer_of_its_own(pool: Any, stride: Any) -> None:
    conv, after = Conv(kernels=2, stride=stride, activation="relu", pool=pool).expand()
    assert conv == Conv(kernels=2, stride=stride, activation="relu")
    wanted = PoolSettings(size=pool) if isinstance(pool, int) else pool
    assert after == Pool(size=wanted.size, stride=wanted.stride)


def test_with_a_stride_activations_that_never_fall_are_fused() -> None:
    assert kinds(Conv(kernels=1, stride=2, activation="tanh", pool=1)) == ["conv"]
    assert kinds(Conv(kernels=1, stride=2, activation="gelu", pool=2)) == ["conv", "activation", "pool"]


def test_a_stride_of_one_is_no_stride() -> None:
    """It takes the kernels of a convolution, with the pool in the same block."""
    for stride in (1, (1, 1)):
        assert Conv(kernels=2, stride=stride, pool=2).expand() == (Conv(kernels=2, stride=stride, pool=2),)


def test_an_activation_that_falls_comes_before_the_pool_and_apart() -> None:
    assert Conv(kernels=2, activation="gelu", pool=2).expand() == (
        Conv(kernels=2, activation="identity"),
        Activate(name="gelu"),
        Pool(size=2),
    )


def test_units_get_their_activation_apart() -> None:
    assert Dense(units=2, activation="leaky_relu", slope=0.2).expand() == (
        Dense(units=2, slope=0.2),
        Activate(name="leaky_relu", slope=0.2),
    )
    assert [layer.keyword for layer in Neuron(activation="tanh").expand()] == ["neuron", "activation"]
    assert Dense(units=2).expand() == (Dense(units=2),)


def test_split_layers_share_their_place_in_the_config_and_are_numbered_by_kind() -> None:
    stages = plan(
        [Conv(kernels=2, activation="gelu", pool=2), Activate(name="relu"), Conv(kernels=1, size=1), Dense(units=2)],
        MAPS,
    )
    assert [(stage.name, stage.index) for stage in stages] == [
        ("conv1", 0), ("activation1", 0), ("pool1", 0), ("activation2", 1), ("conv2", 2), ("dense1", 3),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (Conv(kernels=1, size=5), "network[1] conv: a kernel of 5x5 does not fit its input of 3x3, 2 maps"),
        (Conv(kernels=1, size=(1, 4)), "network[1] conv: a kernel of 1x4 does not fit its input of 3x3, 2 maps"),
        (
            Conv(kernels=1, size=2, pool=3),
            "network[1] conv: a pool of 3x3 does not fit the convolution's map of 2x2 "
            "(the layer's input is 3x3, 2 maps)",
        ),
        (
            Conv(kernels=1, size=1, pool=PoolSettings(size=4, stride=1)),
            "network[1] conv: a pool of 4x4 does not fit its input of 3x3, 1 map",
        ),
        (
            Conv(kernels=1, size=2, stride=2, padding="same"),
            "network[1] conv: padding: same keeps the map's size, which a stride of 2x2 can't: set padding: valid, or "
            "stride: 1",
        ),
        (Pool(size=(4, 1)), "network[1] pool: a pool of 4x1 does not fit its input of 3x3, 2 maps"),
        (Dense(units="people"), "network[1] dense: the number of people is not known here"),
    ],
    ids=repr,
)
def test_what_does_not_fit_is_refused_with_its_place_and_the_shapes(layer: Layer, said: str) -> None:
    with pytest.raises(LayerError) as caught:
        plan([Conv(kernels=2, pool=2), layer], (8, 8, 3))
    message = str(caught.value)
    assert message.startswith(said)
    assert "conv1          8x8, 3 maps -> 3x3, 2 maps" in message
    assert caught.value.index == 1


@pytest.mark.parametrize(
    "layer",
    [Conv(kernels=1, size=1), Pool(), Pool(size="global"), Neuron(), Residual(layers=(Conv(kernels=1, size=1),))],
    ids=repr,
)
def test_layers_of_maps_refuse_units(layer: Layer) -> None:
    with pytest.raises(LayerError, match=rf"network\[1\] {layer.keyword}: .*needs maps.*its input is 4 units"):
        plan([Dense(units=4), layer], (2, 2, 1))


def test_unit_length_refuses_maps() -> None:
    with pytest.raises(LayerError, match=r"network\[0\] unit_length: .*needs units.*its input is 2x2, 1 map"):
        plan([UnitLength()], (2, 2, 1))


def test_the_first_layer_that_does_not_fit_says_that_it_is_the_first() -> None:
    with pytest.raises(LayerError, match="It is the first layer"):
        plan([Pool(size=3)], (2, 2, 1))


def test_a_network_must_have_layers_and_end_with_units() -> None:
    with pytest.raises(UsageError, match="no layers"):
        plan([], MAPS)
    with pytest.raises(UsageError, match=r"last layer gives 5x4, 2 maps.*end with dense or neuron"):
        Network([Conv(kernels=2)], MAPS, reference, 1)


def test_people_are_replaced_by_their_number() -> None:
    layers = [Conv(kernels=2), Dense(units=4), Dense(units="people")]
    assert with_outputs(layers, 3) == (Conv(kernels=2), Dense(units=4), Dense(units=3))
