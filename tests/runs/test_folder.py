"""Run folders: two trainings never share one, nothing of anybody else's is deleted, and a run is found again."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from facecnn.errors import CheckpointError, FacecnnError, OutputError, UsageError
from facecnn.runs.atomic import TEMPORARY_SUFFIX
from facecnn.runs.checkpoint import Checkpoint, load_checkpoint
from facecnn.runs.folder import RunFolder, check_new_run, write_json


def at_epoch(epoch: int) -> Checkpoint:
    return Checkpoint({}, ["a", "b"], {}, {"epoch": epoch})


def make_run(out_dir: Path, name: str, epoch: int = 1) -> RunFolder:
    with RunFolder.create(out_dir, name, "default") as run:
        run.write_config("version: 1\n")
        run.save_last(at_epoch(epoch))
        run.save_best(at_epoch(epoch))
    return run


def files(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir() if not entry.name.startswith(".")}


def test_made_up_names_tell_when_and_what_and_differ(tmp_path: Path) -> None:
    runs = [RunFolder.create(tmp_path / "a" / "b", None, "my réd/config").path for _ in range(3)]
    assert len(set(runs)) == 3
    for run in runs:
        assert re.fullmatch(r"\d{8}-\d{6}-my-r-d-config(-[23])?", run.name)


@pytest.mark.parametrize("now", [0, 1e12, 1e17, -1])
def test_an_odd_clock_makes_a_name_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, now: float) -> None:
    localtime = time.localtime
    monkeypatch.setattr(time, "localtime", lambda: localtime(now))
    assert RunFolder.create(tmp_path, None, "…").path.name.endswith("-run")


def test_trainings_started_at_once_share_nothing(tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
from facecnn.errors import FacecnnError
from facecnn.runs.folder import RunFolder
try:
    print(RunFolder.create(Path(sys.argv[1]), sys.argv[2] or None, "default").path.name, flush=True)
    sys.stdin.read()
except FacecnnError as error:
    print(type(error).__name__)
"""
    for name, winners in (("", 4), ("mine", 1)):
        started = [
            subprocess.Popen(
                [sys.executable, "-c", script, tmp_path, name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(4)
        ]
        told = []
        for process in started:
            assert process.stdout is not None
            told.append(process.stdout.readline().strip())
        for process in started:
            process.communicate()
        # A name that another has just taken is in use as long as it holds the lock, and taken from then on.
        refused = [line for line in told if line in ("UsageError", "OutputError")]
        assert len({line for line in told if line not in refused}) == winners
        assert len(refused) == 4 - winners


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "../a", "/a", "a\\b", "a\nb", "a\x1b[31m", "a\0b", "é" * 51, "x" * 101, "a\u202eb"]
)
def test_odd_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError) as caught:
        RunFolder.create(tmp_path / "runs", name, "default")
    assert str(caught.value).isprintable()
    assert not (tmp_path / "runs").exists() or files(tmp_path / "runs") == set()


@pytest.mark.parametrize("name", ["x" * 100, "Ægir 2", "a.b", "-a", "$x$"])
def test_other_names_are_taken_as_they_are(tmp_path: Path, name: str) -> None:
    assert RunFolder.create(tmp_path, name, "default").path == tmp_path / name
    assert (tmp_path / name).is_dir()


def test_an_existing_run_is_kept_unless_overwriting_is_asked_for(tmp_path: Path) -> None:
    run = make_run(tmp_path, "mine", epoch=7)
    run.tracking_path.mkdir()
    events = run.tracking_path / "events.out.tfevents.1796006370.facecnn"
    for path in (*vars(run).values(), events):
        if isinstance(path, Path) and not path.exists():
            path.write_text("of the old run")
    with pytest.raises(UsageError, match=r"exists already: --resume .*mine goes on with it, --overwrite"):
        RunFolder.create(tmp_path, "mine", "default")
    with pytest.raises(UsageError, match="exists already"):
        check_new_run(tmp_path, "mine")
    assert load_checkpoint(tmp_path / "mine").state == {"epoch": 7}
    (tmp_path / "mine" / "notes.txt").write_text("of the user")
    check_new_run(tmp_path, "mine", overwrite=True)
    assert load_checkpoint(tmp_path / "mine").state == {"epoch": 7}  # the check alone deletes nothing
    RunFolder.create(tmp_path, "mine", "default", overwrite=True)
    assert files(tmp_path / "mine") == {"notes.txt"}


def test_other_peoples_folders_are_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "config.yaml").write_text("mine")
    make_run(tmp_path, "run")
    (tmp_path / "link").symlink_to(tmp_path / "run", target_is_directory=True)
    for name in ("photos", "link"):
        with pytest.raises(UsageError, match="not overwritten"):
            RunFolder.create(tmp_path, name, "default", overwrite=True)
    assert (tmp_path / "photos" / "config.yaml").read_text() == "mine"
    assert load_checkpoint(tmp_path / "run").state == {"epoch": 1}


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="a file has this name"):
        RunFolder.create(tmp_path, "file", "default", overwrite=True)
    for out_dir in (tmp_path / "file", tmp_path / "file" / "runs"):
        with pytest.raises(OutputError, match="a file, "):
            RunFolder.create(out_dir, None, "default")
    assert (tmp_path / "file").read_text() == "mine"


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, "mine", "default")
    run.save_last(at_epoch(1))
    other = RunFolder.open(tmp_path / "mine")
    with pytest.raises(OutputError, match=f"in use by process {os.getpid()}: "):
        other.lock()
    with pytest.raises(OutputError, match="in use by process"):
        RunFolder.create(tmp_path, "mine", "default", overwrite=True)
    assert load_checkpoint(run.path).state == {"epoch": 1}
    run.unlock()
    with other, pytest.raises(OutputError, match="in use by process"):
        run.lock()
    run.lock()


def test_a_killed_writers_lock_and_leftovers_do_no_harm(tmp_path: Path) -> None:
    run = make_run(tmp_path, "mine")
    script = """
import os, sys
from pathlib import Path
from facecnn.runs.folder import RunFolder
run = RunFolder.open(Path(sys.argv[1]))
run.lock()
os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", script, run.path], check=False).returncode == 9
    leftover = run.path / f".0123456789abcdef{TEMPORARY_SUFFIX}"
    leftover.write_bytes(b"half a check")
    assert load_checkpoint(run.path).state == {"epoch": 1}
    with run:
        assert not leftover.exists()


def test_a_deleted_folder_is_told_at_the_next_save(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, "mine", "default")
    for entry in run.path.iterdir():
        entry.unlink()
    run.path.rmdir()
    with pytest.raises(OutputError, match=r"last.safetensors: its folder does not exist"):
        run.save_last(at_epoch(1))
    run.unlock()


def test_last_becomes_previous(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, "mine", "default")
    for epoch in range(4):
        run.save_last(at_epoch(epoch))
    run.save_best(at_epoch(2))
    assert [load_checkpoint(p).state["epoch"] for p in (run.previous_path, run.last_path, run.best_path)] == [2, 3, 2]


@pytest.mark.parametrize("step", range(2))
def test_a_run_can_be_resumed_wherever_a_save_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    run = RunFolder.create(tmp_path, "mine", "default")
    run.save_last(at_epoch(1))
    run.save_last(at_epoch(2))
    replace, done = os.replace, []

    def stop(*arguments: Any) -> None:
        if len(done) == step:
            raise OSError(5, "Input/output error")
        done.append(replace(*arguments))

    monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(OutputError):
        run.save_last(at_epoch(3))
    monkeypatch.undo()
    assert len(done) == step
    assert load_checkpoint(run.path, "last").state["epoch"] == 2
    run.save_last(at_epoch(3))
    assert load_checkpoint(run.path, "last").state["epoch"] == 3


def test_config_and_split_come_back(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, "mine", "default")
    run.write_config("classes: [Ægir]\n")
    split = {"train": ["b\udcff.jpg", "ł.png"], "validation": [], "seed": 0}
    write_json(run.split_path, split)
    assert run.config_path.read_bytes() == "classes: [Ægir]\n".encode()
    assert run.read_split() == split
    for content in (b"{", b"[]", b"\xff"):
        run.split_path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"split.json: damaged"):
            run.read_split()
    run.split_path.unlink()
    with pytest.raises(CheckpointError, match=r"split.json: No such file"):
        run.read_split()


def test_open_wants_a_run(tmp_path: Path) -> None:
    make_run(tmp_path, "mine")
    assert RunFolder.open(tmp_path / "mine").last_path.is_file()
    (tmp_path / "empty").mkdir()
    for path, told in [
        (tmp_path / "mine" / "last.safetensors", "a file: give the folder"),
        (tmp_path / "empty", "not a run"),
        (tmp_path / "min", "no such run: did you mean .*mine"),
        (tmp_path / "zzz", "no such run: give a folder"),
    ]:
        with pytest.raises(CheckpointError, match=told):
            RunFolder.open(path)


def test_a_run_that_is_held_is_in_use(tmp_path: Path) -> None:
    run = make_run(tmp_path, "mine")
    assert not run.in_use()
    with run:
        assert run.in_use()
        assert RunFolder.open(run.path).in_use()
    (run.path / ".facecnn.pid").write_text("1\n")  # of a process that was killed; its number may be another's by now
    assert not run.in_use()


def test_deleting_a_run_leaves_what_is_not_of_it(tmp_path: Path) -> None:
    run = make_run(tmp_path, "mine")
    run.write_start("default")
    with RunFolder.open(run.path), pytest.raises(OutputError, match="in use"):
        run.delete()
    assert load_checkpoint(run.path).state == {"epoch": 1}
    (run.path / "notes.txt").write_text("of the user")
    assert not run.delete()
    assert [entry.name for entry in run.path.iterdir()] == ["notes.txt"]
    assert make_run(tmp_path, "other").delete()
    assert not (tmp_path / "other").exists()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_no_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(FacecnnError, match="no permission to write"):
        RunFolder.create(tmp_path, None, "default")
