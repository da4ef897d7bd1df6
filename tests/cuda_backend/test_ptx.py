"""What the CUDA kernels compile to, for the oldest and the newest cards meant: pip packages are enough, no card.

Looked at are all kernels that a training step and an answer of the shipped networks launch, at their full size, and
those of all cases. A float64 operation is up to 64 times slower than a float32 one, a spilled register is kept in
slow memory, and too much shared memory or too many threads can't be launched at all.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from numba import typeof

from cuda_backend.planned import launches_of_case, launches_of_training
from cuda_backend.test_cases import CASES
from facecnn.kernels.cuda.planning import Launch, PlannedArray

pytestmark = pytest.mark.ptx

CHECKER = Path(__file__).parents[3] / "shared" / "tools" / "ptx_check.py"
SHARED_BYTES = 48 * 1024
"""What a block may have on every card without being asked for."""
NETWORKS = ("seed", "deep", "default", "smoke")


@cache
def checker() -> Any:
    if not CHECKER.exists():
        pytest.skip("the PTX checker is not here")
    spec = importlib.util.spec_from_file_location("ptx_check", CHECKER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def looked_at(kernel: Any, types: tuple[Any, ...], threads: int, cc: tuple[int, int]) -> dict[str, Any]:
    return dict(checker().check(kernel, list(types), cc=cc, threads=threads))


def faults(launch: Launch, cc: tuple[int, int]) -> list[str]:
    types = tuple(a.numba_type if isinstance(a, PlannedArray) else typeof(a) for a in launch.arguments)
    report = looked_at(launch.kernel, types, launch.threads, cc)
    wrong = [
        f"{key} {report[key]}"
        for key in ("f64_ops", "spill_bytes", "local_mem", "atomics", "i64_div")
        if report[key] != 0
    ]
    if report["smem_bytes"] >= SHARED_BYTES or report["dynamic_smem"]:
        wrong.append(f"{report['smem_bytes']} bytes of shared memory")
    if not report["launchable"] or launch.threads > 1024 or launch.threads % 32:
        wrong.append(f"{launch.threads} threads a block")
    x, y, z = (*launch.grid, 1, 1)[:3]
    if not (0 < x < 2**31 and 0 < y < 65536 and 0 < z < 65536):
        wrong.append(f"a grid of {launch.grid}")
    return [f"{launch.kernel.py_func.__qualname__}: {what}, {report['f64_lines']}" for what in wrong]


@pytest.mark.parametrize("cc", [(7, 5), (9, 0)], ids=["sm_75", "sm_90"])
@pytest.mark.parametrize("network", NETWORKS)
def test_the_kernels_of_a_network(network: str, cc: tuple[int, int]) -> None:
    launches = launches_of_training(network)
    assert len(launches) > 20
    assert not [fault for launch in launches for fault in faults(launch, cc)]


@pytest.mark.parametrize("name", CASES)
def test_the_kernels_of_a_case(name: str) -> None:
    launches = launches_of_case(name.split(",")[0], CASES[name])
    assert launches
    assert not [fault for launch in launches for cc in ((7, 5), (9, 0)) for fault in faults(launch, cc)]


def test_the_check_finds_what_it_looks_for() -> None:
    import numpy as np

    from facecnn.kernels.cuda.driver import cuda, kernel

    @kernel
    def wasteful(x: Any, scale: Any) -> None:
        i = cuda.grid(1)
        if i < x.size:
            x[i] = x[i] * scale * 0.1

    launch = Launch(wasteful, (1,), 100, (PlannedArray((100,), np.float32), np.float32(1)))
    assert any("f64_ops" in fault for fault in faults(launch, (9, 0)))
    assert any("100 threads" in fault for fault in faults(launch, (9, 0)))
