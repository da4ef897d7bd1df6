"""Which model answers where none is named."""

import os
from pathlib import Path
from typing import Any

import pytest

from facecnn.errors import CheckpointError, UsageError
from facecnn.runs.checkpoint import Checkpoint
from facecnn.runs.choice import PIN, choose_run, named_run, read_pin, resolve_model, write_pin
from facecnn.runs.folder import RunFolder


def make_run(
    out: Path, name: str, *, at: int, people: tuple[str, ...] = ("ann", "bob"), calibration: Any = "set"
) -> RunFolder:
    """A run whose model was written at second ``at``; without ``calibration`` one that hasn't finished."""
    with RunFolder.create(out, name, "default") as run:
        checkpoint = Checkpoint({}, list(people), {}, {"calibration": calibration})
        run.save_last(checkpoint)
        run.save_best(checkpoint)
    for path in (run.best_path, run.last_path):
        os.utime(path, (at, at))
    return run


def test_the_newest_finished_run_answers(tmp_path: Path) -> None:
    for out in (tmp_path, tmp_path / "none"):
        with pytest.raises(CheckpointError, match=r"no run in .*: train first"):
            choose_run(out)
    (tmp_path / "file").write_text("")
    RunFolder.create(tmp_path, "begun", "default")
    with pytest.raises(CheckpointError, match="no run in"):
        choose_run(tmp_path)
    make_run(tmp_path, "d", at=400, calibration=None)
    choice = choose_run(tmp_path)
    assert choice.run == tmp_path / "d"
    assert choice.remarks == (f"no run in {tmp_path}/ has finished: {tmp_path / 'd'} answers as it is",)
    for at, name in enumerate(("b", "c", "a"), start=100):
        make_run(tmp_path, name, at=at)
    choice = choose_run(tmp_path)
    assert (choice.run, choice.reason, choice.remarks) == (tmp_path / "a", "the newest finished run", ())


def test_a_damaged_run_does_not_answer_and_is_named(tmp_path: Path) -> None:
    make_run(tmp_path, "good", at=100)
    bad = make_run(tmp_path, "bad", at=200)
    bad.best_path.write_bytes(bad.best_path.read_bytes()[:-5])
    os.utime(bad.best_path, (200, 200))
    choice = choose_run(tmp_path)
    assert choice.run == tmp_path / "good"
    (remark,) = choice.remarks
    assert "best.safetensors: cut short" in remark
    assert "an older run answers" in remark
    os.utime(bad.best_path, (50, 50))
    assert choose_run(tmp_path).remarks == ()  # it wouldn't have answered anyway
    (tmp_path / "good" / "best.safetensors").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="cut short"):
        choose_run(tmp_path)


@pytest.mark.parametrize("pinned", [False, True])
def test_runs_that_know_different_people_are_told(pinned: bool, tmp_path: Path) -> None:
    make_run(tmp_path, "old", at=100, people=("ann", "bob"))
    make_run(tmp_path, "new", at=200, people=("bob", "ann", "unknown"))
    assert choose_run(tmp_path).remarks == ()  # the same people, in whatever order
    make_run(tmp_path, "other", at=150, people=("ann", "bob", "cleo", "dan", "eve"), calibration=None)
    if pinned:
        write_pin(tmp_path / "other", tmp_path)
    (remark,) = choose_run(tmp_path).remarks
    assert "know different people" in remark
    if pinned:
        assert f"{tmp_path / 'other'}, the pinned run, answers (ann, bob, cleo and 2 more)" in remark
    else:
        assert f"{tmp_path / 'new'}, the newest finished run, answers (bob, ann)" in remark


def test_the_pinned_run_answers(tmp_path: Path) -> None:
    make_run(tmp_path, "old", at=100)
    make_run(tmp_path, "new", at=200)
    assert read_pin(tmp_path) is None
    write_pin(tmp_path / "old", tmp_path)
    assert (tmp_path / PIN).read_bytes() == b"old\n"
    assert choose_run(tmp_path).run == tmp_path / "old"
    assert choose_run(tmp_path).reason == "the pinned run"
    write_pin(None, tmp_path)
    write_pin(None, tmp_path)
    assert choose_run(tmp_path).run == tmp_path / "new"


def test_a_pin_on_nothing_is_an_error(tmp_path: Path) -> None:
    make_run(tmp_path, "new", at=200)
    make_run(tmp_path, "old", at=100)
    write_pin(tmp_path / "old", tmp_path)
    (tmp_path / "old").rename(tmp_path / "moved")
    with pytest.raises(CheckpointError, match=r"\.pinned: the pinned run old isn't there any more"):
        choose_run(tmp_path)
    for content in (b"", b"\n", b"../new\n", b"..", b"a\0b", b"new\nold", b"x" * 10_000):
        (tmp_path / PIN).write_bytes(content)
        with pytest.raises(CheckpointError, match=r"\.pinned: (damaged|the pinned run)"):
            choose_run(tmp_path)
    (tmp_path / PIN).unlink()
    (tmp_path / PIN).mkdir()
    with pytest.raises(CheckpointError, match=r"\.pinned: not a file"):
        choose_run(tmp_path)


def test_what_cannot_be_pinned(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs", "one", at=100)
    with pytest.raises(UsageError, match=r"not in .*elsewhere"):
        write_pin(run.path, tmp_path / "elsewhere")
    run.best_path.write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="cut short"):
        write_pin(run.path, tmp_path / "runs")
    assert not (tmp_path / "runs" / PIN).exists()


def test_a_run_by_name_or_by_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "runs", "one", at=100)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one").mkdir()  # a folder of the same name, which is no run
    for given in ("one", "runs/one", run.path):
        assert named_run(Path(given), Path("runs")).resolve() == run.path
    with pytest.raises(CheckpointError, match=r"no such run: did you mean runs/one\?"):
        named_run(Path("ones"), Path("runs"))


def test_model_arguments(tmp_path: Path) -> None:
    run = make_run(tmp_path, "mine", at=100)
    assert resolve_model(run.path, tmp_path / "elsewhere") == run.best_path
    assert resolve_model(run.last_path, tmp_path / "elsewhere") == run.last_path
    with pytest.raises(CheckpointError, match=r"mine: no such file or folder: did you mean .*mine\?"):
        resolve_model(Path("mine"), tmp_path)
    with pytest.raises(CheckpointError, match=r"did you mean .*best.safetensors"):
        resolve_model(run.path / "bset.safetensors", tmp_path)
