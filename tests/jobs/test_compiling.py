"""Kernels that further processes compile for a training."""

import gc
import io
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from facecnn.jobs import compiling
from facecnn.jobs.compiling import compiling_together
from facecnn.jobs.console import Console
from facecnn.jobs.faces import run_installed_networks
from facecnn.jobs.warm import plan_ahead
from facecnn.kernels import available_threads, open_device
from facecnn.kernels.code_cache import code_files
from facecnn.kernels.cpu.launching import listed


class Left(Console):
    """A console that shows nothing, but knows how many functions are left."""

    def __init__(self) -> None:
        self.left: Callable[[], int | None] = lambda: None

    def show_left(self, left: Callable[[], int | None]) -> None:
        self.left = left


LONG = 1000.0
"""Seconds of compiling that any process is worth."""


@pytest.fixture
def usual_thresholds() -> Iterator[tuple[int, int, int]]:
    """Those with which Python's garbage collector begins, and not the tests."""
    before, usual = gc.get_threshold(), (700, 10, 10)
    gc.set_threshold(*usual)
    yield usual
    gc.set_threshold(*before)


def test_the_others_start_once_there_is_much_to_compile_and_end_with_the_context(
    usual_thresholds: tuple[int, int, int],
) -> None:
    planned = [plan_ahead("smoke")]
    with compiling_together(planned, open_device("cpu"), Left(), faces=False) as together:
        together.notice(compiling.WORTH_A_PROCESS / 2)
        assert together.started == []
        together.notice(LONG)
        others = list(together.started)
        assert len(others) == min(available_threads(), compiling.MOST_PROCESSES) - 1
        together.notice(LONG)
        assert together.started == others
        assert gc.get_threshold() > usual_thresholds
    assert (gc.get_threshold(), gc.get_freeze_count()) == (usual_thresholds, 0)
    assert all(other.poll() is not None for other in others)


def test_where_nothing_takes_long_the_garbage_collector_is_left_alone() -> None:
    """Whoever calls the library may have frozen objects, as the tests do."""
    gc.freeze()
    frozen = gc.get_freeze_count()
    with compiling_together([plan_ahead("smoke")], open_device("cpu"), Left(), faces=False) as together:
        together.notice(compiling.WORTH_A_PROCESS / 2)
    assert 0 < gc.get_freeze_count() <= frozen


@pytest.mark.parametrize(("device", "threads"), [("reference", None), ("cpu", 1)])
def test_where_no_other_can_help_none_starts(device: str, threads: int | None) -> None:
    with compiling_together([plan_ahead("smoke")], open_device(device), Left(), threads, faces=False) as together:
        together.notice(LONG)
        assert together.started == []


def test_what_is_left_is_known_where_no_other_can_help() -> None:
    """After the photos have been read; and where nothing takes long, nobody asks."""
    console = Left()
    with compiling_together([plan_ahead("smoke")], open_device("cpu"), console, 1, faces=False) as together:
        together.join_in()
        assert console.left() is None
        together.notice(LONG)
        together.join_in()
        left = console.left()
        assert left is not None
        assert left >= 0


def test_what_is_left_shrinks_with_every_file_of_any_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    files = {tmp_path / str(number) for number in range(9)}
    monkeypatch.setattr(compiling, "compiled_code", lambda device: set(files))
    console = Left()
    with compiling_together([plan_ahead("smoke")], open_device("cpu"), console, faces=False) as together:
        together._listen(io.BytesIO(b"12\n"))
        assert console.left() == 3
        files.add(tmp_path / "another")
        assert console.left() == 2
        files.update(tmp_path / f"more {number}" for number in range(5))
        assert console.left() == 0, "not all functions are foreseen"


@pytest.mark.slow
def test_another_process_compiles_all_that_a_training_needs(people: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    environment = os.environ | {"FACECNN_CACHE_DIR": str(cache)}
    arguments = [[plan_ahead("smoke")], False, True, 0.3]
    command = [sys.executable, "-m", compiling.__name__]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        pickle.dump(arguments, other.stdin)
        other.stdin.flush()
        foreseen = int(other.stdout.readline())
        assert foreseen > len(code_files(str(cache))), "it is said before all is compiled"
        assert other.wait(timeout=600) == 0
    kept = code_files(str(cache))
    assert len(kept) == foreseen > 0
    train = ["train", people, "-c", "smoke", "--device", "cpu", "--epochs", "2", "--out", tmp_path, "--name", "run"]
    command = [sys.executable, "-m", "facecnn", *map(str, train)]
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=600)
    assert code_files(str(cache)) == kept


def test_another_process_ends_with_the_first(tmp_path: Path) -> None:
    """As where that is killed: the pipe between them is closed."""
    environment = os.environ | {"FACECNN_CACHE_DIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-m", compiling.__name__], stdin=subprocess.PIPE, env=environment) as other:
        assert other.stdin is not None
        pickle.dump([[plan_ahead("deep")], True, False, 0.0], other.stdin)
        other.stdin.close()
        assert other.wait(timeout=60) == 0
    assert not code_files(str(tmp_path))


def test_finding_and_cutting_out_candidates_is_compiled_with_the_face_finder(face_finding: None) -> None:
    launches = listed(run_installed_networks)
    assert {"forward", "_crop_squares", "_collect", "_mark_kept"} <= {kernel.py_func.__name__ for kernel, _ in launches}
