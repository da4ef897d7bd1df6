"""facecnn.kernels.cpu.vector_ir.emit: each operation does to a vector what NumPy does to an array."""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facecnn.arrays import Array
from facecnn.kernels.cpu.vector_ir.emit import Emitter, Pointer, emitted

Write = Callable[[Emitter, Any, Any, Any], None]

UNTOUCHED = -77.0


def run(
    write: Write, numbers: Any, size: int, turns: int = 0, dtype: npt.DTypeLike = np.float32, kind: Any = np.float32
) -> Array:
    """What ``write(emitter, out, x, turns)`` left in an output of ``size`` numbers, given pointers to it and to x,
    which has numbers of that kind."""

    def emit(e: Emitter, out: Pointer, x: Pointer, turns: Any) -> None:
        write(e, out, x, turns)

    operation = emitted(lambda: emit)()

    @numba.njit
    def call(out: Array, x: Array, turns: int) -> None:
        operation(out, 0, x, 0, turns)

    out = np.full(size, 99 if dtype is np.uint8 else UNTOUCHED, dtype)
    call(out, np.asarray(numbers, kind), turns)
    return out


X = np.arange(1, 33, dtype=np.float32)


@pytest.mark.parametrize("lanes", [4, 8, 16])
@pytest.mark.parametrize("count", [None, 1, 3, 4])
def test_a_count_bounds_what_is_read_and_written(lanes: int, count: int | None) -> None:
    def write(e: Emitter, out: Any, x: Any, _: Any) -> None:
        e.store(e.load(x, 2, lanes, count), out, 0)
        e.store(e.load(x, 2, lanes), out, 16, count)

    out = run(write, X, 32)
    read = lanes if count is None else count
    np.testing.assert_array_equal(out[:lanes], [*X[2 : 2 + read], *[0] * (lanes - read)])
    np.testing.assert_array_equal(out[16 : 16 + read], X[2 : 2 + read])
    assert (out[16 + read :] == UNTOUCHED).all()


@given(numbers=st.lists(st.floats(-1e6, 1e6, width=32), min_size=24, max_size=24))
@settings(deadline=None, max_examples=3, derandomize=True)
def test_arithmetic(numbers: list[float]) -> None:
    def write(e: Emitter, out: Any, x: Any, _: Any) -> None:
        a, b, c = (e.load(x, start, 8) for start in (0, 8, 16))
        e.store(e.multiply_add(a, b, c), out, 0)
        e.store(e.fadd(a, b), out, 8)
        e.store(e.add_pairs(a, b), out, 16)
        e.store(e.shuffle(a, [3, 3, 0, 1]), out, 24)
        e.store(e.shuffle(a, [7, 8, 15, 0], b), out, 28)
        e.store(e.broadcast(e.scalar(x, 5), 4), out, 32)
        e.store(e.constant(2.5, 4), out, 36)
        e.store(e.fsub(a, b), out, 40)
        e.store(e.fmul(a, b), out, 48)

    values = np.asarray(numbers, np.float32)
    a, b, c = values.reshape(3, 8)
    out = run(write, values, 56)
    once = (a.astype(np.float64) * b + c).astype(np.float32)
    np.testing.assert_array_equal(out[:8], once)
    np.testing.assert_array_equal(out[8:16], a + b)
    np.testing.assert_array_equal(out[16:24], np.concatenate([a, b])[::2] + np.concatenate([a, b])[1::2])
    np.testing.assert_array_equal(out[24:28], a[[3, 3, 0, 1]])
    np.testing.assert_array_equal(out[28:32], [a[7], b[0], b[7], a[0]])
    np.testing.assert_array_equal(out[32:40], [*[a[5]] * 4, *[2.5] * 4])
    np.testing.assert_array_equal(out[40:48], a - b)
    np.testing.assert_array_equal(out[48:], a * b)


def test_equal_numbers_and_what_is_fetched_ahead() -> None:
    def write(e: Emitter, out: Any, x: Any, _: Any) -> None:
        e.prefetch(x, 1_000_000_000)  # outside of any array it is not done, and no error
        e.prefetch(out, 8, to_write=True)
        a, b = e.load(x, 0, 4), e.load(x, 4, 4)
        e.store(e.select(e.fcmp_ordered("==", a, b), a, e.constant(9.0, 4)), out, 0)

    out = run(write, [1, 2, np.nan, 0, 1, 3, np.nan, -0.0], 16)
    np.testing.assert_array_equal(out[:4], [1, 9, 9, 0])
    assert (out[4:] == UNTOUCHED).all()


@pytest.mark.parametrize("places", [[0, 1, 2, 3], [11, 10, 9, 8], [0, 4, 8, 3], [8, 0, 1, 11], [2, 5, 12, 99]])
def test_places_of_several_vectors(places: list[int]) -> None:
    def write(e: Emitter, out: Any, x: Any, _: Any) -> None:
        e.store(e.gather([e.load(x, 4 * v, 4) for v in range(3)], places), out, 0)

    np.testing.assert_array_equal(run(write, X, 4), X[[min(place, 11) for place in places]])


def test_sums_in_float64() -> None:
    def write(e: Emitter, out: Any, x: Any, _: Any) -> None:
        total = e.no_doubles(8)
        for place in (0, 8):
            total = e.fadd(total, e.to_doubles(e.load(x, place, 8)))
        e.store(total, out, 0)

    out = run(write, [1] * 8 + [1e-10] * 8, 8, dtype=np.float64)
    np.testing.assert_array_equal(out, 1 + np.float64(np.float32(1e-10)))


@pytest.mark.parametrize("count", [8, 9, 15, 16, 17, 31])
def test_vectors_that_cover_a_count(count: int) -> None:
    def write(e: Emitter, out: Any, x: Any, count: Any) -> None:
        e.cover(count, 8, lambda first: e.store(e.load(e.moved(x, first), 0, 8), e.moved(out, first), 0))

    out = run(write, X, 32, turns=count)
    np.testing.assert_array_equal(out, [*X[:count], *[UNTOUCHED] * (32 - count)])


def test_bytes_become_floats() -> None:
    pixels = [*range(0, 250, 12), 255, 128, 127]
    out = run(lambda e, out, x, _: e.store(e.load(x, 3, 16), out, 0), pixels, 16, kind=np.uint8)
    np.testing.assert_array_equal(out, pixels[3:19])


def test_the_largest_and_its_place() -> None:
    nan = np.nan
    a, b = [1, 2, nan, 1, nan, -0.0, np.inf, 5], [1, 1, 1, nan, nan, 0.0, 1, 6]

    def largest(e: Emitter, out: Any, x: Any, _: Any) -> None:
        first, second = e.load(x, 0, 8), e.load(x, 8, 8)
        e.store(e.select(e.larger_or_nan(first, second), first, second), out, 0)

    np.testing.assert_array_equal(run(largest, [*a, *b], 8), [1, 2, nan, nan, nan, 0, np.inf, 6])

    def places(e: Emitter, out: Any, x: Any, _: Any) -> None:
        first, second = e.load(x, 0, 8), e.load(x, 8, 8)
        chosen = e.select(e.larger_or_nan(first, second), e.integers(200, 8), e.integers(3, 8))
        e.store(e.to_bytes(chosen), out, 0, 6)

    np.testing.assert_array_equal(run(places, [*a, *b], 8, dtype=np.uint8), [3, 200, 200, 3, 200, 3, 99, 99])


@given(st.integers(1, 9), st.integers(0, 2**32 - 1))
@settings(deadline=None, derandomize=True, max_examples=20)
def test_the_largest_of_several_vectors(count: int, seed: int) -> None:
    numbers = np.random.default_rng(seed).choice([-np.inf, -1, -0.5, 0, 2, 3, np.inf, np.nan], (count, 8))

    def largest(e: Emitter, out: Any, x: Any, _: Any) -> None:
        e.store(e.largest([e.load(x, 8 * number, 8) for number in range(count)]), out, 0)

    np.testing.assert_array_equal(run(largest, numbers.ravel(), 8), numbers.max(axis=0))


@pytest.mark.parametrize("turns", [0, 1, 5])
def test_a_loop_carries_its_values(turns: int) -> None:
    def write(e: Emitter, out: Any, x: Any, turns: Any) -> None:
        def body(i: Any, carried: list[Any]) -> list[Any]:
            total, _ = carried
            here = e.load(e.moved(x, i), 0, 4)
            e.keep_apart()
            return [e.fadd(total, here), here]

        total, last = e.loop(turns, 1, [e.constant(10, 4), e.constant(0, 4)], body)
        e.store(total, out, 0)
        e.store(last, out, 4)

    out = run(write, X, 8, turns)
    np.testing.assert_array_equal(out[:4], 10 + sum((X[i : i + 4] for i in range(turns)), np.zeros(4)))
    np.testing.assert_array_equal(out[4:], X[turns - 1 : turns + 3] if turns else 0)


def test_loops_in_loops_with_a_start_and_a_step() -> None:
    def write(e: Emitter, out: Any, x: Any, turns: Any) -> None:
        def outer(first: Any, carried: list[Any]) -> list[Any]:
            return e.loop(
                turns, 3, carried, lambda i, inner: [e.fadd(inner[0], e.load(e.moved(x, i), 0, 4))], start=first
            )

        e.store(e.loop(2, 1, [e.constant(0, 4)], outer)[0], out, 0)

    visited = [*range(0, 10, 3), *range(1, 10, 3)]
    np.testing.assert_array_equal(run(write, X, 4, 10), sum(X[i : i + 4] for i in visited))


def test_signed_integers_count() -> None:
    def emit(e: Emitter, out: Pointer, x: Pointer, places: Pointer) -> None:
        e.store(e.load(e.moved(e.moved(x, 8), e.as_index(e.scalar(places, 1))), 0, 4), out, 0)

    shifted = emitted(lambda: emit)()

    @numba.njit
    def call(out: Array, x: Array, places: Array) -> None:
        shifted(out, 0, x, 0, places, 0)

    out = np.zeros(4, np.float32)
    call(out, X, np.array([5, -3], np.int32))
    np.testing.assert_array_equal(out, X[5:9])
