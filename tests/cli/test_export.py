"""``facecnn export``."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from export.conftest import assert_same, predicted
from export.test_npz import answer

from .contract import check
from .running import Facecnn, Trained, call_and_see_imports

EXPORTED = {
    "model": str,
    "to": str,
    "file": str,
    "bytes": int,
    "sha256": str,
    "classes": [str],
    "input": {"name": (str, None), "dtype": str, "shape": [(str, int)]},
    "outputs": [{"name": (str, None), "dtype": str, "shape": [(str, int)]}],
}


@pytest.fixture
def own(trained: Trained, tmp_path: Path) -> Path:
    """A copy of the run, alone in its folder of runs."""
    return Path(shutil.copytree(trained.path, tmp_path / "runs" / "two"))


@pytest.mark.parametrize("to", ["onnx", "npz"])
def test_a_trained_model_answers_alike(
    to: str, trained_with_strangers: Trained, tmp_path: Path, facecnn: Facecnn
) -> None:
    if to == "onnx":
        pytest.importorskip("onnxruntime")
    file = tmp_path / f"model.{to}"
    result = facecnn("export", trained_with_strangers.path, "--to", to, "--out", file, "--format", "json").json()
    check(result, EXPORTED)
    assert (result["to"], result["file"], result["bytes"]) == (to, str(file), file.stat().st_size)
    assert result["classes"] == ["ann", "bob", "unknown"]
    photos = sorted(trained_with_strangers.photos.glob("*/0[0-2].png"))
    answers = predicted(trained_with_strangers.path, photos, "--device", "cpu")
    assert len({found["label"] for found in answers}) == 3
    for photo, expected in zip(photos, answers, strict=True):
        assert_same(answer(file, photo), expected)


def test_the_file_lies_beside_the_model_and_goes_with_the_run(
    own: Path, monkeypatch: pytest.MonkeyPatch, facecnn: Facecnn
) -> None:
    monkeypatch.chdir(own.parents[1])
    done = facecnn("export", "--to", "npz")
    assert done.exit_code == 0
    assert "runs/two/best.npz" in done.stdout
    assert "ann, bob" in done.stdout
    assert "36x36 pixels, grey" in done.stdout
    assert (own / "best.npz").is_file()
    assert facecnn("export", own / "last.safetensors", "--to", "npz").exit_code == 0
    assert (own / "last.npz").is_file()
    facecnn("runs", "pin", "--none")
    shutil.copytree(own, own.with_name("newer"))
    assert facecnn("runs", "prune", "--keep", "1", "--yes").exit_code == 0
    assert [run.name for run in own.parent.iterdir() if run.is_dir()] in (["two"], ["newer"])


def test_an_existing_file_stays(own: Path, tmp_path: Path, facecnn: Facecnn) -> None:
    file = tmp_path / "model.npz"
    file.write_bytes(b"mine")
    done = facecnn("export", own, "--to", "npz", "--out", file)
    assert done.exit_code == 6
    done.one_block()
    assert "--overwrite" in done.stderr
    assert file.read_bytes() == b"mine"
    assert facecnn("export", own, "--to", "npz", "--out", file, "--overwrite").exit_code == 0
    assert "conv1.weight" in np.load(file)


@pytest.mark.parametrize("place", ["nosuch/model.npz", "."])
def test_a_file_that_cant_be_written(place: str, own: Path, tmp_path: Path, facecnn: Facecnn) -> None:
    before = {path.name for path in tmp_path.rglob("*")}
    done = facecnn("export", own, "--to", "npz", "--out", tmp_path / place)
    assert done.exit_code == 6
    done.one_block()
    assert {path.name for path in tmp_path.rglob("*")} == before


def test_without_the_extra(own: Path, monkeypatch: pytest.MonkeyPatch, facecnn: Facecnn) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnx" else found(name))
    done = facecnn("export", own, "--to", "onnx")
    assert done.exit_code == 2
    done.one_block()
    assert "pip install 'facecnn[onnx]'" in done.stderr
    assert not list(own.glob("*.onnx"))
    assert facecnn("export", own, "--to", "npz").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("two",), 2, "--to"),
        (("two", "--to", "pickle"), 2, "pickle"),
        (("two", "-m", "two", "--to", "npz"), 2, "-m already"),
        (("nosuch", "--to", "npz"), 4, "nosuch"),
    ],
)
def test_what_is_refused(
    arguments: tuple[str, ...], code: int, message: str, own: Path, monkeypatch: pytest.MonkeyPatch, facecnn: Facecnn
) -> None:
    monkeypatch.chdir(own.parent)
    done = facecnn("export", *arguments)
    assert (done.exit_code, done.stdout) == (code, "")
    assert message in done.stderr


def test_a_model_whose_training_hasnt_ended(own: Path, facecnn: Facecnn) -> None:
    from facecnn.runs.checkpoint import load_checkpoint, save_checkpoint

    file = own / "best.safetensors"
    checkpoint = load_checkpoint(file)
    save_checkpoint(
        file,
        checkpoint.__class__(
            checkpoint.settings, checkpoint.classes, checkpoint.arrays, checkpoint.state | {"calibration": None}
        ),
    )
    done = facecnn("export", own, "--to", "npz")
    assert done.exit_code == 0
    assert "not calibrated" in done.stderr
    described = json.loads(np.load(own / "best.npz")["description"].tobytes())
    assert described["calibration"]["temperature"] == 1


def test_no_kernel_is_loaded(own: Path, tmp_path: Path) -> None:
    _, loaded = call_and_see_imports("export", own, "--to", "npz", "--out", tmp_path / "model.npz")
    assert not loaded & {"numba", "matplotlib"}
