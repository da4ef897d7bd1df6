"""conv_forward, conv_backward_weight and conv_backward_input, on every backend."""

import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract.cases import conv, family
from contract.cases.conv import KERNELS, Conv
from contract.cases.numbers import integers, random
from contract.harness import call, check, check_case, on_each_backend
from facecnn.kernels import cpu, open_device, reference
from facecnn.kernels.cases import Case, Out
from facecnn.kernels.cpu.vector_ir import lanes as vectors

LEAKY, RELU, IN_TILES = conv.USUAL[1], conv.USUAL[5], conv.USUAL[7]
"""Settings whose code the table's cases have compiled."""
FORWARD_ONLY = [conv.USUAL_FORWARD, *conv.USUAL_IN_PRODUCTS]
"""The same, but for the backward kernels."""


def and_slow(fast: list[Conv], slow: list[Conv]) -> list[Any]:
    marks = {True: [pytest.mark.slow], False: []}
    return [pytest.param(one, id=str(one), marks=marks[one in slow]) for one in [*fast, *slow]]


def check_all(backend: Any, convolution: Conv, kernels: Sequence[str] = KERNELS, **scale: float) -> None:
    for kernel in kernels:
        check(backend, kernel, *convolution.arguments(kernel), **scale)


@on_each_backend(family(conv))
def test_agrees_with_the_reference(backend: Any, case: Case) -> None:
    check_case(backend, case)


# Narrow and wide rows, with and without a frame around the photo.
OTHERS = [
    Conv((2, 20, 17), (3, 8), (5, 5), 2, "valid", "leaky_relu"),
    Conv((2, 7, 57), (3, 8), (5, 5), 2, "same", "leaky_relu"),
]


@pytest.mark.parametrize("lanes", [*(pytest.param(lanes, marks=pytest.mark.slow) for lanes in (16, 8, 4)), 0])
@pytest.mark.parametrize("convolution", and_slow(OTHERS, [RELU, conv.USUAL_IN_PRODUCTS[1]]))
def test_other_vectors_agree_with_the_reference(monkeypatch: pytest.MonkeyPatch, lanes: int, convolution: Conv) -> None:
    """As on processors with other vectors, and on those with none that the micro-kernels are written for."""
    if lanes > 0 and vectors.of_processor() == 0:
        pytest.skip("the processor has no vectors")
    monkeypatch.setattr(vectors, "of_processor", lambda: lanes)
    open_device("cpu")
    check_all(cpu, convolution)


@pytest.mark.parametrize(("lanes", "convolution"), [(None, LEAKY), (0, OTHERS[0])], ids=str)
def test_recorded_it_still_follows_its_weights(
    monkeypatch: pytest.MonkeyPatch, lanes: int | None, convolution: Conv
) -> None:
    """As in training: a step is recorded once, and played back while weights change. ``lanes`` None: as here."""
    if lanes is not None:
        monkeypatch.setattr(vectors, "of_processor", lambda: lanes)
    open_device("cpu")
    shape, block = convolution.shape, convolution.block
    x, weight, bias, dout = convolution.x, convolution.weight, convolution.bias, random(*convolution.shape, seed=1)
    on_device = [cpu.to_device(array.astype(np.float32)) for array in (x, weight, bias, dout)]
    out, argmax, dx = cpu.empty(shape, np.float32), cpu.empty(shape, np.uint8), cpu.empty(x.shape, np.float32)
    dweight, dbias = cpu.empty(weight.shape, np.float32), cpu.empty(bias.shape, np.float32)
    workspace = cpu.Workspace()

    def step() -> None:
        pixels, weights, biases, delta = on_device
        cpu.conv_forward(out, argmax, pixels, weights, biases, *block, workspace)
        cpu.conv_backward_weight(dweight, dbias, delta, out, argmax, pixels, *block, workspace)
        cpu.conv_backward_input(dx, delta, out, argmax, weights, *block, workspace)

    run = cpu.record(step, workspace)
    for number in range(4):
        new = random(*weight.shape, seed=10 + number)
        cpu.copy_to_device(on_device[1], new.astype(np.float32))
        run()
        expected = call(reference, "conv_forward", Out(shape), Out(shape, np.uint8), x, new, bias, *block)
        np.testing.assert_allclose(out, expected[0], rtol=1e-4, atol=1e-4)
        (expected_dx,) = call(reference, "conv_backward_input", Out(x.shape), dout, *expected, new, *block)
        np.testing.assert_allclose(dx, expected_dx, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("width", range(64, 68))
def test_an_output_depends_on_its_window_alone(width: int) -> None:
    """To the last bit, also where the row's last tile has columns that no output needs."""
    convolution = replace(IN_TILES, size=(2, 9, width))
    open_device("cpu")
    changed = convolution.x
    changed[:, :, 0] *= 1000  # seen by the windows of the first column, and in the same tile as the second
    outputs = [
        call(cpu, "conv_forward", Out(convolution.shape), convolution.argmax, x, convolution.weight, convolution.bias,
             *convolution.block)
        for x in (convolution.x, changed)
    ]  # fmt: skip
    for before, after in zip(*outputs, strict=True):
        np.testing.assert_array_equal(after[:, :, 2:], before[:, :, 2:])


@given(
    convolution=st.sampled_from([*conv.USUAL, *FORWARD_ONLY, *conv.TINY_SHARING_CODE.values()]),
    photos=st.integers(1, 3),
    height=st.integers(1, 24),
    padding=st.sampled_from(["valid", "same"]),
)
@settings(deadline=None, max_examples=50, derandomize=True)
def test_any_number_of_photos_and_rows_agrees_with_the_reference(
    convolution: Conv, photos: int, height: int, padding: Any
) -> None:
    """With the code of the cases above, so that nothing is compiled for it."""
    width, kernel, pool = convolution.size[2], convolution.kernel, convolution.pool
    least = kernel[0] + pool - 1 if padding == "valid" else pool
    if padding != convolution.padding:  # a row of the same tiles
        width += (kernel[1] - 1) * (1 if padding == "valid" else -1)
    open_device("cpu")
    # What cancels out to nearly nothing, as a bias' gradient may, is held against 1.
    size = photos, max(height, least), width
    kernels = KERNELS[:1] if convolution in FORWARD_ONLY else KERNELS
    check_all(cpu, replace(convolution, size=size, padding=padding), kernels, least_scale=1)


@pytest.mark.slow
@given(
    kernel=st.tuples(st.integers(1, 11), st.integers(1, 11)),
    maps=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    size=st.tuples(st.integers(1, 3), st.integers(1, 24), st.integers(1, 24)),
    pool=st.integers(1, 4),
    padding=st.sampled_from(["valid", "same"]),
    activation=st.sampled_from(["identity", "relu", "leaky_relu", "tanh", "sigmoid"]),
)
# The same examples each time, so that they are compiled once and then found in the cache.
@settings(deadline=None, max_examples=4, derandomize=True, suppress_health_check=list(HealthCheck))
def test_any_shape_agrees_with_the_reference(
    kernel: tuple[int, int], maps: tuple[int, int], size: tuple[int, int, int], pool: int, padding: Any, activation: Any
) -> None:
    # Enlarge the photo to what the kernel and the pool need, rather than throw the example away.
    least = [k + pool - 1 if padding == "valid" else pool for k in kernel]
    size = (size[0], max(size[1], least[0]), max(size[2], least[1]))
    open_device("cpu")
    check_all(cpu, Conv(size, maps, kernel, pool, padding, activation))


def test_where_all_sums_are_equal_the_first_wins(backend: Any) -> None:
    convolution = replace(LEAKY, size=(3, 14, 13))
    arguments = list(convolution.arguments("conv_forward"))
    arguments[3:5] = 0 * convolution.weight, 0 * convolution.bias
    _, argmax = call(backend, "conv_forward", *arguments)
    assert not argmax.any()


@pytest.mark.parametrize("convolution", [LEAKY, RELU, conv.LARGE_FEW_KERNELS], ids=str)
def test_nan_comes_through(backend: Any, convolution: Conv) -> None:
    """To all windows that have it in them, and from there to the loss."""
    convolution = replace(convolution, size=(2, 12, convolution.size[2]))
    shape, maps = convolution.shape, convolution.maps[1]
    x = convolution.x
    x[1, 5, 6] = np.nan
    inputs = x, convolution.weight, convolution.bias
    out = call(backend, "conv_forward", Out(shape), convolution.argmax, *inputs, *convolution.block)[0]
    touched = np.zeros(shape, bool)
    rows, columns = (
        slice(max(0, place + above - size + 1) // convolution.pool, (place + above) // convolution.pool + 1)
        for place, above, size in zip((5, 6), convolution.above, convolution.kernel, strict=True)
    )
    touched[1, rows, columns] = True
    np.testing.assert_array_equal(np.isnan(out), touched)

    losses = call(
        backend, "softmax_cross_entropy", Out((2,)), Out((2,)), Out((2, maps)), Out((2, maps)), out.mean(axis=(1, 2)),
        np.zeros(2, np.int32), np.ones(maps), np.array([2.0]), 0.0,
    )[0]  # fmt: skip
    np.testing.assert_array_equal(np.isnan(losses), [False, True])


@pytest.mark.parametrize("width", [17, 61])
def test_nan_comes_through_plain_loops(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setattr(vectors, "of_processor", lambda: 0)
    open_device("cpu")
    convolution = replace(OTHERS[0], size=(2, 20, width))
    x = convolution.x
    x[0, 6, 8, 0] = x[1, 5, 7, 0] = np.nan  # in the first places of some windows only, and in the last of others
    out, _ = forward(cpu, convolution, x)
    touched = np.zeros(convolution.shape, bool)
    touched[0, 1:4, 2:5] = touched[1, 0:3, 1:4] = True
    np.testing.assert_array_equal(np.isnan(out), touched)


def forward(backend: Any, convolution: Conv, x: Any, weight: Any = None, **how: Any) -> list[Any]:
    """The output and its argmax for other inputs than the table's, or other weights (and no bias)."""
    weights = (convolution.weight, convolution.bias) if weight is None else (weight, 0 * convolution.bias)
    return call(
        backend, "conv_forward", Out(convolution.shape), convolution.argmax, x, *weights, *convolution.block, **how
    )


# On the CPU such rows are cut into tiles of 4 outputs.
FAST_TILED = [
    Conv((3, 12, 64), (1, 8), (5, 5), 2, "valid", "leaky_relu"),
    Conv((3, 8, 26), (8, 20), (3, 3), 2, "same", "leaky_relu"),
]
SLOW_TILED = [
    Conv((3, 12, 301), (3, 20), (5, 5), 2, "valid", "leaky_relu"),
    Conv((3, 9, 131), (4, 24), (3, 3), 2, "same", "leaky_relu"),
]
TILED = and_slow(FAST_TILED, SLOW_TILED)


@pytest.mark.parametrize("convolution", TILED)
def test_in_tiles_the_largest_sum_wins_but_for_rounding(backend: Any, convolution: Conv) -> None:
    shape, (maps, kernels) = convolution.shape, convolution.maps
    x, weight = integers(*convolution.size, maps, low=0, high=2), integers(*convolution.weight.shape, low=-1, high=2)
    out, won = forward(backend, convolution, x, weight)
    every, _ = forward(reference, replace(convolution, pool=1), x, weight, dtype=np.float64)
    every = every[:, : 2 * shape[1], : 2 * shape[2]]
    windows = every.reshape(shape[0], shape[1], 2, shape[2], 2, kernels).transpose(0, 1, 3, 5, 2, 4).reshape(*shape, 4)
    np.testing.assert_allclose(out, windows.max(axis=-1), atol=1e-4)
    np.testing.assert_allclose(np.take_along_axis(windows, won[..., None].astype(int), -1)[..., 0], out, atol=1e-4)
    _, won = forward(backend, convolution, x, 0 * weight)
    assert not won.any()


@pytest.mark.parametrize("convolution", TILED)
def test_in_tiles_nan_comes_through_and_stays_in_its_tiles(backend: Any, convolution: Conv) -> None:
    x = convolution.x
    before = forward(backend, convolution, x)
    x[0], x[2], x[1, 5, 9, 0] = np.nan, np.nan, np.nan
    out, won = forward(backend, convolution, x)
    wanted = forward(reference, convolution, x, dtype=np.float64)[0]
    assert np.isnan(out[np.isnan(wanted)]).all()
    touched = np.isnan(wanted[1]).any(axis=-1)
    rows, columns = touched.any(axis=1), touched.any(axis=0)
    nearby = np.convolve(columns, np.ones(3), "same") > 0  # a tile's outputs are two windows
    untouched = ~(rows[:, None] & nearby[None, :])
    assert untouched.any()
    np.testing.assert_array_equal(out[1][untouched], before[0][1][untouched])
    np.testing.assert_array_equal(won[1][untouched], before[1][1][untouched])


def test_in_products_nan_stays_in_its_tile(backend: Any) -> None:
    convolution = conv.USUAL_IN_PRODUCTS[1]
    x = convolution.x
    before, _ = forward(backend, convolution, x)
    x[1, 2, 1, 0] = np.nan
    out, _ = forward(backend, convolution, x)
    assert np.isnan(out[1, 1:4, 0:3]).all()
    out[1, 1:4, 0:4] = before[1, 1:4, 0:4]
    np.testing.assert_array_equal(out, before)


@pytest.mark.parametrize("size", [(5, 6, 7), (60, 3, 3)], ids=str)
def test_in_products_a_photos_output_does_not_depend_on_its_batch(size: tuple[int, int, int]) -> None:
    """Not so on the reference, where NumPy's BLAS chooses its way by the batch's size."""
    open_device("cpu")
    convolution = replace(conv.USUAL_IN_PRODUCTS[0], size=size)
    x = convolution.x
    together, _ = forward(cpu, convolution, x)
    for n in (0, 1, len(x) - 1):
        alone, _ = forward(cpu, replace(convolution, size=(1, *size[1:])), x[n : n + 1])
        np.testing.assert_array_equal(alone[0], together[n])


@pytest.mark.parametrize("convolution", [*TILED, pytest.param(replace(LEAKY, size=(2, 7, 13)), id="direct")])
def test_without_places_the_numbers_are_the_same(backend: Any, convolution: Conv) -> None:
    """An empty argmax stands for places that nobody asks for."""
    shape, x = convolution.shape, convolution.x
    for column in range(0, 9, 2):  # in each place of a window once
        x[1, 3 + column % 4 // 2, column, 0] = np.nan
    block = (x, convolution.weight, convolution.bias, *convolution.block)
    out, _ = call(backend, "conv_forward", Out(shape), Out(shape, np.uint8), *block)
    alone, _ = call(backend, "conv_forward", Out(shape), Out((0, *shape[1:]), np.uint8), *block)
    assert np.isnan(out).any()
    np.testing.assert_array_equal(alone, out)


def test_one_workspace_serves_many_shapes(backend: Any) -> None:
    workspace = backend.Workspace()
    for size in [(2, 12, 13), (5, 6, 6), (1, 30, 49), (2, 12, 13)]:
        arguments = replace(LEAKY, size=size).arguments("conv_forward")
        shared = call(backend, "conv_forward", *arguments, workspace=workspace)
        fresh = call(backend, "conv_forward", *arguments)
        for one, other in zip(shared, fresh, strict=True):
            np.testing.assert_array_equal(one, other)


def test_the_second_call_allocates_nothing_on_the_cpu() -> None:
    convolution = replace(LEAKY, size=(4, 64, 96))
    shape, block = convolution.shape, convolution.block
    x, weight, bias = (
        cpu.to_device(array.astype(np.float32)) for array in (convolution.x, convolution.weight, convolution.bias)
    )
    out, dout, dx, dweight = (cpu.empty(s, np.float32) for s in (shape, shape, x.shape, weight.shape))
    argmax, dbias, workspace = cpu.empty(shape, np.uint8), cpu.empty((16,), np.float32), cpu.Workspace()

    def step() -> None:
        cpu.conv_forward(out, argmax, x, weight, bias, *block, workspace)
        cpu.conv_backward_weight(dweight, dbias, dout, out, argmax, x, *block, workspace)
        cpu.conv_backward_input(dx, dout, out, argmax, weight, *block, workspace)

    step()
    tracemalloc.start()
    try:
        step()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 32 * 1024  # views and arguments, but nothing of a photo's size (96 KiB)
