"""Models whose hash is right, and whose arrays aren't those of their network."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facecnn.runs.checkpoint import Checkpoint, load_checkpoint, save_checkpoint

from .conftest import QUICK, Run


def changed(model: Path, path: Path, change: Callable[[Checkpoint], Checkpoint]) -> Path:
    """The model, signed anew after a change."""
    save_checkpoint(path, change(load_checkpoint(model / "best.safetensors")))
    return path


def with_arrays(change: Callable[[dict[str, Any]], Any]) -> Callable[[Checkpoint], Checkpoint]:
    def apply(checkpoint: Checkpoint) -> Checkpoint:
        arrays = dict(checkpoint.arrays)
        change(arrays)
        return replace(checkpoint, arrays=arrays)

    return apply


def with_settings(change: Callable[[dict[str, Any]], Any]) -> Callable[[Checkpoint], Checkpoint]:
    def apply(checkpoint: Checkpoint) -> Checkpoint:
        change(checkpoint.settings)
        return checkpoint

    return apply


WEIGHT = "model.conv1.weight"
LARGEST = 4096
"""Kernels that a config may ask for."""

DAMAGES = [
    pytest.param(
        with_arrays(lambda arrays: arrays.update({WEIGHT: arrays[WEIGHT].astype(np.float64)})),
        ["conv1.weight is F64, F32 expected"],
        marks=pytest.mark.fault("K14"),
    ),
    pytest.param(
        with_arrays(lambda arrays: arrays.update({WEIGHT: arrays[WEIGHT].astype(np.uint8)})),
        ["conv1.weight is U8, F32 expected"],
        marks=pytest.mark.fault("K14"),
    ),
    pytest.param(
        with_arrays(lambda arrays: arrays.update({WEIGHT: arrays[WEIGHT].T})),
        ["conv1.weight is of shape (1, 3, 3, 4), (4, 3, 3, 1) expected"],
        marks=pytest.mark.fault("K15"),
    ),
    pytest.param(
        with_arrays(lambda arrays: (arrays.pop("model.conv2.bias"), arrays.pop(WEIGHT))),
        ["conv2.bias is missing, F32 of shape (8,) expected", "conv1.weight is missing"],
        marks=pytest.mark.fault("K15"),
    ),
    pytest.param(
        with_arrays(lambda arrays: arrays.update({"model.conv3.weight": arrays[WEIGHT], "more": arrays[WEIGHT]})),
        ["conv3.weight is in no layer", "more is not expected"],
        marks=pytest.mark.fault("K15"),
    ),
    pytest.param(
        with_settings(lambda settings: settings["network"].insert(-1, {"dense": {"units": 10**6}})),
        ["dense1.weight is of shape", "(1000000, 16) expected", "dense2.weight is missing"],
        marks=pytest.mark.fault("K21"),
    ),
    pytest.param(
        with_settings(lambda settings: settings["network"][0]["conv"].update(kernels=LARGEST)),
        [f"conv1.weight is of shape (4, 3, 3, 1), ({LARGEST}, 3, 3, 1) expected", "conv2.weight is of shape"],
        marks=pytest.mark.fault("K21"),
    ),
    pytest.param(
        with_settings(lambda settings: settings["photos"].update(size=[1024, 1024])),
        ["weight is of shape"],
        marks=pytest.mark.fault("K21"),
    ),
]


@pytest.mark.parametrize(("change", "told"), DAMAGES)
@pytest.mark.parametrize("command", [("predict", "-m"), ("inspect",)], ids=lambda command: command[0])
def test_a_model_whose_arrays_do_not_fit(
    command: tuple[str, ...],
    change: Callable[[Checkpoint], Checkpoint],
    told: list[str],
    model: Path,
    made_people: Path,
    tmp_path: Path,
    run: Run,
) -> None:
    path = changed(model, tmp_path / "model.safetensors", change)
    photos = [made_people / "person_0000"] if "-m" in command else []
    done = run(command[0], *photos, *command[1:], path, before="ulimit -v 4000000")
    assert done.exit_code == 4
    done.one_block()
    assert str(path) in done.stderr
    for text in told:
        assert text in done.stderr


@pytest.mark.fault("K21")
def test_a_run_that_was_made_huge_is_not_gone_on_with(model: Path, tmp_path: Path, run: Run) -> None:
    """Its config.yaml, too."""
    shutil.copytree(model, tmp_path / "run")
    config, last = tmp_path / "run" / "config.yaml", tmp_path / "run" / "last.safetensors"
    text = config.read_text()
    assert "kernels: 8" in text
    config.write_text(text.replace("kernels: 8", f"kernels: {LARGEST}"))
    checkpoint = load_checkpoint(last)
    checkpoint.settings["network"][1]["conv"].update(kernels=LARGEST)
    save_checkpoint(last, checkpoint)
    done = run("train", "--resume", tmp_path / "run", before="ulimit -v 4000000")
    assert done.exit_code == 4
    done.one_block()
    assert "conv2.weight is of shape" in done.stderr


@pytest.mark.fault("K15")
def test_weights_to_start_from_with_a_missing_array(model: Path, made_people: Path, tmp_path: Path, run: Run) -> None:
    path = changed(model, tmp_path / "model.safetensors", with_arrays(lambda arrays: arrays.pop(WEIGHT)))
    done = run("train", made_people, *QUICK, "--init-from", path, "--out", tmp_path, "--name", "run")
    assert done.exit_code == 4
    assert "conv1.weight is missing" in done.stderr
    assert not (tmp_path / "run").exists()
