"""conv_forward, conv_backward_weight and conv_backward_input, on every backend."""

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract.harness import Out, call, check, integers, random
from facecnn.kernels import cpu, open_device, reference
from facecnn.kernels.cpu.vector_ir import lanes as vectors


def sized(*blocks: Any) -> list[Any]:
    """A case for each size of each block."""
    return [(size, *rest) for sizes, *rest in blocks for size in sizes]


# (photos, height, width), (maps, kernels), (kernel rows, columns), pool, padding, activation. Sizes are run-time
# values, but for what a row's length says of its tiles; everything else is compiled in, which takes seconds: so there
# are several sizes to each of the rest, and other tests take their settings from here.
CASES = sized(
    ([(1, 2, 2), (2, 12, 13), (23, 6, 5), (1, 3, 49)], (1, 16), (3, 3), 2, "same", "leaky_relu"),
    ([(1, 1, 1), (3, 5, 4)], (1, 1), (1, 1), 1, "valid", "identity"),
    ([(2, 10, 11)], (24, 3), (4, 2), 3, "same", "relu"),
    # One map, and kernels that leave lanes for windows that lie beside each other.
    ([(2, 6, 6), (1, 7, 64)], (1, 8), (5, 5), 2, "valid", "leaky_relu"),
    # In the second, no window reaches the last rows.
    ([(1, 4, 4), (2, 7, 6)], (1, 3), (2, 3), 4, "same", "tanh"),
    # Where rows are cut into tiles (see cpu.conv.winograd), as the 64 columns above are: many maps, full vectors of
    # kernels and a rest.
    ([(1, 11, 26)], (8, 20), (3, 3), 2, "same", "leaky_relu"),
)
MORE_CASES = sized(
    ([(1, 3, 3), (1, 7, 100)], (24, 3), (4, 2), 3, "same", "relu"),
    ([(2, 6, 5), (1, 1, 1), (2, 3, 70)], (33, 8), (2, 2), 1, "same", "leaky_relu"),
    ([(1, 6, 6), (2, 20, 17), (2, 7, 61), (1, 9, 150)], (3, 8), (5, 5), 2, "valid", "leaky_relu"),
    ([(2, 5, 4)], (3, 33), (5, 4), 1, "valid", "tanh"),
    ([(2, 9, 9)], (16, 16), (7, 7), 2, "same", "relu"),
    ([(2, 9, 33), (1, 10, 26)], (1, 8), (5, 5), 2, "valid", "leaky_relu"),
    ([(2, 4, 5), (1, 3, 70), (1, 4, 22)], (1, 20), (3, 3), 2, "same", "leaky_relu"),
    ([(2, 9, 75), (1, 8, 29)], (1, 3), (2, 3), 4, "same", "tanh"),
    ([(2, 3, 5), (1, 4, 51), (1, 2, 18)], (1, 7), (2, 4), 1, "same", "relu"),
    ([(2, 6, 7), (1, 5, 80)], (1, 4), (3, 2), 3, "valid", "identity"),
    # In tiles: one strip and three.
    ([(1, 8, 301), (2, 7, 68), (1, 9, 133), (1, 6, 33)], (3, 20), (5, 5), 2, "valid", "leaky_relu"),
    ([(1, 6, 28), (2, 5, 64), (1, 5, 131), (1, 5, 430)], (4, 24), (3, 3), 2, "same", "relu"),
    ([(2, 9, 12), (1, 8, 30)], (8, 40), (3, 3), 4, "same", "leaky_relu"),
    ([(1, 11, 14)], (8, 24), (3, 3), 4, "valid", "sigmoid"),
    ([(1, 3, 12), (2, 4, 33)], (16, 16), (2, 5), 1, "valid", "identity"),
)


def and_slow(cases: list[Any], more: list[Any]) -> list[Any]:
    return [*cases, *(pytest.param(*case, marks=pytest.mark.slow) for case in more)]


SETTINGS = ("size", "maps", "kernel", "pool", "padding", "activation")


def shapes(size: Any, maps: Any, kernel: Any, pool: int, padding: str) -> tuple[Any, Any]:
    """The output's shape and the padding above and to the left."""
    photos, height, width = size
    if padding == "same":
        above = ((kernel[0] - 1) // 2, (kernel[1] - 1) // 2)
    else:
        above = (0, 0)
        height, width = height - kernel[0] + 1, width - kernel[1] + 1
    return (photos, height // pool, width // pool, maps[1]), above


def check_all(
    backend: Any, size: Any, maps: Any, kernel: Any, pool: int, padding: str, activation: Any, **scale: float
) -> None:  # fmt: skip
    shape, above = shapes(size, maps, kernel, pool, padding)
    x, weight, bias = random(*size, maps[0]), random(maps[1], *kernel, maps[0]), random(maps[1])
    # With pool 1 there is no argmax: networks pass an empty array.
    argmax = Out(shape if pool > 1 else (0,), np.uint8)
    block = (above, activation, 0.1, pool)
    out, won = check(backend, "conv_forward", Out(shape), argmax, x, weight, bias, *block, **scale)
    out = out.astype(np.float32).astype(np.float64)
    dout = random(*shape, seed=1)
    check(backend, "conv_backward_weight", Out(weight.shape), Out(bias.shape), dout, out, won, x, *block, **scale)
    check(backend, "conv_backward_input", Out(x.shape), dout, out, won, weight, *block, **scale)


@pytest.mark.parametrize(SETTINGS, and_slow(CASES, MORE_CASES), ids=str)
def test_agrees_with_the_reference(
    backend: Any, size: Any, maps: Any, kernel: Any, pool: int, padding: str, activation: Any
) -> None:
    check_all(backend, size, maps, kernel, pool, padding, activation)


# Narrow and wide rows, with and without a frame around the photo.
OTHERS = and_slow(
    [
        ((2, 20, 17), (3, 8), (5, 5), 2, "valid", "leaky_relu"),
        ((2, 7, 57), (3, 8), (5, 5), 2, "same", "leaky_relu"),
    ],
    [((2, 10, 11), (24, 3), (4, 2), 3, "same", "relu")],
)


@pytest.mark.parametrize("lanes", [*(pytest.param(lanes, marks=pytest.mark.slow) for lanes in (16, 8, 4)), 0])
@pytest.mark.parametrize(SETTINGS, OTHERS, ids=str)
def test_other_vectors_agree_with_the_reference(
    monkeypatch: pytest.MonkeyPatch, lanes: int, size: Any, maps: Any, kernel: Any, pool: int, padding: str,
    activation: Any,
) -> None:  # fmt: skip
    """As on processors with other vectors, and on those with none that the micro-kernels are written for."""
    if lanes > 0 and vectors.of_processor() == 0:
        pytest.skip("the processor has no vectors")
    monkeypatch.setattr(vectors, "of_processor", lambda: lanes)
    open_device("cpu")
    check_all(cpu, size, maps, kernel, pool, padding, activation)


@pytest.mark.parametrize("lanes", [None, 0])
def test_recorded_it_still_follows_its_weights(monkeypatch: pytest.MonkeyPatch, lanes: int | None) -> None:
    """As in training: a step is recorded once, and played back while weights change. ``lanes`` None: as here."""
    if lanes is not None:
        monkeypatch.setattr(vectors, "of_processor", lambda: lanes)
    open_device("cpu")
    size, kernel, pool = (2, 20, 17), (5, 5), 2
    shape, above = shapes(size, (3, 8), kernel, pool, "valid")
    block = (above, "leaky_relu", 0.1, pool)
    x, weight, bias, dout = random(*size, 3), random(8, *kernel, 3), random(8), random(*shape, seed=1)
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


@given(
    # Not the widest: of so many random sums two may be too close for float32.
    case=st.sampled_from([case for case in CASES if case[0][2] <= 100]),
    photos=st.integers(1, 3),
    height=st.integers(1, 24),
    padding=st.sampled_from(["valid", "same"]),
)
@settings(deadline=None, max_examples=50, derandomize=True)
def test_any_number_of_photos_and_rows_agrees_with_the_reference(
    case: Any, photos: int, height: int, padding: str
) -> None:
    """With the code of the cases above, so that nothing is compiled for it."""
    (_, _, width), maps, kernel, pool, own_padding, activation = case
    least = kernel[0] + pool - 1 if padding == "valid" else pool
    if padding != own_padding:  # a row of the same tiles
        width += (kernel[1] - 1) * (1 if padding == "valid" else -1)
    open_device("cpu")
    # What cancels out to nearly nothing, as a bias' gradient may, is held against 1.
    check_all(cpu, (photos, max(height, least), width), maps, kernel, pool, padding, activation, least_scale=1)


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
    kernel: Any, maps: Any, size: Any, pool: int, padding: str, activation: Any
) -> None:
    # Enlarge the photo to what the kernel and the pool need, rather than throw the example away.
    least = [k + pool - 1 if padding == "valid" else pool for k in kernel]
    size = (size[0], max(size[1], least[0]), max(size[2], least[1]))
    open_device("cpu")
    check_all(cpu, size, maps, kernel, pool, padding, activation)


def test_the_first_of_equal_sums_wins(backend: Any) -> None:
    x, weight, bias = integers(3, 14, 13, 1, low=0, high=2), integers(16, 3, 3, 1, low=-1, high=2), np.zeros(16)
    shape, above = shapes((3, 14, 13), (1, 16), (3, 3), 2, "same")
    arguments = (Out(shape), Out(shape, np.uint8), x, weight, bias, above, "leaky_relu", 0.1, 2)
    check(backend, "conv_forward", *arguments)
    _, argmax = call(backend, "conv_forward", *arguments[:3], 0 * weight, *arguments[4:])
    assert not argmax.any()


@pytest.mark.parametrize(("width", "maps"), [(13, 16), (80, 8)])
@pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
def test_nan_comes_through(backend: Any, activation: Any, width: int, maps: int) -> None:
    x, weight, bias = random(2, 12, width, 1), random(maps, 3, 3, 1), random(maps)
    x[1, 5, 6] = np.nan
    shape, above = shapes((2, 12, width), (1, maps), (3, 3), 2, "same")
    out = call(backend, "conv_forward", Out(shape), Out(shape, np.uint8), x, weight, bias, above, activation, 0.1, 2)[0]
    touched = np.zeros(shape, bool)
    touched[1, 2:4, 2:4] = True
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
    size = (2, 20, width)
    shape, above = shapes(size, (3, 8), (5, 5), 2, "valid")
    x = random(*size, 3)
    x[0, 6, 8, 0] = x[1, 5, 7, 0] = np.nan  # in the first places of some windows only, and in the last of others
    block = (random(8, 5, 5, 3), random(8), above, "leaky_relu", 0.1, 2)
    out, _ = call(cpu, "conv_forward", Out(shape), Out(shape, np.uint8), x, *block)
    touched = np.zeros(shape, bool)
    touched[0, 1:4, 2:5] = touched[1, 0:3, 1:4] = True
    np.testing.assert_array_equal(np.isnan(out), touched)


# (photos, rows, columns), (maps, kernels), kernel, padding: on the CPU such rows are cut into tiles of 4 outputs.
TILED = and_slow(
    [
        ((3, 12, 64), (1, 8), (5, 5), "valid"),
        ((3, 8, 26), (8, 20), (3, 3), "same"),
    ],
    [((3, 12, 301), (3, 20), (5, 5), "valid"), ((3, 9, 131), (4, 24), (3, 3), "same")],
)


@pytest.mark.parametrize(("size", "maps", "kernel", "padding"), TILED, ids=str)
def test_in_tiles_the_largest_sum_wins_but_for_rounding(
    backend: Any, size: Any, maps: Any, kernel: Any, padding: str
) -> None:
    shape, above = shapes(size, maps, kernel, 2, padding)
    x, weight = integers(*size, maps[0], low=0, high=2), integers(maps[1], *kernel, maps[0], low=-1, high=2)
    arguments = (Out(shape), Out(shape, np.uint8), x, weight, np.zeros(maps[1]), above, "leaky_relu", 0.1, 2)
    out, won = call(backend, "conv_forward", *arguments)
    every, _ = call(
        reference, "conv_forward", Out((shape[0], 2 * shape[1], 2 * shape[2], shape[3])), Out((0,), np.uint8),
        *arguments[2:-1], 1, dtype=np.float64,
    )  # fmt: skip
    windows = every.reshape(shape[0], shape[1], 2, shape[2], 2, shape[3]).transpose(0, 1, 3, 5, 2, 4).reshape(*shape, 4)
    np.testing.assert_allclose(out, windows.max(axis=-1), atol=1e-4)
    np.testing.assert_allclose(np.take_along_axis(windows, won[..., None].astype(int), -1)[..., 0], out, atol=1e-4)
    _, won = call(backend, "conv_forward", *arguments[:3], 0 * weight, *arguments[4:])
    assert not won.any()


@pytest.mark.parametrize(("size", "maps", "kernel", "padding"), TILED, ids=str)
def test_in_tiles_nan_comes_through_and_stays_in_its_tiles(
    backend: Any, size: Any, maps: Any, kernel: Any, padding: str
) -> None:
    shape, above = shapes(size, maps, kernel, 2, padding)
    x, weight, bias = random(*size, maps[0]), random(maps[1], *kernel, maps[0]), random(maps[1])
    block = (weight, bias, above, "leaky_relu", 0.1, 2)
    before = call(backend, "conv_forward", Out(shape), Out(shape, np.uint8), x, *block)
    x[0], x[2], x[1, 5, 9, 0] = np.nan, np.nan, np.nan
    out, won = call(backend, "conv_forward", Out(shape), Out(shape, np.uint8), x, *block)
    wanted = call(reference, "conv_forward", Out(shape), Out(shape, np.uint8), x, *block, dtype=np.float64)[0]
    assert np.isnan(out[np.isnan(wanted)]).all()
    touched = np.isnan(wanted[1]).any(axis=-1)
    rows, columns = touched.any(axis=1), touched.any(axis=0)
    nearby = np.convolve(columns, np.ones(3), "same") > 0  # a tile's outputs are two windows
    untouched = ~(rows[:, None] & nearby[None, :])
    assert untouched.any()
    np.testing.assert_array_equal(out[1][untouched], before[0][1][untouched])
    np.testing.assert_array_equal(won[1][untouched], before[1][1][untouched])


@pytest.mark.parametrize(
    ("size", "maps", "kernel", "padding"), [*TILED, ((2, 7, 13), (1, 16), (3, 3), "same")], ids=str
)
def test_without_places_the_numbers_are_the_same(backend: Any, size: Any, maps: Any, kernel: Any, padding: str) -> None:
    """An empty argmax stands for places that nobody asks for."""
    shape, above = shapes(size, maps, kernel, 2, padding)
    x, weight, bias = random(*size, maps[0]), random(maps[1], *kernel, maps[0]), random(maps[1])
    for column in range(0, 9, 2):  # in each place of a window once
        x[1, 3 + column % 4 // 2, column, 0] = np.nan
    block = (x, weight, bias, above, "leaky_relu", 0.1, 2)
    out, _ = call(backend, "conv_forward", Out(shape), Out(shape, np.uint8), *block)
    alone, _ = call(backend, "conv_forward", Out(shape), Out((0, *shape[1:]), np.uint8), *block)
    assert np.isnan(out).any()
    np.testing.assert_array_equal(alone, out)


def test_one_workspace_serves_many_shapes(backend: Any) -> None:
    workspace = backend.Workspace()
    for size in [(2, 12, 13), (5, 6, 5), (1, 30, 49), (2, 12, 13)]:
        shape, above = shapes(size, (1, 16), (3, 3), 2, "same")
        arguments = (Out(shape), Out(shape, np.uint8), random(*size, 1), random(16, 3, 3, 1), random(16), above)
        shared = call(backend, "conv_forward", *arguments, "leaky_relu", 0.1, 2, workspace=workspace)
        fresh = call(backend, "conv_forward", *arguments, "leaky_relu", 0.1, 2)
        for one, other in zip(shared, fresh, strict=True):
            np.testing.assert_array_equal(one, other)


def test_the_second_call_allocates_nothing_on_the_cpu() -> None:
    shape, above = shapes((4, 64, 96), (1, 16), (3, 3), 2, "same")
    x, weight, bias = (
        cpu.to_device(a.astype(np.float32)) for a in (random(4, 64, 96, 1), random(16, 3, 3, 1), random(16))
    )
    out, dout, dx, dweight = (cpu.empty(s, np.float32) for s in (shape, shape, x.shape, weight.shape))
    argmax, dbias, workspace = cpu.empty(shape, np.uint8), cpu.empty((16,), np.float32), cpu.Workspace()
    block = (above, "leaky_relu", 0.1, 2, workspace)

    def step() -> None:
        cpu.conv_forward(out, argmax, x, weight, bias, *block)
        cpu.conv_backward_weight(dweight, dbias, dout, out, argmax, x, *block)
        cpu.conv_backward_input(dx, dout, out, argmax, weight, *block)

    step()
    tracemalloc.start()
    try:
        step()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 32 * 1024  # views and arguments, but nothing of a photo's size (96 KiB)
