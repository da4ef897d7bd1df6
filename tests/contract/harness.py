"""Runs one kernel on a backend with guards around its arrays, and holds it against the reference in float64."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from facecnn.arrays import Array
from facecnn.kernels import cpu, reference
from facecnn.kernels.cards import find_cuda
from facecnn.kernels.cases import LEAST_SCALE, TOLERANCE, Case, nonsense, placed

_CUDA = find_cuda(0)
BACKENDS = ["reference", "cpu", *(["cuda"] if _CUDA.available and not _CUDA.simulated else [])]
"""Every backend; a card's where there is one."""

GUARD = 64
"""Elements before and after each array that nothing may write to (a multiple of 64 bytes in every dtype)."""


class UsedWorkspace(cpu.Workspace):
    """Scratch memory with what other layers left there: it shows where a kernel forgets to clear it."""

    def array(self, purpose: str, shape: tuple[int, ...], dtype: Any = np.float32) -> Array:
        array = super().array(purpose, shape, dtype)
        array.fill(1e9 if np.dtype(dtype).kind == "f" else 171)  # finite: kernels may multiply it by 0
        return array


class _Guards:
    """Places arrays on a device between elements that show in the result where they are used."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self._placed: list[tuple[Any, Array, bool]] = []

    def place(self, array: Array, written: bool) -> Any:
        whole = np.full(array.size + 2 * GUARD, nonsense(array.dtype), array.dtype)
        whole[GUARD : GUARD + array.size] = array.reshape(-1)
        buffer = self._backend.to_device(whole)
        self._placed.append((buffer, whole, written))
        return buffer[GUARD : GUARD + array.size].reshape(array.shape)

    def check(self, kernel: str) -> None:
        """Only outputs have changed, and nothing around them."""
        for buffer, before, written in self._placed:
            after = self._backend.to_host(buffer)
            if not written:
                assert after.tobytes() == before.tobytes(), f"{kernel} changed an input"
            around, untouched = (np.concatenate([whole[:GUARD], whole[-GUARD:]]) for whole in (after, before))
            np.testing.assert_array_equal(around, untouched, f"{kernel} wrote outside of an output")


def call(
    backend: Any, kernel: str, *arguments: Any, dtype: npt.DTypeLike = np.float32, workspace: Any = None
) -> list[Array]:
    """The outputs of ``backend.kernel(*arguments, workspace)`` as host arrays; floating arguments become ``dtype``.

    Fails where something was written outside of an output, or an input was changed.
    """
    guards = _Guards(backend)
    on_device, outputs = placed(arguments, dtype, guards.place)
    if workspace is None:
        workspace = UsedWorkspace() if backend is cpu else backend.Workspace()
    getattr(backend, kernel)(*on_device, workspace)
    backend.synchronise()
    guards.check(kernel)
    return [backend.to_host(output) for output in outputs]


def check(
    backend: Any, kernel: str, *arguments: Any, tolerance: float = TOLERANCE, least_scale: float = LEAST_SCALE
) -> list[Array]:
    """The backend's outputs equal those of the reference in float64: indices exactly, numbers to ``tolerance`` of the
    largest (or of ``least_scale``), NaN where the reference has NaN. Returns the reference's."""
    expected = call(reference, kernel, *arguments, dtype=np.float64)
    for got, wanted in zip(call(backend, kernel, *arguments), expected, strict=True):
        close(got, wanted, tolerance, kernel, least_scale)
    return expected


EXCEPTIONS = {
    # Only a card's kernels keep the digits.
    "batch_norm_forward, 40 x 2 around 3000, momentum 0.25": ("reference", "cpu"),
    "softmax_cross_entropy, small loss": ("reference", "cpu"),
    # Of several NaNs in a window the CPU takes the last, the others the first.
    "pool_forward, max, not a number": ("cpu",),
}
"""Cases in which backends are known to differ from the reference in float64."""


def check_case(backend: Any, case: Case) -> None:
    """A case of the table gives what the reference gives."""
    check(backend, case.kernel, *case.arguments, tolerance=case.tolerance, least_scale=case.least_scale)


def close(got: Array, wanted: Array, tolerance: float, kernel: str, least_scale: float) -> None:
    assert got.shape == wanted.shape
    if got.dtype.kind != "f":
        np.testing.assert_array_equal(got, wanted, kernel)
        return
    assert got.dtype == np.float32
    scale = float(np.nanmax(np.abs(wanted), initial=least_scale))
    np.testing.assert_allclose(got, wanted, rtol=0, atol=tolerance * scale, err_msg=kernel)


def parameters(cases: Iterable[Case]) -> list[Any]:
    """For ``pytest.mark.parametrize``; those that are compiled for themselves are slow."""
    return [pytest.param(case, id=str(case), marks=_marks(case)) for case in cases]


def on_each_backend(cases: Iterable[Case]) -> pytest.MarkDecorator:
    """Parametrize a test by ``backend`` and ``case``."""
    pairs = [
        pytest.param(backend, case, id=f"{backend}-{case}", marks=_marks(case))
        for case in cases
        for backend in BACKENDS
        if _runs_on(backend, case)
    ]
    return pytest.mark.parametrize(("backend", "case"), pairs, indirect=["backend"])


def _runs_on(backend: str, case: Case) -> bool:
    if backend in EXCEPTIONS.get(str(case), ()):
        return False
    # The CPU is tested with settings of its own, since each costs seconds.
    return not (backend == "cpu" and case.own_code and case.size == "tiny")


def _marks(case: Case) -> list[pytest.MarkDecorator]:
    return [pytest.mark.slow] if case.own_code else []
