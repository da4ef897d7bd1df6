"""A model that ranks answer with."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.running import call


@pytest.fixture(scope="session")
def model(people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a small model of the people, whose photos are cropped to the middle."""
    folder = tmp_path_factory.mktemp("runs")
    arguments = ("-c", "smoke", "--set", "photos.faces=off", "--epochs", "1", "--device", "reference")
    assert call("train", people, *arguments, "--out", folder, "--name", "run").exit_code == 0
    return folder / "run" / "best.safetensors"
