"""``facecnn inspect``."""

import shutil
from pathlib import Path

import pytest
from PIL import Image
from safetensors.numpy import load_file

from .contract import check
from .running import Facecnn, Trained

FIGURES = {
    "model": str,
    "classes": [str],
    "input": {"height": int, "width": int, "colour": str, "normalise": str},
    "best_epoch": int,
    "trained_on": int,
    "temperature": float,
    "threshold": (float, None),
    "calibrated_on": int,
    "layers": [{"name": str, "input": [int], "output": [int], "parameters": int, "multiply_adds": int}],
    "parameters": int,
    "parameter_bytes": int,
    "multiply_adds": int,
    "training_bytes": int,
    "batch_size": int,
    "kernels": (str, None),
}


def test_the_figures_fit_the_weights(trained: Trained, facecnn: Facecnn) -> None:
    figures = facecnn("inspect", trained.path, "--format", "json").json()
    check(figures, FIGURES)
    assert figures["classes"] == ["ann", "bob"]
    assert figures["trained_on"] == 16
    assert figures["best_epoch"] == trained.figures["best_epoch"]
    assert figures["input"] == {"height": 24, "width": 24, "colour": "grey", "normalise": "standardise"}
    assert figures["layers"][0]["input"] == [24, 24, 1]
    assert figures["layers"][-1]["output"] == [2]
    for layer, following in zip(figures["layers"], figures["layers"][1:], strict=False):
        assert layer["output"] == following["input"]
    arrays = load_file(trained.path / "best.safetensors")
    weights = sum(array.size for name, array in arrays.items() if name.startswith("model."))
    assert figures["parameters"] == sum(layer["parameters"] for layer in figures["layers"]) == weights
    assert figures["parameter_bytes"] == 4 * weights
    assert figures["multiply_adds"] == sum(layer["multiply_adds"] for layer in figures["layers"])
    # conv1: 24x24 places, 4 kernels of 3x3 over one map.
    assert figures["layers"][0]["multiply_adds"] == 24 * 24 * 4 * 9


def test_the_kernels_as_a_picture(trained: Trained, tmp_path: Path, facecnn: Facecnn) -> None:
    file = tmp_path / "kernels.png"
    figures = facecnn("inspect", trained.path, "--kernels", file, "--format", "json").json()
    assert figures["kernels"] == str(file)
    with Image.open(file) as picture:
        assert picture.format == "PNG"
    done = facecnn("inspect", trained.path, "--kernels", tmp_path / "nosuch" / "kernels.png")
    assert done.exit_code == 6
    assert [path.name for path in tmp_path.iterdir()] == ["kernels.png"]


def test_text(trained: Trained, facecnn: Facecnn) -> None:
    done = facecnn("inspect", trained.path)
    assert done.exit_code == 0
    for part in ("ann, bob", "24x24", "conv1", "dense1"):
        assert part in done.stdout
    table = done.stdout.splitlines()[1:]  # the first line holds the file's name, however long
    assert max(map(len, table)) <= 80


def test_the_newest_run_is_taken(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, facecnn: Facecnn
) -> None:
    monkeypatch.chdir(tmp_path)
    assert facecnn("inspect").exit_code == 4
    shutil.copytree(trained.path, tmp_path / "runs" / "one")
    assert facecnn("inspect", "--format", "json").json()["model"] == "runs/one/best.safetensors"
    done = facecnn("inspect", "one")
    assert done.exit_code == 4
    assert "did you mean runs/one?" in done.stderr
