"""``facecnn runs``, and the run that answers where none is named."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from facecnn.runs.folder import RunFolder

from .contract import NUMBER, check
from .running import COMMAND, Facecnn, Trained

ROW = {
    "name": str,
    "path": str,
    "created": str,
    "finished": bool,
    "pinned": bool,
    "config": (str, None),
    "people": [str],
    "photos": (int, None),
    "accuracy": (NUMBER, None),
    "closed_set_accuracy": (NUMBER, None),
    "bytes": int,
}


@pytest.fixture
def runs(trained: Trained, trained_with_strangers: Trained, tmp_path: Path) -> Path:
    """A folder of runs: ``one``, ``two`` of the same people with strangers, ``begun``, ``broken``; the newest is
    ``two`` of those that have finished."""
    out = tmp_path / "runs"
    shutil.copytree(trained.path, out / "one")
    shutil.copytree(trained_with_strangers.path, out / "two")
    shutil.copytree(trained.path, out / "begun")
    (out / "begun" / "best.safetensors").unlink()
    (out / "begun" / "figures.json").unlink()
    shutil.copytree(trained.path, out / "broken")
    model = out / "broken" / "best.safetensors"
    model.write_bytes(model.read_bytes()[:-100])
    for age, name in enumerate(("begun", "two", "one", "broken")):
        for file in (out / name).glob("*.safetensors"):
            os.utime(file, (1_800_000_000 - age, 1_800_000_000 - age))
    return out


def set_figures(run: Path, **held_out: Any) -> None:
    figures = json.loads((run / "figures.json").read_text())
    figures["held_out"] = {"log_loss": 0.5, "unknown": None, **held_out}
    (run / "figures.json").write_text(json.dumps(figures))


def names(done: Any) -> list[str]:
    return [row["name"] for row in done.json()]


# list


def test_the_list_tells_of_every_run_whatever_its_state(runs: Path, trained: Trained, facecnn: Facecnn) -> None:
    done = facecnn("runs", "list", "--out", runs, "--format", "json")
    assert (done.exit_code, done.stderr) == (0, "")
    rows = done.json()
    assert names(done) == ["broken", "one", "two", "begun"]  # the newest last
    states = {row["name"]: (row["state"], row["finished"], row["pinned"]) for row in rows}
    assert states == {
        "broken": ("damaged", False, False),
        "one": ("finished", True, False),
        "two": ("finished", True, False),
        "begun": ("unfinished", False, False),
    }
    for row in rows:
        check({key: row[key] for key in ROW}, ROW)
        files = [file for file in (runs / row["name"]).rglob("*") if file.is_file()]
        assert row["bytes"] == sum(file.stat().st_size for file in files)
        assert abs(datetime.fromisoformat(row["created"]) - datetime.now().astimezone()) < timedelta(hours=1)
        assert (row["config"], row["path"]) == ("smoke", str(runs / row["name"]))
    assert [row["people"] for row in rows] == [[], *[["ann", "bob"]] * 3]
    assert [row["strangers"] for row in rows] == [False, False, True, False]
    assert [row["photos"] for row in rows] == [20, 20, 30, 20]
    assert "best.safetensors: cut short" in rows[0]["problem"]
    assert rows[1]["closed_set_accuracy"] == trained.figures["validation"].get(
        "closed_set_accuracy", trained.figures["validation"]["accuracy"]
    )


def test_the_accuracy_is_that_of_predict_or_none(runs: Path, facecnn: Facecnn) -> None:
    known = {"photos": 20, "named_right": 15, "named_wrong": 1, "refused": 4}
    set_figures(runs / "one", accuracy=0.9)  # as older versions wrote it: of the likeliest person
    set_figures(runs / "two", accuracy=0.75, closed_set_accuracy=0.95, known=known)
    rows = {row["name"]: row for row in facecnn("runs", "list", "--out", runs, "--format", "json").json()}
    figures = {name: (rows[name]["accuracy"], rows[name]["closed_set_accuracy"]) for name in ("one", "two")}
    assert figures == {"one": (None, 0.9), "two": (0.75, 0.95)}
    lines = facecnn("runs", "list", "--out", runs).stdout.splitlines()
    assert lines[0].split() == ["run", "people", "accuracy", "closed", "set", "config", "size", "age"]
    assert lines[2].split()[:6] == ["one", "2", "-", "90.0", "%", "smoke"]
    assert lines[3].split()[:7] == ["two", "2", "75.0", "%", "95.0", "%", "smoke"]
    shown = facecnn("runs", "show", "two", "--out", runs).stdout
    for title, figure in (("named right", "75.0 %"), ("closed set", "95.0 %"), ("refused", "4"), ("wrong", "1")):
        assert any(title in line and line.endswith(f" {figure}") for line in shown.splitlines())


def test_the_list_fits_80_columns(runs: Path, facecnn: Facecnn) -> None:
    (runs / "one").rename(runs / ("long-" * 14 + "name"))
    facecnn("runs", "pin", "two", "--out", runs)
    done = facecnn("runs", "list", "--out", runs)
    table = done.stdout.split("\n\n")[0].splitlines()
    assert max(map(len, table)) <= 80
    assert "  " + "long-" * 14 + "name" in table
    assert [line[:5] for line in table if line.startswith("*")] == ["* two"]
    assert "Without -m, two answers: the pinned run." in done.stdout


def test_what_is_no_run_is_not_listed(tmp_path: Path, facecnn: Facecnn) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "file").write_text("")
    for out in (tmp_path, tmp_path / "nosuch"):
        assert facecnn("runs", "list", "--out", out, "--format", "json").json() == []
        assert facecnn("runs", "list", "--out", out).stdout == f"No runs in {out}.\n"


def test_a_run_in_use_is_listed_as_such(runs: Path, facecnn: Facecnn) -> None:
    with RunFolder(runs / "begun"):
        rows = facecnn("runs", "list", "--out", runs, "--format", "json").json()
        assert {row["name"]: row["state"] for row in rows}["begun"] == "in use"


@pytest.mark.parametrize("file", ["figures.json", "split.json", "run.json"])
@pytest.mark.parametrize("content", ["{", "[]", '{"held_out": 3, "train": 7, "config": {}, "created": 4}', ""])
def test_damaged_notes_of_a_run_are_no_error(file: str, content: str, runs: Path, facecnn: Facecnn) -> None:
    (runs / "two" / file).write_text(content)
    for words in (["list"], ["show", "two"], ["compare", "one", "two"], ["list", "--format", "json"]):
        done = facecnn("runs", *words, "--out", runs)
        assert (done.exit_code, done.stderr) == (0, "")
    assert {row["name"]: row["people"] for row in done.json()}["two"] == ["ann", "bob"]


# show, compare


def test_show_tells_damage_that_a_list_does_not_look_for(runs: Path, facecnn: Facecnn) -> None:
    model = runs / "two" / "best.safetensors"
    content = bytearray(model.read_bytes())
    content[-5] ^= 1
    model.write_bytes(content)
    done = facecnn("runs", "show", "two", "--out", runs, "--format", "json")
    assert done.exit_code == 0
    assert done.json()["state"] == "damaged"
    assert "checksum differs" in done.json()["problem"]
    assert "checksum differs" in facecnn("runs", "show", runs / "two").stdout


def test_show_without_a_name_shows_the_run_that_answers(runs: Path, facecnn: Facecnn) -> None:
    assert facecnn("runs", "show", "--out", runs, "--format", "json").json()["name"] == "two"
    done = facecnn("runs", "show", "no-such-run", "--out", runs)
    assert done.exit_code == 4
    assert "no such run" in done.stderr


def test_compare_shows_what_differs(people: Path, tmp_path: Path, facecnn: Facecnn) -> None:
    for name, rate in (("a", "0.01"), ("b", "0.02")):
        options = ["--epochs", "1", "--set", f"optimizer.learning_rate={rate}", "--out", tmp_path, "--name", name]
        assert facecnn("train", people, "-c", "smoke", *options).exit_code == 0
    done = facecnn("runs", "compare", "a", tmp_path / "b", "--out", tmp_path, "--format", "json")
    assert done.json()["differ"] == {"optimizer.learning_rate": [0.01, 0.02]}
    assert [run["unlike_config"] for run in done.json()["runs"]] == [
        {"train.epochs": [8, 1]},
        {"optimizer.learning_rate": [0.01, 0.02], "train.epochs": [8, 1]},
    ]
    text = facecnn("runs", "compare", "a", "b", "--out", tmp_path).stdout
    assert "optimizer.learning_rate           A 0.01   B 0.02" in text
    assert max(map(len, text.split("\n", 2)[2].splitlines())) <= 80
    for wrong, why in ((["a"], "two runs"), (["a", tmp_path / "a"], "the same run twice")):
        done = facecnn("runs", "compare", *wrong, "--out", tmp_path)
        assert (done.exit_code, why in done.stderr) == (2, True)


# Which run answers


ANSWERING: dict[str, Callable[[Path, Path], list[Any]]] = {
    "predict": lambda photos, out: ["predict", photos / "ann" / "00.png"],
    "eval": lambda photos, out: ["eval"],
    "sort": lambda photos, out: ["sort", photos / "ann", out / "sorted"],
    "inspect": lambda photos, out: ["inspect"],
    "report": lambda photos, out: ["report"],
}


@pytest.mark.parametrize("command", ANSWERING)
def test_the_pinned_or_newest_finished_run_answers(
    command: str, runs: Path, trained: Trained, tmp_path: Path, facecnn: Facecnn
) -> None:
    words = [*ANSWERING[command](trained.photos, tmp_path), "--out", runs]

    def answering() -> str:
        done = facecnn(*words)
        assert done.exit_code == 0, done.stderr
        said = done.stdout.splitlines()[0] if command == "inspect" else done.stderr
        (name,) = [name for name in ("one", "two", "begun", "broken") if str(runs / name) in said]
        return name

    assert answering() == "two"
    assert facecnn("runs", "pin", "one", "--out", runs).exit_code == 0
    assert answering() == "one"
    (runs / "one").rename(runs / "away")
    done = facecnn(*words)
    assert done.exit_code == 4
    assert ".pinned: the pinned run one isn't there any more" in done.stderr
    assert facecnn("runs", "pin", "--none", "--out", runs).exit_code == 0
    assert answering() == "two"


def test_where_runs_know_other_people_it_says_which_answers(
    runs: Path, write_people: Callable[..., Path], tmp_path: Path, facecnn: Facecnn
) -> None:
    photos = write_people({"cleo": 6, "dan": 6})
    predict = ["predict", photos / "cleo" / "00.png", "--out", runs, "-q"]
    assert facecnn(*predict).stderr == ""
    assert facecnn("train", photos, "-c", "smoke", "--epochs", "1", "--out", runs, "--name", "new").exit_code == 0
    for file in (runs / "new").glob("*.safetensors"):
        os.utime(file, (1_900_000_000, 1_900_000_000))
    done = facecnn(*predict)
    assert done.exit_code == 0
    assert done.stderr.startswith("warning: ")
    assert "know different people" in done.stderr
    assert f"{runs / 'new'}, the newest finished run, answers (cleo, dan)" in " ".join(done.stderr.split())
    assert facecnn(*predict, "-m", runs / "new").stderr == ""


@pytest.mark.parametrize("command", ["inspect", "report"])
def test_a_model_by_option_or_by_argument(command: str, runs: Path, facecnn: Facecnn) -> None:
    by_option = facecnn(command, "-m", runs / "one")
    assert by_option.exit_code == 0
    assert by_option == facecnn(command, runs / "one")
    done = facecnn(command, "-m", runs / "one", runs / "two")
    assert done.exit_code == 2
    assert "is given by -m already" in done.stderr


def test_pin_says_what_is_pinned(runs: Path, facecnn: Facecnn) -> None:
    pin = ["runs", "pin", "--out", runs]
    assert facecnn(*pin, "--format", "json").json() == {"pinned": None}
    assert facecnn(*pin, runs / "one", "--format", "json").json() == {"pinned": "one"}
    assert facecnn(*pin).stdout == f"Pinned: {runs / 'one'}: it answers where no -m names another.\n"
    for wrong, code in (["nosuch"], 4), (["broken"], 4), (["one", "--none"], 2), ([runs.parent], 4):
        assert facecnn(*pin, *wrong).exit_code == code
    assert facecnn(*pin, "--format", "json").json() == {"pinned": "one"}


# prune


def left(runs: Path) -> set[str]:
    return {entry.name for entry in runs.iterdir() if entry.is_dir()}


def test_prune_keeps_what_answers_and_what_is_unfinished(runs: Path, facecnn: Facecnn) -> None:
    done = facecnn("runs", "prune", "--out", runs, "--yes", "--format", "json")
    assert done.exit_code == 0
    assert [run["name"] for run in done.json()["deleted"]] == ["one"]
    assert left(runs) == {"two", "begun", "broken"}
    assert facecnn("runs", "prune", "--out", runs).stdout == "Nothing deleted.\n"  # so nobody is asked
    done = facecnn("runs", "prune", "--out", runs, "--yes", "--unfinished")
    assert done.stdout.startswith("Deleted 2 runs")
    assert left(runs) == {"two"}


def test_prune_never_takes_the_pinned_run_or_one_in_use_or_foreign_files(
    runs: Path, tmp_path: Path, facecnn: Facecnn
) -> None:
    facecnn("runs", "pin", "one", "--out", runs)
    shutil.copytree(runs / "two", tmp_path / "linked")
    (runs / "link").symlink_to(tmp_path / "linked", target_is_directory=True)
    (runs / "two" / "notes.txt").write_text("mine")
    prune = ["runs", "prune", "--out", runs, "--keep", "0", "--unfinished", "--yes"]
    with RunFolder(runs / "begun"):
        done = facecnn(*prune)
    assert done.exit_code == 0
    assert left(runs) == {"one", "begun", "two", "link"}
    assert [entry.name for entry in (runs / "two").iterdir()] == ["notes.txt"]
    assert f"warning: {runs / 'two'}: also has files" in done.stderr
    assert (tmp_path / "linked" / "best.safetensors").exists()
    (runs / ".pinned").write_text("gone\n")
    assert facecnn(*prune).exit_code == 4
    assert left(runs) == {"one", "begun", "two", "link"}


def test_prune_asks(runs: Path, facecnn: Facecnn) -> None:
    done = facecnn("runs", "prune", "--out", runs)
    assert done.exit_code == 2
    assert "--yes" in done.stderr
    assert "one" in left(runs)
    if sys.platform == "win32":
        pytest.skip("needs pseudo-terminals")
    import pty

    for typed, deleted in ((b"\n", False), (b"n\n", False), (b"\x04", False), (b"y\n", True)):
        ours, theirs = pty.openpty()
        words = [*COMMAND, "runs", "prune", "--out", str(runs), "--format", "json"]
        process = subprocess.Popen(words, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        os.write(ours, typed)
        stdout, stderr = process.communicate(timeout=60)
        os.close(ours)
        os.close(theirs)
        assert process.returncode == 0
        assert b"Delete this run, " in stderr
        assert b" MB?" in stderr
        assert [run["name"] for run in json.loads(stdout)["deleted"]] == ["one"] * deleted
        assert ("one" in left(runs)) != deleted
