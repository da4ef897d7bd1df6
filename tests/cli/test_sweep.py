"""``facecnn sweep``."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from facecnn.config import load, to_dict
from facecnn.jobs import cross_validate
from facecnn.jobs.sweep import worker
from facecnn.jobs.sweep.folder import SweepFolder
from facecnn.jobs.training.setup import make_any_trainer

from .contract import NUMBER, check
from .running import COMMAND, Facecnn
from .sweeping import PLACE, RATE, Judge, write_config

pytest.importorskip("optuna")
from facecnn.jobs.sweep.study import Trials

ROW = {
    "number": int,
    "state": str,
    "reason": (str, None),
    "parameters": dict,
    "log_loss": (float, None),
    "closed_set_accuracy": (float, None),
    "folds": [{"closed_set_accuracy": float, "log_loss": float, "photos": int}],
    "seconds": NUMBER,
}
FIGURES = {
    "sweep": str,
    "device": str,
    "classes": [str],
    "ranges": dict,
    "trials": [ROW],
    "best": ROW,
    "nested": (
        {
            "folds": [{"parameters": dict, "closed_set_accuracy": float, "log_loss": float, "photos": int}],
            "closed_set_accuracy": float,
            "std": float,
            "log_loss": float,
            "photos": int,
            "interval": [float],
        },
        None,
    ),
    "importance": (dict, None),
    "config": str,
    "pictures": [str],
}


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Judge:
    """Nothing is trained in this test."""
    made = Judge()
    monkeypatch.setattr(PLACE, made)
    return made


def arguments(folder: Path, people: Path, name: str, *options: str) -> list[str]:
    config = folder / "mine.yaml"
    if not config.exists():
        write_config(folder)
    return [str(config), str(people), "--out", str(folder / "sweeps"), "--name", name, *options]


def without_times(result: dict[str, Any]) -> dict[str, Any]:
    """What must be equal in two sweeps."""
    rows = [{key: value for key, value in row.items() if key != "seconds"} for row in result["trials"]]
    return {"trials": rows, "nested": result["nested"], "importance": result["importance"]}


@pytest.mark.usefixtures("pictures")
def test_a_sweep_of_trainings(people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, facecnn: Facecnn) -> None:
    trained: list[frozenset[str]] = []

    def made(loaded: Any, dataset: Any, training: Any, *rest: Any, **more: Any) -> Any:
        trained.append(frozenset(dataset.paths[number] for number in training.photos))
        return make_any_trainer(loaded, dataset, training, *rest, **more)

    monkeypatch.setattr(cross_validate, "make_any_trainer", made)
    options = ["--trials", "2", "--folds", "2", "--outer-folds", "2", "--format", "json"]
    done = facecnn("sweep", *arguments(tmp_path, people, "one", *options))
    assert done.exit_code == 0, done.stderr
    result = done.json()
    check(result, FIGURES)
    assert result == json.loads((tmp_path / "sweeps" / "one" / "sweep.json").read_text())
    assert [row["state"] for row in result["trials"]] == ["complete", "complete"]
    assert result["best"] == min(result["trials"], key=lambda row: row["log_loss"])
    for row in result["trials"]:
        assert row["log_loss"] == pytest.approx(sum(fold["log_loss"] for fold in row["folds"]) / 2)
    # Three studies of two trials of two folds, then the best of each outer study.
    search, outer, judged = trained[:4], (trained[4:8], trained[8:12]), trained[12:]
    everything = {path.relative_to(people).as_posix() for path in people.rglob("*.png")}
    assert search[0] | search[1] == everything
    assert not search[0] & search[1]
    for own, chosen in zip(outer, judged, strict=True):
        assert frozenset().union(*own) == chosen, "the search saw what its best setting was trained on, and no more"
    assert judged[0] | judged[1] == everything
    assert not judged[0] & judged[1]
    assert sum(fold["photos"] for fold in result["nested"]["folds"]) == result["nested"]["photos"] == 20
    best = load(result["config"]).settings
    expected = load("smoke").settings
    assert best.optimizer.learning_rate == result["best"]["parameters"][RATE]
    assert best.train.epochs == result["best"]["parameters"]["train.epochs"]
    changed = to_dict(best)
    changed["optimizer"]["learning_rate"] = expected.optimizer.learning_rate
    changed["train"]["epochs"] = expected.train.epochs
    assert changed == to_dict(expected)
    head = Path(result["config"]).read_text().splitlines()
    assert "Its own score is too good" in "".join(head[:8])
    assert f"{result['nested']['log_loss']:.4f}" in "".join(head[:8])
    assert [Path(picture).name for picture in result["pictures"]] == ["parallel.png"]  # too few to say what matters


def test_bad_trials_end_early(people: Path, tmp_path: Path, judge: Judge, facecnn: Facecnn) -> None:
    done = facecnn("sweep", *arguments(tmp_path, people, "one", "--trials", "16", "--outer-folds", "0"))
    assert done.exit_code == 0, done.stderr
    result = json.loads((tmp_path / "sweeps" / "one" / "sweep.json").read_text())
    check(result, FIGURES)
    rows = result["trials"]
    assert [row["number"] for row in rows] == [*range(1, 17)]
    assert result["nested"] is None
    assert "wasn't measured" in done.stdout
    assert "wasn't measured" in (tmp_path / "sweeps" / "one" / "best.yaml").read_text()
    completed: list[dict[str, Any]] = []
    for row in rows:
        if row["parameters"][RATE] > 0.5:
            assert (row["state"], row["folds"]) == ("pruned", [])
            assert "diverged" in row["reason"]
            continue
        firsts = sorted(one["folds"][0]["log_loss"] for one in completed)
        middle = (firsts[(len(firsts) - 1) // 2] + firsts[len(firsts) // 2]) / 2 if firsts else 0
        if len(completed) >= 4 and row["folds"][0]["log_loss"] > middle:
            assert (row["state"], len(row["folds"])) == ("pruned", 1)
            assert "after 1 of 3 folds" in row["reason"]
        else:
            assert len(row["folds"]) > 1 or row["state"] == "complete"
        if row["state"] == "complete":
            completed.append(row)
    assert {"complete", "pruned"} == {row["state"] for row in rows}
    assert any("diverged" in (row["reason"] or "") for row in rows), "the ranges are so wide"
    assert len(judge.calls) < 16 * 3
    assert sum(result["importance"].values()) == pytest.approx(1)
    assert result["importance"][RATE] > 0.5


def test_settings_that_dont_fit_together(people: Path, tmp_path: Path, judge: Judge, facecnn: Facecnn) -> None:
    """Each choice fits the file's other settings, and two of them don't fit each other."""
    section = "sweep:\n  photos.align: {choices: [arcface, dlib]}\n  photos.size: {choices: [24, [24, 30]]}\n"
    write_config(tmp_path, section)
    done = facecnn("sweep", *arguments(tmp_path, people, "one", "--trials", "8", "--outer-folds", "0"))
    assert done.exit_code == 0, done.stderr
    rows = json.loads((tmp_path / "sweeps" / "one" / "sweep.json").read_text())["trials"]
    unfit = [row for row in rows if row["reason"] and "don't fit together" in row["reason"]]
    assert unfit
    assert all(row["parameters"] == {"photos.align": "dlib", "photos.size": [24, 30]} for row in unfit)


def test_killed_and_continued(people: Path, tmp_path: Path, judge: Judge, facecnn: Facecnn) -> None:
    """In the middle of a trial, and again, and with half a line in the journal: the same as if nothing had happened."""
    options = ["--trials", "7", "--folds", "2", "--outer-folds", "2"]
    assert facecnn("sweep", *arguments(tmp_path, people, "whole", *options)).exit_code == 0
    whole = json.loads((tmp_path / "sweeps" / "whole" / "sweep.json").read_text())
    calls = judge.calls.copy()

    own = arguments(tmp_path, people, "killed", *options)
    for kill_at, more in ((4, []), (9, ["--resume"])):
        words = ", ".join(map(repr, [*own, *more]))
        program = f"from cli.sweeping import sweep_and_be_killed as run; run({kill_at}, {words})"
        tests = Path(__file__).parents[1]
        done = subprocess.run([sys.executable, "-c", program], cwd=tests, capture_output=True, text=True, timeout=120)
        assert done.returncode == -9, done.stderr
    journal = tmp_path / "sweeps" / "killed" / "trials.journal"
    with journal.open("ab") as stream:
        stream.write(b'{"op_code":4,"worker')
    judge.calls.clear()
    done = facecnn("sweep", *own, "--resume")
    assert done.exit_code == 0, done.stderr
    assert "1 that didn't end are repeated" in done.stderr
    killed = json.loads((tmp_path / "sweeps" / "killed" / "sweep.json").read_text())
    assert without_times(killed) == without_times(whole)
    trials = Trials(journal, [], 0, 1)
    for study in ("search", "outer fold 1", "outer fold 2"):
        assert [trial.user_attrs["index"] for trial in trials.rows(study)] == [*range(7)]
    assert judge.calls == calls[-len(judge.calls) :], "and only what was left was trained"
    assert len(judge.calls) < len(calls) - 6

    judge.calls.clear()
    assert facecnn("sweep", *own, "--resume").exit_code == 0
    assert judge.calls == [], "nothing is left"


def test_more_trials(people: Path, tmp_path: Path, judge: Judge, facecnn: Facecnn) -> None:
    for name, counts in (("whole", ["6"]), ("more", ["3", "6"])):
        for number, count in enumerate(counts):
            options = ["--trials", count, "--outer-folds", "0", *(["--resume"] if number else [])]
            assert facecnn("sweep", *arguments(tmp_path, people, name, *options)).exit_code == 0
    whole, more = (json.loads((tmp_path / "sweeps" / name / "sweep.json").read_text()) for name in ("whole", "more"))
    assert without_times(whole) == without_times(more)
    other = ["--trials", "6", "--outer-folds", "0", "--seed", "1"]
    assert facecnn("sweep", *arguments(tmp_path, people, "other", *other)).exit_code == 0
    seeded = json.loads((tmp_path / "sweeps" / "other" / "sweep.json").read_text())
    assert seeded["trials"][0]["parameters"] != whole["trials"][0]["parameters"]


@pytest.mark.slow
def test_several_processes(people: Path, tmp_path: Path, facecnn: Facecnn) -> None:
    options = ["--trials", "4", "--folds", "2", "--outer-folds", "0", "--processes", "2"]
    done = facecnn("sweep", *arguments(tmp_path, people, "one", *options))
    assert done.exit_code == 0, done.stderr
    result = json.loads((tmp_path / "sweeps" / "one" / "sweep.json").read_text())
    assert [row["number"] for row in result["trials"]] == [1, 2, 3, 4]
    assert done.stderr.count(" of 4: ") == 4
    for row in result["trials"]:
        assert len(row["folds"]) in (1, 2)


@pytest.mark.slow
def test_an_error_in_one_of_several_processes(
    people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, facecnn: Facecnn
) -> None:
    """The photos are gone when a trial wants them prepared in another way."""
    photos = Path(shutil.copytree(people, tmp_path / "people"))
    config = write_config(tmp_path, "sweep:\n  photos.size: {choices: [28, 32]}\n")
    options = ["--trials", "2", "--folds", "2", "--outer-folds", "0", "--processes", "2"]
    start = worker._start

    def start_late(*arguments: Any) -> Any:
        shutil.rmtree(photos, ignore_errors=True)
        return start(*arguments)

    monkeypatch.setattr(worker, "_start", start_late)
    done = facecnn("sweep", config, photos, "--out", tmp_path / "sweeps", *options)
    assert (done.exit_code, done.stdout) == (3, "")
    assert str(photos) in done.stderr


def test_a_damaged_journal(people: Path, tmp_path: Path, judge: Judge, facecnn: Facecnn) -> None:
    one = arguments(tmp_path, people, "one", "--trials", "2", "--outer-folds", "0")
    assert facecnn("sweep", *one).exit_code == 0
    journal = tmp_path / "sweeps" / "one" / "trials.journal"
    first, _, *rest = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([first, b"no JSON\n", *rest]))
    done = facecnn("sweep", *one, "--resume")
    assert (done.exit_code, done.stdout) == (4, "")
    assert "trials.journal:2: damaged" in done.stderr


def test_what_is_refused(people: Path, tmp_path: Path, judge: Judge, facecnn: Facecnn) -> None:
    options = ["--trials", "2", "--folds", "2", "--outer-folds", "0"]
    one = arguments(tmp_path, people, "one", *options)
    assert facecnn("sweep", *one).exit_code == 0
    two = arguments(tmp_path, people, "two", *options)
    few = ["--trials", "2", "--folds", "8", "--outer-folds", "3"]
    cases: list[tuple[list[str], int, str]] = [
        (one, 6, "--resume continues it"),
        ([*one, "--resume", "--set", "train.batch_size=4"], 2, "was begun with other settings"),
        ([*one, "--resume", "--folds", "3"], 2, "was begun with other folds"),
        ([*two, "--resume"], 4, "no sweep to resume"),
        ([*one[:4], *options, "--resume"], 2, "--name"),
        ([*two, "--outer-folds", "1"], 2, "--outer-folds 1"),
        ([*two, "--processes", "1000"], 2, "--processes 1000"),
        ([*two, "--name", "a/b"], 2, "not a folder's name"),
        ([*two, "--trials", "0"], 2, "--trials"),
        ([*two, "--folds", "11"], 2, "11 folds need at least 11 photos"),
        ([*two, *few], 2, "or --outer-folds 0"),
        (["smoke", *two[1:]], 2, "no section sweep"),
        ([two[0], str(tmp_path / "nosuch"), *two[2:]], 3, "nosuch"),
    ]
    for given, code, message in cases:
        done = facecnn("sweep", *given)
        assert (done.exit_code, done.stdout) == (code, ""), given
        assert message in done.stderr, given
    assert not (tmp_path / "sweeps" / "two").exists()
    held = SweepFolder.open(tmp_path / "sweeps", "one")
    done = facecnn("sweep", *one, "--resume")
    held.unlock()
    assert (done.exit_code, done.stdout) == (6, "")
    assert "another process works on this sweep" in done.stderr


def test_other_photos(people: Path, tmp_path: Path, judge: Judge, facecnn: Facecnn) -> None:
    photos = Path(shutil.copytree(people, tmp_path / "people"))
    options = ["--trials", "2", "--folds", "2", "--outer-folds", "0"]
    assert facecnn("sweep", *arguments(tmp_path, photos, "one", *options)).exit_code == 0
    (photos / "ann" / "03.png").unlink()
    done = facecnn("sweep", *arguments(tmp_path, photos, "one", *options, "--resume"))
    assert done.exit_code == 2
    assert "was begun with other photos" in done.stderr


def test_nothing_was_completed(people: Path, tmp_path: Path, judge: Judge, facecnn: Facecnn) -> None:
    write_config(tmp_path, f"sweep:\n  {RATE}: {{low: 0.6, high: 0.9}}\n")
    done = facecnn("sweep", *arguments(tmp_path, people, "one", "--trials", "2", "--outer-folds", "0"))
    assert (done.exit_code, done.stdout) == (7, "")
    assert "no trial was completed" in done.stderr
    assert "no longer finite" in done.stderr


def test_without_the_extra(people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, facecnn: Facecnn) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "optuna" else found(name))
    done = facecnn("sweep", *arguments(tmp_path, people, "one", "--trials", "2"))
    assert done.exit_code == 2
    done.one_block()
    assert "pip install 'facecnn[sweep]'" in done.stderr
    assert not (tmp_path / "sweeps").exists()


@pytest.mark.slow
def test_further_processes_end_with_the_first(people: Path, tmp_path: Path, facecnn: Facecnn) -> None:
    """Whatever it was doing when it was killed: the next one waits until they have ended."""
    options = ["--trials", "200", "--folds", "2", "--outer-folds", "0", "--processes", "2"]
    one = arguments(tmp_path, people, "one", *options)
    with subprocess.Popen([*COMMAND, "sweep", *one], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = ""
        while "Trial 3 of 200" not in said:
            said = process.stderr.readline()
            assert said, "it ended"
        process.kill()
    done = facecnn("sweep", *one[:4], *one[4:], "--resume", "--trials", "4")
    assert done.exit_code == 0, done.stderr
    result = json.loads((tmp_path / "sweeps" / "one" / "sweep.json").read_text())
    assert all(row["state"] in ("complete", "pruned") for row in result["trials"])
    trials = Trials(tmp_path / "sweeps" / "one" / "trials.journal", [], 0, 1)
    places = [trial.user_attrs["index"] for trial in trials.rows("search")]
    assert places == [*range(len(places))], "none is lost or counted twice"
