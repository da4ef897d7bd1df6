"""The cache of compiled code."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

# A convolution (compiled for its shape) and a dense layer (compiled once); prints the folder, cache hits and misses.
PROGRAM = """
import numpy as np
from facecnn.kernels import cpu
from facecnn.kernels.cpu import conv_loops, dense, jit, vectors
vectors.lanes = lambda: 0
x, weight, bias = (cpu.to_device(np.ones(s, np.float32)) for s in ((1, 3, 3, 1), (1, 2, 2, 1), (1,)))
out, argmax = cpu.empty((1, 1, 1, 1), np.float32), cpu.empty((1, 1, 1, 1), np.uint8)
cpu.conv_forward(out, argmax, x, weight, bias, (0, 0), "identity", 0.0, 2, cpu.Workspace())
cpu.dense_forward(out.reshape(1, 1), x.reshape(1, 9), x.reshape(1, 9), bias, cpu.Workspace())
assert out.item() == 10
functions = [conv_loops._forward(1, 1, 2, 2, 2, 0), dense._forward]
print(jit.cache_folder())
print(sum(f.stats.cache_hits.total() for f in functions), sum(f.stats.cache_misses.total() for f in functions))
"""


def run(environment: dict[str, str]) -> tuple[Path, int, int]:
    kept = {k: v for k, v in os.environ.items() if k not in ("NUMBA_CACHE_DIR", "FACECNN_CACHE_DIR")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=kept | environment, capture_output=True, text=True, check=True, timeout=300
    )
    folder, counts = done.stdout.splitlines()
    hits, misses = map(int, counts.split())
    return Path(folder), hits, misses


def test_a_second_process_compiles_nothing(tmp_path: Path) -> None:
    folder, hits, misses = run({"FACECNN_CACHE_DIR": str(tmp_path)})
    assert folder.parent == tmp_path / "kernels"
    assert (hits, misses) == (0, 2)
    assert run({"FACECNN_CACHE_DIR": str(tmp_path)}) == (folder, 2, 0)


def test_the_users_choice_of_folder_wins(tmp_path: Path) -> None:
    chosen = tmp_path / "mine"
    folder, _, misses = run({"NUMBA_CACHE_DIR": str(chosen), "FACECNN_CACHE_DIR": str(tmp_path / "other")})
    assert folder.parent == chosen / "facecnn"
    assert misses == 2
    assert any(chosen.rglob("*.nbi"))
    assert not (tmp_path / "other").exists()


def test_an_unwritable_cache_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folder, _, misses = run({"FACECNN_CACHE_DIR": str(tmp_path / "file"), "TMPDIR": str(tmp_path)})
    assert folder.parent == tmp_path
    assert folder.name.startswith("facecnn-kernels-")
    assert misses == 2


def test_an_edit_of_any_source_names_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from facecnn.kernels.code_cache import code_folder

    monkeypatch.setenv("FACECNN_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "backend").mkdir()

    def folder(*compiler: str) -> str:
        code_folder.cache_clear()
        return code_folder(tmp_path / "backend", *compiler)

    sources = [tmp_path / "backend" / "jit.py", tmp_path / "backend" / "helper.py", tmp_path / "protocol.py"]
    for source in sources:
        source.write_text("a = 1\n")
    before = folder("one processor")
    assert folder("one processor") == before
    assert folder("another processor") != before
    for source in sources:
        source.write_text("a = 2\n")
        assert folder("one processor") != before
        source.write_text("a = 1\n")
