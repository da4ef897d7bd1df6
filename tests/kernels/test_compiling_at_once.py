"""Two processes that need the same function."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from facecnn.kernels import code_cache
from facecnn.kernels.code_cache import code_files
from facecnn.kernels.compilation import Compilation, told
from facecnn.kernels.cpu import jit


def _thrice(x: Any) -> Any:
    return 3 * x


def _compiled_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(jit, "cache_folder", lambda: str(folder))
    folder.mkdir(exist_ok=True)
    return jit.compiled()(_thrice)


def _lock_of(folder: Path, before: Path) -> FileLock:
    """The lock of the function in another folder, as another process would have it."""
    [index] = before.rglob("*.nbi")
    place = folder / index.relative_to(before).with_suffix(".lock")
    place.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(place, 0)


def test_what_another_process_compiles_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done, here = tmp_path / "done", tmp_path / "here"
    assert _compiled_in(done, monkeypatch)(2) == 6
    function, results = _compiled_in(here, monkeypatch), []
    heard: list[Compilation] = []
    waits = threading.Event()

    class Lock(FileLock):
        def acquire(self, *arguments: Any, **options: Any) -> Any:
            waits.set()
            return super().acquire(*arguments, **options)

    monkeypatch.setattr(code_cache, "FileLock", Lock)
    with told(heard.append):
        with _lock_of(here, done):
            thread = threading.Thread(target=lambda: results.append(function(3)))
            thread.start()
            assert waits.wait(60)
            assert not code_files(str(here))
            shutil.copytree(done, here, ignore=shutil.ignore_patterns("*.lock"), dirs_exist_ok=True)
        thread.join(60)
    assert results == [9]
    assert heard == []


def test_a_process_that_never_ends_is_not_waited_for_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done, here = tmp_path / "done", tmp_path / "here"
    assert _compiled_in(done, monkeypatch)(2) == 6
    monkeypatch.setattr(code_cache, "_LONGEST_WAIT", 0.05)
    with _lock_of(here, done):
        assert _compiled_in(here, monkeypatch)(3) == 9
    assert len(code_files(str(here))) == 1


def test_others_need_not_wait_for_what_is_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _compiled_in(tmp_path, monkeypatch)(2) == 6
    with _lock_of(tmp_path, tmp_path):
        assert len(code_files(str(tmp_path))) == 1


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
