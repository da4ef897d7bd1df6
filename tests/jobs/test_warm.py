"""Compiling ahead: what comes after has nothing to compile."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from facecnn.errors import UsageError
from facecnn.jobs.warm import plan_ahead
from facecnn.kernels.code_cache import code_files

# Prints how many functions were new. The finder's networks, where they are installed, would be most of the work.
WARM = """
from facecnn.jobs.stderr import StderrConsole
from facecnn.jobs import faces, warm
from facecnn.kernels import open_device
faces.installed_arrays = lambda: None
device, console = open_device("cpu"), StderrConsole(quiet=True, verbose=False)
print(warm.compile_ahead([warm.plan_ahead("smoke")], device, warm.compiled_code("cpu"), console)["functions"])
"""
FACECNN = "from facecnn.__main__ import main; main()"


@pytest.mark.slow
def test_training_and_answers_find_all_that_they_need(people: Path, tmp_path: Path) -> None:
    """In processes of their own, since what one has compiled is in its memory, and with a cache of their own."""
    cache = tmp_path / "cache"

    def run(program: str, *arguments: str | Path) -> str:
        environment = os.environ | {"FACECNN_CACHE_DIR": str(cache)}
        command = [sys.executable, "-c", program, *map(str, arguments)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=600).stdout

    new = int(run(WARM))
    kept = code_files(str(cache))
    assert len(kept) == new > 0
    run(FACECNN, "train", people, "-c", "smoke", "--device", "cpu", "--epochs", "2", "--out", tmp_path, "--name", "run")
    run(FACECNN, "predict", people / "ann" / "00.png", "-m", tmp_path / "run", "--device", "cpu")
    assert code_files(str(cache)) == kept


@pytest.mark.parametrize(("last", "outputs"), [("dense: {units: people}", 2), ("dense: {units: 5}", 5)])
def test_outputs_are_as_many_as_the_network_has(last: str, outputs: int, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"version: 1\nphotos: {{size: 16}}\nnetwork:\n  - {last}\n")
    assert plan_ahead(str(config)).outputs == outputs


def test_a_network_that_ends_in_maps(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("version: 1\nphotos: {size: 16}\nnetwork:\n  - conv: {kernels: 2, size: 3, padding: valid}\n")
    with pytest.raises(UsageError, match=r"config\.yaml:4:"):
        plan_ahead(str(config))
