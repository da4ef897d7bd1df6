"""What all tests here share: the CPU's threads, started so that they sleep when they have nothing to do."""

import pytest

from facecnn.kernels import available_threads, cpu


@pytest.fixture(scope="session", autouse=True)
def sleeping_threads() -> None:
    """Threads that spin make every step many times slower where others want the processors too."""
    cpu.set_threads(available_threads())
