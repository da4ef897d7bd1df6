import json
import shutil
from pathlib import Path

import pytest

from facecnn.errors import PhotoError
from facecnn.photos.check import check
from facecnn.photos.preparation import PhotoSettings

from .pictures import encoded, picture, write_people

SETTINGS = PhotoSettings(size=16)


def test_the_report_says_what_is_there(tmp_path: Path) -> None:
    write_people(tmp_path, {"a": 10, "b": 5, "unknown": 2})
    (tmp_path / "a/wide.png").write_bytes(encoded(picture(77, 300, 90)))
    (tmp_path / "a/no.txt").write_text("text")
    shutil.copy(tmp_path / "a/000.jpg", tmp_path / "a/copy.jpg")
    picture(1).resize((45, 60)).save(tmp_path / "a/again.png")
    report = check(tmp_path, SETTINGS).as_dict()
    assert json.loads(json.dumps(report)) == report
    assert report["photos"] == {"usable": 20, "skipped": 1}
    assert [(one["name"], one["photos"]) for one in report["classes"]] == [("a", 13), ("b", 5), ("unknown", 2)]
    assert report["classes"][1]["validation"] == 1
    assert report["sizes"]["width"] == {"min": 45, "median": 60, "max": 300}
    assert report["sizes"]["height"] == {"min": 60, "median": 80, "max": 90}
    assert [one["path"] for one in report["skipped"]] == ["a/no.txt"]
    assert report["copies"] == [["a/000.jpg", "a/copy.jpg"]]
    assert report["same_pictures"] == [["a/001.jpg", "a/again.png"]]
    assert len(report["warnings"]) == 1


def test_what_training_would_refuse_is_reported(tmp_path: Path) -> None:
    write_people(tmp_path, {"a": 1})
    report = check(tmp_path, SETTINGS)
    assert report.validation is None
    assert any("nothing to tell apart" in line for line in report.warnings)
    assert any("nothing is left for validation" in line for line in report.warnings)
    with pytest.raises(PhotoError, match="no such folder"):
        check(tmp_path / "gone", SETTINGS)


def test_the_text_fits_eighty_columns_and_names_every_photo(tmp_path: Path) -> None:
    people = {f"person {number}": 2 for number in range(40)} | {"写真" * 30: 2, "long " * 30: 2, "a\x1b[31m": 1}
    write_people(tmp_path, people)
    for number in range(40):
        (tmp_path / f"person 0/{'x' * 150}{number}.txt").write_text("text")
    text = check(tmp_path, SETTINGS).text()
    for line in text.splitlines():
        assert line.isprintable()
        assert sum(2 if ord(letter) > 0x2E80 else 1 for letter in line) <= 80
    assert "… 23 more" in text  # people
    joined = "".join(line.strip() for line in text.splitlines())
    assert all(f"{'x' * 150}{number}.txt" in joined for number in range(40))
    assert r"a\x1b[31m" in text
