"""What the tests of the body share: the installed file, what is read from it, and a package that stands for it."""

import importlib.util
from pathlib import Path

import pytest

from facecnn.body.dat import BodyFile, read_body

PACKAGE = "face_recognition_models"
FILE = "dlib_face_recognition_resnet_model_v1.dat"


@pytest.fixture(scope="session")
def source() -> Path:
    """The installed file. Not to be written to."""
    spec = importlib.util.find_spec(PACKAGE)  # imported, it would want pkg_resources
    if spec is None:
        pytest.skip("needs the extra pretrained")
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0]) / "models" / FILE


@pytest.fixture(scope="session")
def data(source: Path) -> bytes:
    """The file's content."""
    return source.read_bytes()


@pytest.fixture(scope="session")
def body(data: bytes) -> BodyFile:
    """What is read from the file. Not to be written to."""
    return read_body(Path(FILE), data)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes) -> Path:
    """A copy of the package's file, in a package that is found in place of the installed one and can't be imported."""
    folder = tmp_path / "packages" / PACKAGE
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise ImportError('the package is never imported')\n", encoding="utf-8")
    (folder / "models" / FILE).write_bytes(data)
    monkeypatch.syspath_prepend(folder.parent)
    return folder / "models" / FILE
