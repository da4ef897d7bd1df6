from functools import cache
from typing import Any

import pytest

from facecnn.kernels import open_device
from facecnn.kernels.cards import find_cuda

_CUDA = find_cuda(0)
BACKENDS = ["reference", "cpu", *(["cuda"] if _CUDA.available and not _CUDA.simulated else [])]


_open = cache(open_device)


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Any:
    """Every backend, in float32 (the reference, too); a card's where there is one."""
    return _open(request.param).backend
