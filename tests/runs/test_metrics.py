"""metrics.jsonl: strict JSON, a line an epoch, whatever a kill leaves at its end."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facecnn.errors import CheckpointError, OutputError
from facecnn.runs.metrics import MetricsLog, read_metrics


def write(path: Path, epochs: range) -> MetricsLog:
    log = MetricsLog(path)
    for epoch in epochs:
        log.append({"epoch": epoch, "train_loss": 1 / epoch})
    return log


def epochs_in(path: Path) -> list[int]:
    return [record["epoch"] for record in read_metrics(path)]


def test_comes_back_line_by_line(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "m")
    assert read_metrics(tmp_path / "m") == []
    for epoch in (1, 2, 3):
        log.append({"epoch": epoch, "train_loss": 0.1 * epoch, "kernels": {"conv1": [1.5, 2]}})
        assert len((tmp_path / "m").read_text().splitlines()) == epoch  # at once, not when the program ends
    assert read_metrics(tmp_path / "m")[2] == {"epoch": 3, "train_loss": 0.1 * 3, "kernels": {"conv1": [1.5, 2]}}


def test_is_strict_json(tmp_path: Path) -> None:
    MetricsLog(tmp_path / "m").append(
        {
            "epoch": np.int64(1),
            "loss": float("nan"),
            "norm": np.float32(np.inf),
            "share": np.float32(0.5),
            "dead": np.array([[1, np.nan]]),
            "deep": {"a": (1, -np.inf)},
            "unknown": None,
        }
    )

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    assert json.loads((tmp_path / "m").read_text(), parse_constant=refuse) == {
        "epoch": 1,
        "loss": None,
        "norm": None,
        "share": 0.5,
        "dead": [[1, None]],
        "deep": {"a": [1, None]},
        "unknown": None,
    }


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(0, 10_000), epoch=st.integers(0, 6))
def test_interrupted_and_resumed_has_each_epoch_once(
    tmp_path_factory: pytest.TempPathFactory, cut: int, epoch: int
) -> None:
    path = tmp_path_factory.mktemp("metrics") / "m"
    log = write(path, range(1, 6))
    content = path.read_bytes()
    content = content[: cut % (len(content) + 1)]
    path.write_bytes(content)
    whole = epochs_in(path)
    assert whole == list(range(1, len(whole) + 1))
    assert len(whole) >= content.count(b"\n")
    log.truncate_after(epoch)
    write(path, range(min(epoch, len(whole)) + 1, 9))
    assert epochs_in(path) == list(range(1, 9))


def test_damage_before_the_last_line_is_told(tmp_path: Path) -> None:
    write(tmp_path / "m", range(1, 4))
    lines = (tmp_path / "m").read_bytes().splitlines()
    for line in (b"", b"x", b"[]", b'{"step": 1}', b'{"epoch": true}', b"\xff", b"[" * 100_000):
        (tmp_path / "m").write_bytes(b"\n".join([lines[0], line, lines[2]]) + b"\n")
        with pytest.raises(CheckpointError, match=r"m:2: damaged"):
            read_metrics(tmp_path / "m")


def test_a_full_disk_leaves_the_lines_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = write(tmp_path / "m", range(1, 3))
    before = (tmp_path / "m").read_bytes()

    def fail(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OutputError, match="no space left"):
        log.truncate_after(1)
    assert (tmp_path / "m").read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["m"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_line_that_cannot_be_written_is_told() -> None:
    with pytest.raises(OutputError, match="no space left"):
        MetricsLog(Path("/dev/full")).append({"epoch": 1})


def test_a_deleted_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="its folder does not exist"):
        MetricsLog(tmp_path / "gone" / "m").append({"epoch": 1})
