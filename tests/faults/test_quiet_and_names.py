"""What a log holds, and people whose names or photos are not what they should be."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from .conftest import QUICK, Run


@pytest.mark.fault("R18")
def test_a_log_of_a_long_training_is_short(data: Path, tmp_path: Path, run: Run) -> None:
    done = run("train", data, *QUICK, "--epochs", "150", "--out", tmp_path, "--name", "run")
    assert done.exit_code == 0, done.stderr
    assert "\x1b" not in done.stderr + done.stdout
    assert "\r" not in done.stderr + done.stdout
    lines = [line for line in done.stderr.splitlines() if not line.startswith("warning: ")]
    assert len(lines) <= 22
    told = [int(number) for number in re.findall(r"^epoch (\d+)/150 ", done.stderr, re.MULTILINE)]
    assert (len(told), told[0], told[-1]) == (10, 1, 150)


@pytest.mark.fault("R18")
def test_a_fold_takes_a_few_lines_of_a_log(data: Path, run: Run) -> None:
    done = run("cross-validate", data, *QUICK, "--epochs", "20", "--folds", "2")
    assert done.exit_code == 0, done.stderr
    for fold in (1, 2):
        lines = re.findall(rf"^Fold {fold} of 2.*$", done.stderr, re.MULTILINE)
        assert 2 <= len(lines) <= 5
        assert any("epoch 20/20" in line for line in lines)


@pytest.mark.fault("R26")
def test_what_is_missing_of_cuda_is_said_once_by_training(data: Path, model: Path, tmp_path: Path, run: Run) -> None:
    without = {"CUDA_VISIBLE_DEVICES": "-1", "NUMBA_DISABLE_CUDA": "1"}
    train = run("train", data, *QUICK, "--device", "auto", "--out", tmp_path, environment=without)
    assert train.exit_code == 0, train.stderr
    assert len(re.findall("NUMBA_DISABLE_CUDA", train.stderr)) == 1
    assert len(re.findall("^Device: cpu ", train.stderr, re.MULTILINE)) == 1
    for command in (
        ["predict", data, "-m", model],
        ["eval", data, "--split", "all", "-m", model],
        ["gradcheck", "-c", "smoke"],
    ):
        done = run(*command, environment=without)
        assert done.exit_code == 0, done.stderr
        assert "CUDA" not in done.stderr + done.stdout
    asked = run("predict", data, "-m", model, "--device", "cuda", environment=without)
    assert asked.exit_code == 5
    assert "NUMBA_DISABLE_CUDA is set" in asked.stderr


@pytest.mark.fault("D15")
def test_names_equal_but_for_case_or_spaces_are_told(data: Path, tmp_path: Path, run: Run) -> None:
    for old, new in (("person_0000", "Anna Lee"), ("person_0001", "anna_lee"), ("person_0002", "Anna-Lee ")):
        (data / old).rename(data / new)
    told = "'Anna Lee', 'Anna-Lee ', 'anna_lee': if they are one person"
    check = run("data", "check", data, "--set", "photos.faces=off", "--format", "json")
    assert check.exit_code == 0
    assert [warning for warning in json.loads(check.stdout)["warnings"] if told in warning]
    train = run("train", data, *QUICK, "--out", tmp_path, "--name", "run", "--format", "json")
    assert train.exit_code == 0, train.stderr
    assert told in train.stderr
    assert json.loads(train.stdout)["classes"] == ["Anna Lee", "Anna-Lee ", "anna_lee"]  # they stay apart


@pytest.mark.fault("D15")
def test_strangers_may_be_written_in_any_case(data: Path, tmp_path: Path, run: Run) -> None:
    (data / "person_0002").rename(data / "UNKNOWN")
    train = run("train", data, *QUICK, "--out", tmp_path, "--name", "run", "--format", "json")
    assert train.exit_code == 0, train.stderr
    assert json.loads(train.stdout)["classes"] == ["person_0000", "person_0001", "unknown"]
    judged = json.loads(run("eval", "-m", tmp_path / "run", "--format", "json").stdout)
    assert judged["classes"] == ["person_0000", "person_0001"]
    assert judged["unknown"]["photos"] > 0


@pytest.mark.fault("D15")
def test_two_folders_of_strangers_are_refused(data: Path, tmp_path: Path, run: Run) -> None:
    (data / "person_0002").rename(data / "Unknown")
    shutil.copytree(data / "Unknown", data / "unknown")
    done = run("train", data, *QUICK, "--out", tmp_path)
    assert done.exit_code == 3
    done.one_block()
    assert "two folders of strangers, Unknown and unknown: move all their photos into one" in done.stderr


@pytest.mark.fault("D02")
def test_one_person_alone_is_refused(data: Path, tmp_path: Path, run: Run) -> None:
    shutil.rmtree(data / "person_0001")
    shutil.rmtree(data / "person_0002")
    done = run("train", data, *QUICK, "--out", tmp_path / "runs")
    assert done.exit_code == 3
    done.one_block()
    assert "only one person (person_0000)" in done.stderr
    assert "at least two are needed, or a folder unknown/" in done.stderr
    assert not (tmp_path / "runs").exists()


def keep_photos(folder: Path, count: int) -> None:
    for photo in sorted(folder.iterdir())[count:]:
        photo.unlink()


@pytest.mark.fault("D03")
def test_one_photo_of_each_person_is_trained_on(data: Path, tmp_path: Path, run: Run) -> None:
    for person in data.iterdir():
        keep_photos(person, 1)
    done = run("train", data, *QUICK, "--out", tmp_path, "--name", "run", "--format", "json")
    assert done.exit_code == 0, done.stderr
    assert "each person has one photo: nothing is held out, so nobody knows how good this is" in done.stderr
    assert "person_0000, person_0001, person_0002" in done.stderr
    figures = json.loads(done.stdout)
    assert figures["photos"] == {"train": 3, "validation": 0, "skipped": 0}
    assert figures["validation"]["accuracy"] is None
    predicted = run("predict", data, "-m", tmp_path / "run", "--format", "json")
    assert predicted.exit_code == 0
    assert len(json.loads(predicted.stdout)) == 3
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "so how good it is on new photos isn" in page


@pytest.mark.fault("D03")
def test_who_has_only_one_photo_is_named(data: Path, tmp_path: Path, run: Run) -> None:
    keep_photos(data / "person_0001", 1)
    done = run("train", data, *QUICK, "--out", tmp_path, "--name", "run", "--format", "json")
    assert done.exit_code == 0, done.stderr
    assert "only one photo of person_0001: none of theirs is held out" in done.stderr
    split = json.loads((tmp_path / "run" / "split.json").read_text())
    assert [path for path in split["train"] if path.startswith("person_0001/")]
    assert {path.partition("/")[0] for path in split["validation"]} == {"person_0000", "person_0002"}
    card = (tmp_path / "run" / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "No photo of person\\_0001 was held out, so nobody knows how well it knows them." in card


@pytest.mark.long
@pytest.mark.fault("one-person-twice")
def test_one_person_in_two_folders_is_told(data: Path, tmp_path: Path, run: Run) -> None:
    """The photos of each person of the clean set are dealt out to two folders for the first one."""
    for number, photo in enumerate(sorted((data / "person_0000").iterdir())):
        if number % 2:
            (data / "somebody").mkdir(exist_ok=True)
            photo.rename(data / "somebody" / photo.name)
    options = ["-c", "smoke", "--set", "photos.faces=off", "--device", "cpu", "--folds", "3", "--epochs", "100"]
    done = run("cross-validate", data, *options)
    assert done.exit_code == 0, done.stderr
    assert re.findall("It can't tell (.*) from (.*):", done.stderr) == [("person_0000", "somebody")]
