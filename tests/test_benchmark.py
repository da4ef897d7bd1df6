"""scripts/benchmark.py: what it prints, and how it fails. That its numbers are good can't be tested."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "benchmark.py"
RATIOS = {
    *(
        f"{network}-{size}-{work}"
        for network in ("seed", "deep")
        for size in (224, 64)
        for work in ("train", "predict")
    ),
    "default-train",
}


def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SCRIPT, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_help() -> None:
    done = run("--help")
    assert done.returncode == 0
    for option in ("--device", "--threads", "--network", "--quick", "--rounds", "--json", "--output"):
        assert option in done.stdout


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--speed"], "--speed"),
        (["--device", "tpu"], "tpu"),
        (["--network", "sead"], "sead"),
        (["--threads", "0"], "--threads"),
        (["--rounds", "0"], "--rounds"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_arguments(arguments: list[str], named: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert named in done.stderr
    assert not done.stdout


def test_no_card() -> None:
    done = run("--device", "cuda", "--network", "smoke", NUMBA_DISABLE_CUDA="1")
    assert done.returncode == 5
    assert done.stderr.startswith("error: --device cuda")


def test_json_without_pytorch(tmp_path: Path) -> None:
    """facecnn alone: times, but nothing to divide by."""
    file = tmp_path / "benchmark.json"
    done = run("--network", "smoke", "--quick", "--rounds", "1", "--against", "none", "--json", "--output", file)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert json.loads(file.read_text(encoding="utf-8")) == report
    assert {"machine", "threads", "ratios", "rows", "cold_start", "memory", "growth"} <= set(report)
    assert {"cpu", "cores", "simd", "gpu"} <= set(report["machine"])
    assert report["machine"]["gpu"] is None
    assert set(report["ratios"]) >= RATIOS
    assert set(report["ratios"].values()) == {None}
    assert [(row["work"], row["implementation"]) for row in report["rows"]] == [
        ("train", "facecnn"),
        ("predict", "facecnn"),
    ]
    for row in report["rows"]:
        assert (row["network"], row["size"], row["batch"]) == ("smoke", 24, 60)
        assert 0 < row["min_ms"] <= row["median_ms"]


def test_output_that_cannot_be_written(tmp_path: Path) -> None:
    missing = tmp_path / "missing" / "benchmark.json"
    done = run("--network", "smoke", "--quick", "--rounds", "1", "--against", "none", "--output", missing)
    assert done.returncode == 6
    assert "smoke 1x24x24, batch 60, train" in done.stdout  # what was measured is shown all the same


@pytest.mark.parity
def test_beside_pytorch() -> None:
    """Both sides are found to do the same work, and the ratio is that of the medians."""
    assert importlib.util.find_spec("torch"), "pip install torch==2.13.0, or leave parity tests out"
    done = run("--network", "smoke", "--quick", "--rounds", "1", "--against", "eager", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    for work in ("train", "predict"):
        rows = [row for row in report["rows"] if row["work"] == work]
        ours, *theirs = (row["median_ms"] for row in rows)
        assert rows[0]["implementation"] == "facecnn"
        assert len(theirs) == 8  # each of two layouts, in float32 and bf16, with and without the allocator's settings
        assert report["ratios"][f"smoke-{work}"] == pytest.approx(min(theirs) / ours)
