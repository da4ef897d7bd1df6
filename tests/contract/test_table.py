"""What holds for the table of cases as a whole."""

from typing import get_args

from contract.cases import TABLE, cases_of
from facecnn.kernels import formulas
from facecnn.kernels.protocol import Activation
from facecnn.kernels.self_test import kernel_names


def test_there_is_a_tiny_case_for_every_kernel() -> None:
    """For the simulator, and so for the compiler and its assembler."""
    assert {case.kernel for case in cases_of(sizes=["tiny"])} == set(kernel_names()) == {case.kernel for case in TABLE}


def test_no_two_cases_have_a_name_in_common() -> None:
    assert len({str(case) for case in TABLE}) == len(TABLE)


def test_each_activation_and_each_optimizer_has_tiny_cases() -> None:
    tiny = cases_of("activation_forward", "activation_backward", sizes=["tiny"])
    named = {(case.kernel, argument) for case in tiny for argument in case.arguments if isinstance(argument, str)}
    assert named == {(case.kernel, activation) for case in tiny for activation in get_args(Activation)}
    rules = {case.arguments[5] for case in cases_of("optimizer_update", sizes=["tiny"])}
    assert rules == set(formulas.OPTIMIZERS)
