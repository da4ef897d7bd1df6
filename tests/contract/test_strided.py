"""strided_conv_forward, strided_conv_backward_weight and strided_conv_backward_input, on every backend."""

import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.cases import conv, family, strided
from contract.cases.numbers import random
from contract.cases.strided import KERNELS, SLOPE, Strided
from contract.harness import call, check, check_case, on_each_backend
from facecnn.kernels import cpu, open_device, reference
from facecnn.kernels.cases import Case, Out
from facecnn.kernels.cpu.vector_ir import lanes as vectors

RELU, PADDED, WIDE = strided.USUAL[:3]
"""Settings whose code the table's cases have compiled."""


def check_all(backend: Any, convolution: Strided, **scale: float) -> None:
    for kernel in KERNELS:
        check(backend, kernel, *convolution.arguments(kernel), **scale)


@on_each_backend(family(strided))
def test_agrees_with_the_reference(backend: Any, case: Case) -> None:
    check_case(backend, case)


@pytest.mark.parametrize(
    "convolution", [RELU, *(pytest.param(one, marks=pytest.mark.slow) for one in (PADDED, WIDE))], ids=str
)
@pytest.mark.parametrize("lanes", [*(pytest.param(lanes, marks=pytest.mark.slow) for lanes in (16, 8, 4)), 0])
def test_other_vectors_agree_with_the_reference(
    monkeypatch: pytest.MonkeyPatch, lanes: int, convolution: Strided
) -> None:
    """As on processors with other vectors, and on those with none that the micro-kernels are written for."""
    if lanes > 0 and vectors.of_processor() == 0:
        pytest.skip("the processor has no vectors")
    monkeypatch.setattr(vectors, "of_processor", lambda: lanes)
    open_device("cpu")
    check_all(cpu, convolution)


@given(
    convolution=st.sampled_from([RELU, PADDED, WIDE]), photos=st.integers(4, 9), height=st.integers(5, 20),
    below=st.integers(0, 3),
)  # fmt: skip
@settings(deadline=None, max_examples=40, derandomize=True)
def test_any_number_of_photos_and_rows_agrees_with_the_reference(
    convolution: Strided, photos: int, height: int, below: int
) -> None:
    """With the code of the cases above. ``below``: rows at the bottom that no window reaches."""
    open_device("cpu")
    larger = replace(convolution, size=(photos, height, convolution.size[2]))
    if below < larger.stride[0]:
        larger = replace(larger, size=(photos, height + below, convolution.size[2]))
    check_all(cpu, larger, least_scale=1)


@pytest.mark.parametrize("convolution", [conv.USUAL[1], conv.WITH_PYTORCH[2]], ids=str)
def test_with_a_step_of_one_it_is_the_convolution_without_a_pool(backend: Any, convolution: conv.Conv) -> None:
    """Also where windows reach further below and to the right than above and to the left."""
    convolution = replace(convolution, pool=1)
    x, weight, bias, shape = convolution.x, convolution.weight, convolution.bias, convolution.shape
    above, activation = convolution.above, convolution.activation
    (wanted, _) = call(
        reference, "conv_forward", Out(shape), convolution.argmax, x, weight, bias, above, activation, SLOPE, 1,
        dtype=np.float64,
    )  # fmt: skip
    block = ((1, 1), above, activation, SLOPE)
    (found,) = call(backend, "strided_conv_forward", Out(shape), x, weight, bias, *block)
    np.testing.assert_allclose(found, wanted, atol=1e-5 * np.abs(wanted).max())


def test_it_has_every_other_output_of_a_convolution(backend: Any) -> None:
    x, weight, bias = RELU.x, RELU.weight, RELU.bias
    full = (2, 7, 6, 5)
    every, _ = call(
        reference, "conv_forward", Out(full), Out((0,), np.uint8), x, weight, bias, (0, 0), "relu", SLOPE, 1,
        dtype=np.float64,
    )  # fmt: skip
    (found,) = call(backend, "strided_conv_forward", Out(RELU.shape), x, weight, bias, *RELU.block)
    np.testing.assert_allclose(found, every[:, ::2, ::2], atol=1e-5 * np.abs(every).max())


@pytest.mark.parametrize("convolution", [RELU, PADDED, WIDE], ids=str)
def test_nan_comes_through_and_stays_in_its_windows(backend: Any, convolution: Strided) -> None:
    x = convolution.x
    at = (4, 5)
    x[1, *at, 0] = np.nan
    (out,) = call(
        backend, "strided_conv_forward", Out(convolution.shape), x, convolution.weight, convolution.bias,
        *convolution.block,
    )  # fmt: skip
    touched = np.zeros(convolution.shape, bool)
    for row in range(convolution.shape[1]):
        for column in range(convolution.shape[2]):
            taps = [
                place + above - step * p
                for place, above, step, p in zip(
                    at, convolution.padding, convolution.stride, (row, column), strict=True
                )
            ]
            touched[1, row, column] = all(0 <= t < size for t, size in zip(taps, convolution.kernel, strict=True))
    assert touched.any()
    np.testing.assert_array_equal(np.isnan(out), touched)


def test_a_photos_output_does_not_depend_on_its_batch() -> None:
    """Not so on the reference, where NumPy's BLAS chooses its way by the batch's size."""
    for convolution in (RELU, strided.USUAL[4]):
        x, weight, bias = convolution.x, convolution.weight, convolution.bias
        together = call(cpu, "strided_conv_forward", Out(convolution.shape), x, weight, bias, *convolution.block)[0]
        for n in range(len(x)):
            one = Out((1, *convolution.shape[1:]))
            alone = call(cpu, "strided_conv_forward", one, x[n : n + 1], weight, bias, *convolution.block)[0]
            np.testing.assert_array_equal(alone[0], together[n])


def test_recorded_it_still_follows_its_weights() -> None:
    """As in training: a step is recorded once, and played back while weights change."""
    open_device("cpu")
    x, bias, block = WIDE.x, WIDE.bias, WIDE.block
    pixels, weights, biases = (cpu.to_device(array.astype(np.float32)) for array in (x, WIDE.weight, bias))
    out, workspace = cpu.empty(WIDE.shape, np.float32), cpu.Workspace()
    run = cpu.record(lambda: cpu.strided_conv_forward(out, pixels, weights, biases, *block, workspace), workspace)
    for seed in range(4):
        new = random(*WIDE.weight.shape, seed=seed)
        cpu.copy_to_device(weights, new.astype(np.float32))
        run()
        (wanted,) = call(reference, "strided_conv_forward", Out(WIDE.shape), x, new, bias, *block, dtype=np.float64)
        np.testing.assert_allclose(out, wanted, atol=1e-5 * np.abs(wanted).max())


def test_the_second_call_allocates_nothing_on_the_cpu() -> None:
    convolution = replace(WIDE, size=(4, 64, 31))
    shape, block = convolution.shape, convolution.block
    x, weight, bias = (
        cpu.to_device(array.astype(np.float32)) for array in (convolution.x, convolution.weight, convolution.bias)
    )
    out, dout, dx, dweight = (cpu.empty(s, np.float32) for s in (shape, shape, x.shape, weight.shape))
    dbias, workspace = cpu.empty(bias.shape, np.float32), cpu.Workspace()

    def step() -> None:
        cpu.strided_conv_forward(out, x, weight, bias, *block, workspace)
        cpu.strided_conv_backward_weight(dweight, dbias, dout, out, x, *block, workspace)
        cpu.strided_conv_backward_input(dx, dout, out, weight, *block, workspace)

    step()
    tracemalloc.start()
    try:
        step()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16 * 1024  # views and arguments, but nothing of a photo's size (23 KiB)
