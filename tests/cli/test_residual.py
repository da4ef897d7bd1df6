"""The commands with a network that has residual blocks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .running import Facecnn, Trained, call

NETWORK = """\
photos: {faces: off, size: 24, colour: grey}
network:
  - conv: {kernels: 4, size: 3, padding: same, activation: leaky_relu, slope: 0.1, pool: 2}
  - residual:
      layers:
        - conv: {kernels: 4, size: 3, padding: same, activation: leaky_relu, slope: 0.1, pool: 2}
        - batch_norm
      shortcut: {size: 2, kind: average}
  - neuron: 2
  - unit_length
  - dense: people
train: {epochs: 2, batch_size: 8}
"""


@pytest.fixture(scope="module")
def blocks(people: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A run on two people. Not to be written to."""
    folder = tmp_path_factory.mktemp("blocks")
    (folder / "blocks.yaml").write_text(NETWORK, encoding="ascii")
    done = call("train", people, "-c", folder / "blocks.yaml", "--out", folder, "--name", "run", "--format", "json")
    assert done.exit_code == 0, done.stderr
    return Trained(folder / "run", done.json(), people)


def test_inspect_counts_what_is_within(blocks: Trained, facecnn: Facecnn) -> None:
    rows = {row["name"]: row for row in facecnn("inspect", "-m", blocks.path, "--format", "json").json()["layers"]}
    assert list(rows) == ["conv1", "residual1", "neuron1", "unit_length1", "dense1"]
    assert rows["residual1"]["parameters"] == 4 * 3 * 3 * 4 + 4 + 2 * 4
    assert (rows["residual1"]["input"], rows["residual1"]["output"]) == ([12, 12, 4], [6, 6, 4])


def test_its_answers_are_explained(blocks: Trained, tmp_path: Path, facecnn: Facecnn, pictures: None) -> None:
    photo = next(iter(sorted((blocks.photos / "ann").iterdir())))
    done = facecnn("predict", photo, "-m", blocks.path, "--explain", tmp_path, "--format", "json")
    assert done.exit_code == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == [f"{photo.stem}.explained.png"]


def test_its_pictures_show_the_kernels_within(blocks: Trained) -> None:
    header = (blocks.path / "kernels.frames").read_bytes().split(b"\n")[0]
    assert [name for name, *_ in json.loads(header)["layers"]] == ["conv1", "residual1.conv1"]
    assert (blocks.path / "patches.png").stat().st_size > 0


@pytest.mark.slow
def test_another_training_starts_from_its_blocks(blocks: Trained, tmp_path: Path, facecnn: Facecnn) -> None:
    config = blocks.path.parent / "blocks.yaml"
    arguments = ["-c", config, "--out", tmp_path, "--name", "run", "--format", "json", "--init-from", blocks.path]
    done = facecnn("train", blocks.photos, *arguments, "--set", "train.freeze=2", "--epochs", "1")
    assert done.exit_code == 0, done.stderr
    assert done.json()["init_from"]["taken"] == ["conv1", "residual1", "neuron1", "dense1"]
    larger = ["--overwrite", "--set", "network.1.residual.layers.0.conv.size=5"]
    other = facecnn("train", blocks.photos, *arguments, *larger)
    assert other.json()["init_from"]["fresh"] == ["residual1"]


def test_gradcheck_names_what_is_within(blocks: Trained, facecnn: Facecnn) -> None:
    done = facecnn("gradcheck", "-c", blocks.path.parent / "blocks.yaml", "--device", "reference", "--format", "json")
    assert done.exit_code == 0, done.stderr
    found = {row["parameter"] for row in done.json()["layers"] if row["name"] == "residual1"}
    assert found == {"conv1.weight", "conv1.bias", "batch_norm1.scale", "batch_norm1.shift", "input"}
    assert "+ residual1, its sums only" in [part["name"] for part in done.json()["parts"]]
