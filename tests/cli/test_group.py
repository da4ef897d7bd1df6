"""``facecnn group``: whose folder a photo goes to, and that nothing gets lost, changed or half written."""

from __future__ import annotations

import csv
import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageFilter

from facecnn.errors import CheckpointError
from facecnn.photos.folder import scan

from .contract import check
from .patterns import CELL, FACE, PatternEmbedder, finder, picture
from .running import Facecnn, full_disk

RESULT = [{"path": str, "box": ([float], None), "group": (str, None), "reason": (str, None)}]
ANN, BOB, EVE, ZOE = range(4)

Files = dict[str, tuple[bytes, int]]


def files(folder: Path) -> Files:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns) for path in found}


def copies(destination: Path) -> Files:
    return {name: content for name, content in files(destination).items() if "/" in name}


def rows(destination: Path) -> list[dict[str, str]]:
    with (destination / "groups.csv").open(encoding="utf-8", newline="") as table:
        return list(csv.DictReader(table, strict=True))


PHOTOS = {
    "a/1.png": [ANN],
    "a/2.png": [ANN],
    "a/3.png": [BOB],
    "b/1.png": [ANN, BOB],
    "b/2.png": [BOB, EVE],
    "b/3.png": [ANN],
    "b/4.png": [ZOE],
}
"""Who is in each photo. Ann has four faces, Bob three; Eve and Zoe are alone."""

PLACES = {
    "a/1.png": ["person-001/1.png"],
    "a/2.png": ["person-001/2.png"],
    "a/3.png": ["person-002/3.png"],
    "b/1.png": ["person-001/1-2.png", "person-002/1.png"],
    "b/2.png": ["person-002/2.png"],
    "b/3.png": ["person-001/3.png"],
    "b/4.png": ["unclear/4.png"],
}


@pytest.fixture
def album(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "album"
    for number, (name, people) in enumerate(PHOTOS.items()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        picture(people, number).save(folder / name)
        os.utime(folder / name, ns=(10**18, 10**18 + number))
    monkeypatch.setattr("facecnn.jobs.face_groups.installed_finder", lambda *_: finder())
    monkeypatch.setattr("facecnn.jobs.group.Embedder", PatternEmbedder)
    monkeypatch.setattr(PatternEmbedder, "asked", [])
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "new" / "out"


# ------------------------------------------------------------------------------------------------------ who goes where


def test_a_folder_per_person(album: Path, out: Path, facecnn: Facecnn) -> None:
    before = files(album)
    done = facecnn("group", album, out, "--format", "json")
    assert done.exit_code == 0, done.stderr
    check(done.json(), RESULT)
    assert files(album) == before
    assert copies(out) == {place: before[name] for name, places in PLACES.items() for place in places}
    assert {path.name for path in out.iterdir()} == {"person-001", "person-002", "unclear", "groups.csv", "index.html"}
    groups = [(Path(face["path"]).relative_to(album).as_posix(), face["group"]) for face in done.json()]
    assert sorted(groups, key=str) == sorted(
        [
            (name, {ANN: "person-001", BOB: "person-002"}.get(person))
            for name, people in PHOTOS.items()
            for person in people
        ],
        key=str,
    )
    for face in done.json():
        left, top, right, bottom = face["box"]
        assert (right - left, bottom - top) == (FACE, FACE)
        assert (face["reason"] is None) == (face["group"] is not None)


def test_the_table_has_a_row_for_each_face(album: Path, out: Path, facecnn: Facecnn) -> None:
    faces = facecnn("group", album, out, "--format", "json").json()
    table = rows(out)
    assert list(table[0]) == ["path", "face", "box", "group", "reason", "copied_to"]
    assert [(row["path"], row["group"]) for row in table] == [(face["path"], face["group"] or "") for face in faces]
    for row in table:
        if row["group"]:
            assert row["copied_to"].startswith(f"{row['group']}/")
            assert (out / row["copied_to"]).read_bytes() == Path(row["path"]).read_bytes()
    (eve,) = [row for row in table if row["path"].endswith("b/2.png") and not row["group"]]
    assert (eve["copied_to"], eve["reason"]) == ("", "not enough like any other face")
    (zoe,) = [row for row in table if row["path"].endswith("b/4.png")]
    assert (zoe["copied_to"], zoe["reason"]) == ("unclear/4.png", "not enough like any other face")


def test_what_shows_too_little_is_unclear(album: Path, out: Path, facecnn: Facecnn) -> None:
    """However alike such faces are."""
    for copy in range(2):
        picture([ANN], 50 + copy).filter(ImageFilter.GaussianBlur(9)).save(album / f"blurred {copy}.png")
        picture([ANN], 60 + copy, CELL - 1).save(album / f"small {copy}.png")
        picture([ANN], 70 + copy, CELL - 2).save(album / f"cut {copy}.png")
    faces = facecnn("group", album, out, "--format", "json").json()
    reasons = {Path(face["path"]).name: face["reason"] for face in faces if Path(face["path"]).parent == album}
    assert all(reasons[f"blurred {copy}.png"] == "blurred" for copy in range(2))
    assert all(reasons[f"small {copy}.png"].startswith("too small: 24 pixels") for copy in range(2))
    assert all(reasons[f"cut {copy}.png"].startswith("cut off") for copy in range(2))
    assert {path.name for path in (out / "unclear").iterdir()} == {*reasons, "4.png"}
    assert PatternEmbedder.asked == [9], "the others are not even looked at"


def test_each_face_of_a_photo_is_judged_by_itself(album: Path, out: Path, facecnn: Facecnn) -> None:
    for copy in range(2):
        picture([ANN, EVE], 80 + copy, CELL + 1).save(album / f"beside {copy}.png")
    faces = facecnn("group", album, out, "--format", "json").json()
    found = [(face["group"], face["reason"]) for face in faces if Path(face["path"]).parent == album]
    assert found == [("person-001", None), (None, "too small: 24 pixels, at least 30 are needed")] * 2


def test_a_person_is_in_a_photo_once_wherever_copies_of_files_are(album: Path, out: Path, facecnn: Facecnn) -> None:
    shutil.copy(album / "a/1.png", album / "a/0.png")
    picture([BOB, BOB], 90).save(album / "z.png")
    faces = facecnn("group", album, out, "--format", "json").json()
    groups = [face["group"] for face in faces if face["path"].endswith("z.png")]
    assert len(groups) == 2
    assert groups.count(None) == 1
    others = {face["group"] for face in faces if face["path"].endswith(("a/3.png", "b/2.png"))} - {None}
    assert set(groups) - {None} == others


def test_photos_without_a_face_and_unreadable_ones(album: Path, out: Path, facecnn: Facecnn) -> None:
    Image.new("RGB", (77, 77), (90, 90, 90)).save(album / "wall.png")
    done = facecnn("group", album, out)
    assert done.exit_code == 0, done.stderr
    assert "Without a face, left where they are (1):" in done.stdout
    assert f"  {album / 'wall.png'}\n" in done.stdout + "\n"

    (album / "empty.jpg").touch()
    done = facecnn("group", album, out.with_name("other"), "--format", "json")
    assert done.exit_code == 3
    assert "1 of 9 photos" in done.stderr
    assert copies(out.with_name("other")) == copies(out)
    told = {Path(face["path"]).name: face for face in done.json() if face["box"] is None}
    assert set(told) == {"wall.png", "empty.jpg"}
    assert told["wall.png"]["reason"] == "no face found"
    assert "empty file" in told["empty.jpg"]["reason"]
    assert {told[name]["group"] for name in told} == {None}
    assert sum(row["face"] == "" for row in rows(out.with_name("other"))) == 2


def test_an_album_without_faces(album: Path, out: Path, tmp_path: Path, facecnn: Facecnn) -> None:
    (tmp_path / "walls").mkdir()
    Image.new("RGB", (77, 77), (90, 90, 90)).save(tmp_path / "walls" / "wall.png")
    done = facecnn("group", tmp_path / "walls", out)
    assert done.exit_code == 0, done.stderr
    assert "nothing copied" in done.stdout
    assert copies(out) == {}


def test_copies_of_a_file_are_one_photo(album: Path, out: Path, facecnn: Facecnn) -> None:
    shutil.copy(album / "b" / "4.png", album / "a" / "4.png")  # two such photos would make a group
    shutil.copy(album / "a" / "1.png", album / "a" / "one.png")
    faces = facecnn("group", album, out, "--format", "json").json()
    assert {face["group"] for face in faces if face["path"].endswith("4.png")} == {None}
    assert {path.name for path in (out / "unclear").iterdir()} == {"4.png"}
    assert "person-001/one.png" not in copies(out)
    assert {row["copied_to"] for row in rows(out) if row["path"].endswith("one.png")} == {"person-001/1.png"}


def test_the_text_is_for_people(album: Path, out: Path, facecnn: Facecnn) -> None:
    lines = facecnn("group", album, out).stdout.splitlines()
    assert [line.split() for line in lines[1:4]] == [["person-001", "4"], ["person-002", "3"], ["unclear", "1"]]
    assert f"2 groups, 8 copied; look at {out / 'index.html'}" in lines
    assert f"  facecnn train {out}" in lines, "a line to copy"


def test_the_text_lists_the_largest_groups(
    album: Path, out: Path, monkeypatch: pytest.MonkeyPatch, facecnn: Facecnn
) -> None:
    monkeypatch.setattr("facecnn.cli.group._LINES", 1)
    lines = facecnn("group", album, out).stdout.splitlines()
    assert [line.split() for line in lines[1:4]] == [["person-001", "4"], ["…", "1", "more"], ["unclear", "1"]]


def test_the_page_shows_each_group(album: Path, out: Path, facecnn: Facecnn) -> None:
    assert facecnn("group", album, out).exit_code == 0
    text = (out / "index.html").read_text(encoding="utf-8")
    assert "2 groups" in text
    assert text.count("data:image/jpeg;base64,") == 8
    for name, places in PLACES.items():
        for place in places:
            assert f'href="{place}"' in text, name


def test_a_page_of_many_groups_shows_the_largest(
    album: Path, out: Path, monkeypatch: pytest.MonkeyPatch, facecnn: Facecnn
) -> None:
    """And of each the faces that are least like the others."""
    monkeypatch.setattr("facecnn.jobs.group._GROUPS", 1)
    monkeypatch.setattr("facecnn.jobs.group._FACES_A_GROUP", 2)
    other = Image.blend(picture([ANN], 80), picture([BOB], 80), 0.15)
    other.save(album / "odd.png")
    assert facecnn("group", album, out).exit_code == 0
    text = (out / "index.html").read_text(encoding="utf-8")
    assert "only the largest groups are shown; 1 more have folders, too" in text
    assert "5 faces, 2 of them shown" in text
    assert "person-002" not in text
    first, second = (text.index("data:image/jpeg", start) for start in (0, text.index("person-001/odd.png")))
    assert first == second, "it comes first"
    assert text.count("data:image/jpeg;base64,") == 3


@pytest.mark.parametrize("inside", [False, True])
def test_renamed_folders_can_be_trained_on(inside: bool, album: Path, out: Path, facecnn: Facecnn) -> None:
    """Neither the unclear photos nor the page is a person."""
    out = album / "out" if inside else out
    assert facecnn("group", album, out).exit_code == 0
    (out / "person-001").rename(out / "Ann")
    (out / "person-002").rename(out / "Bob")
    runs = out.parent / "runs"
    options = ["-c", "smoke", "--epochs", "1", "--out", runs, "--name", "run", "--format", "json"]
    done = facecnn("train", out, *options)
    assert done.exit_code == 0, done.stderr
    assert done.json()["classes"] == ["Ann", "Bob"]


def test_unclear_is_a_person_where_nothing_was_grouped(write_people: Callable[..., Path]) -> None:
    folder = write_people({"ann": 2, "unclear": 2})
    assert list(scan(folder).people) == ["ann", "unclear"]
    (folder / "groups.csv").touch()
    assert list(scan(folder).people) == ["ann"]


# --------------------------------------------------------------------------------------------------------------- links


def test_hard_links(album: Path, out: Path, facecnn: Facecnn) -> None:
    done = facecnn("group", album, out, "--link")
    assert done.exit_code == 0, done.stderr
    assert "8 linked" in done.stdout
    for name, places in PLACES.items():
        assert all((out / place).samefile(album / name) for place in places)


def test_copies_where_links_cannot_be(
    album: Path, out: Path, monkeypatch: pytest.MonkeyPatch, facecnn: Facecnn
) -> None:
    def refuse(*names: Any, **options: Any) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", refuse)
    before = files(album)
    done = facecnn("group", album, out, "--link")
    assert done.exit_code == 0, done.stderr
    assert "another file system" in done.stderr
    assert copies(out) == {place: before[name] for name, places in PLACES.items() for place in places}


# ------------------------------------------------------------------------------------------------ what is there already


def test_an_interrupted_run_is_completed(album: Path, out: Path, facecnn: Facecnn) -> None:
    before = files(album)
    with full_disk(after=8):  # the table is written first
        done = facecnn("group", album, out)
    assert (done.exit_code, done.stdout) == (6, "")
    assert "no space left" in done.stderr
    expected = {place: before[name] for name, places in PLACES.items() for place in places}
    some = copies(out)
    assert 0 < len(some) < len(expected)
    assert some.items() <= expected.items()
    assert not list(out.rglob("*.facecnn-tmp"))

    again = facecnn("group", album, out)
    assert again.exit_code == 0, again.stderr
    assert f"{8 - len(some)} copied, {len(some)} already there" in again.stdout
    assert copies(out) == expected
    assert (out / "index.html").is_file()


def test_an_interrupted_run_with_other_photos(album: Path, out: Path, facecnn: Facecnn) -> None:
    assert facecnn("group", album, out).exit_code == 0
    (out / "index.html").unlink()
    before = files(out)
    picture([BOB], 90).save(album / "new.png")
    done = facecnn("group", album, out)
    assert (done.exit_code, done.stdout) == (6, "")
    assert str(out / "groups.csv") in done.stderr
    assert files(out) == before

    (album / "new.png").unlink()
    copy = out / "person-001" / "1.png"
    size = copy.stat().st_size
    for other in (b"somebody else's", bytes(size)):
        copy.write_bytes(other)
        done = facecnn("group", album, out)
        assert (done.exit_code, done.stdout) == (6, "")
        assert str(copy) in done.stderr
        assert copy.read_bytes() == other


def test_folders_that_hold_something(album: Path, out: Path, facecnn: Facecnn) -> None:
    assert facecnn("group", album, out).exit_code == 0
    before = files(out)
    done = facecnn("group", album, out)
    assert (done.exit_code, done.stdout) == (6, "")
    assert "an earlier run" in done.stderr
    assert files(out) == before
    mine = out.with_name("mine")
    mine.mkdir()
    (mine / "note").write_text("mine")
    done = facecnn("group", album, mine)
    assert (done.exit_code, done.stdout) == (6, "")
    assert "not an empty folder" in done.stderr
    assert [path.name for path in mine.iterdir()] == ["note"]


def test_a_photo_that_is_gone_before_it_is_copied(
    album: Path, out: Path, monkeypatch: pytest.MonkeyPatch, facecnn: Facecnn
) -> None:
    gone = album / "a" / "2.png"

    def link(photo: str, target: Path) -> None:
        gone.unlink(missing_ok=True)
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", link)
    done = facecnn("group", album, out, "--link", "--format", "json")
    assert done.exit_code == 3
    (face,) = [face for face in done.json() if face["path"] == str(gone)]
    assert face["group"] is None
    assert "no such file" in face["reason"]
    assert len(copies(out)) == 7
    (row,) = [row for row in rows(out) if row["path"] == str(gone)]
    assert (row["group"], row["copied_to"]) == ("", "")
    assert (out / "index.html").is_file()


# ------------------------------------------------------------------------------------------------- what is refused


def test_folders_that_are_none(album: Path, out: Path, tmp_path: Path, facecnn: Facecnn) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("text")
    for missing in (tmp_path / "nosuch", tmp_path / "empty"):
        done = facecnn("group", missing, out)
        assert (done.exit_code, done.stdout) == (3, "")
        assert str(missing) in done.stderr
    done = facecnn("group", album, tmp_path / "file")
    assert (done.exit_code, done.stdout) == (6, "")
    done = facecnn("group", album, album)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "the same folder" in done.stderr
    assert facecnn("group", album).exit_code == 2
    assert facecnn("group", album, out, "--device", "cuda:99").exit_code == 5
    assert not out.exists()


def test_weights_that_are_missing(album: Path, out: Path, monkeypatch: pytest.MonkeyPatch, facecnn: Facecnn) -> None:
    def refuse(backend: object) -> None:
        raise CheckpointError("the body's weights aren't installed")

    monkeypatch.setattr("facecnn.jobs.group.Embedder", refuse)
    done = facecnn("group", album, out)
    assert (done.exit_code, done.stdout) == (4, "")
    assert "aren't installed" in done.stderr
    assert not out.exists()
