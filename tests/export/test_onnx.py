"""ONNX files: every layer, every shipped network, and the whole way from crops to answers, against facecnn's own."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings

from facecnn.arrays import Array
from facecnn.kernels import reference
from facecnn.learning.calibration import Calibration
from facecnn.network.layers import (
    LAYERS,
    Layer,
)
from facecnn.photos.preparation import AugmentSettings
from network.nets import Case, Run, assert_close, cases

from .conftest import ModelFileMaker, assert_same, crops, export, predicted
from .layer_cases import CASES

pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")

from facecnn.export.graph import FLOAT, Graph  # noqa: E402
from facecnn.export.onnx_layers import TRANSLATIONS, add_stage  # noqa: E402


def session(contents: bytes | Path) -> Any:
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    data = contents if isinstance(contents, bytes) else contents.read_bytes()
    return runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def outputs_in_onnx(run: Run) -> Array:
    """What the layers of a case give in ONNX Runtime."""
    graph, network = Graph(), run.network
    x = graph.add("Transpose", "x", perm=[0, 3, 1, 2])
    arrays = {**network.weights.parameters.named, **network.weights.statistics.named}
    for stage in network.stages:
        x = add_stage(graph, stage, x, arrays)
    graph.add("Identity", x, output="out")
    model = graph.model(
        "layers", "0", {"x": (FLOAT, ["n", *run.case.shape])}, {"out": (FLOAT, ["n", network.units])}, {}
    )
    photos = np.array(network.input[: run.case.count], np.float32)
    return np.asarray(session(model.SerializeToString()).run(["out"], {"x": photos})[0])


def assert_same_layers(case: Case) -> None:
    run = Run(case, reference, np.float64)
    expected = run.forward(training=False)
    assert_close(outputs_in_onnx(run), expected, 2e-5, str(case.layers), least=1.0)


def test_every_layer_has_a_translation() -> None:
    with_kernels = {layer for layer in LAYERS.values() if layer.forward is not Layer.forward}
    assert with_kernels == set(TRANSLATIONS)
    shown = {
        type(stage.layer)
        for layers, shape in CASES.values()
        for stage in Run(Case(layers, shape), reference, np.float32).network.stages
    }
    assert shown == set(TRANSLATIONS)


@pytest.mark.parametrize("name", CASES)
def test_layers(name: str) -> None:
    assert_same_layers(Case(*CASES[name]))


@hypothesis_settings(max_examples=25, deadline=None)
@given(cases())
def test_networks_drawn_at_random(case: Case) -> None:
    assert_same_layers(case)


def answers(file: Path, pixels: Array) -> list[dict[str, Any]]:
    """An ONNX file's answers for crops, as ``predict`` writes them."""
    opened = session(file)
    (given,) = opened.get_inputs()
    assert list(pixels.shape[1:]) == given.shape[1:]
    names = [output.name for output in opened.get_outputs()]
    found = dict(zip(names, opened.run(names, {given.name: pixels}), strict=True))
    people = json.loads(opened.get_modelmeta().custom_metadata_map["people"])
    return [
        {
            "label": [*people, "unknown"][found["label"][index]],
            "confidence": float(found["confidence"][index]),
            "unknown_score": float(found["unknown_score"][index]),
            "probabilities": dict(zip(people, found["probabilities"][index].tolist(), strict=True)),
        }
        for index in range(len(pixels))
    ]


def assert_same_answers(model: Path, photos: list[Path], *options: str) -> list[dict[str, Any]]:
    file = model.with_name("model.onnx")
    result = export(model, "onnx", file)
    assert result["input"]["shape"][1:] == list(crops(model, photos[:1]).shape[1:])
    expected = predicted(model, photos, *options)
    found = answers(file, crops(model, photos))
    for own, answer in zip(found, expected, strict=True):
        assert_same(own, answer)
    return expected


@pytest.mark.usefixtures("face_finding")
@pytest.mark.parametrize(
    "config",
    [
        "smoke",
        "default",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("many", "seed", "deep", "pretrained", "finetune")),
    ],
)
def test_shipped_networks(config: str, sample: list[Path], model_file: ModelFileMaker) -> None:
    expected = assert_same_answers(model_file(config, sample), sample, "--device", "reference")
    spread = [answer["probabilities"]["s1"] for answer in expected]
    assert max(spread) - min(spread) > 0.02
    assert min(spread) > 0.001
    assert max(spread) < 0.999


CALIBRATIONS = {
    "no threshold": Calibration(temperature=0.3, highest_confidence=0.7),
    "everybody refused": Calibration(temperature=0.5, threshold=0.0),
}


@pytest.mark.parametrize("name", CALIBRATIONS)
@pytest.mark.parametrize("colour", ["grey", "rgb"])
def test_calibrations_and_views(name: str, colour: str, sample: list[Path], model_file: ModelFileMaker) -> None:
    """Without an output for strangers, without views but the photo itself, on pictures that aren't square."""
    people, augment = ("s1", "s2", "s3"), None if colour == "rgb" else AugmentSettings(mirror=False, shift=0.02)
    model = model_file(
        "smoke", sample, calibration=CALIBRATIONS[name], classes=people, colour=colour, size=(21, 18), augment=augment
    )
    expected = assert_same_answers(model, sample, "--device", "reference")
    labels = {answer["label"] for answer in expected}
    if name == "everybody refused":
        assert labels == {"unknown"}
    else:
        assert labels <= {*people}
        assert max(answer["confidence"] for answer in expected) == 0.7


def test_the_description_is_in_the_file(sample: list[Path], model_file: ModelFileMaker) -> None:
    model = model_file("smoke", sample)
    file = model.with_name("model.onnx")
    result = export(model, "onnx", file)
    metadata = session(file).get_modelmeta()
    assert metadata.producer_name == "facecnn"
    described = {key: json.loads(text) for key, text in metadata.custom_metadata_map.items()}
    assert described["model_sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()
    assert described["people"] == ["s1", "s2"]
    assert described["classes"] == ["s1", "s2", "unknown"]
    assert described["calibration"] == {
        "temperature": 0.7,
        "stranger_bias": 0.4,
        "threshold": 0.45,
        "highest_confidence": None,
    }
    assert described["preparation"] == {
        "height": 24,
        "width": 24,
        "margin": [6, 6],
        "colour": "grey",
        "normalise": "standardise",
        "crop": {"kind": "centre", "share": 0.6},
    }
    assert described["views"] == {"mirror": True, "shift": 0.03, "averaged": "log_probabilities"}
    opened = session(file)
    for side, found in ((result["outputs"], opened.get_outputs()), ([result["input"]], opened.get_inputs())):
        assert [(one["name"], one["shape"]) for one in side] == [(one.name, one.shape) for one in found]


def test_equal_models_give_equal_bytes(sample: list[Path], model_file: ModelFileMaker) -> None:
    model = model_file("smoke", sample)
    files = [model.with_name(f"{number}.onnx") for number in range(2)]
    assert [export(model, "onnx", file)["sha256"] for file in files] == [
        hashlib.sha256(file.read_bytes()).hexdigest() for file in files
    ]
    assert files[0].read_bytes() == files[1].read_bytes()
