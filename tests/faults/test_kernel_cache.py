"""Faults of the place where compiled kernels are kept."""

from __future__ import annotations

import os
import random
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from facecnn.jobs.signals import StopAtOnce, Stopped
from facecnn.kernels import code_cache
from facecnn.kernels.code_cache import code_files
from facecnn.kernels.cpu import jit
from facecnn.kernels.notes import Notes

from .conftest import QUICK, Run


@pytest.fixture
def heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What is told of a cache of the test's own, which functions that are compiled below are kept in."""
    monkeypatch.setattr(jit, "cache_folder", lambda: str(tmp_path))
    monkeypatch.setattr(code_cache, "_notes", Notes())
    notes: list[str] = []
    with code_cache.notes_told(notes.append):
        yield notes


def twice(x: Any) -> Any:
    return 2 * x


def twice_from_the_disk(x: Any, *, compiled: bool) -> Any:
    """As another process has it; ``compiled``: whether it has to compile it."""
    function = jit.compiled()(twice)
    answer = function(x)
    assert bool(sum(function.stats.cache_misses.values())) == compiled
    return answer


def cut(size: float) -> Callable[[bytes], bytes]:
    return lambda whole: whole[: int(size * len(whole))]


def flip(seed: int) -> Callable[[bytes], bytes]:
    def damage(whole: bytes) -> bytes:
        place, bit = random.Random(seed).randrange(len(whole)), random.Random(-seed - 1).randrange(8)
        return whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :]

    return damage


# All in one file, so that the harness counts each as the row that it is of.
damages = pytest.mark.parametrize(
    "damage",
    [cut(0), cut(0.02), cut(0.5), cut(0.99), *(flip(seed) for seed in range(6)), lambda whole: whole + b"\0"],
    ids=["empty", "hash cut", "half", "end cut", *(f"bit {seed}" for seed in range(6)), "longer"],
)


@pytest.mark.fault("R23")
@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
@damages
def test_a_damaged_file_is_compiled_again(
    damage: Callable[[bytes], bytes], suffix: str, heard: list[str], tmp_path: Path
) -> None:
    assert twice_from_the_disk(4, compiled=True) == 8
    [file] = tmp_path.rglob(f"*.{suffix}")
    file.write_bytes(damage(file.read_bytes()))
    assert twice_from_the_disk(5, compiled=True) == 10
    [note] = heard
    assert str(tmp_path) in note
    assert "damaged" in note
    assert twice_from_the_disk(6, compiled=False) == 12
    assert len(heard) == 1


@pytest.mark.fault("R23")
def test_a_file_in_another_ones_place_is_not_taken_for_it(heard: list[str], tmp_path: Path) -> None:
    assert twice_from_the_disk(4, compiled=True) == 8
    assert twice_from_the_disk(0.25, compiled=True) == 0.5
    first, second = sorted(code_files(str(tmp_path)))
    shutil.copy(second, first)
    assert twice_from_the_disk(5, compiled=True) == 10
    assert len(heard) == 1


@pytest.mark.fault("R23")
def test_two_processes_that_write_one_file_at_once(heard: list[str], tmp_path: Path) -> None:
    """Both find an empty index, and take its first number; the one's index and the other's code are left."""
    assert twice_from_the_disk(4, compiled=True) == 8
    [index] = tmp_path.rglob("*.nbi")
    ours = index.read_bytes()
    index.unlink()
    assert twice_from_the_disk(0.25, compiled=True) == 0.5
    index.write_bytes(ours)
    assert twice_from_the_disk(5, compiled=True) == 10
    assert heard == []
    assert twice_from_the_disk(6, compiled=False) == 12


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that commands below keep things in, with the kernels that are compiled already."""
    kernels = jit.cache_folder()
    assert kernels is not None
    folder = tmp_path / "cache"
    shutil.copytree(kernels, folder / "kernels" / Path(kernels).name)
    monkeypatch.setenv("FACECNN_CACHE_DIR", str(folder))
    return folder


@pytest.mark.fault("R23")
def test_a_training_with_a_damaged_cache(model: Path, made_people: Path, own_cache: Path, run: Run) -> None:
    """Only of kernels that are compiled quickly; ``test_a_damaged_file_is_compiled_again`` has all kinds of damage."""
    for pattern, damage in (
        ("loss._take_batch*.nbc", cut(0.5)),
        ("loss._take_batch*.nbi", flip(1)),
        ("loss._label_weight*.nbi", cut(0.3)),
        ("loss._add_to_totals*.nbc", flip(2)),
    ):
        [*files] = own_cache.rglob(pattern)
        assert files
        for file in files:
            file.write_bytes(damage(file.read_bytes()))
    train = ("train", made_people, *QUICK, "--out", own_cache.parent, "--name")
    done = run(*train, "first", timeout=300)
    assert done.exit_code == 0, done.stderr
    assert done.stderr.count("files of compiled kernels in it are damaged") == 1
    assert (own_cache.parent / "first" / "best.safetensors").read_bytes() == (model / "best.safetensors").read_bytes()
    done = run(*train, "second")
    assert done.exit_code == 0
    assert "files of compiled kernels" not in done.stderr
    assert "Compil" not in done.stderr


PROGRAM = """
import numpy as np
from facecnn.kernels import code_cache, cpu
row, bias, units = (cpu.to_device(np.ones(s, np.float32)) for s in ((1, 9), (1,), (1, 1)))
cpu.dense_forward(units, row, row, bias, cpu.Workspace())
assert units.item() == 10
print(*code_cache.notes(), sep="\\n")
"""


def notes_of_program(folder: Path, **environment: str) -> list[str]:
    """Of a process that compiles a small kernel, with this folder as its cache."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
        | {"FACECNN_CACHE_DIR": str(folder)}
        | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.split("\n")[:-1]


@pytest.mark.fault("R23")
@pytest.mark.skipif(sys.platform == "win32", reason="no modes there")
@pytest.mark.parametrize("what", ["kernels", "photos"])
def test_folders_are_for_the_user_alone(what: str, made_people: Path, model: Path, tmp_path: Path, run: Run) -> None:
    new = tmp_path / "new"
    before = os.umask(0)
    try:
        if what == "kernels":
            assert notes_of_program(new / "cache") == [""]
        else:
            predict = ("predict", made_people / "person_0000", "-m", model, "--device", "reference")
            assert run(*predict, environment={"FACECNN_CACHE_DIR": str(new / "cache")}).exit_code == 0
    finally:
        os.umask(before)
    folders = [new, new / "cache", new / "cache" / what, *(new / "cache" / what).iterdir()]
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in folders] == [0o700] * 4


@pytest.mark.fault("R22")
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("100k", "No space left on device"),
        ("nr_inodes=7", "No space left on device"),
        ("nr_inodes=6", "no room, or no permission to write"),  # for a folder, of which Numba says no more
    ],
)
def test_a_cache_on_a_full_disk_is_done_without(options: str, reason: str, small_disk: Callable[[str], Path]) -> None:
    folder = small_disk(options)
    if "=" not in options:
        with pytest.raises(OSError), (folder / "full").open("wb") as file:  # noqa: PT011, PT012
            while True:
                file.write(bytes(4096))
                file.flush()
    notes = notes_of_program(folder)
    assert len(notes) == 1
    assert reason in notes[0]
    assert "FACECNN_CACHE_DIR" in notes[0]


@pytest.mark.fault("R22")
@pytest.mark.long
def test_a_training_with_a_cache_of_100_kb(
    made_people: Path, model: Path, tmp_path: Path, small_disk: Callable[[str], Path], run: Run
) -> None:
    """Photos and kernels."""
    environment = {"FACECNN_CACHE_DIR": str(small_disk("100k"))}
    done = run("train", made_people, *QUICK, "--out", tmp_path, "--name", "run", environment=environment, timeout=600)
    assert done.exit_code == 0, done.stderr
    assert done.stderr.count("can't be kept") == 1
    assert (tmp_path / "run" / "best.safetensors").read_bytes() == (model / "best.safetensors").read_bytes()
    predict = ("predict", made_people / "person_0000", "-m", model, "--device", "reference")
    done = run(*predict, environment=environment)
    assert done.exit_code == 0, done.stderr


@pytest.mark.fault("X-no-kernel-cache")
def test_nothing_is_left_behind_without_a_cache(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "temporary").mkdir()
    [note] = notes_of_program(tmp_path / "file", TMPDIR=str(tmp_path / "temporary"))
    assert str(tmp_path / "file") in note
    assert "can't be kept" in note
    assert list((tmp_path / "temporary").iterdir()) == []


# Ctrl-C while LLVM calls back into Python, which drops what is raised there.


@pytest.mark.fault("X-interrupted-compiling")
def test_an_interrupt_while_a_kernel_is_compiled(heard: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from numba.core.codegen import CPUCodeLibrary

    def interrupt(library: Any, code: Any) -> None:
        library.__dict__["_code"] = None
        if code is not None:
            signal.raise_signal(signal.SIGINT)
        library.__dict__["_code"] = code

    monkeypatch.setattr(
        CPUCodeLibrary, "_compiled_object", property(lambda library: library._code, interrupt), raising=False
    )
    with pytest.raises(Stopped), StopAtOnce():
        jit.compiled()(twice)(4)
    assert heard == []


INTERRUPT = """
import os, signal
from numba.core.codegen import CPUCodeLibrary

def interrupt(library, code):
    library.__dict__["_code"] = None
    if code is not None:
        os.kill(os.getpid(), signal.SIGINT)
    library.__dict__["_code"] = code

CPUCodeLibrary._compiled_object = property(lambda library: library.__dict__.get("_code"), interrupt)
"""


@pytest.mark.fault("X-interrupted-compiling")
def test_a_training_that_is_interrupted_while_kernels_are_compiled(
    made_people: Path, model: Path, tmp_path: Path, run: Run
) -> None:
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(INTERRUPT)
    done = run(
        "train", made_people, *QUICK, "--out", tmp_path, "--name", "run",
        environment={"FACECNN_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": str(tmp_path / "hook")},
    )  # fmt: skip
    assert done.exit_code == 130
    done.one_block()
    assert f"facecnn train --resume {tmp_path / 'run'}" in done.stderr
    done = run("train", "--resume", tmp_path / "run")
    assert done.exit_code == 0, done.stderr
    assert (tmp_path / "run" / "best.safetensors").read_bytes() == (model / "best.safetensors").read_bytes()
