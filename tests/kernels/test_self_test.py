"""The self-test of kernels: it passes on sound backends, and names what is broken on others."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from contract.test_protocol import FUNCTIONS
from facecnn.kernels import open_device, reference
from facecnn.kernels.cards import find_cuda
from facecnn.kernels.self_test import check_kernels, kernel_names

ABOUT_MEMORY_AND_TIME = {
    "copy_to_device", "empty", "hold_up", "mark", "milliseconds", "on_host", "record", "resident", "synchronise",
    "to_device", "to_host",
}  # fmt: skip


def backend(**broken: Any) -> Any:
    """The reference with some functions replaced."""
    return SimpleNamespace(**{**vars(reference), **broken})


def failures(backend: Any) -> dict[str, Any]:
    return {result.kernel: result for result in check_kernels(backend) if not result.passed}


def test_every_kernel_is_tested() -> None:
    tested = [result.kernel for result in check_kernels(reference)]
    assert tested == kernel_names()
    assert sorted(tested) == sorted(set(FUNCTIONS) - ABOUT_MEMORY_AND_TIME)


@pytest.mark.parametrize(
    "device",
    [
        "reference",
        pytest.param("cpu", marks=pytest.mark.slow),
        pytest.param("cuda", marks=pytest.mark.cuda),
    ],
)
def test_a_sound_backend_passes(device: str) -> None:
    if device == "cuda":
        found = find_cuda()
        if not found.available and not found.simulated:
            pytest.skip(f"no card to run on: {found.reason}")
    assert failures(open_device(device).backend) == {}


def test_progress_is_told() -> None:
    told: list[tuple[int, int]] = []
    check_kernels(reference, lambda done, total: told.append((done, total)))
    count = len(kernel_names())
    assert told == [(done, count) for done in range(1, count + 1)]


@pytest.mark.parametrize("name", kernel_names())
def test_a_kernel_that_does_nothing_is_found(name: str) -> None:
    assert list(failures(backend(**{name: lambda *arguments: None}))) == [name]


@pytest.mark.parametrize("name", kernel_names())
def test_a_kernel_that_spoils_one_element_is_found(name: str) -> None:
    def spoilt(*arguments: Any) -> None:
        getattr(reference, name)(*arguments)
        first = arguments[0].reshape(-1)
        first[-1] = first[-1] + (0.01 * np.abs(first).max() if first.dtype.kind == "f" else 1)

    (result,) = failures(backend(**{name: spoilt})).values()
    assert result.kernel == name
    if result.error is None:
        assert result.tolerance < result.worst < 0.1


@pytest.mark.parametrize(("part", "passes"), [(3e-6, True), (3e-5, False)])
def test_numbers_may_be_a_hundred_thousandth_of_the_largest_off(part: float, passes: bool) -> None:
    def rounded(*arguments: Any) -> None:
        reference.dense_forward(*arguments)
        arguments[0][0, 0] += part * np.abs(arguments[0]).max()

    assert list(failures(backend(dense_forward=rounded))) == ([] if passes else ["dense_forward"])


@pytest.mark.parametrize(("name", "output"), [("conv_forward", 1), ("pool_forward", 1), ("random_words", 0)])
def test_integers_must_be_equal(name: str, output: int) -> None:
    def off_by_one(*arguments: Any) -> None:
        getattr(reference, name)(*arguments)
        arguments[output].reshape(-1)[0] += 1

    (result,) = failures(backend(**{name: off_by_one})).values()
    assert (result.kernel, result.worst is not None) == (name, True)
    assert "integers" in result.error


def test_a_kernel_that_fails_does_not_hide_what_the_others_do() -> None:
    def fails(*arguments: Any) -> None:
        raise RuntimeError("an illegal memory access was encountered")

    found = failures(backend(dense_forward=fails, one_hot=lambda *arguments: None))
    assert list(found) == ["dense_forward", "one_hot"]
    assert found["dense_forward"].error == "RuntimeError: an illegal memory access was encountered"
    assert found["dense_forward"].worst is None
