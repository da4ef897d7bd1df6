"""These tests run in Numba's simulator (NUMBA_ENABLE_CUDASIM=1 pytest -m cuda) or on a card."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from contract.harness import poison
from facecnn.kernels.cuda.driver import SIMULATED


class Guarded(np.ndarray):
    """An array in which an index below 0 is a mistake, as on a card, and no way to count from the end."""

    def __getitem__(self, index: Any) -> Any:
        _demand_no_negative(index)
        return super().__getitem__(index)

    def __setitem__(self, index: Any, value: Any) -> None:
        _demand_no_negative(index)
        super().__setitem__(index, value)


def _demand_no_negative(index: Any) -> None:
    for part in index if isinstance(index, tuple) else (index,):
        if isinstance(part, int | np.integer) and part < 0:
            raise IndexError(f"index {index} is below 0")


def _poisoned(shape: Any, dtype: Any) -> Any:
    made = np.empty(shape, dtype)
    made.fill(poison(dtype))
    return made.view(Guarded)


_making = threading.Lock()


def _shared_array(self: Any, shape: Any, dtype: Any) -> Any:
    """As the simulator's own, a block's array by the line that asks for it; but two threads that ask at once get the
    same one (the simulator's may give each another)."""
    caller = sys._getframe(1)
    place = caller.f_code.co_filename, caller.f_lineno
    with _making:
        if place not in self._allocations:
            self._allocations[place] = _poisoned(shape, dtype)
        return self._allocations[place]


def _local_array(self: Any, shape: Any, dtype: Any) -> Any:
    return _poisoned(shape, dtype)


@pytest.fixture(scope="session", autouse=True)
def strict_simulator() -> Iterator[None]:
    """Positive indices beyond the end the simulator refuses; negative ones it takes for Python's, and new arrays may
    happen to hold zeros."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        if SIMULATED:
            from numba.cuda.simulator import kernelapi
            from numba.cuda.simulator.cudadrv.devicearray import FakeWithinKernelCUDAArray as InKernel

            for name in ("__getitem__", "__setitem__"):
                plain = getattr(InKernel, name)

                def guarded(self: Any, index: Any, *value: Any, plain: Any = plain) -> Any:
                    _demand_no_negative(index)
                    return plain(self, index, *value)

                monkeypatch.setattr(InKernel, name, guarded)
            monkeypatch.setattr(kernelapi.FakeCUDAShared, "array", _shared_array)
            monkeypatch.setattr(kernelapi.FakeCUDALocal, "array", _local_array)
        yield
