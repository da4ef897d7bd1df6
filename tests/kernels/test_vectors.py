"""facecnn.kernels.cpu.vector_ir.lanes: what code is compiled for, not what the processor could do."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from facecnn.kernels.cpu.vector_ir import lanes

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


def test_what_llvm_said_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of_processor = lanes.of_processor.__wrapped__  # as in a new process
    expected = of_processor()
    asked: list[int] = []
    ask = lanes._asked

    def noted() -> int:
        asked.append(ask())
        return asked[-1]

    monkeypatch.setattr(lanes, "_asked", noted)
    monkeypatch.setattr(lanes, "cache_folder", lambda: str(tmp_path))
    assert (of_processor(), of_processor(), asked) == (expected, expected, [expected])
    [file] = tmp_path.iterdir()
    for damaged in (b"", b"1", b"not a number"):
        file.write_bytes(damaged)
        asked.clear()
        assert (of_processor(), of_processor(), asked) == (expected, expected, [expected])
    monkeypatch.setattr(lanes, "_MULTIPLY_AND_ADD", lanes._MULTIPLY_AND_ADD + "; another question")
    assert (of_processor(), asked) == (expected, [expected] * 2)


def test_where_nothing_can_be_kept_llvm_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of_processor = lanes.of_processor.__wrapped__
    expected = of_processor()
    for folder in (None, str(tmp_path / "nosuch")):
        monkeypatch.setattr(lanes, "cache_folder", lambda folder=folder: folder)
        assert of_processor() == expected
