from typing import Any

import pytest

from facecnn.kernels import open_device


@pytest.fixture(params=["reference", "cpu"])
def kernels(request: pytest.FixtureRequest) -> Any:
    """Every backend, in float32 (the reference, too)."""
    return open_device(request.param).kernels
