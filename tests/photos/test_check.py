import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from facecnn.errors import PhotoError
from facecnn.photos.check import check
from facecnn.photos.preparation import PhotoSettings

from .pictures import encoded, picture, write_people

SETTINGS = PhotoSettings(size=16)


def test_the_report_says_what_is_there(tmp_path: Path) -> None:
    write_people(tmp_path, {"a": 10, "b": 5, "unknown": 2})
    (tmp_path / "a/wide.png").write_bytes(encoded(picture(77, 300, 90)))
    (tmp_path / "a/no.jpg").write_text("text")
    shutil.copy(tmp_path / "a/000.jpg", tmp_path / "a/copy.jpg")
    picture(1).resize((45, 60)).save(tmp_path / "a/again.png")
    report = check(tmp_path, SETTINGS).as_dict()
    assert json.loads(json.dumps(report)) == report
    assert report["photos"] == {"usable": 20, "skipped": 1}
    assert [(one["name"], one["photos"]) for one in report["classes"]] == [("a", 13), ("b", 5), ("unknown", 2)]
    assert report["classes"][1]["validation"] == 1
    assert report["sizes"]["width"] == {"min": 45, "median": 60, "max": 300}
    assert report["sizes"]["height"] == {"min": 60, "median": 80, "max": 90}
    assert [one["path"] for one in report["skipped"]] == ["a/no.jpg"]
    assert report["copies"] == [["a/000.jpg", "a/copy.jpg"]]
    assert report["same_pictures"] == [["a/001.jpg", "a/again.png"]]
    assert len(report["warnings"]) == 1


def test_what_training_would_refuse_is_reported(tmp_path: Path) -> None:
    write_people(tmp_path, {"a": 3})
    report = check(tmp_path, PhotoSettings(size=16, validation=0.99))
    assert report.validation is None
    assert any("nothing to tell apart" in line for line in report.warnings)
    assert any("leaves 0 for training" in line for line in report.warnings)
    with pytest.raises(PhotoError, match="no such folder"):
        check(tmp_path / "gone", SETTINGS)


def test_people_with_one_photo_are_named_in_natural_order(tmp_path: Path) -> None:
    write_people(tmp_path, {"s10": 1, "s2": 1, "s1": 4, "unknown": 2, "Zoe": 3})
    report = check(tmp_path, SETTINGS)
    assert list(report.classes) == ["s1", "s2", "s10", "Zoe", "unknown"]
    assert report.validation == {"s1": 1, "s2": 0, "s10": 0, "Zoe": 1, "unknown": 1}
    assert any("only one photo of s2, s10" in line for line in report.warnings)


def test_notes_are_grouped_unless_all_are_wanted(tmp_path: Path) -> None:
    write_people(tmp_path, {"a": 3, "b": 2})
    for number in range(5):
        frames = [picture(100 * number + frame) for frame in range(2 + number)]
        frames[0].save(tmp_path / f"a/{number}.png", save_all=True, append_images=frames[1:])
    Image.new("L", (30, 30), 9).save(tmp_path / "b/black.png")
    report = check(tmp_path, SETTINGS)
    text = " ".join(report.text().split())
    assert "notes (6; -v lists all)" in text
    assert "- several frames, the first used: 5 photos (a/0.png, a/1.png, a/2.png and 2 more)" in text
    assert "- b/black.png: no content: every pixel is the same" in text
    everything = " ".join(report.text(all_notes=True).split())
    for number in range(5):
        note = f"a/{number}.png: {2 + number} frames, the first used"
        assert note in report.as_dict()["notes"]
        assert f"- {note}" in everything
    assert "notes (6) -" in everything


def test_the_text_fits_eighty_columns_and_names_every_photo(tmp_path: Path) -> None:
    people = {f"person {number}": 2 for number in range(40)} | {"写真" * 30: 2, "long-" * 30: 2, "a\x1b[31m": 2}
    write_people(tmp_path, people)
    for number in range(40):
        (tmp_path / f"person 0/{'x' * 150}{number}.png").write_text("text")
    text = check(tmp_path, SETTINGS).text()
    for line in text.splitlines():
        assert line.isprintable()
        short = sum(2 if ord(letter) > 0x2E80 else 1 for letter in line) <= 80
        assert short or " " not in line.strip()  # a word is longer than a line
    assert "… 23 more" in text  # people
    joined = "".join(line.strip() for line in text.splitlines())
    assert all(f"{'x' * 150}{number}.png" in joined for number in range(40))
    assert r"a\x1b[31m" in text
