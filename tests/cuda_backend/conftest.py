"""These tests run in Numba's simulator (NUMBA_ENABLE_CUDASIM=1 pytest -m cuda) or on a card."""

from __future__ import annotations

from types import SimpleNamespace
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


@pytest.fixture(autouse=True)
def no_negative_indices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Positive indices beyond the end the simulator refuses; negative ones it takes for Python's."""
    if SIMULATED:
        from numba.cuda.simulator import kernelapi
        from numba.cuda.simulator.cudadrv.devicearray import FakeWithinKernelCUDAArray as InKernel

        for name in ("__getitem__", "__setitem__"):
            plain = getattr(InKernel, name)

            def guarded(self: Any, index: Any, *value: Any, plain: Any = plain) -> Any:
                _demand_no_negative(index)
                return plain(self, index, *value)

            monkeypatch.setattr(InKernel, name, guarded)

        def empty(shape: Any, dtype: Any) -> Any:
            made = np.empty(shape, dtype)
            made.fill(poison(dtype))
            return made.view(Guarded)

        # Shared and local memory. (The arrays' makers can't be wrapped: they go by the line that calls them.)
        monkeypatch.setattr(kernelapi, "np", SimpleNamespace(**{**vars(np), "empty": empty}))
