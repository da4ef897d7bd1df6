"""Two processes that need the same function."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
from filelock import FileLock

from facecnn.kernels import code_cache
from facecnn.kernels.code_cache import code_files
from facecnn.kernels.compilation import Compilation, told
from facecnn.kernels.cpu import jit
from facecnn.kernels.cpu.launching import Launch, compile_in_order, launch, listed, not_kept


def _thrice(x: Any) -> Any:
    return 3 * x


_INTEGER = (numba.types.int64,)


def _compiled_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(jit, "cache_folder", lambda: str(folder))
    folder.mkdir(exist_ok=True)
    return jit.compiled()(_thrice)


def _lock_of(folder: Path, before: Path) -> FileLock:
    """The lock of what was compiled, in another folder, as another process would have it."""
    [index] = before.rglob("*.nbi")
    [lock] = {*before.rglob("*.lock")} - {index.with_suffix(".lock")}  # which is held while the index is written
    place = folder / lock.relative_to(before)
    place.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(place, 0)


def test_what_another_process_compiles_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done, here = tmp_path / "done", tmp_path / "here"
    assert _compiled_in(done, monkeypatch)(2) == 6
    function, results = _compiled_in(here, monkeypatch), []
    heard: list[Compilation] = []
    waits = threading.Event()

    def hear(compilation: Compilation) -> None:
        heard.append(compilation)
        waits.set()

    with told(hear):
        with _lock_of(here, done):
            thread = threading.Thread(target=lambda: results.append(function(3)))
            thread.start()
            assert waits.wait(60)
            assert not code_files(str(here))
            shutil.copytree(done, here, ignore=shutil.ignore_patterns("*.lock"), dirs_exist_ok=True)
        thread.join(60)
    assert results == [9]
    assert (heard[0].at_work, heard[-1].at_work) == (True, False)
    assert heard[-1].waited > 0
    assert {(compilation.functions, compilation.seconds) for compilation in heard} == {(0, 0.0)}, "nothing was compiled"


def test_a_process_that_never_ends_is_not_waited_for_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done, here = tmp_path / "done", tmp_path / "here"
    assert _compiled_in(done, monkeypatch)(2) == 6
    monkeypatch.setattr(code_cache, "_LONGEST_WAIT", 0.05)
    with _lock_of(here, done):
        assert _compiled_in(here, monkeypatch)(3) == 9
    assert len(code_files(str(here))) == 1


def test_a_long_wait_is_told_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done, here = tmp_path / "done", tmp_path / "here"
    assert _compiled_in(done, monkeypatch)(2) == 6
    monkeypatch.setattr(code_cache, "_LONGEST_WAIT", 0.05)
    monkeypatch.setattr(code_cache, "_TOLD_EVERY", 0.02)
    heard: list[Compilation] = []
    with told(heard.append), _lock_of(here, done):
        assert _compiled_in(here, monkeypatch)(3) == 9
    waits = [compilation for compilation in heard if compilation.functions == 0 and compilation.seconds == 0]
    assert [compilation.at_work for compilation in waits[:4]] == [True, True, True, False]
    assert 0.05 <= waits[3].waited == heard[-1].waited
    assert waits[1].waited < waits[2].waited
    assert heard[-1].functions == 1


def test_what_is_not_kept_yet_is_known_without_compiling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    function = _compiled_in(tmp_path, monkeypatch)
    integer, floating = Launch(function, _INTEGER), Launch(function, (numba.types.float64,))
    assert not_kept([integer, floating]) == [integer, floating]
    assert function(2) == 6
    assert not_kept([integer, floating]) == [floating]
    assert function.signatures == [_INTEGER]
    monkeypatch.setattr(jit, "cache_folder", lambda: None)
    assert not_kept([Launch(jit.compiled()(_thrice), _INTEGER)]) == [], "where nothing can be kept, nothing is left"


def test_others_need_not_wait_for_what_is_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _compiled_in(tmp_path, monkeypatch)(2) == 6
    with _lock_of(tmp_path, tmp_path):
        assert len(code_files(str(tmp_path))) == 1


def test_what_is_for_other_types_is_compiled_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done, here = tmp_path / "done", tmp_path / "here"
    assert _compiled_in(done, monkeypatch)(2) == 6
    function = _compiled_in(here, monkeypatch)
    with _lock_of(here, done):
        assert function(1.5) == 4.5
        assert len(code_files(str(here))) == 1
    assert function(2) == 6
    again = _compiled_in(here, monkeypatch)
    with told(_refuse):
        assert (again(1.5), again(2)) == (4.5, 6)


def _refuse(compilation: Compilation) -> None:
    raise AssertionError(f"compiled again: {compilation}")


def test_what_another_process_compiles_is_left_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done, here = tmp_path / "done", tmp_path / "here"
    assert _compiled_in(done, monkeypatch)(2) == 6
    function = _compiled_in(here, monkeypatch)
    launches = [Launch(function, _INTEGER), Launch(function, (numba.types.float64,))]
    with _lock_of(here, done):
        compile_in_order(launches)
        assert function.signatures == [(numba.types.float64,)]
    compile_in_order(launches)
    assert set(function.signatures) == {types for _, types in launches}


def test_what_cannot_be_kept_is_not_compiled_for_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jit, "cache_folder", lambda: None)
    function = jit.compiled()(_thrice)
    compile_in_order([Launch(function, _INTEGER)])
    assert function.signatures == []
    assert function(2) == 6


def test_listed_launches_are_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, numbers = _compiled_in(tmp_path, monkeypatch), [np.zeros(2), 3]

    def launches_then_fails() -> None:
        for number in (*numbers, *numbers):
            launch(kernel, number)
        raise ValueError

    array, integer = listed(launches_then_fails)
    assert array == Launch(kernel, (numba.typeof(numbers[0]),))
    assert integer == Launch(kernel, _INTEGER)
    assert kernel.signatures == []
    launch(kernel, 1)
    assert kernel.signatures == [_INTEGER]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes don't fork here")
def test_a_forked_process_compiles_what_its_parent_has_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    function = _compiled_in(tmp_path, monkeypatch)
    child = os.fork()
    if child == 0:
        try:
            os._exit(function(3))
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
