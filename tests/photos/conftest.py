"""What all tests of photos share: a cache of their own, and the test material where it is there."""

from pathlib import Path

import pytest

SHARED = Path(__file__).parents[3] / "shared"


@pytest.fixture(autouse=True)
def cache_dir(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("FACECNN_CACHE_DIR", str(folder))
    return folder


@pytest.fixture(scope="session")
def faces() -> Path:
    """Folders of real faces: blair_schroeder, many, strangers."""
    folder = SHARED / "faces"
    if not folder.is_dir():
        pytest.skip("needs ../shared/faces")
    return folder


@pytest.fixture(scope="session")
def corpus() -> Path:
    """Odd and broken picture files."""
    folder = SHARED / "faults" / "images"
    if not folder.is_dir():
        pytest.skip("needs ../shared/faults/images")
    return folder
