"""Faults of what surrounds the program: variables, limits, packages that are missing, caches that can't be written to,
settings that ask for too much."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import QUICK, WITHOUT_ROOT, Run

# Numba's variables


@pytest.mark.fault("R29")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NUMBA_NUM_THREADS", "0"),
        ("NUMBA_NUM_THREADS", "-1"),
        ("NUMBA_NUM_THREADS", "abc"),
        ("NUMBA_NUM_THREADS", ""),
        ("NUMBA_THREADING_LAYER", "nosuch"),
        ("NUMBA_DISABLE_JIT", "1"),
        ("NUMBA_DISABLE_JIT", "yes"),
        ("NUMBA_ENABLE_CUDASIM", "on"),
    ],
)
@pytest.mark.parametrize("command", ["train", "doctor"])
def test_a_variable_that_numba_cannot_work_with(
    command: str, name: str, value: str, made_people: Path, tmp_path: Path, run: Run
) -> None:
    arguments = [made_people, *QUICK, "--out", tmp_path] if command == "train" else []
    done = run(command, *arguments, environment={name: value})
    assert done.exit_code == 2
    done.one_block()
    assert len(done.stderr.splitlines()) == 1
    assert name in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fault("R29")
def test_a_threading_layer_that_is_not_installed(made_people: Path, tmp_path: Path, run: Run) -> None:
    done = run("train", made_people, *QUICK, "--out", tmp_path, environment={"NUMBA_THREADING_LAYER": "tbb"})
    assert done.exit_code == 2
    done.one_block()
    assert len(done.stderr.splitlines()) == 1
    assert "NUMBA_THREADING_LAYER" in done.stderr


@pytest.mark.fault("R28")
def test_the_simulator_of_a_card_is_named_first(made_people: Path, tmp_path: Path, run: Run) -> None:
    """Before anything runs on it: there is no second card, so that the command ends soon."""
    simulated = {"NUMBA_ENABLE_CUDASIM": "1"}
    done = run("train", made_people, *QUICK, "--device", "cuda:1", "--out", tmp_path, environment=simulated)
    assert done.exit_code == 5
    first, second = done.stderr.splitlines()
    assert "slow simulator" in first
    assert second.startswith("error:")
    done = run("doctor", "--device", "reference", environment=simulated)
    assert "slow simulator" not in done.stderr


# Packages


BLOCK = """
import os, sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == os.environ["BLOCKED"]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Block())
"""


@pytest.fixture
def without(tmp_path: Path) -> Callable[[str], dict[str, str]]:
    """Variables with which a package can't be imported."""
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(BLOCK)
    return lambda package: {"PYTHONPATH": str(tmp_path / "hook"), "BLOCKED": package}


@pytest.mark.fault("R44")
@pytest.mark.parametrize(
    ("module", "package"),
    [
        ("numba", "numba"), ("llvmlite", "llvmlite"), ("numpy", "numpy"), ("ruamel", "ruamel.yaml"), ("PIL", "pillow"),
        ("safetensors", "safetensors"), ("pydantic", "pydantic"), ("typer", "typer"), ("platformdirs", "platformdirs"),
    ],
)  # fmt: skip
def test_a_package_is_missing(
    module: str, package: str, without: Callable[[str], dict[str, str]], made_people: Path, tmp_path: Path, run: Run
) -> None:
    done = run("train", made_people, *QUICK, "--out", tmp_path / "runs", environment=without(module))
    assert done.exit_code == 1
    done.one_block()
    assert done.stderr.splitlines()[-1] == f"error: facecnn needs {package}: pip install {package}"
    assert not (tmp_path / "runs").exists()


@pytest.mark.fault("R45")
def test_a_training_without_matplotlib(
    without: Callable[[str], dict[str, str]], made_people: Path, model: Path, tmp_path: Path, run: Run
) -> None:
    environment = without("matplotlib")
    done = run("train", made_people, *QUICK, "--out", tmp_path, "--name", "run", environment=environment)
    assert done.exit_code == 0, done.stderr
    assert done.stderr.count("pip install matplotlib") == 1
    assert "pictures:" not in done.stdout
    made = tmp_path / "run"
    assert not [*made.glob("*.png"), *made.glob("*.gif")]
    assert (made / "report.html").exists()
    assert (made / "best.safetensors").read_bytes() == (model / "best.safetensors").read_bytes()
    done = run("report", made, environment=environment)
    assert done.exit_code == 0, done.stderr
    assert done.stderr.count("pip install matplotlib") == 1
    assert run("report", made).exit_code == 0
    assert (made / "curves.png").exists()


# Memory


@pytest.mark.fault("R14")
@pytest.mark.skipif(sys.platform != "linux", reason="a limit of Linux")
@pytest.mark.parametrize("kilobytes", [200_000, 400_000, 800_000])
def test_less_memory_than_the_libraries_take(kilobytes: int, made_people: Path, tmp_path: Path, run: Run) -> None:
    done = run("train", made_people, *QUICK, "--out", tmp_path, before=f"ulimit -v {kilobytes}")
    assert done.exit_code == 1
    done.one_block()
    assert len(done.stderr.splitlines()) == 1
    assert "ulimit -v" in done.stderr


TWO_LARGE = (
    "network=[{conv: {kernels: 4000, size: 5, padding: same}}, {conv: {kernels: 4000, size: 5, padding: same}}, "
    "{dense: {units: people}}]"
)


@pytest.mark.fault("C33")
@pytest.mark.skipif(sys.platform != "linux", reason="a limit of Linux")
def test_a_network_too_large_for_the_limit(made_people: Path, tmp_path: Path, run: Run) -> None:
    done = run("train", made_people, *QUICK, "--set", TWO_LARGE, "--out", tmp_path, before="ulimit -v 8000000")
    assert done.exit_code == 2
    assert "its weights are 1.6 GB" in done.stderr
    assert "GB are free" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


# Divergence that stays a number


@pytest.mark.fault("R33")
def test_a_clipped_rate_of_a_million(made_people: Path, tmp_path: Path, run: Run) -> None:
    done = run(
        "train", made_people, *QUICK, "--set", "optimizer={name: sgd, learning_rate: 1.0e6, clip: 1}", "--out", tmp_path
    )
    assert done.exit_code == 7
    done.one_block()
    assert "Training diverged in epoch 1" in done.stderr
    assert "RuntimeWarning" not in done.stderr


# Caches


@pytest.mark.fault("R55")
@pytest.mark.parametrize("kind", ["no folder", "no permission", "full"])
def test_doctor_names_a_cache_that_cannot_be_written_to(
    kind: str, tmp_path: Path, small_disk: Callable[[str], Path], run: Run
) -> None:
    folder, prefix = tmp_path / "cache", []
    if kind == "no folder":
        folder.touch()
    elif kind == "no permission":
        folder.mkdir(mode=0o500)
        prefix = WITHOUT_ROOT if os.getuid() == 0 else []
    else:
        folder = small_disk("100k")
    environment = {"FACECNN_CACHE_DIR": str(folder)}
    done = run("doctor", "--device", "reference", "--format", "json", prefix=prefix, environment=environment)
    assert done.exit_code == 5
    assert "Traceback" not in done.stderr
    result = json.loads(done.stdout)
    assert result["cache"] == {"folder": str(folder), "writable": False}
    [problem] = [problem for problem in result["problems"] if str(folder) in problem["what"]]
    assert "FACECNN_CACHE_DIR" in problem["mend"]


@pytest.mark.fault("R22")
def test_photos_are_read_with_a_cache_on_a_full_disk(
    made_people: Path, model: Path, small_disk: Callable[[str], Path], run: Run
) -> None:
    predict = ("predict", made_people / "person_0000", "-m", model, "--format", "json", "--device", "reference")
    done = run(*predict, environment={"FACECNN_CACHE_DIR": str(small_disk("100k"))})
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout) == json.loads(run(*predict).stdout)
