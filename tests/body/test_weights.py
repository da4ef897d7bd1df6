"""The body's weights: found without importing the package, verified, converted once and kept."""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from facecnn.body import weights
from facecnn.body.folding import shapes
from facecnn.body.weights import BODY_HASH, SHA256, body_arrays
from facecnn.errors import CheckpointError
from facecnn.photos.cache_folder import CACHE_VARIABLE

Arrays = dict[str, npt.NDArray[np.float32]]


def hash_of(arrays: Arrays) -> str:
    """Of the arrays' bytes, in the network's order."""
    digest = hashlib.sha256()
    for name in shapes():
        digest.update(arrays[name].astype("<f4").tobytes())
    return digest.hexdigest()


def read() -> Arrays:
    arrays = body_arrays()
    assert arrays is not None
    return arrays


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder that isn't there yet; gives the body's folder in it."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache" / "body"


@pytest.fixture
def kept(cache: Path, package: Path) -> Path:
    """The file in the cache, after the first conversion."""
    read()
    (file,) = cache.iterdir()
    return file


@pytest.fixture
def converting(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that are converted from now on."""
    files = []
    convert = weights.read_body

    def noting(path: Path, data: bytes) -> object:
        files.append(path)
        return convert(path, data)

    monkeypatch.setattr(weights, "read_body", noting)
    return files


def test_the_body_is_named_by_the_hash_of_its_arrays(package: Path, cache: Path) -> None:
    arrays = read()  # imported, the package would raise ImportError
    assert {name: array.shape for name, array in arrays.items()} == shapes()
    assert hash_of(arrays) == BODY_HASH
    assert not any(array.flags.writeable for array in arrays.values())


def test_what_is_kept_is_a_safetensors_file_with_its_origin(kept: Path) -> None:
    assert SHA256[:16] in kept.name
    assert hash_of(load_file(kept)) == BODY_HASH
    with safe_open(kept, "numpy") as file:
        assert file.metadata() == {
            "format": "facecnn body",
            "source_sha256": SHA256,
            "conversion_version": "1",
            "sha256": BODY_HASH,
        }


def test_the_second_time_it_is_read_from_the_cache(kept: Path, converting: list[Path]) -> None:
    before = kept.stat().st_mtime_ns
    arrays = read()
    assert converting == []
    assert hash_of(arrays) == BODY_HASH
    assert kept.stat().st_mtime_ns == before


def flip(file: Path, position: int) -> None:
    data = bytearray(file.read_bytes())
    data[position] ^= 1
    file.write_bytes(data)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a flipped bit in the weights": lambda file: flip(file, -1000),
    "a flipped bit in the header": lambda file: flip(file, 100),
    "a header said to be endless": lambda file: flip(file, 7),
    "cut short": lambda file: os.truncate(file, 20_000_000),
    "longer": lambda file: file.write_bytes(file.read_bytes() + b"\0"),
    "empty": lambda file: file.write_bytes(b""),
    "something else": lambda file: file.write_text("weights"),
    "a link to nothing": lambda file: (file.unlink(), file.symlink_to("nowhere")),
    "a link to itself": lambda file: (file.unlink(), file.symlink_to(file.name)),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_in_the_cache_is_made_anew(
    damage: Callable[[Path], object], kept: Path, converting: list[Path]
) -> None:
    good = kept.read_bytes()
    damage(kept)
    assert hash_of(read()) == BODY_HASH
    assert len(converting) == 1
    assert kept.read_bytes() == good
    assert [file.name for file in kept.parent.iterdir()] == [kept.name]


def test_the_weights_of_somebody_else_are_not_taken(kept: Path) -> None:
    """Their header and size are right, and a hash of their own wouldn't help: ours is in the program."""
    data = bytearray(kept.read_bytes())
    data[-400:] = np.ones(100, "<f4").tobytes()
    other = hashlib.sha256(data[-4 * sum(map(np.prod, shapes().values())) :]).hexdigest()
    kept.write_bytes(data.replace(BODY_HASH.encode(), other.encode()))
    assert hash_of(read()) == BODY_HASH


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_a_pipe_in_the_cache_is_not_waited_for(kept: Path) -> None:
    kept.unlink()
    os.mkfifo(kept)
    assert hash_of(read()) == BODY_HASH
    assert kept.is_file()


def test_a_file_that_cannot_be_read_is_made_anew(
    kept: Path, converting: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    opening = Path.open

    def refusing(path: Path, *arguments: Any, **options: Any) -> Any:
        if path == kept:
            raise PermissionError(13, "Permission denied")
        return opening(path, *arguments, **options)

    with monkeypatch.context() as patches:
        patches.setattr(Path, "open", refusing)
        assert hash_of(read()) == BODY_HASH
    assert len(converting) == 1
    assert hash_of(read()) == BODY_HASH
    assert len(converting) == 1


def test_a_folder_in_its_place_stays(kept: Path) -> None:
    kept.unlink()
    kept.mkdir()
    assert hash_of(read()) == BODY_HASH
    assert [file.name for file in kept.parent.iterdir()] == [kept.name]


@pytest.mark.parametrize("place", ["cache", "cache/body"])
def test_where_nothing_can_be_kept_it_is_converted_each_time(
    place: str, tmp_path: Path, package: Path, cache: Path, converting: list[Path]
) -> None:
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_text("a file, where there should be a folder")
    for times in (1, 2):
        assert hash_of(read()) == BODY_HASH
        assert len(converting) == times


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="permissions are another matter on Windows")
def test_a_cache_that_cannot_be_written_to(package: Path, cache: Path) -> None:
    cache.parent.mkdir()
    cache.parent.chmod(0o500)
    try:
        done = run_as_nobody(cache.parent, package)
    finally:
        cache.parent.chmod(0o700)
    assert (done.stdout.strip(), done.stderr) == (BODY_HASH, "")
    assert list(cache.parent.iterdir()) == []


PRINT_HASH = """
import hashlib, sys
from facecnn.body.folding import shapes
from facecnn.body.weights import body_arrays
arrays = body_arrays()
print(hashlib.sha256(b"".join(arrays[name].tobytes() for name in shapes())).hexdigest())
"""


def program(package: Path, code: str) -> tuple[list[str], dict[str, str]]:
    """A command that runs code with the package, and its environment."""
    paths = [str(package.parents[2]), str(Path(weights.__file__).parents[2])]
    return [sys.executable, "-c", code], os.environ | {"PYTHONPATH": os.pathsep.join(paths)}


def run_as_nobody(folder: Path, package: Path) -> subprocess.CompletedProcess[str]:
    """Run the program where permissions count: as root, on a file system that is mounted read-only."""
    command, environment = program(package, PRINT_HASH)
    if os.geteuid() == 0:
        if shutil.which("unshare") is None or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
            pytest.skip("mounting a file system needs more rights")
        mount = f"mount --bind {folder} {folder} && mount -o remount,ro,bind {folder} {folder}"
        command = ["unshare", "-m", "sh", "-c", f'{mount} && exec "$@"', "sh", *command]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_two_processes_at_once(package: Path, cache: Path) -> None:
    command, environment = program(package, PRINT_HASH)
    both = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate()[0].strip() for process in both] == [BODY_HASH] * 2
    (file,) = cache.iterdir()
    assert hash_of(load_file(file)) == BODY_HASH


@pytest.mark.parametrize("position", [0, 5, 343, 400, 11_000_000, -1])
def test_a_damaged_package_is_named_and_how_to_mend_it(position: int, package: Path, cache: Path) -> None:
    flip(package, position)
    with pytest.raises(CheckpointError, match=r"resnet_model_v1\.dat: .*damaged.*pip install .*models==0\.3\.0"):
        body_arrays()
    assert not cache.exists()


@pytest.mark.parametrize("size", [0, 1, 22_466_065, 22_466_067])
def test_a_package_of_another_size_is_not_read(size: int, package: Path, cache: Path) -> None:
    os.truncate(package, size)
    with pytest.raises(CheckpointError, match=rf"model_v1\.dat: damaged: {size} bytes, 22466066 expected: pip install"):
        body_arrays()


def test_another_version_of_the_package(package: Path, cache: Path) -> None:
    package.unlink()
    with pytest.raises(CheckpointError, match=r"not as version 0\.3\.0, which has dlib_face.*\.dat: pip install"):
        body_arrays()


def test_without_the_package_there_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert body_arrays() is None
