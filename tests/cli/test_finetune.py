"""``facecnn train -c finetune``: the last blocks of the pretrained body are trained, and nothing before them."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import facecnn
from facecnn.body.weights import body_arrays
from facecnn.runs.checkpoint import load_checkpoint

from .running import call_process

TRAINED = ("residual13.", "residual14.", "dense1.", "dense2.")
MINUTES = 30
"""Time limit: compiling the body's kernels for training takes long where it wasn't done before."""


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for package in ("mtcnn", "face_recognition_models"):
        if find_spec(package) is None:
            pytest.skip("needs the extras faces and pretrained")
    return tmp_path_factory.mktemp("runs")


def train(photos: Path, out: Path, name: str, *options: str | Path) -> dict[str, Any]:
    done = call_process(
        "train", photos, "-c", "finetune", "--epochs", "1", "--out", out, "--name", name, "--format", "json", *options,
        timeout=60 * MINUTES,
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    result: dict[str, Any] = done.json()
    return result


def model(run: Path) -> dict[str, Any]:
    arrays = load_checkpoint(run / "best.safetensors").arrays
    return {name.removeprefix("model."): array for name, array in arrays.items() if name.startswith("model.")}


@pytest.mark.slow
def test_only_the_last_blocks_are_trained_and_others_may_begin_from_them(sample: Path, out: Path) -> None:
    result = train(sample, out, "first")
    assert result["photos"] == {"train": 16, "validation": 4, "skipped": 0}
    assert result["validation"]["closed_set_accuracy"] == 1
    assert not result["by_embeddings"]
    assert result["pretrained"] is None, "it is the pretrained body"
    body = body_arrays()
    assert body is not None
    trained = model(out / "first")
    assert trained.keys() == body.keys() | {"dense2.weight", "dense2.bias"}
    for name, array in body.items():
        assert np.array_equal(trained[name], array) != name.startswith(TRAINED), name

    photos = sorted(sample.glob("*/*.pgm"))
    done = call_process("predict", *photos, "-m", out / "first", "--threshold", "off", "--format", "json")
    assert done.exit_code == 0, done.stderr
    assert [answer["label"] for answer in done.json()] == [photo.parent.name for photo in photos]

    # Its embeddings, whose length doesn't count, are what its last layer sees.
    embedded = np.stack([faces[0] / np.linalg.norm(faces[0]) for faces in facecnn.load(out / "first").embed(photos)])
    scores = embedded @ trained["dense2.weight"].T + trained["dense2.bias"]
    assert [("s1", "s2")[likeliest] for likeliest in scores.argmax(axis=1)] == [photo.parent.name for photo in photos]

    again = train(sample, out, "second", "--init-from", out / "first")
    assert again["init_from"]["fresh"] == []
    further = model(out / "second")
    for name, array in trained.items():
        assert np.array_equal(further[name], array) != name.startswith(TRAINED), name
    start = load_checkpoint(out / "second" / "last.safetensors").arrays
    assert all(np.array_equal(start[f"taken.{name}"], array) for name, array in trained.items())
