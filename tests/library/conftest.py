"""What the tests of the library share: a trained model."""

from pathlib import Path

import pytest

import facecnn

SMOKE = {"config": "smoke", "epochs": 2}


@pytest.fixture(scope="session")
def runs(people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one run, ``two``, on two people. Not to be written to."""
    out = tmp_path_factory.mktemp("runs")
    facecnn.train(people, "smoke", out=out, name="two")
    return out


@pytest.fixture
def model(runs: Path) -> facecnn.Model:
    return facecnn.load(runs / "two")
