"""Reading the networks' weights out of the installed package, and what is said where that fails."""

import hashlib
import importlib.util
import shutil
import sys
from collections import Counter
from collections.abc import Mapping
from math import prod
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from facecnn.errors import CheckpointError
from facecnn.faces.nets import NETS
from facecnn.faces.weights import SHA256, installed_arrays

Arrays = Mapping[str, npt.NDArray[np.float32]]


def test_every_array_of_the_networks_is_there_and_nothing_else(arrays: Arrays) -> None:
    expected = {
        f"{net}.{stage.name}.{name}": parameter.shape
        for net, stages in ((name, net.stages) for name, net in NETS.items())
        for stage in stages
        for name, parameter in stage.parameters.items()
    }
    assert {name: array.shape for name, array in arrays.items()} == expected
    # As many numbers as the three files are known to hold.
    counts: Counter[str] = Counter()
    for name, array in arrays.items():
        counts[name.partition(".")[0]] += prod(array.shape)
    assert counts == {"pnet": 6_632, "rnet": 100_178, "onet": 389_040}


def test_they_are_numbers_of_a_trained_network(arrays: Arrays) -> None:
    for name, array in arrays.items():
        assert array.dtype == np.float32
        assert array.flags.c_contiguous
        assert np.isfinite(array).all(), name
        assert 0 < np.abs(array).max() < 10, name
        assert array.std() > 0, name


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arrays: Arrays) -> Path:
    """A copy of mtcnn, found in place of the installed one: the folder of its weights."""
    spec = importlib.util.find_spec("mtcnn")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    folder = tmp_path / "mtcnn"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise ImportError('mtcnn is never imported')\n", encoding="utf-8")
    weights = Path(spec.submodule_search_locations[0]) / "assets" / "weights"
    shutil.copytree(weights, folder / "assets" / "weights")
    monkeypatch.syspath_prepend(tmp_path)
    return folder / "assets" / "weights"


def test_they_are_read_without_importing_the_package(package: Path, arrays: Arrays) -> None:
    read = installed_arrays()
    assert read is not None
    assert read.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name], array)


@pytest.mark.parametrize("name", NETS)
def test_a_damaged_file_is_named_and_how_to_mend_it(package: Path, name: str) -> None:
    data = bytearray((package / f"{name}.lz4").read_bytes())
    data[len(data) // 2] ^= 1
    (package / f"{name}.lz4").write_bytes(data)
    with pytest.raises(CheckpointError, match=rf"{name}\.lz4.*damaged.*pip install .*mtcnn==1\.0\.0"):
        installed_arrays()


def test_a_file_that_is_cut_short_is_damaged_too(package: Path) -> None:
    data = (package / "onet.lz4").read_bytes()
    (package / "onet.lz4").write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match=r"onet\.lz4.*damaged"):
        installed_arrays()


def test_another_version_is_not_read(package: Path) -> None:
    (package / "rnet.lz4").unlink()
    with pytest.raises(CheckpointError, match=r"not as version 1\.0\.0, which has rnet\.lz4.*pip install"):
        installed_arrays()


def pretend_it_is_right(package: Path, name: str, frame: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    (package / f"{name}.lz4").write_bytes(frame)
    monkeypatch.setitem(SHA256, name, hashlib.sha256(frame).hexdigest())


def test_more_than_weights_can_be_is_not_unpacked(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lz4 = pytest.importorskip("lz4.frame")
    pretend_it_is_right(package, "pnet", lz4.compress(bytes(2**23)), monkeypatch)
    with pytest.raises(CheckpointError, match=r"pnet\.lz4: .*more than 4 MiB of weights: pip install"):
        installed_arrays()


def test_a_frame_that_is_cut_short_is_damaged(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = (package / "onet.lz4").read_bytes()
    pretend_it_is_right(package, "onet", frame[: len(frame) // 2], monkeypatch)
    with pytest.raises(CheckpointError, match=r"onet\.lz4: cut short"):
        installed_arrays()


def test_without_lz4_it_is_said_what_brings_it(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lz4.frame", None)
    with pytest.raises(CheckpointError, match=r"pnet\.lz4: .*the package lz4 .*pip install 'facecnn\[faces\]'"):
        installed_arrays()


def test_without_the_package_there_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert installed_arrays() is None
