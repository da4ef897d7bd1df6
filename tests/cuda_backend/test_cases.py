"""Every CUDA kernel with each of its options and edges, held against the reference, in poisoned memory.

Around every array, inputs too, lies memory that is NaN (or 171): it must be untouched, and what is read from there
shows in the result. In the simulator an index below 0 or beyond an array's end is an error by itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from contract.harness import Out, call, check
from contract.test_protocol import FUNCTIONS
from cuda_backend import cases_conv, cases_elementwise, cases_layers, cases_photos, cases_training
from facecnn.kernels import cuda, reference
from facecnn.kernels.protocol import AUGMENTATION

pytestmark = pytest.mark.cuda

CASES: dict[str, tuple[Any, ...]] = {
    **cases_conv.CASES,
    **cases_elementwise.CASES,
    **cases_layers.CASES,
    **cases_photos.CASES,
    **cases_training.CASES,
}
"""By "function, what is special about it": the arguments for ``check``."""

NOT_KERNELS = {
    "copy_to_device", "empty", "hold_up", "mark", "milliseconds", "record", "resident", "synchronise", "to_device",
    "to_host",
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_kernel_gives_what_the_reference_gives(name: str) -> None:
    check(cuda, name.split(",")[0], *CASES[name])


def test_there_is_a_case_for_every_kernel() -> None:
    assert {name.split(",")[0] for name in CASES} == set(FUNCTIONS) - NOT_KERNELS


def test_random_parameters_are_equal_to_the_bit() -> None:
    photos = np.arange(100, dtype=np.int32)
    for ranges in (cases_photos.RANGES, cases_photos.NOTHING):
        arguments = (Out((100, len(AUGMENTATION)), np.float32), photos, cases_photos.EPOCH, 3, *ranges)
        wanted, got = (call(backend, "draw_augmentation", *arguments)[0] for backend in (reference, cuda))
        np.testing.assert_array_equal(got.view(np.uint32), wanted.view(np.uint32))
