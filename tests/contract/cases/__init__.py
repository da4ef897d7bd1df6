"""The table of kernel cases: all that any backend, simulator or other library is tested with.

Who draws from it:
    tests/contract: every case on every backend; those with ``own_code`` are slow, and if tiny not run on the CPU.
    tests/contract/test_threads.py: the large ones, on the CPU.
    tests/cuda_backend: the tiny ones, in the simulator with its race check, on a card, and through the compiler.
    tests/kernels/test_parity_torch.py: those that are no larger, and that PyTorch has an operation for.
The cases of ``facecnn doctor``, in facecnn/kernels/cases.py, are in the table as well.
"""

from __future__ import annotations

from collections.abc import Collection
from types import ModuleType
from typing import get_args

from contract.cases import conv, elementwise, layers, photos, pool, residual, strided, training
from facecnn.kernels.cases import Case, Size, self_test_cases

TABLE: list[Case] = [
    *conv.CASES,
    *strided.CASES,
    *elementwise.CASES,
    *pool.CASES,
    *residual.CASES,
    *layers.CASES,
    *training.CASES,
    *photos.CASES,
    *self_test_cases(),
]


def cases_of(*kernels: str, sizes: Collection[Size] = get_args(Size)) -> list[Case]:
    """The table's cases of these kernels, or of all, of these size classes."""
    return [case for case in TABLE if case.size in sizes and (not kernels or case.kernel in kernels)]


def family(*modules: ModuleType) -> list[Case]:
    """The table's cases of the kernels that these modules have cases of."""
    return cases_of(*{case.kernel for module in modules for case in module.CASES})
