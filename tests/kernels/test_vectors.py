"""facecnn.kernels.cpu.vectors: what code is compiled for, not what the processor could do."""

import os
import subprocess
import sys

import pytest

PROGRAM = "from facecnn.kernels.cpu import vectors; print(vectors.lanes(), vectors.registers(vectors.lanes()))"


@pytest.mark.parametrize(
    ("processor", "expected"),
    [("skylake-avx512", "16 32"), ("znver4", "16 32"), ("haswell", "8 16"), ("nehalem", "0 16"), ("generic", "0 16")],
)
def test_the_processor_that_numba_compiles_for(processor: str, expected: str) -> None:
    environment = os.environ | {"NUMBA_CPU_NAME": processor, "NUMBA_CPU_FEATURES": ""}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True, timeout=300
    )
    assert done.stdout.strip() == expected
