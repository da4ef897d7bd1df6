"""facecnn.kernels.cpu.vector_ir.lanes: what code is compiled for, not what the processor could do."""

import os
import platform
import subprocess
import sys

import pytest

PROGRAM = """
from facecnn.kernels.cpu.vector_ir import lanes
print(lanes.of_processor(), lanes.registers(lanes.of_processor()), lanes.instructions())
"""


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="compiles for processors of this kind")
@pytest.mark.parametrize(
    ("processor", "expected"),
    [("znver4", "16 32 avx512"), ("haswell", "8 16 avx2"), ("sandybridge", "0 16 none"), ("generic", "0 16 none")],
)
def test_the_processor_that_numba_is_told_to_compile_for(processor: str, expected: str) -> None:
    environment = os.environ | {"NUMBA_CPU_NAME": processor, "NUMBA_CPU_FEATURES": ""}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected
