"""These tests run in Numba's simulator (NUMBA_ENABLE_CUDASIM=1 pytest -m cuda) or on a card."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cuda_backend.standin_driver.machine import Machine, build, started
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


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """One with the stand-in driver, and as many cards as a command is told there are."""
    folder = tmp_path_factory.mktemp("driver")
    build(folder)
    with started(folder) as machine:
        yield machine
