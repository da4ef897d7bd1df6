"""``facecnn sort``: who goes where, and that nothing which is there gets lost, changed or half written."""

import csv
import errno
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from facecnn.runs.checkpoint import load_checkpoint, save_checkpoint

from .contract import check
from .running import COMMAND, Facecnn, Trained, full_disk

RESULT = {
    "source": str,
    "destination": str,
    "model": str,
    "photos": int,
    "several": {"mode": str, "photos": int},
    "folders": dict,
    "copied": int,
    "linked": int,
    "already_there": int,
    "elsewhere": [{"path": str, "also": str}],
    "unreadable": [{"path": str, "reason": str}],
    "table": str,
}
COLUMNS = ["path", "face", "label", "confidence", "unknown_score", "box", "copied_to", "error", "also_like"]
TEMPORARY = "*.facecnn-tmp"

Files = dict[str, tuple[bytes, int]]


def files(folder: Path) -> Files:
    """All files in a folder, hidden ones too: bytes and time of change by name. Links are followed."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns) for path in found}


def without_table(found: Files) -> Files:
    return {name: content for name, content in found.items() if name != "sorted.csv"}


def rows(destination: Path) -> list[dict[str, str]]:
    with (destination / "sorted.csv").open(encoding="utf-8", newline="") as table:
        return list(csv.DictReader(table, strict=True))


@pytest.fixture
def source(people_and_strangers: Path, tmp_path: Path) -> Path:
    """Thirty photos of two people and of strangers, in folders that say nothing about who is in them."""
    folder = tmp_path / "source"
    for number, path in enumerate(sorted(people_and_strangers.rglob("*.png"))):
        target = folder / f"roll {number % 3}" / f"{path.parent.name}_{path.name}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
        os.utime(target, ns=(10**18, 10**18 + number))
    return folder


@pytest.fixture
def arguments(source: Path, tmp_path: Path, trained_with_strangers: Trained) -> list[str | Path]:
    """Of a sorting of ``source``."""
    return ["sort", source, tmp_path / "sorted", "-m", trained_with_strangers.path, "--threshold", "0.5"]


# ------------------------------------------------------------------------------------------------------ who goes where


def test_a_folder_per_person(
    source: Path, arguments: list[str | Path], tmp_path: Path, trained_with_strangers: Trained, facecnn: Facecnn
) -> None:
    before = files(source)
    done = facecnn(*arguments, "--format", "json")
    assert done.exit_code == 0, done.stderr
    check(done.json(), RESULT)
    assert files(source) == before

    options = ["-m", trained_with_strangers.path, "--threshold", "0.5", "--format", "json"]
    labels = {answer["path"]: answer["label"] for answer in facecnn("predict", source, *options).json()}
    expected = {
        f"{labels[str(source / name)]}/{Path(name).name}": content for name, content in before.items()
    }  # what predict says, with the same bytes and times
    assert without_table(files(tmp_path / "sorted")) == expected
    assert done.json()["folders"] == Counter(labels.values())
    right = sum(Path(path).name.startswith(f"{label}_") for path, label in labels.items())
    assert right >= 27
    figures = done.json()
    assert (figures["photos"], figures["copied"], figures["linked"], figures["already_there"]) == (30, 30, 0, 0)
    assert figures["unreadable"] == figures["elsewhere"] == []


def test_the_table_accounts_for_every_photo(
    source: Path, arguments: list[str | Path], tmp_path: Path, trained_with_strangers: Trained, facecnn: Facecnn
) -> None:
    (source / "empty.jpg").touch()
    assert facecnn(*arguments).exit_code == 3
    options = ["-m", trained_with_strangers.path, "--threshold", "0.5", "--format", "json"]
    answers = facecnn("predict", source, *options).json()
    table = rows(tmp_path / "sorted")
    assert list(table[0]) == [*COLUMNS, "p(ann)", "p(bob)"]
    assert [row["path"] for row in table] == [answer["path"] for answer in answers]
    for row, answer in zip(table, answers, strict=True):
        if answer["error"] is not None:
            assert row["error"] == answer["error"]
            assert not any(row[key] for key in ("face", "label", "confidence", "copied_to", "p(ann)"))
            continue
        assert row["error"] == ""
        assert (row["face"], row["label"]) == ("1", answer["label"])
        # predict computed them among others, and where there are few photos by other kernels: roundings differ
        assert float(row["confidence"]) == pytest.approx(answer["confidence"], abs=1e-6)
        assert float(row["p(bob)"]) == pytest.approx(answer["probabilities"]["bob"], abs=1e-6)
        assert (tmp_path / "sorted" / row["copied_to"]).read_bytes() == Path(row["path"]).read_bytes()


def test_the_text_is_for_people(arguments: list[str | Path], source: Path, tmp_path: Path, facecnn: Facecnn) -> None:
    (source / "empty.jpg").touch()
    done = facecnn(*arguments)
    lines = done.stdout.splitlines()
    counts = {words[0]: int(words[1]) for words in map(str.split, lines[1:4])}
    assert list(counts) == ["ann", "bob", "unknown"]
    assert sum(counts.values()) == 30
    assert f"30 copied; face by face in {tmp_path / 'sorted' / 'sorted.csv'}" in lines
    assert "Left where they are:" in lines
    assert any(line.startswith(f"  {source / 'empty.jpg'}: empty file") for line in lines)
    assert "1 of 31 photos" in done.stderr


def test_one_photo_alone(source: Path, tmp_path: Path, trained: Trained, facecnn: Facecnn) -> None:
    done = facecnn("sort", source / "roll 0" / "ann_00.png", tmp_path / "a" / "b", "-m", trained.path)
    assert done.exit_code == 0, done.stderr
    (name,) = without_table(files(tmp_path / "a" / "b"))
    assert name in ("ann/ann_00.png", "bob/ann_00.png")


def test_nobody_and_several(sample: Path, finding: Path, tmp_path: Path, facecnn: Facecnn) -> None:
    """Two faces in a photo that a real finder finds: two people, a copy for each."""
    source, destination = tmp_path / "source", tmp_path / "sorted"
    source.mkdir()
    for person in ("s1", "s2"):
        shutil.copy(sample / person / "1.pgm", source / f"{person}.pgm")
    Image.new("RGB", (200, 200), (90, 90, 90)).save(source / "wall.png")
    both = Image.new("RGB", (300, 150), (90, 90, 90))
    both.paste(Image.open(sample / "s1" / "1.pgm").convert("RGB"), (100, 20))
    both.paste(Image.open(sample / "s2" / "1.pgm").convert("RGB"), (205, 10))
    both.save(source / "both.png")
    options = ["-m", finding, "--threshold", "off", "--format", "json"]
    (answer,) = facecnn("predict", source / "both.png", *options).json()
    assert len(answer["faces"]) == 2
    named = {face["label"] for face in answer["faces"]} - {"unknown"}

    done = facecnn("sort", source, destination, *options)
    assert done.exit_code == 0, done.stderr
    placed = without_table(files(destination))
    assert {name for name in placed if name.endswith(("both.png", "wall.png"))} == {
        "no_face/wall.png",
        *(f"{name}/both.png" for name in named),
    }
    assert done.json()["several"] == {"mode": "per-person", "photos": 1}
    assert done.json()["folders"]["no_face"] == 1

    of = {name: [row for row in rows(destination) if row["path"].endswith(name)] for name in ("both.png", "wall.png")}
    assert [row["face"] for row in of["both.png"]] == ["1", "2"]  # a row for each of the two faces
    assert {row["copied_to"] for row in of["both.png"]} - {""} == {f"{name}/both.png" for name in named}
    assert len({row["box"] for row in of["both.png"]}) == 2
    (wall,) = of["wall.png"]
    assert (wall["label"], wall["face"], wall["confidence"], wall["copied_to"]) == (
        "no_face",
        "",
        "",
        "no_face/wall.png",
    )


# ------------------------------------------------------------------------------------------------------- several faces

GROUPS = {
    "1 ann.jpg": ["ann"],
    "2 both and a stranger.jpg": ["unknown", "bob", "ann"],
    "3 ann and a stranger.jpg": ["ann", "unknown"],
    "4 strangers.jpg": ["unknown", "unknown"],
    "5 nobody.jpg": [],
}
"""Whom the faces in each photo are of, the main one first."""


def answers(path: Path, labels: Sequence[str]) -> dict[str, Any]:
    """The ``predict`` JSON of a photo. The second of two strangers looks like Ann."""
    faces = [
        {
            "box": [10 * number, 0, 10 * number + 8, 8],
            "landmarks": None,
            "label": label,
            "also_like": "ann" if label == "unknown" and number else None,
            "confidence": 0.9,
            "probabilities": {"ann": 0.5, "bob": 0.5},
            "unknown_score": 0.1,
        }
        for number, label in enumerate(labels)
    ]
    nothing = dict.fromkeys(("confidence", "probabilities", "unknown_score", "box", "also_like"))
    main = faces[0] if faces else {"label": "no_face", **nothing}
    return {**main, "path": str(path), "faces": faces, "error": None}


@pytest.fixture
def groups(tmp_path: Path, trained: Trained, monkeypatch: pytest.MonkeyPatch) -> list[str | Path]:
    """The arguments that sort ``GROUPS``, whose files lie in ``tmp_path / "groups"``."""
    folder = tmp_path / "groups"
    folder.mkdir()
    for number, name in enumerate(GROUPS):
        (folder / name).write_bytes(f"picture {number}".encode())
        os.utime(folder / name, ns=(10**18, 10**18 + number))

    def predict(model: Path, photos: Sequence[Path], *others: Any) -> list[dict[str, Any]]:
        return [answers(photo, GROUPS[photo.name]) for photo in photos]

    monkeypatch.setattr("facecnn.jobs.sort.predict", predict)
    return ["sort", folder, tmp_path / "sorted", "-m", trained.path, "--format", "json"]


PLACES = {
    "per-person": {
        "1 ann.jpg": ["ann"],
        "2 both and a stranger.jpg": ["", "bob", "ann"],
        "3 ann and a stranger.jpg": ["ann", ""],
        "4 strangers.jpg": ["unknown", "unknown"],
        "5 nobody.jpg": ["no_face"],
    },
    "main": {
        "1 ann.jpg": ["ann"],
        "2 both and a stranger.jpg": ["unknown", "", ""],
        "3 ann and a stranger.jpg": ["ann", ""],
        "4 strangers.jpg": ["unknown", "unknown"],
        "5 nobody.jpg": ["no_face"],
    },
    "separate": {
        "1 ann.jpg": ["ann"],
        "2 both and a stranger.jpg": ["several", "several", "several"],
        "3 ann and a stranger.jpg": ["several", "several"],
        "4 strangers.jpg": ["several", "several"],
        "5 nobody.jpg": ["no_face"],
    },
}
"""For each mode and photo the folder that ``sorted.csv`` tells of for each face."""


@pytest.mark.parametrize("mode", PLACES)
def test_where_photos_with_several_faces_go(
    mode: str, groups: list[str | Path], tmp_path: Path, facecnn: Facecnn
) -> None:
    before = files(tmp_path / "groups")
    done = facecnn(*groups, *([] if mode == "per-person" else ["--several", mode]))
    assert done.exit_code == 0, done.stderr
    figures = done.json()
    check(figures, RESULT)
    places = {(folder, name) for name, of in PLACES[mode].items() for folder in of if folder}
    assert without_table(files(tmp_path / "sorted")) == {f"{folder}/{name}": before[name] for folder, name in places}
    assert files(tmp_path / "groups") == before
    assert figures["several"] == {"mode": mode, "photos": 3}
    assert figures["folders"] == Counter(folder for folder, _ in places)
    assert (figures["photos"], figures["copied"]) == (5, len(places))

    table = rows(tmp_path / "sorted")
    assert [(Path(row["path"]).name, row["copied_to"]) for row in table] == [
        (name, f"{folder}/{name}" if folder else "") for name, of in PLACES[mode].items() for folder in of
    ]
    assert [row["also_like"] for row in table if row["path"].endswith("4 strangers.jpg")] == ["", "ann"]
    again = facecnn(*groups, "--several", mode).json()
    assert (again["copied"], again["already_there"], again["elsewhere"]) == (0, len(places), [])


def test_the_text_tells_of_several_faces(groups: list[str | Path], facecnn: Facecnn) -> None:
    text = facecnn(*groups[:-2]).stdout
    assert "6 copied; face by face in" in text
    assert "3 photos have several faces: copied for each person named in it" in text


def test_only_a_wrong_folder_is_told(groups: list[str | Path], tmp_path: Path, facecnn: Facecnn) -> None:
    """After a change of mode, or of somebody's mind. Two right folders are no news."""
    assert facecnn(*groups, "--several", "separate").exit_code == 0
    destination = tmp_path / "sorted"
    both = "2 both and a stranger.jpg"
    (destination / "unknown").mkdir()
    shutil.copy(destination / "several" / both, destination / "unknown" / both)
    figures = facecnn(*groups).json()
    assert {photo["also"] for photo in figures["elsewhere"]} == {
        str(destination / "several" / name) for name in list(GROUPS)[1:4]
    } | {str(destination / "unknown" / both)}
    assert (figures["copied"], figures["already_there"]) == (4, 2)


def test_a_folder_that_is_another_under_a_second_name(
    groups: list[str | Path], tmp_path: Path, facecnn: Facecnn
) -> None:
    (tmp_path / "sorted" / "ann").mkdir(parents=True)
    (tmp_path / "sorted" / "bob").symlink_to("ann", target_is_directory=True)
    figures = facecnn(*groups).json()
    assert (figures["copied"], figures["already_there"], figures["elsewhere"]) == (5, 1, [])


def test_a_link_in_each_folder(groups: list[str | Path], tmp_path: Path, facecnn: Facecnn) -> None:
    ann = tmp_path / "groups" / "1 ann.jpg"
    ann.rename(tmp_path / "elsewhere.jpg")
    ann.symlink_to(tmp_path / "elsewhere.jpg")
    figures = facecnn(*groups, "--link").json()
    assert (figures["linked"], figures["copied"]) == (6, 0)
    assert not (tmp_path / "sorted" / "ann" / ann.name).is_symlink(), "one to the photo itself"
    assert (tmp_path / "sorted" / "ann" / ann.name).samefile(ann)
    both = tmp_path / "groups" / "2 both and a stranger.jpg"
    assert both.stat().st_nlink == 3
    assert all((tmp_path / "sorted" / name / both.name).samefile(both) for name in ("ann", "bob"))


def test_a_name_that_is_taken_in_one_of_the_folders(groups: list[str | Path], tmp_path: Path, facecnn: Facecnn) -> None:
    both, destination = "2 both and a stranger.jpg", tmp_path / "sorted"
    (destination / "ann").mkdir(parents=True)
    (destination / "ann" / both).write_text("somebody else's")
    for _ in range(2):
        assert facecnn(*groups).exit_code == 0
        assert (destination / "ann" / both).read_text() == "somebody else's"
        assert [row["copied_to"] for row in rows(destination) if row["path"].endswith(both)] == [
            "",
            f"bob/{both}",
            "ann/2 both and a stranger-2.jpg",
        ]
        assert {path.name for path in (destination / "ann").iterdir()} == {
            "1 ann.jpg", both, "2 both and a stranger-2.jpg", "3 ann and a stranger.jpg",
        }  # fmt: skip


def test_no_more_room_for_the_second_copy(groups: list[str | Path], tmp_path: Path, facecnn: Facecnn) -> None:
    before = files(tmp_path / "groups")
    with full_disk(after=4):
        done = facecnn(*groups)
    assert (done.exit_code, done.stdout) == (6, "")
    assert "no space left" in done.stderr
    both = "2 both and a stranger.jpg"
    assert files(tmp_path / "sorted") == {"ann/1 ann.jpg": before["1 ann.jpg"], f"bob/{both}": before[both]}
    completed = facecnn(*groups).json()
    assert (completed["copied"], completed["already_there"], completed["elsewhere"]) == (4, 2, [])
    assert files(tmp_path / "groups") == before


def test_one_of_the_folders_can_not_be_made(groups: list[str | Path], tmp_path: Path, facecnn: Facecnn) -> None:
    (tmp_path / "sorted").mkdir()
    (tmp_path / "sorted" / "bob").write_text("a file")
    done = facecnn(*groups)
    assert (done.exit_code, done.stdout) == (6, "")
    assert str(tmp_path / "sorted" / "bob") in done.stderr
    assert (tmp_path / "sorted" / "bob").read_text() == "a file"
    (tmp_path / "sorted" / "bob").unlink()
    completed = facecnn(*groups).json()
    assert (completed["copied"], completed["already_there"]) == (5, 1)


def test_a_photo_that_is_gone_before_its_second_copy(
    groups: list[str | Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, facecnn: Facecnn
) -> None:
    """It is told, and so is the copy that was made; the others are sorted."""
    both = tmp_path / "groups" / "2 both and a stranger.jpg"

    def linked_once(photo: str, target: Path) -> None:
        if target.parent.name == "ann" and Path(photo) == both:
            both.unlink()
        link(photo, target)

    link = os.link
    monkeypatch.setattr(os, "link", linked_once)
    done = facecnn(*groups, "--link")
    assert done.exit_code == 3
    figures = done.json()
    assert [photo["path"] for photo in figures["unreadable"]] == [str(both)]
    assert (figures["linked"], figures["folders"]) == (5, {"ann": 2, "bob": 1, "unknown": 1, "no_face": 1})
    of_both = [row for row in rows(tmp_path / "sorted") if row["path"] == str(both)]
    assert [row["copied_to"] for row in of_both] == ["", f"bob/{both.name}", ""]
    assert all("no such file" in row["error"] for row in of_both)


def test_a_table_of_an_earlier_version(groups: list[str | Path], tmp_path: Path, facecnn: Facecnn) -> None:
    """Before photos with several faces had a choice, there was no column ``also_like``."""
    (tmp_path / "sorted").mkdir()
    header = "path,face,label,confidence,unknown_score,box,copied_to,error,p(ann),p(zoe)"
    kept = 'old.jpg,2,zoe,0.9,0.1,"[0, 0, 9, 9]",several/old.jpg,,0.25,0.75'
    (tmp_path / "sorted" / "sorted.csv").write_text(f"{header}\n{kept}\n")
    assert facecnn(*groups).exit_code == 0
    first, *others = rows(tmp_path / "sorted")
    assert (first["path"], first["face"], first["also_like"], first["p(zoe)"]) == ("old.jpg", "2", "", "0.75")
    assert first["copied_to"] == "several/old.jpg"
    assert [row["p(zoe)"] for row in others] == [""] * 9


# ------------------------------------------------------------------------------------------------------------ any file


def test_what_cannot_be_read_stays(source: Path, arguments: list[str | Path], tmp_path: Path, facecnn: Facecnn) -> None:
    whole = (source / "roll 0" / "ann_00.png").read_bytes()
    (source / "notes").write_text("holidays\n")
    (source / "empty.jpg").touch()
    (source / "cut.png").write_bytes(whole[: len(whole) // 2])
    (source / "dangling.jpg").symlink_to(tmp_path / "nosuch")
    odd = {"notes", "empty.jpg", "cut.png", "dangling.jpg"}
    if hasattr(os, "mkfifo"):
        os.mkfifo(source / "pipe.jpg")
        odd.add("pipe.jpg")
    done = facecnn(*arguments, "--format", "json")
    assert done.exit_code == 3
    figures = done.json()
    assert (figures["photos"], figures["copied"]) == (30 + len(odd), 30)
    assert {Path(photo["path"]).name for photo in figures["unreadable"]} == odd
    assert all(photo["reason"] for photo in figures["unreadable"])
    assert {Path(row["path"]).name for row in rows(tmp_path / "sorted") if row["error"]} == odd
    assert not odd & {path.name for path in (tmp_path / "sorted").rglob("*")}
    assert all(os.path.lexists(source / name) for name in odd)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="needs a user who can be refused")
def test_no_permission_to_read(source: Path, arguments: list[str | Path], facecnn: Facecnn) -> None:
    (source / "roll 0" / "ann_00.png").chmod(0)
    done = facecnn(*arguments, "--format", "json")
    assert done.exit_code == 3
    assert [Path(photo["path"]).name for photo in done.json()["unreadable"]] == ["ann_00.png"]


def test_links_become_copies(source: Path, arguments: list[str | Path], tmp_path: Path, facecnn: Facecnn) -> None:
    photo = source / "roll 0" / "ann_00.png"
    (source / "link.png").symlink_to(photo)
    (source / "roll 0" / "loop").symlink_to(source, target_is_directory=True)
    done = facecnn(*arguments, "--format", "json")
    assert done.exit_code == 0, done.stderr
    assert done.json()["photos"] == 31
    (copy,) = (tmp_path / "sorted").rglob("link.png")
    assert not copy.is_symlink()
    assert copy.read_bytes() == photo.read_bytes()


def test_heic(arguments: list[str | Path], source: Path, tmp_path: Path, facecnn: Facecnn) -> None:
    pytest.importorskip("pillow_heif").register_heif_opener()
    Image.open(source / "roll 0" / "ann_00.png").convert("RGB").resize((160, 160)).save(source / "phone.heic")
    assert facecnn(*arguments).exit_code == 0
    (copy,) = (tmp_path / "sorted").rglob("phone.heic")
    assert copy.read_bytes() == (source / "phone.heic").read_bytes()


def test_any_name_survives(source: Path, arguments: list[str | Path], tmp_path: Path, facecnn: Facecnn) -> None:
    photo = (source / "roll 0" / "ann_00.png").read_bytes()
    names = [b"li\nne.png", b"e\x1b[31m.png", b"\xff\xfe.png", "имя.png".encode(), b"=1+1.png"]
    try:
        for name in names:
            Path(os.fsdecode(os.fsencode(source) + b"/" + name)).write_bytes(photo)
    except OSError:
        pytest.skip("this file system takes no such names")
    for _ in range(2):  # the second time, the table has them already
        done = facecnn(*arguments)
        assert done.exit_code == 0, done.stderr
        assert "\x1b" not in done.stdout + done.stderr
        copies = {os.fsencode(path.name) for path in (tmp_path / "sorted").rglob("*.png")}
        assert set(names) <= copies
        assert len(rows(tmp_path / "sorted")) == 30 + len(names)


# ----------------------------------------------------------------------------------------------- what is there already


def test_again_adds_what_is_new(source: Path, arguments: list[str | Path], tmp_path: Path, facecnn: Facecnn) -> None:
    destination = tmp_path / "sorted"
    assert facecnn(*arguments).exit_code == 0
    first = files(destination)
    again = facecnn(*arguments, "--format", "json").json()
    assert (again["copied"], again["already_there"], again["elsewhere"]) == (0, 30, [])
    assert without_table(files(destination)) == without_table(first)
    assert files(destination)["sorted.csv"][0] == first["sorted.csv"][0]

    shutil.copy(source / "roll 0" / "ann_00.png", source / "new.png")
    later = facecnn(*arguments, "--format", "json").json()
    assert (later["copied"], later["already_there"]) == (1, 30)
    assert len(rows(destination)) == 31


def test_the_table_keeps_what_earlier_runs_said_of_other_photos(
    source: Path, tmp_path: Path, trained: Trained, facecnn: Facecnn
) -> None:
    for roll in ("roll 0", "roll 1", "roll 0"):
        assert facecnn("sort", source / roll, tmp_path / "sorted", "-m", trained.path).exit_code == 0
    paths = [row["path"] for row in rows(tmp_path / "sorted")]
    assert Counter(paths) == Counter(str(path) for roll in ("0", "1") for path in (source / f"roll {roll}").iterdir())


def test_one_name_for_several_photos(source: Path, tmp_path: Path, trained: Trained, facecnn: Facecnn) -> None:
    """Of cameras that count from one, of a phone's copies, and of somebody else's file."""
    chosen, destination = tmp_path / "chosen", tmp_path / "sorted"
    longest = "x" * 251 + ".png"
    longest_in_bytes = "é" * 125 + ".png"
    originals = sorted((source / "roll 0").glob("ann_*.png"))[:3]
    for folder, photo in zip("abc", originals, strict=True):
        for name in ("IMG_0001.png", longest, longest_in_bytes):
            (chosen / folder).mkdir(parents=True, exist_ok=True)
            shutil.copy(photo, chosen / folder / name)
    (chosen / "d").mkdir()
    shutil.copy(originals[0], chosen / "d" / "IMG_0001.png")  # the same photo once more
    arguments = ["sort", chosen, destination, "-m", trained.path, "--threshold", "off", "--format", "json"]
    for person in ("ann", "bob"):
        (destination / person).mkdir(parents=True)
        (destination / person / "IMG_0001.png").write_text("somebody else's")

    done = facecnn(*arguments)
    assert done.exit_code == 0, done.stderr
    assert (done.json()["copied"], done.json()["already_there"]) == (9, 1)
    for person in ("ann", "bob"):
        assert (destination / person / "IMG_0001.png").read_text() == "somebody else's"
    table = rows(destination)
    copies = {row["path"]: destination / row["copied_to"] for row in table}
    assert copies[str(chosen / "a" / "IMG_0001.png")] == copies[str(chosen / "d" / "IMG_0001.png")]
    assert len(set(copies.values())) == 9
    assert all(copy.read_bytes() == Path(path).read_bytes() for path, copy in copies.items())
    assert {copy.name for copy in copies.values()} <= {
        *(f"IMG_0001-{number}.png" for number in (2, 3, 4)),
        longest,
        *("x" * 249 + f"-{number}.png" for number in (2, 3)),
        longest_in_bytes,
        *("é" * 124 + f"-{number}.png" for number in (2, 3)),
    }
    assert facecnn(*arguments).json()["already_there"] == 10
    assert rows(destination) == table


def test_a_photo_is_there_only_where_its_content_is(
    source: Path, tmp_path: Path, trained: Trained, facecnn: Facecnn
) -> None:
    """A copy of the same size and time may have another picture in it."""
    destination = tmp_path / "sorted"
    arguments = ["sort", source / "roll 0", destination, "-m", trained.path, "--format", "json"]
    assert facecnn(*arguments).exit_code == 0
    row = rows(destination)[0]
    photo, copy = Path(row["path"]), destination / row["copied_to"]
    other = bytearray(photo.read_bytes())
    other[-1] ^= 1
    status = photo.stat()
    copy.write_bytes(other)
    os.utime(copy, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (copy.stat().st_size, copy.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    again = facecnn(*arguments).json()
    assert (again["copied"], again["already_there"]) == (1, len(rows(destination)) - 1)
    assert copy.read_bytes() == other, "it stays"
    assert copy.with_stem(f"{copy.stem}-2").read_bytes() == photo.read_bytes()


def test_an_answer_that_changes(source: Path, arguments: list[str | Path], tmp_path: Path, facecnn: Facecnn) -> None:
    """The photo goes to its new place, what lies at the old one stays, and it is said where that is."""
    destination = tmp_path / "sorted"
    assert facecnn(*arguments[:-1], "off").exit_code == 0
    before = without_table(files(destination))
    assert {name.split("/")[0] for name in before} == {"ann", "bob"}

    done = facecnn(*arguments[:-1], "0", "--format", "json")
    assert done.exit_code == 0, done.stderr
    figures, after = done.json(), without_table(files(destination))
    assert figures["folders"] == {"unknown": 30}
    assert after == before | {f"unknown/{Path(name).name}": content for name, content in before.items()}
    assert {photo["also"] for photo in figures["elsewhere"]} == {str(destination / name) for name in before}
    assert {row["copied_to"].split("/")[0] for row in rows(destination)} == {"unknown"}
    assert len(rows(destination)) == 30
    text = facecnn(*arguments[:-1], "0").stdout
    assert "Also in another folder" in text
    assert f"  {destination / next(iter(before))}\n" in text


def test_a_destination_within_the_source(
    source: Path, trained_with_strangers: Trained, tmp_path: Path, facecnn: Facecnn
) -> None:
    (source / "sorted").mkdir()
    (source / "short cut").symlink_to(source / "sorted", target_is_directory=True)
    arguments = ["sort", source, source / "sorted", "-m", trained_with_strangers.path, "--format", "json"]
    for copied in (30, 0):
        done = facecnn(*arguments)
        assert done.exit_code == 0, done.stderr
        assert (done.json()["photos"], done.json()["copied"]) == (30, copied)
    assert "Not read" in done.stderr
    for roll in source.glob("roll *"):
        shutil.rmtree(roll)
    done = facecnn(*arguments)
    assert (done.exit_code, done.stdout) == (3, "")
    assert "no photos in it, but those in" in done.stderr


def test_a_source_within_the_destination(
    source: Path, arguments: list[str | Path], tmp_path: Path, facecnn: Facecnn
) -> None:
    """Another look at the strangers, say: those who stay strangers stay, the others get a copy."""
    destination = tmp_path / "sorted"
    assert facecnn(*arguments[:-1], "0").exit_code == 0
    before = without_table(files(destination))
    done = facecnn("sort", destination / "unknown", *arguments[2:], "--format", "json")
    assert done.exit_code == 0, done.stderr
    after = without_table(files(destination))
    assert before.items() <= after.items()
    assert done.json()["copied"] == len(after) - len(before) > 0
    assert done.json()["already_there"] == done.json()["folders"]["unknown"] > 0
    assert done.json()["elsewhere"] == []  # the original is no copy of itself


@pytest.mark.parametrize("through_a_link", [False, True])
def test_the_same_folder(
    through_a_link: bool, source: Path, trained: Trained, tmp_path: Path, facecnn: Facecnn
) -> None:
    before, destination = files(source), source
    if through_a_link:
        destination = tmp_path / "link"
        destination.symlink_to(source, target_is_directory=True)
    done = facecnn("sort", source, destination, "-m", trained.path)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "the same folder" in done.stderr
    assert files(source) == before


# --------------------------------------------------------------------------------------------------------------- links


def test_hard_links(source: Path, arguments: list[str | Path], tmp_path: Path, facecnn: Facecnn) -> None:
    done = facecnn(*arguments, "--link", "--format", "json")
    assert done.exit_code == 0, done.stderr
    assert (done.json()["linked"], done.json()["copied"]) == (30, 0)
    for row in rows(tmp_path / "sorted"):
        assert (tmp_path / "sorted" / row["copied_to"]).samefile(row["path"])
    again = facecnn(*arguments, "--link", "--format", "json").json()
    assert (again["linked"], again["already_there"]) == (0, 30)


def test_copies_where_links_cannot_be(
    source: Path,
    arguments: list[str | Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    facecnn: Facecnn,
) -> None:
    def refuse(*names: Any, **options: Any) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", refuse)
    before = files(source)
    done = facecnn(*arguments, "--link", "--format", "json")
    assert done.exit_code == 0, done.stderr
    assert (done.json()["linked"], done.json()["copied"]) == (0, 30)
    assert "another file system" in done.stderr
    assert {Path(name).name: content for name, content in files(source).items()} == {
        Path(name).name: content for name, content in without_table(files(tmp_path / "sorted")).items()
    }
    assert files(source) == before


# --------------------------------------------------------------------------------------------- stopped in the middle

STOPPED = """
import os, sys
from facecnn.cli import main

number, left = int(sys.argv.pop(1)), 8
fsync = os.fsync

def stopping(descriptor):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), number)
    fsync(descriptor)

os.fsync = stopping
main()
"""
"""Sends itself a signal while a copy is being written."""


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGKILL"])
def test_stopped_while_copying(
    name: str, source: Path, arguments: list[str | Path], tmp_path: Path, facecnn: Facecnn
) -> None:
    number, before, destination = getattr(signal, name), files(source), tmp_path / "sorted"
    command = [COMMAND[0], "-c", STOPPED, str(int(number)), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, timeout=300)
    assert done.returncode == (-number if name == "SIGKILL" else 128 + number), done.stderr
    assert b"Traceback" not in done.stderr
    left_behind = list(destination.rglob(TEMPORARY))
    if name != "SIGKILL":
        assert left_behind == []
    contents = {Path(file).name: content for file, content in before.items()}
    copies = {path: content for path, content in files(destination).items() if not path.endswith("-tmp")}
    assert 0 < len(copies) < 30
    assert all(contents[Path(path).name] == content for path, content in copies.items())
    assert files(source) == before

    completed = facecnn(*arguments, "--format", "json")
    assert completed.exit_code == 0, completed.stderr
    assert (completed.json()["copied"], completed.json()["already_there"]) == (30 - len(copies), len(copies))
    assert len(rows(destination)) == 30


def test_no_more_room(source: Path, arguments: list[str | Path], tmp_path: Path, facecnn: Facecnn) -> None:
    before = files(source)
    with full_disk(after=10):
        done = facecnn(*arguments)
    assert (done.exit_code, done.stdout) == (6, "")
    assert "no space left" in done.stderr
    copies = files(tmp_path / "sorted")
    contents = {Path(file).name: content for file, content in before.items()}
    assert len(copies) == 5
    assert all(contents[Path(path).name] == content for path, content in copies.items())
    assert files(source) == before


# --------------------------------------------------------------------------------------------- what is refused


def test_other_peoples_tables_stay(arguments: list[str | Path], tmp_path: Path, facecnn: Facecnn) -> None:
    table = tmp_path / "sorted" / "sorted.csv"
    table.parent.mkdir()
    for content in (b"name,telephone\nann,123\n", b"\xff\xfe\x00", b"", b'"path'):
        table.write_bytes(content)
        done = facecnn(*arguments)
        assert (done.exit_code, done.stdout) == (6, "")
        assert str(table) in done.stderr
        assert files(tmp_path / "sorted").keys() == {"sorted.csv"}
        assert table.read_bytes() == content


def test_folders_that_are_none(source: Path, trained: Trained, tmp_path: Path, facecnn: Facecnn) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("text")
    for missing in (tmp_path / "nosuch", tmp_path / "empty"):
        done = facecnn("sort", missing, tmp_path / "sorted", "-m", trained.path)
        assert (done.exit_code, done.stdout) == (3, "")
        assert str(missing) in done.stderr
        assert not (tmp_path / "sorted").exists()
    for taken in (tmp_path / "file", tmp_path / "file" / "below"):
        done = facecnn("sort", source, taken, "-m", trained.path)
        assert (done.exit_code, done.stdout) == (6, "")
        assert str(taken) in done.stderr
    assert (tmp_path / "file").read_text() == "text"
    assert facecnn("sort", source).exit_code == 2
    assert facecnn("sort", source, tmp_path / "sorted", "-m", trained.path, "--threshold", "2").exit_code == 2
    assert facecnn("sort", source, tmp_path / "sorted", "-m", tmp_path / "nosuch").exit_code == 4
    assert facecnn("sort", source, tmp_path / "sorted", "-m", trained.path, "--device", "cuda:99").exit_code == 5


@pytest.mark.parametrize(
    ("name", "exit_code"),
    [("several", 2), ("No_Face", 2), ("Unknown", 2), ("..", 4), ("../../up", 4), ("/tmp/x", 4), (".", 4), ("", 4)],
)
def test_people_whose_names_are_no_folders(
    name: str, exit_code: int, source: Path, trained: Trained, tmp_path: Path, facecnn: Facecnn
) -> None:
    """A model may come from anywhere: it decides about folders in the destination, and about nothing else."""
    model = load_checkpoint(trained.path / "best.safetensors")
    save_checkpoint(tmp_path / "model.safetensors", replace(model, classes=[name, "bob"]))
    done = facecnn("sort", source, tmp_path / "below" / "sorted", "-m", tmp_path / "model.safetensors")
    assert (done.exit_code, done.stdout) == (exit_code, "")
    assert "name" in done.stderr
    assert not (tmp_path / "below").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"source", "model.safetensors"}
