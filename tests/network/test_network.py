"""The network around its layers: flat buffers, initial weights, freezing, answers, and sizes."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from itertools import combinations
from math import prod, sqrt
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facecnn.config import load
from facecnn.errors import UsageError
from facecnn.kernels import cpu, reference
from facecnn.network.feeding import PhotoFeed
from facecnn.network.inference import blocks_of_log_probabilities, log_probabilities
from facecnn.network.layers import (
    Activate,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    Layer,
    Neuron,
    Pool,
    PoolSettings,
    PRelu,
    Residual,
    with_outputs,
)
from facecnn.network.loss import CrossEntropy, MeanSquaredError
from facecnn.network.network import Keep, Network
from facecnn.network.size import TRAINING_COPIES, check_memory, measure
from facecnn.network.stages import plan

from .nets import Case, Run, cases

LAYERS: tuple[Layer, ...] = (
    Conv(kernels=3, size=3, padding="same", activation="leaky_relu", slope=0.1, pool=2),
    BatchNorm(),
    Dropout(rate=0.3),
    Conv(kernels=4, size=2, activation="gelu"),
    BatchNorm(),
    Neuron(per_kernel=2, activation="tanh"),
    Dense(units=5, activation="relu"),
    Dense(units=3),
)
SHAPE = (8, 7, 2)


def bits(arrays: dict[str, Any]) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in arrays.items()}


# --------------------------------------------------------------------------------------------------- initial weights


@pytest.mark.parametrize(
    ("layer", "shape", "after", "deviation"),
    [
        (Conv(kernels=64, size=3, activation="relu"), (8, 8, 32), [], sqrt(2 / (9 * 32))),
        (Conv(kernels=64, size=3, activation="gelu"), (8, 8, 32), [], sqrt(2 / (9 * 32))),
        (Conv(kernels=64, size=3, activation="leaky_relu", slope=0.5), (8, 8, 32), [], sqrt(2 / 1.25 / (9 * 32))),
        (Conv(kernels=64, size=3, activation="tanh"), (8, 8, 32), [], sqrt(1 / (9 * 32))),
        (Conv(kernels=64, size=3, activation="identity"), (8, 8, 32), [], sqrt(1 / (9 * 32))),
        (Dense(units=200, activation="relu"), (100,), [], sqrt(2 / 100)),
        (Dense(units=200), (100,), [], sqrt(1 / 100)),
        (Dense(units=200), (100,), [BatchNorm(), Dropout(rate=0.1), Activate(name="relu")], sqrt(2 / 100)),
        (Dense(units=200), (100,), [Dense(units=2, activation="relu")], sqrt(1 / 100)),
        (Neuron(per_kernel=9, activation="relu"), (10, 8, 30), [], sqrt(2 / 80)),
    ],
    ids=repr,
)
def test_weights_start_with_he_deviation(layer: Layer, shape: Any, after: list[Layer], deviation: float) -> None:
    network = Network([layer, *after, Dense(units=2)], shape, reference, 1)
    network.initialise(3)
    weight = network.weights.by_stage[network.stages[0].name]["weight"]
    # 18,000 numbers or more tell their deviation within half a percent: 2 % is four times that.
    assert weight.size >= 18_000
    assert float(weight.std()) == pytest.approx(deviation, rel=0.02)
    assert abs(float(weight.mean())) < 4 * deviation / sqrt(weight.size)


def test_biases_start_at_zero_and_batch_norm_at_one() -> None:
    network = Network(LAYERS, SHAPE, reference, 1)
    network.initialise(0)
    arrays = network.weights.to_host()
    for name, array in arrays.items():
        if name.endswith((".bias", ".shift", ".running_mean")):
            assert not array.any(), name
        elif name.endswith((".scale", ".running_variance")):
            assert (array == 1).all(), name
        else:
            assert array.std() > 0, name


def initial(layers: tuple[Layer, ...], seed: int, backend: Any = reference) -> dict[str, bytes]:
    network = Network(layers, SHAPE, backend, 2)
    network.initialise(seed)
    return bits(network.weights.to_host())


def test_same_seed_same_bits_on_every_backend_and_another_seed_others() -> None:
    assert initial(LAYERS, 5) == initial(LAYERS, 5) == initial(LAYERS, 5, cpu)
    other = initial(LAYERS, 6)
    assert all(array != other[name] for name, array in initial(LAYERS, 5).items() if name.endswith(".weight"))


def test_equal_layers_start_with_different_numbers() -> None:
    twice = (Dense(units=56, activation="tanh"), Dense(units=56, activation="tanh"), Dense(units=2))
    network = Network(twice, (56,), reference, 1)
    network.initialise(5)
    first, second = (network.weights.by_stage[name]["weight"].ravel() for name in ("dense1", "dense2"))
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.1


def test_a_layers_numbers_do_not_depend_on_how_many_the_layers_before_it_drew() -> None:
    changed = (Conv(kernels=3, size=5, padding="same", activation="leaky_relu", slope=0.1, pool=2), *LAYERS[1:])
    first, second = initial(LAYERS, 5), initial(changed, 5)
    assert len(first["conv1.weight"]) != len(second["conv1.weight"])
    assert all(first[name] == second[name] for name in first if name != "conv1.weight")


# ------------------------------------------------------------------------------------------- flat buffers, freezing


@settings(deadline=None, derandomize=True, max_examples=60)
@given(case=cases(), frozen=st.integers(0, 9))
def test_trained_ranges_cover_exactly_what_is_not_frozen(case: Case, frozen: int) -> None:
    network = Network(case.layers, case.shape, reference, case.count, frozen=frozen)
    parameters = network.weights.parameters
    covered = np.zeros(parameters.flat.size, int)
    decays = np.zeros(parameters.flat.size, bool)
    for start, stop, decaying in network.trained_ranges():
        covered[start:stop] += 1
        decays[start : start + decaying] = True
    assert covered.max(initial=0) <= 1
    trained = {stage.name for stage in network.stages if stage.index >= frozen}
    decaying_arrays = {f"{s.name}.{n}" for s in network.stages for n, p in s.parameters.items() if p.decays}
    for (stage, name), (start, shape) in parameters.offsets.items():
        assert set(covered[start : start + prod(shape)]) == {stage in trained}
        if stage in trained:
            assert set(decays[start : start + prod(shape)]) == {f"{stage}.{name}" in decaying_arrays}


def test_without_freezing_all_parameters_are_one_range() -> None:
    network = Network(LAYERS, SHAPE, reference, 1)
    assert network.trained_ranges() == [(0, network.weights.parameters.flat.size, network.weights.decaying)]


def test_every_parameter_starts_on_a_boundary_of_64_bytes() -> None:
    for backend in (reference, cpu):
        network = Network(LAYERS, SHAPE, backend, 1)
        flat = network.weights.parameters.flat
        for array in network.weights.parameters.named.values():
            assert (array.ctypes.data - flat.ctypes.data) % 64 == 0
            assert np.shares_memory(array, flat)


def test_frozen_batch_norm_and_dropout_work_as_in_evaluation_and_keep_their_statistics() -> None:
    run = Run(Case(LAYERS, SHAPE, 4), reference, np.float64)
    frozen = Network(LAYERS, SHAPE, reference, 4, dtype=np.float64, frozen=5)
    frozen.weights.copy_from(run.network.weights)
    frozen.input[...] = run.network.input
    before = bits(frozen.weights.to_host())
    frozen.forward(4, training=True, photos=run.photos, step=run.step)
    assert bits(frozen.weights.to_host()) == before
    # All that is random or depends on the batch lies below.
    assert np.array_equal(frozen.output, run.forward(training=False))
    moved = run.network.weights.to_host()
    run.forward(training=True)
    after = run.network.weights.to_host()
    changed = {name for name in after if not np.array_equal(after[name], moved[name])}
    assert changed == {f"batch_norm{k}.running_{what}" for k in (1, 2) for what in ("mean", "variance")}


def test_arrays_go_out_and_come_back() -> None:
    first, second = Network(LAYERS, SHAPE, reference, 1), Network(LAYERS, SHAPE, reference, 1)
    first.initialise(1)
    arrays = first.weights.to_host()
    second.weights.from_host(arrays)
    assert bits(second.weights.to_host()) == bits(arrays)
    arrays["conv1.weight"][...] = 0
    assert first.weights.by_stage["conv1"]["weight"].any(), "to_host must give copies"


def test_arrays_that_are_missing_or_of_another_shape_are_refused() -> None:
    network = Network(LAYERS, SHAPE, reference, 1)
    network.initialise(1)
    arrays = network.weights.to_host()
    with pytest.raises(KeyError, match=r"dense1\.weight"):
        network.weights.from_host({name: array for name, array in arrays.items() if name != "dense1.weight"})
    # As many numbers, and yet another network's.
    with pytest.raises(ValueError, match=r"dense1\.weight"):
        network.weights.from_host(arrays | {"dense1.weight": arrays["dense1.weight"].T})


# ---------------------------------------------------------------------------------------------------------- the loss


def test_objectives_add_up_to_the_weighted_mean() -> None:
    run = Run(Case((Dense(units=3),), (4,), 5), reference, np.float64)
    network = run.network
    logits = run.forward()
    labels, weights = np.array([0, 2, 1, 2, 2], np.int32), np.array([1.0, 2.0, 0.5])
    network.loss(5, labels, weights)
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(5), labels]
    assert network.losses == pytest.approx(losses)
    assert network.objectives.sum() == pytest.approx(np.average(losses, weights=weights[labels]))
    assert network.probabilities.sum(axis=1) == pytest.approx(np.ones(5))


@pytest.mark.parametrize("loss", [CrossEntropy(), CrossEntropy(label_smoothing=0.2), MeanSquaredError()], ids=repr)
def test_backward_follows_the_objective(loss: Any) -> None:
    layers, labels = (Dense(units=4, activation="tanh"), Dense(units=3)), np.array([0, 2, 1], np.int32)
    network = Network(layers, (6,), reference, 3, loss=loss, dtype=np.float64)
    network.initialise(0)
    network.input[...] = np.random.default_rng(0).standard_normal((3, 6))

    def objective() -> float:
        network.forward(3, training=True)
        network.loss(3, labels, np.array([1.0, 3.0, 0.5]))
        return float(network.objectives.sum())

    objective()
    network.backward(3)
    assert network.gradient is not None
    gradient = network.gradient.named["dense1.weight"].copy()
    weight = network.weights.by_stage["dense1"]["weight"]
    for place in np.ndindex(weight.shape):
        kept, h = weight[place], 1e-5
        weight[place] = kept + h
        above = objective()
        weight[place] = kept - h
        below = objective()
        weight[place] = kept
        assert (above - below) / (2 * h) == pytest.approx(gradient[place], rel=1e-6, abs=1e-9)


# ------------------------------------------------------------------------------------------------------------ answers


def answering(batch_size: int) -> Network:
    network = Network(LAYERS, SHAPE, reference, batch_size, dtype=np.float64, keep="outputs")
    network.initialise(4)
    return network


PIXELS = np.random.default_rng(8).integers(0, 256, (9, 12, 11, 2), np.uint8)
ROWS = np.array([3, 0, 8, 8, 5, 1, 7], np.int32)


def answers(batch_size: int, pixels: Any = PIXELS, rows: Any = ROWS, mirror: bool = False) -> Any:
    network = answering(batch_size)
    return log_probabilities(
        network, PhotoFeed(network.backend, pixels, rows, batch_size), "standardise", mirror=mirror
    )


def test_answers_are_logarithms_of_probabilities_one_row_a_photo() -> None:
    found = answers(7)
    assert found.shape == (7, 3)
    assert np.exp(found).sum(axis=1) == pytest.approx(np.ones(7))
    assert np.array_equal(found[2], found[3])
    assert not np.allclose(found[0], found[1])


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 6, 50])
def test_where_batches_end_does_not_matter(batch_size: int, mirror: bool) -> None:
    assert answers(batch_size, mirror=mirror) == pytest.approx(answers(7, mirror=mirror), abs=1e-12)


@pytest.mark.parametrize("photos_in_a_block", [1, 3, 4, 6, 7])
def test_answers_in_blocks_are_those_of_the_whole_to_the_last_bit(
    photos_in_a_block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = answering(3)
    photos = PhotoFeed(network.backend, PIXELS, ROWS, network.batch_size)
    options: Any = {"mirror": True, "shift": 0.1}
    whole = log_probabilities(network, photos, "standardise", **options)
    monkeypatch.setattr("facecnn.network.inference.MOST_NUMBERS", 3 * photos_in_a_block)
    blocks = list(blocks_of_log_probabilities(network, photos, "standardise", **options))
    assert [len(block) for block in blocks] == ([6, 1] if photos_in_a_block >= 6 else [3, 3, 1])
    assert np.array_equal(np.concatenate(blocks), whole)


def test_no_photos_no_answers() -> None:
    assert answers(4, rows=np.zeros(0, np.int32)).shape == (0, 3)


def test_mirrored_answers_are_the_mean_over_the_photo_and_its_mirror_image() -> None:
    mirrored = np.ascontiguousarray(PIXELS[:, :, ::-1])
    mean = (answers(4) + answers(4, mirrored)) / 2
    expected = mean - np.log(np.exp(mean).sum(axis=1, keepdims=True))
    assert not np.allclose(answers(4), expected)
    assert answers(4, mirror=True) == pytest.approx(expected, abs=1e-12)
    assert answers(4, mirrored, mirror=True) == pytest.approx(expected, abs=1e-12)


def test_other_weights_can_answer() -> None:
    network = answering(4)
    photos = PhotoFeed(network.backend, PIXELS, ROWS, network.batch_size)
    plain = log_probabilities(network, photos, "standardise", mirror=False)
    other = network.new_weights()
    given = log_probabilities(network, photos, "standardise", mirror=False, weights=other)
    assert given == pytest.approx(np.full((7, 3), -np.log(3)))  # all weights are zero
    assert np.array_equal(log_probabilities(network, photos, "standardise", mirror=False), plain)


@pytest.mark.parametrize("backend", [reference, pytest.param(cpu, marks=pytest.mark.slow)], ids=["reference", "cpu"])
def test_a_network_that_answers_only_may_end_in_maps_and_take_pictures_of_any_size(backend: Any) -> None:
    """Fully convolutional: what it says of a part of a picture doesn't depend on how large the picture is."""
    layers = (
        Conv(kernels=4, size=3, activation="identity"),
        PRelu(),
        Pool(size=2, edges="keep"),
        Conv(kernels=3, size=2, activation="identity"),
    )
    large, small = (Network(layers, (*sides, 2), backend, 1, keep="outputs") for sides in ((17, 22), (12, 12)))
    large.initialise(1)
    small.weights.from_host(large.weights.to_host())
    large.input[...] = np.random.default_rng(0).standard_normal(large.input.shape)
    small.input[...] = large.input[:, 2:14, 4:16]
    for network in (large, small):
        network.forward(1)
    assert large.output.shape == (1, 7, 9, 3)
    assert small.output.shape == (1, 4, 4, 3)
    np.testing.assert_allclose(large.output[:, 1:5, 2:6], small.output, rtol=1e-5, atol=1e-6)


RESIDUALS: tuple[Layer, ...] = (
    Conv(kernels=4, size=3, stride=2, activation="relu"),
    Pool(size=3, stride=2),
    *[Residual(layers=(Conv(kernels=4, padding="same", activation="relu"), BatchNorm()))] * 3,
    Residual(
        layers=(Conv(kernels=8, stride=2), Conv(kernels=8, padding="same", activation="identity")),
        shortcut=PoolSettings(size=2, kind="average"),
    ),
    Dropout(rate=0.2),
    Dense(units=3),
)


@pytest.mark.parametrize("layers", [LAYERS, RESIDUALS, RESIDUALS[:-3]], ids=["layers", "blocks", "ends in a block"])
@pytest.mark.parametrize("backend", [reference, pytest.param(cpu, marks=pytest.mark.slow)], ids=["reference", "cpu"])
def test_without_every_layers_output_the_last_one_is_the_same(backend: Any, layers: Sequence[Layer]) -> None:
    shape = SHAPE if layers is LAYERS else (40, 37, 2)
    every = Network(layers, shape, backend, 4, keep="outputs")
    last = Network(layers, shape, backend, 4, keep="last_output")
    every.initialise(2)
    last.weights.from_host(every.weights.to_host())
    x = np.random.default_rng(0).standard_normal(every.input.shape)
    for count in (4, 3, 4):
        every.input[...] = last.input[...] = x
        every.infer(count)
        last.infer(count)
        np.testing.assert_array_equal(last.output[:count], every.output[:count])


@pytest.mark.parametrize("layers", [LAYERS, RESIDUALS], ids=["layers", "blocks"])
def test_without_every_layers_output_no_layer_writes_over_what_it_reads(layers: Sequence[Layer]) -> None:
    """NumPy would forgive it."""
    shape = SHAPE if layers is LAYERS else (40, 37, 2)
    network = Network(layers, shape, reference, 4, keep="last_output")
    for number in range(len(network.stages)):
        context = network.context(number, 4)
        own = [array for array in (context.x, context.out, *context.buffers.values()) if array.size]
        assert not any(np.shares_memory(one, other) for one, other in combinations(own, 2))


def test_without_every_layers_output_it_takes_a_fraction_of_the_memory() -> None:
    layers = [Conv(kernels=8, size=1)] * 20
    taken = []
    keep: Keep
    for keep in ("outputs", "last_output"):
        tracemalloc.start()
        network = Network(layers, (32, 32, 8), reference, 8, keep=keep)
        taken.append(tracemalloc.get_traced_memory()[0] - network.input.nbytes)
        tracemalloc.stop()
    assert taken[1] < taken[0] / 3


# -------------------------------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize("name", ["seed", "deep", "default", "smoke"])
def test_measured_parameters_are_those_that_there_are(name: str) -> None:
    loaded = load(name).settings
    layers = with_outputs(loaded.network, 2)
    side, maps = 60, 3 if loaded.photos.colour == "rgb" else 1
    network = Network(layers, (side, side, maps), reference, 1)
    assert measure(network.stages, 1).parameters == sum(a.size for a in network.weights.parameters.named.values())


@pytest.mark.parametrize("name", ["seed", "deep", "default"])
def test_measured_memory_is_what_a_network_allocates(name: str) -> None:
    loaded = load(name).settings
    layers = with_outputs(loaded.network, 2)
    shape = (64, 64, 3 if loaded.photos.colour == "rgb" else 1)
    tracemalloc.start()
    try:
        network = Network(layers, shape, reference, 20)
        allocated = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    size = measure(network.stages, 20)
    # Weights and gradient are here; the other copies (the optimizer's, the average, one to save) are the training's.
    assert allocated == pytest.approx(size.training_bytes - 4 * (TRAINING_COPIES - 2) * size.parameters, rel=0.03)


def test_a_network_that_cannot_fit_is_refused_before_anything_is_allocated() -> None:
    stages = plan([Dense(units=1_000_000), Dense(units=1_000_000), Dense(units=2)], (50, 50, 3))
    assert measure(stages, 1).parameters > 1e12
    with pytest.raises(UsageError, match=r"GB of memory and .* GB are free.*fewer kernels or units.*batch_size"):
        check_memory(stages, 16)
    with pytest.raises(UsageError, match="memory"):
        check_memory(plan([Conv(kernels=64, size=1), Neuron(), Dense(units=2)], (2000, 2000, 1)), 65_536)
    check_memory(plan(LAYERS, SHAPE), 16)
