"""Loops over flat arrays handle several elements with one instruction: one by one an update of the weights takes nearly
ten times as long (docs/RESULTS.md)."""

import re
from typing import Any

import numpy as np
import pytest

from facecnn.kernels.cpu import elementwise, jit, update

_F = np.float32


def arrays(count: int) -> list[Any]:
    return [np.ones(64, _F) for _ in range(count)]


def adam() -> tuple[Any, tuple[Any, ...]]:
    numbers, betas = (_F(0.1), _F(0.999), _F(0.001), _F(1e-8)), (0.9, 0.999)
    step = np.zeros(1, np.int32)
    weight, mean, moment, gradient = arrays(4)
    return update._update("adam"), (
        weight, (mean, moment), gradient, np.ones(1, _F), step, numbers, betas, _F(0), _F(0.1), 32,
    )  # fmt: skip


CASES = {
    "adam": adam,
    "average": lambda: (update._average, (*arrays(2), np.zeros(1, np.int32), 0.9)),
    "accumulate": lambda: (update._accumulate, (*arrays(2), False)),
    "clip": lambda: (update._clip, (*arrays(2), np.zeros(1), 1.0)),
    "activation": lambda: (elementwise._forward("leaky_relu"), (*arrays(2), _F(0.1))),
    "derivative": lambda: (elementwise._backward("leaky_relu"), (*arrays(3), _F(0.1))),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jit, "cache_folder", lambda: None)  # compiled here, for its code to be seen
    kernel, arguments = CASES[name]()
    compiled = jit.compiled(parallel=True)(kernel.py_func)
    compiled(*arguments)
    [overload] = compiled.overloads.values()
    code = str(overload.library._final_module)
    assert re.search(r"store <\d+ x float>", code), "each element is written by itself"
