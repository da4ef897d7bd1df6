"""Every kernel once on a device, held against the reference in float64: does this machine compute what it should?

A faulty card, an overclocked processor or a broken compiler shows here, and not as a network that learns badly.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from facecnn.arrays import Array
from facecnn.kernels import reference
from facecnn.kernels.backend import Backend
from facecnn.kernels.cases import Case, placed, self_test_cases

_NOT_COMPUTING = {"record", "on_host", "mark", "hold_up"}


@dataclass(frozen=True)
class Result:
    """How one kernel did."""

    kernel: str
    passed: bool
    worst: float | None
    """The largest difference from the reference, in parts of the largest element; None where there is no number."""
    tolerance: float
    """What ``worst`` may be. Integers must be equal in any case."""
    error: str | None = None
    """What went wrong besides."""


def kernel_names() -> list[str]:
    """The functions of a backend that compute something, in the reference's order."""
    return [
        name
        for name, function in vars(reference).items()
        if inspect.isfunction(function)
        and function.__module__ == reference.__name__
        and not name.startswith("_")
        and name not in _NOT_COMPUTING
        and "workspace" in inspect.signature(function).parameters
    ]


def check_kernels(backend: Backend, progress: Callable[[int, int], None] = lambda done, total: None) -> list[Result]:
    """A result for each kernel. Whatever a kernel does, even if it fails, the test goes on."""
    cases, names = self_test_cases(), kernel_names()
    results = []
    for name in names:
        of_kernel = [_check(backend, case) for case in cases if case.kernel == name]
        results.append(min(of_kernel, key=lambda result: (result.passed, -(result.worst or 0))))
        progress(len(results), len(names))
    return results


def _check(backend: Backend, case: Case) -> Result:
    name = case.kernel
    wanted = _run(reference, case, np.float64)
    try:
        got = _run(backend, case, np.float32)
    except Exception as error:  # of the compiler or the driver: it is this kernel's result
        return Result(name, False, None, case.tolerance, f"{type(error).__name__}: {error}")
    worst, integers_differ = 0.0, False
    for result, expected in zip(got, wanted, strict=True):
        if result.dtype.kind == "f":
            scale = max(float(np.abs(expected).max()), case.least_scale)
            worst = float(np.maximum(worst, np.abs(result - expected).max() / scale))  # keeps NaN
        else:
            integers_differ |= not np.array_equal(result, expected)
    if not np.isfinite(worst):
        return Result(name, False, None, case.tolerance, "it gave something that is not a number")
    if integers_differ:
        return Result(name, False, worst, case.tolerance, "it gave other integers than the reference")
    return Result(name, worst <= case.tolerance, worst, case.tolerance)


def _run(backend: Backend, case: Case, dtype: npt.DTypeLike) -> list[Array]:
    """The outputs, as host arrays."""
    arguments, outputs = placed(case.arguments, dtype, lambda array, written: backend.to_device(array))
    getattr(backend, case.kernel)(*arguments, backend.Workspace())
    backend.synchronise()
    return [backend.to_host(output) for output in outputs]
