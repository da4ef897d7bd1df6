"""Every CUDA kernel with each of its options and edges, held against the reference, in poisoned memory.

Around every array, inputs too, lies memory that is NaN (or 171): it must be untouched, and what is read from there
shows in the result. In the simulator an index below 0 or beyond an array's end is an error by itself.
"""

from __future__ import annotations

import numpy as np
import pytest

from contract.cases import cases_of
from contract.harness import call, check_case
from facecnn.kernels import cuda, reference
from facecnn.kernels.cases import Case

pytestmark = pytest.mark.cuda

TINY = cases_of(sizes=["tiny"])


@pytest.mark.parametrize("case", TINY, ids=str)
def test_a_kernel_gives_what_the_reference_gives(case: Case) -> None:
    check_case(cuda, case)


@pytest.mark.parametrize(
    "case", [case for case in TINY if case.kernel == "draw_augmentation" and "hundred" in case.name], ids=str
)
def test_random_parameters_are_equal_to_the_bit(case: Case) -> None:
    wanted, got = (call(backend, case.kernel, *case.arguments)[0] for backend in (reference, cuda))
    np.testing.assert_array_equal(got.view(np.uint32), wanted.view(np.uint32))
