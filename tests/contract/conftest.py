from functools import cache
from typing import Any

import pytest

from contract.harness import BACKENDS
from facecnn.kernels import open_device

_open = cache(open_device)


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Any:
    """Every backend, in float32 (the reference, too); a card's where there is one."""
    return _open(request.param).backend
