"""These tests run in Numba's simulator (NUMBA_ENABLE_CUDASIM=1 pytest -m cuda) or on a card."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from facecnn.kernels.cuda.driver import SIMULATED


@pytest.fixture(scope="session", autouse=True)
def strict_simulator() -> Iterator[None]:
    """From here on each launch in the simulator is an error where it could go wrong on a card."""
    if not SIMULATED:
        yield
        return
    from cuda_backend.simulator import strict

    with strict():
        yield
