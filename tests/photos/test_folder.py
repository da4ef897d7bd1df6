import os
import unicodedata
from pathlib import Path

import pytest

from facecnn.errors import PhotoError
from facecnn.photos.folder import list_photos, remarks, scan


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def names(folder: Path, files: list[Path]) -> list[str]:
    return [file.relative_to(folder).as_posix() for file in files]


def test_people_are_folders_and_strangers_are_kept_apart(tmp_path: Path) -> None:
    touch(tmp_path, "zoe/b.jpg", "zoe/a.png", "adam/2019/summer/x.jpg", "adam/y", "unknown/s.jpg", "имя/1.jpg")
    found = scan(tmp_path)
    assert list(found.people) == ["adam", "zoe", "имя"]
    assert list(found.classes) == ["adam", "zoe", "имя", "unknown"]
    assert names(tmp_path, found.people["zoe"]) == ["zoe/a.png", "zoe/b.jpg"]
    assert names(tmp_path, found.people["adam"]) == ["adam/2019/summer/x.jpg", "adam/y"]
    assert names(tmp_path, found.unknown) == ["unknown/s.jpg"]
    assert found.warnings == []
    assert found.left_out == []


def test_hidden_and_system_files_are_left_out_in_silence(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/1.jpg", "README.txt", ".hidden.jpg")
    touch(tmp_path, ".git/x.jpg", "__MACOSX/._x.jpg", "@eaDir/x.jpg", "lost+found/x.jpg")
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._1.jpg", ".x.jpg", "1.jpg~", "1.jpg.part", "@eaDir/2.jpg"):
        touch(tmp_path, f"a/{name}")
    found = scan(tmp_path)
    assert found.people == {"a": [tmp_path / "a/1.jpg"], "b": [tmp_path / "b/1.jpg"]}
    assert found.warnings == []
    assert found.left_out == []


def test_photos_beside_the_folders_and_empty_folders_are_told(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/1.jpg", "plain.jpg")
    (tmp_path / "nobody").mkdir()
    found = scan(tmp_path)
    assert list(found.people) == ["a", "b"]
    assert found.warnings == ["nobody: no photos, left out", "plain.jpg: outside any person folder, left out"]
    assert found.left_out == [("plain.jpg", "outside any person folder")]


def test_folders_that_a_training_wrote_are_no_people(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/1.jpg", "run1/metrics.jsonl", "run1/kernels.png")
    touch(tmp_path, "runs/run2/last.safetensors", "runs/run2/curves.png")
    found = scan(tmp_path)
    assert list(found.people) == ["a", "b"]
    assert found.warnings == []


def test_every_folder_is_read_once(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/1.jpg", "b/deep/2.jpg")
    (tmp_path / "a/loop").symlink_to(".")
    (tmp_path / "a/up").symlink_to("..")
    (tmp_path / "a/other").symlink_to("../b")  # b's photos stay b's
    (tmp_path / "b/deep/again").symlink_to("../deep")
    (tmp_path / "c").symlink_to("b")
    found = scan(tmp_path)
    assert {person: names(tmp_path, files) for person, files in found.people.items()} == {
        "a": ["a/1.jpg"],
        "b": ["b/1.jpg", "b/deep/2.jpg"],
    }
    assert found.warnings == ["c: a link to a folder that is read already, left out"]


def test_a_folder_named_like_a_photo_is_told(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "a/x.jpg/2.jpg", "b/1.jpg")
    found = scan(tmp_path)
    assert names(tmp_path, found.people["a"]) == ["a/1.jpg", "a/x.jpg/2.jpg"]
    assert found.warnings == ["a/x.jpg: a folder, not a photo; what is in it is read"]


def test_links_to_files_and_special_files_are_left_to_the_reader(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/1.jpg")
    (tmp_path / "a/gone.jpg").symlink_to("nowhere")
    os.mkfifo(tmp_path / "a/pipe.jpg")
    assert len(scan(tmp_path).people["a"]) == 3


def test_names_that_read_the_same_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, f"{unicodedata.normalize('NFC', 'Renée')}/1.jpg", f"{unicodedata.normalize('NFD', 'Renée')}/1.jpg")
    if len(os.listdir(tmp_path)) == 1:  # noqa: PTH208
        pytest.skip("a file system that normalises names")
    with pytest.raises(PhotoError, match=r"read the same, 'Rene\\u0301e' and 'Ren\\xe9e': rename or merge"):
        scan(tmp_path)


def test_names_are_normalised(tmp_path: Path) -> None:
    touch(tmp_path, f"{unicodedata.normalize('NFD', 'Renée')}/1.jpg", "b/1.jpg")
    assert list(scan(tmp_path).people) == ["Renée", "b"]


def test_names_that_nearly_read_the_same_are_told(tmp_path: Path) -> None:
    same = ["Anna Lee", "anna_lee", "Anna-Lee "]
    touch(tmp_path, *(f"{name}/1.jpg" for name in (*same, "un-known", "Zoë", "zoë", "s1", "s1-1", "s11", "!", "?")))
    found = scan(tmp_path)
    assert set(found.people) == {*same, "un-known", "Zoë", "zoë", "s1", "s1-1", "s11", "!", "?"}
    assert sorted(line.partition(": ")[2].partition(": ")[0] for line in found.warnings) == [
        "'Anna Lee', 'Anna-Lee ', 'anna_lee'",
        "'Zoë', 'zoë'",
        "'unknown', 'un-known'",
    ]
    assert all(line.endswith("move all the photos into one folder") for line in found.warnings)


@pytest.mark.parametrize("name", ["unknown", "Unknown", "UNKNOWN"])
def test_the_strangers_folder_may_be_in_any_case(name: str, tmp_path: Path) -> None:
    touch(tmp_path, "zoe/1.jpg", f"{name}/s.jpg")
    found = scan(tmp_path)
    assert list(found.classes) == ["zoe", "unknown"]
    assert names(tmp_path, found.classes["unknown"]) == [f"{name}/s.jpg"]
    assert found.warnings == []


def test_two_folders_of_strangers_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "zoe/1.jpg", "unknown/1.jpg", "Unknown/1.jpg")
    if len(os.listdir(tmp_path)) == 2:  # noqa: PTH208
        pytest.skip("a file system that takes upper and lower case for the same")
    with pytest.raises(
        PhotoError, match="two folders of strangers, Unknown and unknown: move all their photos into one"
    ):
        scan(tmp_path)
    (tmp_path / "Unknown/1.jpg").unlink()
    assert list(scan(tmp_path).classes) == ["zoe", "unknown"]  # an empty one is only told


def test_names_that_are_not_utf8_become_text(tmp_path: Path) -> None:
    os.mkdir(os.fsencode(tmp_path) + b"/\xff\xfe")  # noqa: PTH102
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe/1.jpg")).touch()
    touch(tmp_path, "b/1.jpg")
    assert list(scan(tmp_path).people) == [r"\xff\xfe", "b"]


def test_folders_that_hold_no_people_are_refused_with_a_hint(tmp_path: Path) -> None:
    touch(tmp_path, "photos/a/1.jpg", "flat/1.jpg", "flat/2.jpg", "file.jpg", "faces.zip")
    (tmp_path / "empty").mkdir()
    for name, message in {
        "empty": "no folders with photos in it; expected .*empty/PERSON/photo.jpg",
        "flat": "photos but no person folders; put each person's photos in a folder of that name",
        "fotos": "no such folder; did you mean .*photos?",
        "nothing/like/it": "no such folder: check the path",
        "file.jpg": "a file, a folder with one folder per person is expected",
        "faces.zip": "unpack it first",
        "x" * 300: "no such folder",
        "nul\0": "no such folder",
    }.items():
        with pytest.raises(PhotoError, match=message):
            scan(tmp_path / name)


def test_a_folder_that_may_not_be_opened_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a/1.jpg", "b/1.jpg")
    listdir = os.listdir

    def guarded(path: Path) -> list[str]:
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied")
        return listdir(path)

    monkeypatch.setattr(os, "listdir", guarded)  # root may open every folder
    with pytest.raises(PhotoError, match="b: no permission to open the folder"):
        scan(tmp_path)


def test_all_photos_of_a_folder(tmp_path: Path) -> None:
    touch(tmp_path, "b.jpg", "a/2.jpg", "a/1.jpg", ".x.jpg")
    assert names(tmp_path, list_photos(tmp_path).files) == ["a/1.jpg", "a/2.jpg", "b.jpg"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(PhotoError, match="empty: no photos in it"):
        list_photos(tmp_path / "empty")


def test_what_lies_beside_photos_is_passed_over_and_counted(tmp_path: Path) -> None:
    touch(
        tmp_path, "a/1.jpg", "a/1.JPG.xmp", "a/2.AAE", "a/deep/3.MOV", "a/4.jpg.supplemental-metadata.json", "b/1.jpg"
    )
    touch(tmp_path, "b/.x.jpg.icloud", "video.mp4", "only videos/1.mov", "only videos/2.mov")
    touch(tmp_path, "b/5", "b/6.jpg_large", "b/7.raw", "b/folder.mov/8.jpg")  # may be photos
    found = scan(tmp_path)
    assert names(tmp_path, found.people["a"]) == ["a/1.jpg"]
    assert names(tmp_path, found.people["b"]) == ["b/1.jpg", "b/5", "b/6.jpg_large", "b/7.raw", "b/folder.mov/8.jpg"]
    assert found.passed_over == {".xmp": 1, ".aae": 1, ".mov": 3, ".json": 1, ".icloud": 1, ".mp4": 1}
    assert found.warnings == ["only videos: no photos, left out"]
    listing = list_photos(tmp_path / "a")
    assert names(tmp_path, listing.files) == ["a/1.jpg"]
    assert remarks(listing.passed_over) == [
        "Passed over, as no photos by their names: 3 sidecars (.aae, .json, .xmp), 1 video (.mov)"
    ]
    with pytest.raises(PhotoError, match=r"only videos: no photos in it, but 2 videos \(\.mov\)"):
        list_photos(tmp_path / "only videos")


def test_what_predict_has_drawn_is_passed_over(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "a/1.drawn.jpg", "a/1-2.Drawn.JPG", "a/1.explained.png", "a/drawn.jpg", "a/1.drawn.png")
    found = scan(tmp_path)
    assert names(tmp_path, found.people["a"]) == ["a/1.drawn.png", "a/1.jpg", "a/drawn.jpg"]
    assert remarks(found.passed_over) == [
        "Passed over, as no photos by their names: 3 pictures that predict has drawn (.drawn.jpg, .explained.png)"
    ]


def test_what_a_training_wrote_is_not_counted(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "a/run/split.json", "a/run/metrics.jsonl", "a/run/curves.json", "a/run/MODEL_CARD.md")
    assert list_photos(tmp_path / "a").passed_over == {}


def test_hidden_folders_with_two_dots_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "a/..deep/2.jpg", "b/1.jpg", "..x/1.jpg", ".y/1.jpg", "a/..z.jpg")
    hidden = "hidden, as its name begins with dots, and left out: rename it"
    assert scan(tmp_path).warnings == [f"..x: {hidden}", f"a/..deep: {hidden}"]
    assert list_photos(tmp_path / "a").warnings == [f"..deep: {hidden}"]
