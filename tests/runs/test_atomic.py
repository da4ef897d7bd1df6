"""Files that a power cut leaves whole."""

import os
import stat
from pathlib import Path

import pytest

from facecnn.runs.atomic import write_atomically


@pytest.mark.skipif(os.name == "nt", reason="Windows opens no folders")
def test_a_file_is_on_the_disk_before_its_name_and_its_name_before_anything_else_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        status = os.fstat(descriptor)
        of_folder = os.path.samestat(status, tmp_path.stat())
        whole = stat.S_ISREG(status.st_mode) and status.st_size == len(b"new")
        done.append("folder" if of_folder else "whole file" if whole else "something else")
        fsync(descriptor)

    def renamed(path: Path, target: Path) -> Path:
        done.append("rename")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    write_atomically(tmp_path / "file", b"new")
    assert done == ["whole file", "rename", "folder"]
    assert (tmp_path / "file").read_bytes() == b"new"
