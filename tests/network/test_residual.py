"""Residual blocks: what they compute, and that whatever looks into a network finds the layers within."""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np
import pytest

from facecnn.kernels import cpu, reference
from facecnn.learning.watching import KernelNews, KernelWatch
from facecnn.network.excitation import excitation, reach
from facecnn.network.feeding import PhotoFeed
from facecnn.network.gradient_check.chain import Chain, Numbers
from facecnn.network.layers import (
    Activate,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    Layer,
    LayerError,
    PoolSettings,
    PRelu,
    Reach,
    Residual,
    Shape,
)
from facecnn.network.network import Network
from facecnn.network.size import countable_photos, measure
from facecnn.network.stages import all_layers, plan, way_to

from .nets import Case, Run, assert_close

SHAPE = (6, 5, 3)
SAME = Conv(kernels=3, padding="same", activation="identity")
RICH = Residual(
    layers=(
        Conv(kernels=4, padding="same", activation="relu", pool=2),
        BatchNorm(),
        Dropout(rate=0.3),
        Conv(kernels=4, padding="same", activation="identity"),
    ),
    shortcut=PoolSettings(kind="average"),
)
LAYERS: tuple[Layer, ...] = (
    Conv(kernels=3, size=1, activation="relu"), RICH, Residual(layers=(SAME,), repeat=2), Dense(units=2),
)  # fmt: skip


def network(layers: tuple[Layer, ...], shape: Shape = SHAPE, **settings: Any) -> Network:
    made = Network(layers, shape, reference, 4, dtype=np.float64, **settings)
    made.input[...] = np.random.default_rng(0).standard_normal(made.input.shape)
    return made


def set_arrays(made: Network, **arrays: Any) -> None:
    """Overwrite the arrays that are named, dots written as two underscores; the others become 0."""
    zeros = {name: np.zeros_like(array) for name, array in made.weights.to_host().items()}
    given = {name.replace("__", "."): np.asarray(array) for name, array in arrays.items()}
    made.weights.from_host(zeros | {name: np.broadcast_to(a, zeros[name].shape) for name, a in given.items()})


# -------------------------------------------------------------------------------------------------- what is computed


def test_what_goes_past_the_branch_is_added_before_the_activation() -> None:
    made = network((Residual(layers=(SAME,)),), keep="outputs")
    set_arrays(made, residual1__conv1__bias=[1.0, -1.0, 0.5])
    made.forward(4)
    np.testing.assert_allclose(made.output, np.maximum(made.input + np.array([1.0, -1.0, 0.5]), 0))


def test_the_smaller_summand_is_padded_with_zeros_at_the_end() -> None:
    """As dlib's add_prev: 3 rows from a branch of 1, 2 columns beside one, and a map that only the branch has."""
    branch = Conv(kernels=2, size=(3, 2), activation="identity")
    made = network((Residual(layers=(branch,), activation="identity"),), (3, 2, 1), keep="outputs")
    set_arrays(made, residual1__conv1__bias=[10.0, 20.0])
    made.input[...] = np.arange(6.0).reshape(1, 3, 2, 1)
    made.forward(1)
    assert made.output[0, :, :, 0].tolist() == [[10, 1], [2, 3], [4, 5]]
    assert made.output[0, :, :, 1].tolist() == [[20, 0], [0, 0], [0, 0]]


def test_a_shortcut_is_pooled() -> None:
    branch = Conv(kernels=1, size=4, activation="identity")
    block = Residual(layers=(branch,), shortcut=PoolSettings(kind="average"), activation="identity")
    made = network((block,), (4, 4, 1), keep="outputs")
    set_arrays(made, residual1__conv1__bias=[100.0])
    made.input[...] = np.arange(16.0).reshape(1, 4, 4, 1)
    made.forward(1)
    assert made.output[0, :, :, 0].tolist() == [[102.5, 4.5], [10.5, 12.5]]


@pytest.mark.slow
def test_the_cpu_computes_a_network_with_blocks_as_the_reference_does() -> None:
    case = Case(LAYERS, SHAPE, 4)
    exact, fast = Run(case, reference, np.float64), Run(case, cpu, np.float32)
    assert_close(fast.forward(), exact.forward(), 1e-4, "output")
    expected, found = exact.backward(), fast.backward()
    largest = max(float(np.abs(array).max()) for array in expected.values())
    for name, array in expected.items():
        assert_close(found[name], array, 2e-4, name, least=largest / 10)


def test_dropouts_in_blocks_drop_different_elements() -> None:
    drop = Dropout(rate=0.5)
    layers = (drop, Residual(layers=(drop, Residual(layers=(drop, drop))), repeat=2), drop, Dense(units=2))
    run = Run(Case(layers, (8, 8, 3)), reference, np.float64)
    run.forward()
    masks = [factors.tobytes() for factors in run.watching.dropout_factors]
    assert len(masks) == len(set(masks)) == 8
    stages = all_layers(run.network.stages)
    numbers = [stage.number for stage in stages if stage.layer.keyword == "dropout"]
    assert len(set(numbers)) == 8


def test_repeated_blocks_are_stages_of_their_own() -> None:
    stages = plan([Residual(layers=(SAME,), activation="gelu", repeat=2), Dense(units=2)], SHAPE)
    assert [(stage.name, stage.index) for stage in stages] == [
        ("residual1", 0), ("activation1", 0), ("residual2", 0), ("activation2", 0), ("dense1", 1),
    ]  # fmt: skip


def test_blocks_with_too_many_layers_are_refused() -> None:
    """Before they are expanded, which might never end: repeated blocks in repeated blocks multiply."""
    block: Layer = SAME
    for _ in range(5):
        block = Residual(layers=(block,), repeat=100)
    with pytest.raises(LayerError, match=r"network\[0\] residual: .* 10,000,000,000 layers, .* 1,000"):
        plan([block], SHAPE)


# -------------------------------------------------------------------------------------------------- arrays and names


def test_arrays_are_named_after_the_layers_within() -> None:
    made = network(LAYERS)
    names = list(made.weights.to_host())
    assert {"residual1.conv1.weight", "residual1.batch_norm1.scale", "residual3.conv1.bias"} <= set(names)
    assert "residual1.batch_norm1.running_mean" in names
    weights = [name for name in made.weights.parameters.named if name.endswith(".weight")]
    decaying = made.weights.parameters.offsets
    starts = [start for (_, name), (start, _) in decaying.items() if name.endswith("weight")]
    assert len(weights) == 6
    assert max(starts) < made.weights.decaying  # of these alone
    assert min(start for (_, name), (start, _) in decaying.items() if not name.endswith("weight")) >= (
        made.weights.decaying
    )


def test_a_network_that_is_not_trained_has_no_room_for_gradients() -> None:
    trained, inferring = (set(network(LAYERS, keep=keep).context(1, 4).buffers) for keep in ("gradients", "outputs"))
    assert inferring < trained
    assert not any("gradient" in name for name in inferring)


def test_sizes_count_the_layers_within() -> None:
    made = network(LAYERS)
    size = measure(made.stages, 4)
    assert size.parameters == sum(array.size for array in made.weights.parameters.named.values())
    first, dense = 6 * 5 * 3 * 3, 2 * (3 * 2 * 4)
    within = 6 * 5 * 9 * 4 * 3 + 3 * 2 * 4 + 3 * 2 * 9 * 4 * 4  # two convolutions, and batch norm between
    assert size.multiply_adds == first + within + 2 * (3 * 2 * 9 * 3 * 4) + dense
    bulge = Residual(layers=(Conv(kernels=50, size=1), Conv(kernels=1, size=1)))
    assert countable_photos(plan((bulge,), SHAPE)) == (2**31 - 1) // (6 * 5 * 50)


def test_frozen_blocks_work_as_in_evaluation_and_keep_all_their_arrays() -> None:
    run = Run(Case(LAYERS, SHAPE, 4), reference, np.float64)
    frozen = network(LAYERS, frozen=2)
    frozen.weights.copy_from(run.network.weights)
    frozen.input[...] = run.network.input
    before = frozen.weights.to_host()
    frozen.forward(4, training=True, photos=run.photos, step=run.step)
    after = frozen.weights.to_host()
    assert all(np.array_equal(after[name], array) for name, array in before.items())
    assert np.array_equal(frozen.output, run.forward(training=False))
    frozen.backward(4, run.photos, run.step, dout=run.dout)
    assert frozen.gradient is not None
    named = frozen.gradient.named
    assert {name for name, array in named.items() if array.any()} == {
        f"{stage}.{name}" for stage in ("residual2.conv1", "residual3.conv1", "dense1") for name in ("weight", "bias")
    }


def test_running_statistics_within_a_block_follow_the_batches() -> None:
    made = network(LAYERS)
    made.initialise(0)
    made.forward(4, training=True)
    inside = made.output_of("residual1.conv1", 4).reshape(-1, 4)
    found = made.weights.to_host()["residual1.batch_norm1.running_mean"]
    np.testing.assert_allclose(found, 0.1 * inside.mean(axis=0))


@pytest.mark.parametrize(
    ("layer", "said", "within"),
    [
        (
            Residual(layers=(SAME, Conv(kernels=1, size=9))),
            "network[1] residual.layers[1] conv: a kernel of 9x9 does not fit its input of 6x5, 3 maps",
            ("residual", "layers", 1),
        ),
        (
            Residual(layers=(Residual(layers=(Conv(kernels=1, size=9),)),)),
            "network[1] residual.layers[0] residual.layers[0] conv: a kernel of 9x9",
            ("residual", "layers", 0, "residual", "layers", 0),
        ),
        (
            Residual(layers=(SAME, Dense(units=2))),
            "network[1] residual.layers[1] dense: gives units",
            ("residual", "layers", 1),
        ),
        (
            Residual(layers=(SAME,), shortcut=PoolSettings(size=7)),
            "network[1] residual.shortcut: a pool of 7x7 does not fit its input of 6x5, 3 maps",
            ("residual", "shortcut"),
        ),
    ],
    ids=repr,
)
def test_what_does_not_fit_within_is_refused_with_its_place(layer: Layer, said: str, within: Any) -> None:
    with pytest.raises(LayerError) as caught:
        plan([SAME, layer], SHAPE)
    assert str(caught.value).startswith(said)
    assert "conv1" in str(caught.value).split("\n")[2]
    assert (caught.value.index, caught.value.within) == (1, within)


# ---------------------------------------------------------------------------------------------------- initial weights


def test_initial_weights_within_have_the_gain_of_the_activation_that_follows() -> None:
    wide = Conv(kernels=60, padding="same", activation="identity")
    block = Residual(layers=(wide, Activate(name="tanh"), wide), activation="relu")
    arrays = network((block,), (2, 2, 60), keep="outputs")
    arrays.initialise(3)
    first, second = (arrays.weights.to_host()[f"residual1.conv{n}.weight"] for n in (1, 2))
    assert first.std() == pytest.approx(sqrt(1 / 540), rel=0.02)  # of tanh
    assert second.std() == pytest.approx(sqrt(2 / 540), rel=0.02)  # of the block's relu
    assert not np.array_equal(first, second)


def test_an_identity_at_the_end_of_a_block_leaves_the_gain_to_what_follows() -> None:
    wide = Conv(kernels=60, padding="same", activation="identity")
    made = network((Residual(layers=(wide,), activation="gelu"),), (2, 2, 60), keep="outputs")
    made.initialise(3)
    assert made.weights.to_host()["residual1.conv1.weight"].std() == pytest.approx(sqrt(2 / 540), rel=0.02)


def test_lsuv_gives_the_layers_within_unit_variance_and_leaves_the_statistics() -> None:
    layers = (SAME, RICH, Residual(layers=(SAME, PRelu())), Dense(units=2))
    made = network(layers)
    made.initialise(0, "lsuv", lambda: np.random.default_rng(1).standard_normal((4, *SHAPE)))
    plain = tuple(layer.without_randomness() for layer in layers)
    again = network(plain)
    again.weights.from_host(made.weights.to_host())
    again.input[...] = np.random.default_rng(1).standard_normal((4, *SHAPE))
    again.forward(4, training=True)
    for name in ("conv1", "residual1.conv2", "residual2.conv1", "dense1"):  # residual1.conv1 has relu and pool fused
        assert float(again.output_of(name, 4).std()) == pytest.approx(1, rel=1e-9), name
    assert (made.weights.to_host()["residual1.batch_norm1.running_variance"] == 1).all()


# ------------------------------------------------------------------------------------------------ looking into blocks


def test_dead_kernels_within_a_block_are_named() -> None:
    block = Residual(layers=(Conv(kernels=3, padding="same", activation="relu"), SAME))
    made = network((block, Dense(units=2)))
    made.initialise(0)
    made.weights.parameters.named["residual1.conv1.bias"][1] = -100
    watch = KernelWatch(made)
    watch.before_last_step()
    made.forward(4, training=True)
    made.backward(4, dout=np.ones((4, 2)))
    figures = watch.figures(4, closely=True)
    assert figures["dead_kernels"] == ["residual1.conv1[1]"]
    assert set(figures["kernel_change"]) == {"residual1.conv1", "residual1.conv2"}
    assert figures["kernels"]["residual1.conv1"]["active"][1] == 0
    active = (made.output_of("residual1", 4) > 0).mean(axis=(0, 1, 2))  # conv2's outputs are active after the sum
    assert figures["kernels"]["residual1.conv2"]["active"] == pytest.approx(active, abs=1e-3)
    news = KernelNews(made.stages)
    said = [news.of({**figures, "epoch": epoch}) for epoch in (1, 2, 3)]
    assert "residual1.conv1[1] (never active)" in said[2][0]


def test_maps_that_only_the_shortcut_has_are_no_kernels() -> None:
    made = network((Residual(layers=(Conv(kernels=2, padding="same", activation="identity"),)), Dense(units=2)))
    made.initialise(0)
    watch = KernelWatch(made)
    watch.before_last_step()
    made.forward(4, training=True)
    made.backward(4, dout=np.ones((4, 2)))
    figures = watch.figures(4, closely=True)["kernels"]["residual1.conv1"]
    active = (made.output_of("residual1", 4) > 0).mean(axis=(0, 1, 2))
    assert figures["active"] == pytest.approx(active[:2], abs=1e-3)


def test_kernels_of_a_frozen_block_are_not_watched() -> None:
    made = network((Residual(layers=(SAME,)), SAME, Dense(units=2)), frozen=1)
    made.initialise(0)
    watch = KernelWatch(made)
    made.forward(4, training=True)
    made.backward(4, dout=np.zeros((4, 2)))
    assert watch.figures(4, closely=False)["dead_kernels"] == [f"conv1[{kernel}]" for kernel in range(3)]


def test_the_receptive_field_of_a_layer_within_is_found() -> None:
    block = Residual(layers=(Conv(kernels=1, size=3), Conv(kernels=1, size=3)))
    stages = plan([Conv(kernels=2, size=2, pool=2), block, Dense(units=2)], (21, 21, 1))
    inside = reach(way_to(stages, "residual1.conv1"))
    assert (inside.size, inside.step, inside.first) == ((7, 7), (2, 2), (0, 0))
    assert reach(way_to(stages, "residual1")).size == (11, 11)
    padded = plan([Residual(layers=(SAME,), shortcut=PoolSettings(size=4, stride=1))], SHAPE)
    assert reach(way_to(padded, "residual1.conv1")).size == (3, 3)
    assert Reach().union(Reach((3, 3), first=(-1, -1))) == Reach((3, 3), first=(-1, -1))
    whole = reach(padded)
    assert (whole.size, whole.first) == ((5, 5), (-1, -1))  # the branch begins a row above, the shortcut ends below


def test_the_photos_that_excite_a_kernel_within_most_are_found() -> None:
    made = network((Residual(layers=(Conv(kernels=1, padding="same"),)), Dense(units=2)), (8, 8, 1))
    centre = np.zeros((1, 3, 3, 1))
    centre[0, 1, 1] = 1
    set_arrays(made, residual1__conv1__weight=centre)
    pixels = np.zeros((3, 8, 8, 1), np.uint8)
    spots = [(1, 2), (5, 6), (3, 0)]
    for number, (row, column) in enumerate(spots):
        pixels[number, row, column] = 100 + 50 * number
    feed = PhotoFeed(made.backend, pixels, np.arange(3), 3)
    found = excitation(made, feed, "none", ["residual1.conv1"], 3)["residual1.conv1"]
    assert found.photos.tolist() == [[2, 1, 0]]
    assert found.places[0].tolist() == [[row - 1, column - 1] for row, column in reversed(spots)]


@pytest.mark.parametrize("kink", ["within", "of the sum", "of the shortcut"])
def test_the_gradient_check_sees_how_far_kinks_in_a_block_are(kink: str) -> None:
    block = Residual(
        layers=(Conv(kernels=1, size=1, activation="relu"),),
        shortcut=PoolSettings(size=2, stride=1) if kink == "of the shortcut" else None,
    )
    stages = plan([block], (2, 2, 1))
    x = np.array([[[[1.0], [2.0]], [[3.0], [4.0]]]])
    weight, bias = np.full((1, 1, 1, 1), 1.0), np.array([1.0])
    if kink == "within":
        bias = np.array([-2.0 + 1e-4])
    elif kink == "of the sum":
        x[0, 0, 1] = -1e-4
        weight[...], bias[...] = -1.0, -5.0  # the branch is off everywhere
    else:
        x[0, 1, 0] = 4 - 1e-4
    arrays = {"residual1": {"conv1.weight": weight, "conv1.bias": bias}}
    numbers = Numbers(x, arrays, np.zeros(1, np.int32), np.zeros(1, np.int32))
    assert Chain(stages, numbers, reference).distance() == pytest.approx(1e-4)
