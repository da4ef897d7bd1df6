"""Several processes train over MPI as one does on the same batches."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facecnn.kernels import available_threads, cpu
from facecnn.parallel.ranks import ALONE

from .shared_training import SIZES, STEPS, results

MPIEXEC = Path(sys.executable).with_name("mpiexec")
SCRIPT = Path(__file__).with_name("shared_training.py")


def over_mpi(ranks: int, kind: str) -> Any:
    """The results of ``shared_training.py`` on so many ranks."""
    if not MPIEXEC.exists():
        pytest.skip("needs the extra mpi")
    paths = os.pathsep.join(str(SCRIPT.parents[up]) for up in (2, 1))
    done = subprocess.run(
        [MPIEXEC, "-n", str(ranks), sys.executable, SCRIPT, kind],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"PYTHONPATH": paths},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def exact() -> dict[str, Any]:
    """What one process makes of the networks in float64."""
    return results("exact", ALONE)


@pytest.mark.parametrize("ranks", [2, 3])
def test_in_float64_losses_are_those_of_one_process(ranks: int, exact: dict[str, Any]) -> None:
    shared = over_mpi(ranks, "exact")
    for config in SIZES:
        alone, found = exact[config], shared[config]
        assert len(found["losses"]) == STEPS
        np.testing.assert_allclose(found["losses"], alone["losses"], rtol=0, atol=1e-9)
        np.testing.assert_allclose(found["validation"], alone["validation"], rtol=0, atol=1e-9)


@pytest.mark.slow
def test_in_float32_the_first_loss_is_that_of_one_process_and_a_repetition_has_the_same_bits() -> None:
    threads = available_threads()
    try:
        alone = results("single", ALONE)
    finally:
        cpu.set_threads(threads)
    once, again = over_mpi(2, "single"), over_mpi(2, "single")
    assert once == again
    for config in SIZES:
        assert once[config]["losses"][0] == pytest.approx(alone[config]["losses"][0], rel=1e-6)
