"""The gradient check: right gradients pass, and each of the wrong ones that articles teach is caught and blamed."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from facecnn.arrays import Array
from facecnn.config import load
from facecnn.kernels import reference
from facecnn.network.gradient_check.chain import CLEARANCE
from facecnn.network.gradient_check.check import DEVICE_CLEARANCE, Check, Comparison, check_gradients, compare_device
from facecnn.network.gradient_check.results import Row
from facecnn.network.gradient_check.shrinking import Shrunk, shrink
from facecnn.network.layers import (
    Activate,
    BatchNorm,
    Conv,
    Dense,
    Layer,
    LayerError,
    Neuron,
    Pool,
    PoolSettings,
    PRelu,
)
from facecnn.network.loss import CrossEntropy, Loss, MeanSquaredError
from facecnn.network.network import Network
from facecnn.network.stages import plan

from .nets import Case, cases

Wrong = Callable[..., None]
Wrap = Callable[[Wrong], Wrong]

SLOPE = 0.1
POOL = 2
CONVS = Shrunk(
    layers := (
        Conv(kernels=2, size=2, activation="leaky_relu", slope=SLOPE, pool=POOL),
        Conv(kernels=2, size=2, activation="leaky_relu", slope=SLOPE),
        Dense(units=3),
    ),
    layers,
    (7, 9, 2),
    2,
)
HEADS = Shrunk(
    layers := (
        Conv(kernels=2, size=1, activation="identity"),
        Pool(size=2),
        BatchNorm(),
        Neuron(per_kernel=2),
        Activate(name="tanh"),
        Dense(units=4),
        Dense(units=3),
    ),
    layers,
    (4, 6, 1),
    4,
)
SMOOTHED = CrossEntropy(label_smoothing=0.1)


def with_wrong(function: str, wrap: Wrap) -> Any:
    """The reference with one function that is wrong."""
    return SimpleNamespace(**{**vars(reference), function: wrap(getattr(reference, function))})


def wrong_rows(result: Check | Comparison) -> dict[str, Row]:
    rows = result.alone if isinstance(result, Check) else result.rows
    return {f"{row.name}.{row.parameter}": row for row in rows if not row.passed}


def first_wrong_part(check: Check) -> str:
    return next(part.name for part in check.parts if not part.passed)


# ------------------------------------------------------------------------------------------------------ right gradients


@pytest.mark.parametrize("config", ["smoke", "seed", "default"])
def test_the_shipped_networks_pass(config: str) -> None:
    given = load(config).settings
    small = shrink(given.network, (given.photos.height, given.photos.width, given.photos.channels))
    check = check_gradients(small, given.loss)
    assert check.passed
    assert check.distance >= CLEARANCE
    assert max(row.max_relative_error for row in check.alone) < 1e-8  # far below what is allowed
    names = {(row.name, row.parameter): row.elements for row in check.alone}
    for stage in small.stages:
        for name, parameter in stage.parameters.items():
            assert names[stage.name, name] == np.prod(parameter.shape)
        assert (stage.name, "input") in names
    assert check.alone[-1].name == "loss"
    assert check.parts[-1].elements == sum(np.prod(p.shape) for s in small.stages for p in s.parameters.values())


@pytest.mark.slow
@settings(deadline=None, derandomize=True, max_examples=30)
@given(case=cases(most_parameters=60))
def test_no_right_gradient_is_refused(case: Case) -> None:
    small = Shrunk(case.layers, case.layers, case.shape, case.count)
    check = check_gradients(small, SMOOTHED, seed=case.seed)
    assert check.passed, (wrong_rows(check), [part for part in check.parts if not part.passed])


@pytest.mark.parametrize("loss", [CrossEntropy(class_weights="balanced", label_smoothing=0.2), MeanSquaredError()])
def test_other_losses(loss: Loss) -> None:
    check = check_gradients(HEADS, loss)
    assert check.passed
    assert compare_device(HEADS, loss, reference).passed


def test_other_seeds_give_other_numbers() -> None:
    errors = [[row.max_relative_error for row in check_gradients(CONVS, SMOOTHED, seed=s).alone] for s in (1, 1, 2)]
    assert errors[0] == errors[1] != errors[2]


# ------------------------------------------------------------------------------------------------------ wrong gradients


def derivative(out: Array, activation: str) -> Array:
    return np.asarray(np.where((out > 0) | (activation == "identity"), 1, SLOPE))


def flipped(array: Array) -> Array:
    return np.ascontiguousarray(array[:, ::-1, ::-1])


def changed_dout(change: Callable[[Array, Array, str], Array], *, at: int) -> Wrap:
    """A convolution's backward that is given another ``dout``, made of (dout, out, activation); ``at``: its place."""

    def wrap(right: Wrong) -> Wrong:
        def wrong(*arguments: Any) -> None:
            given = list(arguments)
            given[at] = change(arguments[at], arguments[at + 1], arguments[-4])
            right(*given)

        return wrong

    return wrap


def changed_result(change: Callable[[Array], Array]) -> Wrap:
    """A function whose first output comes out changed."""

    def wrap(right: Wrong) -> Wrong:
        def wrong(result: Array, *rest: Any) -> None:
            right(result, *rest)
            result[...] = change(result.copy())

        return wrong

    return wrap


def flipped_input(right: Wrong) -> Wrong:
    def wrong(dweight: Array, dbias: Array, dout: Array, out: Array, argmax: Array, x: Array, *rest: Any) -> None:
        right(dweight, dbias, dout, out, argmax, flipped(x), *rest)

    return wrong


def flipped_delta(right: Wrong) -> Wrong:
    """Flipping one of the two gives what flipping the other does, turned."""
    inner = flipped_input(right)

    def wrong(dweight: Array, *rest: Any) -> None:
        inner(dweight, *rest)
        dweight[...] = flipped(dweight)

    return wrong


def over_all_winners(outputs: int) -> Wrap:
    """Mean pooling's delta: an equal part for each place of the window, whichever won."""

    def wrap(right: Wrong) -> Wrong:
        def wrong(*arguments: Any) -> None:
            results, argmax = arguments[:outputs], arguments[outputs + 2]
            totals = [np.zeros_like(result) for result in results]
            places = POOL**2 if argmax.size else 1
            for place in range(places):
                right(
                    *results, *arguments[outputs : outputs + 2], np.full_like(argmax, place), *arguments[outputs + 3 :]
                )
                for total, result in zip(totals, results, strict=True):
                    total += result / places
            for total, result in zip(totals, results, strict=True):
                result[...] = total

        return wrong

    return wrap


def changed_weight(change: Callable[[Array], Array], *, at: int) -> Wrap:
    def wrap(right: Wrong) -> Wrong:
        def wrong(*arguments: Any) -> None:
            given = list(arguments)
            given[at] = np.ascontiguousarray(change(arguments[at]))
            right(*given)

        return wrong

    return wrap


def divided_by_the_map(right: Wrong) -> Wrong:
    def wrong(dweight: Array, dbias: Array, dout: Array, *rest: Any) -> None:
        right(dweight, dbias, dout, *rest)
        dweight /= dout[0, :, :, 0].size
        dbias /= dout[0, :, :, 0].size

    return wrong


def only_the_first_kernel(dout: Array, out: Array, activation: str) -> Array:
    return dout * (np.arange(dout.shape[3]) == 0)


def twice(dout: Array, out: Array, activation: str) -> Array:
    return dout * derivative(out, activation)


def never(dout: Array, out: Array, activation: str) -> Array:
    return dout / derivative(out, activation)


WEIGHTS = {"conv1.weight", "conv2.weight"}
WEIGHTS_AND_BIASES = {*WEIGHTS, "conv1.bias", "conv2.bias"}
INPUTS = {"conv1.input", "conv2.input"}
FIRST_SUMS = "conv1, its sums only"
FIRST_BLOCK = "+ conv1's leaky_relu and pool of 2x2"
SECOND_SUMS = "+ conv2, its sums only"
SECOND_BLOCK = "+ conv2's leaky_relu"


WRONG_WEIGHTS = {
    "input flipped": (flipped_input, WEIGHTS, FIRST_SUMS),
    "delta flipped": (flipped_delta, WEIGHTS, FIRST_SUMS),
    "both flipped": (changed_result(flipped), WEIGHTS, FIRST_SUMS),
    "one part in 20,000 too large": (changed_result(lambda dw: 1.00005 * dw), WEIGHTS, FIRST_SUMS),
    "divided by the map's size": (divided_by_the_map, WEIGHTS_AND_BIASES, FIRST_SUMS),
    "rows and columns exchanged": (changed_result(lambda dw: dw.transpose(0, 2, 1, 3)), WEIGHTS, FIRST_SUMS),
    "input and output maps exchanged": (changed_result(lambda dw: dw.transpose(3, 1, 2, 0)), WEIGHTS, FIRST_SUMS),
    "derivative twice": (changed_dout(twice, at=2), WEIGHTS_AND_BIASES, FIRST_BLOCK),
    "derivative missing": (changed_dout(never, at=2), WEIGHTS_AND_BIASES, FIRST_BLOCK),
    # Of the bias it is the right one, and the second layer has no pool.
    "mean pooling's delta": (over_all_winners(2), {"conv1.weight"}, FIRST_BLOCK),
}
WRONG_INPUTS = {
    "kernel not flipped": (changed_weight(flipped, at=4), INPUTS, SECOND_SUMS),
    "rows and columns exchanged": (changed_weight(lambda w: w.transpose(0, 2, 1, 3), at=4), INPUTS, SECOND_SUMS),
    "input and output maps exchanged": (changed_weight(lambda w: w.transpose(3, 1, 2, 0), at=4), INPUTS, SECOND_SUMS),
    "no sum over the kernels": (changed_dout(only_the_first_kernel, at=1), INPUTS, SECOND_SUMS),
    "divided by the map's size": (changed_result(lambda dx: dx / 6), INPUTS, SECOND_SUMS),
    # The tutorial that has the derivative in the weight update instead of the delta.
    "derivative missing": (changed_dout(never, at=1), INPUTS, SECOND_BLOCK),
    "derivative twice": (changed_dout(twice, at=1), INPUTS, SECOND_BLOCK),
}


@pytest.mark.parametrize(
    ("function", "wrong"),
    [
        *(pytest.param("conv_backward_weight", wrong, id=f"weight: {name}") for name, wrong in WRONG_WEIGHTS.items()),
        *(pytest.param("conv_backward_input", wrong, id=f"input: {name}") for name, wrong in WRONG_INPUTS.items()),
    ],
)
def test_wrong_gradients_of_a_convolution(function: str, wrong: tuple[Wrap, set[str], str]) -> None:
    wrap, blamed, part = wrong
    check = check_gradients(CONVS, SMOOTHED, backend=with_wrong(function, wrap))
    assert wrong_rows(check).keys() == blamed
    assert first_wrong_part(check) == part
    assert not check.parts[-1].passed


def test_mean_poolings_delta_on_the_way_down() -> None:
    """It spoils nothing of the layer that pools, so it shows where there is something below it."""
    layers = (Conv(kernels=2, size=1, activation="identity"), *CONVS.layers)
    backend = with_wrong("conv_backward_input", over_all_winners(1))
    check = check_gradients(Shrunk(layers, layers, (7, 9, 1), 2), SMOOTHED, backend=backend)
    assert wrong_rows(check).keys() == {"conv2.input"}
    assert first_wrong_part(check) == "+ conv2's leaky_relu and pool of 2x2"


def constant_statistics(right: Wrong) -> Wrong:
    """As if the batch's mean and variance did not depend on its elements."""

    def wrong(dx: Array, dscale: Array, dshift: Array, dout: Array, *rest: Any) -> None:
        right(dx, dscale, dshift, dout, *rest)
        _, _, inverse_std, scale, _ = rest
        dx[...] = dout * scale * inverse_std

    return wrong


def mean_for_max(right: Wrong) -> Wrong:
    def wrong(dx: Array, dout: Array, argmax: Array, kind: str, *rest: Any) -> None:
        right(dx, dout, argmax, "average", *rest)

    return wrong


def slope_over_all(right: Wrong) -> Wrong:
    """The derivative by a slope summed over all elements, those above 0 too."""

    def wrong(dx: Array, dslope: Array, dout: Array, x: Array, *rest: Any) -> None:
        right(dx, dslope, dout, x, *rest)
        dslope[...] = (dout * x).sum(axis=0)

    return wrong


def sides_from_the_output(right: Wrong) -> Wrong:
    """As if the sign of x were that of the output, which a slope below 0 turns."""

    def wrong(dx: Array, dslope: Array, dout: Array, x: Array, slope: Array, *rest: Any) -> None:
        right(dx, dslope, dout, np.where(x > 0, x, slope * x), slope, *rest)

    return wrong


def equal_windows(right: Wrong) -> Wrong:
    """Average pooling's delta divided by the whole window's size at the edge, too."""

    def wrong(dx: Array, dout: Array, argmax: Array, kind: str, size: Any, stride: Any, workspace: Any) -> None:
        if kind == "max":
            right(dx, dout, argmax, kind, size, stride, workspace)
            return
        larger = np.zeros((len(dx), dx.shape[1] + size[0], dx.shape[2] + size[1], dx.shape[3]))
        right(larger, dout, argmax, kind, size, stride, workspace)
        dx[...] = larger[:, : dx.shape[1], : dx.shape[2]]

    return wrong


def dout_for_dx(right: Wrong) -> Wrong:
    def wrong(dx: Array, dout: Array, *rest: Any) -> None:
        dx[...] = dout

    return wrong


def derivative_of_tanh_twice(right: Wrong) -> Wrong:
    def wrong(dx: Array, dout: Array, x: Array, out: Array, *rest: Any) -> None:
        right(dx, dout * (1 - out * out), x, out, *rest)

    return wrong


def not_smoothed(right: Wrong) -> Wrong:
    """The derivative of the loss without its smoothing."""

    def wrong(losses: Array, objectives: Array, probabilities: Array, dlogits: Array, *rest: Any) -> None:
        right(losses, objectives, probabilities, dlogits, *rest)
        right(losses.copy(), objectives.copy(), probabilities.copy(), dlogits, *rest[:-2], 0.0, rest[-1])

    return wrong


def summed_over_the_batch(right: Wrong) -> Wrong:
    def wrong(losses: Array, objectives: Array, probabilities: Array, dlogits: Array, *rest: Any) -> None:
        right(losses, objectives, probabilities, dlogits, *rest)
        dlogits *= len(losses)

    return wrong


@pytest.mark.parametrize(
    ("function", "wrap", "blamed", "part"),
    [
        ("pool_backward", mean_for_max, {"pool1.input"}, "+ pool1"),
        ("batch_norm_backward", constant_statistics, {"batch_norm1.input"}, "+ batch_norm1"),
        ("neuron_backward_weight", changed_result(lambda dw: dw / 6), {"neuron1.weight"}, "+ neuron1"),
        ("neuron_backward_weight", changed_result(flipped), {"neuron1.weight"}, "+ neuron1"),
        ("neuron_backward_input", changed_weight(flipped, at=2), {"neuron1.input"}, "+ neuron1"),
        ("activation_backward", dout_for_dx, {"activation1.input"}, "+ activation1"),
        ("activation_backward", derivative_of_tanh_twice, {"activation1.input"}, "+ activation1"),
        ("dense_backward_weight", changed_result(lambda dw: dw / 4), {"dense1.weight", "dense2.weight"}, "+ dense1"),
        ("softmax_cross_entropy", not_smoothed, {"loss.input"}, "the whole network with the loss"),
        ("softmax_cross_entropy", summed_over_the_batch, {"loss.input"}, "the whole network with the loss"),
    ],
)
def test_wrong_gradients_of_other_layers(function: str, wrap: Wrap, blamed: set[str], part: str) -> None:
    check = check_gradients(HEADS, SMOOTHED, backend=with_wrong(function, wrap))
    assert wrong_rows(check).keys() == blamed
    assert first_wrong_part(check) == part


@pytest.mark.parametrize(
    ("function", "wrap", "blamed", "part"),
    [
        ("prelu_backward", slope_over_all, {"prelu1.slope"}, "+ prelu1"),
        ("prelu_backward", sides_from_the_output, {"prelu1.slope", "prelu1.input"}, "+ prelu1"),
        ("pool_backward", equal_windows, {"pool1.input"}, "+ pool1"),
    ],
)
def test_wrong_gradients_of_learned_slopes_and_at_the_edges(
    function: str, wrap: Wrap, blamed: set[str], part: str
) -> None:
    layers = (
        Conv(kernels=2, size=1, activation="identity"),
        PRelu(),
        Pool(size=2, kind="average", edges="keep"),
        Pool(size=(1, 2), edges="keep"),
        Dense(units=3),
    )
    small = Shrunk(layers, layers, (3, 5, 2), 2)
    assert check_gradients(small, SMOOTHED).passed
    check = check_gradients(small, SMOOTHED, backend=with_wrong(function, wrap))
    assert wrong_rows(check).keys() == blamed
    assert first_wrong_part(check) == part


def test_the_smallest_picture_has_windows_over_its_edges() -> None:
    small = shrink((Conv(kernels=2, size=1), Pool(size=2, edges="keep"), Dense(units="people")), (40, 40, 1))
    assert small.shape[:2] == (3, 5)


@pytest.mark.parametrize("function", ["dense_backward_weight", "dense_backward_input"])
def test_a_transposed_dense_layer(function: str) -> None:
    """Exchanged indices can only go unnoticed by NumPy where there are as many of both."""
    wrap = (
        changed_result(lambda dw: dw.T) if function == "dense_backward_weight" else changed_weight(np.transpose, at=2)
    )
    layers = (Dense(units=3), Dense(units=3))
    check = check_gradients(Shrunk(layers, layers, (1, 3, 1), 2), SMOOTHED, backend=with_wrong(function, wrap))
    what = "weight" if function == "dense_backward_weight" else "input"
    assert wrong_rows(check).keys() == {f"dense1.{what}", f"dense2.{what}"}


def test_a_mistake_in_one_layer_is_not_blamed_on_another() -> None:
    def wrong_in_the_second(right: Wrong) -> Wrong:
        def wrong(dweight: Array, *rest: Any) -> None:
            right(dweight, *rest)
            if dweight.shape[-1] == 2:
                dweight[...] = flipped(dweight)

        return wrong

    layers = (Conv(kernels=2, size=2, pool=2), Conv(kernels=3, size=2), Conv(kernels=2, size=2), Dense(units=2))
    backend = with_wrong("conv_backward_weight", wrong_in_the_second)
    check = check_gradients(Shrunk(layers, layers, (10, 12, 1), 2), SMOOTHED, backend=backend)
    assert wrong_rows(check).keys() == {"conv2.weight"}
    assert {part.worst.name for part in check.parts if not part.passed} == {"conv2"}
    assert first_wrong_part(check) == SECOND_SUMS


def test_a_mistake_that_no_layer_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last part looks at what training really uses."""
    right = Network.backward

    def forgets(network: Network, *arguments: Any, **options: Any) -> None:
        right(network, *arguments, **options)
        assert network.gradient is not None
        network.gradient.named["conv1.weight"][...] = 0

    monkeypatch.setattr(Network, "backward", forgets)
    check = check_gradients(CONVS, SMOOTHED)
    assert not wrong_rows(check)
    (part,) = (part for part in check.parts if not part.passed)
    assert (part, part.worst.name) == (check.parts[-1], "conv1")


def test_something_that_is_not_a_number() -> None:
    backend = with_wrong("dense_backward_weight", changed_result(lambda dweight: dweight * np.nan))
    check = check_gradients(CONVS, SMOOTHED, backend=backend)
    assert not check.passed
    assert wrong_rows(check).keys() == {"dense1.weight"}


@pytest.mark.parametrize(
    ("change", "likeness"),
    [
        (flipped, "the right one turned by 180 degrees"),
        (lambda dweight: dweight[:, ::-1], "the right one upside down"),
        (lambda dweight: dweight[:, :, ::-1], "the right one mirrored"),
        (lambda dweight: dweight.transpose(0, 2, 1, 3), "the right one with rows and columns exchanged"),
        (lambda dweight: dweight.transpose(3, 1, 2, 0), "the right one with input and output maps exchanged"),
        (lambda dweight: dweight / 8, "0.125 times the right one"),
        (lambda dweight: -dweight, "-1 times the right one"),
        (np.abs, None),
    ],
)
def test_what_a_wrong_gradient_looks_like(change: Callable[[Array], Array], likeness: str | None) -> None:
    backend = with_wrong("conv_backward_weight", changed_result(change))
    row = wrong_rows(check_gradients(CONVS, SMOOTHED, backend=backend))["conv1.weight"]
    assert row.fault is not None
    assert row.fault.likeness == likeness
    assert len(row.fault.place) == 4
    assert abs(row.fault.found - row.fault.expected) > 1e-3


# ----------------------------------------------------------------------------------------------------------- the device


def test_a_device_is_held_against_the_reference() -> None:
    comparison = compare_device(CONVS, SMOOTHED, reference)  # NumPy in float32
    assert comparison.passed
    assert comparison.distance >= DEVICE_CLEARANCE
    assert 0 < max(row.max_relative_error for row in comparison.rows) < 1e-5
    names = [f"{row.name}.{row.parameter}" for row in comparison.rows]
    assert sorted(names) == sorted([*WEIGHTS_AND_BIASES, "dense1.weight", "dense1.bias", "loss.input"])


def test_a_device_that_is_wrong() -> None:
    backend = with_wrong("dense_backward_weight", changed_result(lambda dweight: dweight * 1.01))
    assert wrong_rows(compare_device(CONVS, SMOOTHED, backend)).keys() == {"dense1.weight"}


def test_a_device_is_tested_with_all_kernels() -> None:
    given = load("smoke").settings
    small = shrink(given.network, (24, 24, 1))
    rows = {f"{row.name}.{row.parameter}": row.elements for row in compare_device(small, given.loss, reference).rows}
    assert rows["conv2.weight"] == 8 * 3 * 3 * 4
    alone = {f"{row.name}.{row.parameter}": row.elements for row in check_gradients(small, given.loss).alone}
    assert alone["conv2.weight"] == 3 * 3 * 3 * 2


# ------------------------------------------------------------------------------------------------------------ shrinking


@pytest.mark.parametrize("config", ["smoke", "seed", "default", "deep"])
def test_a_shrunk_network_has_the_same_layers(config: str) -> None:
    given = load(config).settings
    picture = (given.photos.height, given.photos.width, given.photos.channels)
    small = shrink(given.network, picture)
    assert small.shape[0] < small.shape[1] < given.photos.width
    assert [layer.keyword for layer in small.layers] == [layer.keyword for layer in given.network]
    before = plan(small.full, picture)
    assert [stage.name for stage in small.stages] == [stage.name for stage in before]
    for stage, whole in zip(small.stages, before, strict=True):
        for parameter in set(stage.parameters) & {"weight"}:
            shapes = stage.parameters[parameter].shape, whole.parameters[parameter].shape
            assert len(shapes[0]) == len(shapes[1])
            if isinstance(stage.layer, Conv):
                assert shapes[0][1:3] == shapes[1][1:3]
    assert sum(np.prod(p.shape) for stage in small.stages for p in stage.parameters.values()) < 600
    maps = [stage.out_shape for stage in small.stages if len(stage.out_shape) == 3]
    assert all(rows != columns and columns > 1 for rows, columns, _ in maps)


def test_nothing_is_made_larger() -> None:
    layers: tuple[Layer, ...] = (
        Conv(kernels=1, size=1, pool=PoolSettings(size=2, kind="average")),
        Neuron(),
        Dense(units=1),
    )
    small = shrink(layers, (2, 3, 1))
    assert (small.layers, small.shape) == (layers, (2, 3, 1))


def test_a_picture_that_is_just_large_enough() -> None:
    layers = (Conv(kernels=8, size=5, pool=2), Conv(kernels=8, size=3, padding="same"), Neuron(), Dense(units="people"))
    small = shrink(layers, (100, 100, 3))
    assert small.shape == (8, 10, 3)
    assert small.stages[1].out_shape == (2, 3, 3)


@pytest.mark.parametrize(
    ("layers", "index"),
    [((Conv(kernels=2, size=3),), 0), ((Conv(kernels=2, size=3), Conv(kernels=2, size=9), Dense(units=2)), 1)],
)
def test_a_network_that_does_not_fit(layers: tuple[Layer, ...], index: int) -> None:
    with pytest.raises(LayerError) as raised:
        shrink(layers, (8, 8, 1))
    assert raised.value.index == index
