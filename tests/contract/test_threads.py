"""Results of the cpu kernels don't depend on the number of threads, down to the last bit."""

from collections.abc import Iterator

import pytest

from contract.cases import cases_of
from contract.harness import call, parameters
from facecnn.kernels import available_threads, cpu
from facecnn.kernels.cases import Case


@pytest.fixture(autouse=True)
def _all_threads_afterwards() -> Iterator[None]:
    yield
    cpu.set_threads(available_threads())


@pytest.mark.parametrize("case", parameters(cases_of(sizes=["large"])))
def test_the_same_bits_for_any_number_of_threads(case: Case) -> None:
    if available_threads() < 2:
        pytest.skip("this process may use one processor only")
    outputs = []
    for threads in (1, 2, available_threads()):
        cpu.set_threads(threads)
        outputs.append([array.tobytes() for array in call(cpu, case.kernel, *case.arguments)])
    assert outputs[0] == outputs[1] == outputs[2]
