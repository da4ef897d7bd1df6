"""NumPy files, and the script that answers with them without facecnn."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facecnn.kernels import reference
from facecnn.runs.checkpoint import load_checkpoint
from network.nets import Case, Run, assert_close
from scripts.running import SCRIPTS, run_script

from .conftest import ModelFileMaker, assert_same, crops, export, predicted
from .layer_cases import CASES

SCRIPT = "answer_without_facecnn"


def answer(*arguments: str | Path) -> dict[str, Any]:
    done = run_script(SCRIPT, *arguments)
    assert done.exit_code == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_the_file(sample: list[Path], model_file: ModelFileMaker) -> None:
    model = model_file("smoke", sample)
    file = model.with_name("model.npz")
    result = export(model, "npz", file)
    assert result["input"] == {"name": None, "dtype": "uint8", "shape": ["faces", 36, 36, 1]}
    arrays = dict(np.load(file))  # which refuses what is pickled
    described = json.loads(arrays.pop("description").tobytes())
    saved = {
        name.removeprefix("model."): array
        for name, array in load_checkpoint(model).arrays.items()
        if name.startswith("model.")
    }
    assert arrays.keys() == saved.keys()
    for name, array in saved.items():
        np.testing.assert_array_equal(arrays[name], array)
    assert [layer["name"] for layer in described["layers"]] == ["conv1", "conv2", "neuron1", "activation1", "dense1"]
    assert described["people"] == ["s1", "s2"]
    again = model.with_name("again.npz")
    export(model, "npz", again)
    assert again.read_bytes() == file.read_bytes()


@pytest.mark.parametrize("name", CASES)
def test_the_script_knows_every_layer(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SCRIPTS)
    from answer_without_facecnn import run as run_layers
    from facecnn.export.model import layers

    run = Run(Case(*CASES[name]), reference, np.float64)
    expected = run.forward(training=False)
    weights = {**run.network.weights.parameters.named, **run.network.weights.statistics.named}
    described = json.loads(json.dumps(layers(run.network.stages)))
    found = run_layers(described, weights, np.array(run.network.input[: run.case.count]))
    assert_close(found, expected, 1e-6, name, least=1.0)


@pytest.mark.parametrize("to", ["npz", "onnx"])
def test_the_middle_of_a_photo(to: str, sample: list[Path], model_file: ModelFileMaker) -> None:
    if to == "onnx":
        pytest.importorskip("onnxruntime")
    model = model_file("smoke", sample, crop=1.0)  # with its margin, the crop reaches beyond the photo
    file = model.with_name(f"model.{to}")
    export(model, to, file)
    for photo, expected in zip(sample, predicted(model, sample, "--device", "reference"), strict=True):
        assert_same(answer(file, photo), expected)


@pytest.mark.usefixtures("face_finding")
@pytest.mark.parametrize(
    "config", ["default", *(pytest.param(name, marks=pytest.mark.slow) for name in ("many", "seed", "deep"))]
)
def test_a_face_by_its_landmarks(config: str, sample: list[Path], model_file: ModelFileMaker) -> None:
    model = model_file(config, sample)
    file = model.with_name("model.npz")
    export(model, "npz", file)
    photos = sample[::2]
    for photo, expected in zip(photos, predicted(model, photos, "--device", "reference"), strict=True):
        (face,) = expected["faces"]
        assert_same(
            answer(file, photo, "--landmarks", *(str(n) for point in face["landmarks"] for n in point)), expected
        )
    assert run_script(SCRIPT, file, photos[0]).exit_code == 1


@pytest.mark.slow
@pytest.mark.usefixtures("face_finding")
@pytest.mark.parametrize("config", ["pretrained", "finetune"])
def test_a_crop(config: str, sample: list[Path], model_file: ModelFileMaker, tmp_path: Path) -> None:
    from PIL import Image

    model = model_file(config, sample)
    file = model.with_name("model.npz")
    export(model, "npz", file)
    photos = sample[::2]
    expected = predicted(model, photos, "--device", "reference")
    for own, pixels in zip(expected, crops(model, photos), strict=True):
        Image.fromarray(pixels).save(tmp_path / "crop.png")
        assert_same(answer(file, tmp_path / "crop.png", "--crop"), own)


def test_nothing_of_facecnn_is_imported() -> None:
    code = f"import sys; sys.path.insert(0, {str(SCRIPTS)!r}); import {SCRIPT}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "numpy" in loaded
    assert not {name for name in loaded if name.partition(".")[0] == "facecnn"}
