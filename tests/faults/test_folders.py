"""Folders as phones, cameras and programs leave them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from .conftest import QUICK, Run

LEFT_BESIDE = {
    "0000.jpg.xmp": b'<?xpacket begin="\xef\xbb\xbf"?><x:xmpmeta/>',
    "0001.AAE": b'<?xml version="1.0"?><!DOCTYPE plist><plist/>',
    "0002.MOV": b"\0\0\0\x14ftypqt  " + bytes(20),
    "0003.thm": b"\xff\xd8\xff\xe0 a small JPEG beside a video",
    "0004.jpg.supplemental-metadata.json": b"{}",
    "clip.mp4": b"\0\0\0\x18ftypmp42" + bytes(20),
    "notes.txt": b"text",
    "SynoIndex.db": b"SQLite format 3\0",
    ".0005.jpg.icloud": b"bplist00",
}
LINE = (
    "Passed over, as no photos by their names: 4 sidecars (.aae, .json, .thm, .xmp), 2 videos (.mov, .mp4), "
    "1 document (.txt), 1 program's file (.db), 1 photo that iCloud has not downloaded (.icloud)"
)


@pytest.fixture
def as_it_is(data: Path) -> Path:
    """A folder of photos with what is left beside them."""
    for name, content in LEFT_BESIDE.items():
        (data / "person_0001" / name).write_bytes(content)
    return data


@pytest.mark.fault("X-sidecars")
def test_sidecars_and_videos_are_passed_over_in_one_line(as_it_is: Path, model: Path, run: Run, tmp_path: Path) -> None:
    """Alike by every command, with --strict too, and nobody is told to delete their edits."""
    trained = run("train", as_it_is, *QUICK, "--strict", "--out", tmp_path / "runs", "--name", "r", "--format", "json")
    assert trained.exit_code == 0, trained.stderr
    assert json.loads(trained.stdout)["photos"]["skipped"] == 0
    checked = run("data", "check", as_it_is, "--set", "photos.faces=off", "--strict", "--format", "json")
    assert checked.exit_code == 0, checked.stderr
    assert sum(json.loads(checked.stdout)["passed_over"].values()) == len(LEFT_BESIDE)
    text = run("data", "check", as_it_is, "--set", "photos.faces=off")
    assert LINE in " ".join(text.stdout.split())
    judged = run("eval", as_it_is, "-m", model, "--split", "all", "--format", "json")
    assert judged.exit_code == 0, judged.stderr
    assert json.loads(judged.stdout)["skipped"] == []
    answered = run("predict", as_it_is, "-m", model, "--format", "json")
    assert answered.exit_code == 0, answered.stderr
    assert len(json.loads(answered.stdout)) == 36
    sorted_ = run("sort", as_it_is, tmp_path / "sorted", "-m", model)
    assert sorted_.exit_code == 0, sorted_.stderr
    for done in (trained, judged, answered, sorted_):
        assert done.stderr.splitlines().count(LINE) == 1, done.stderr
    for done in (trained, text, judged, answered, sorted_):
        assert "delete" not in done.stdout + done.stderr


@pytest.mark.fault("X-sidecars")
def test_what_is_given_by_name_is_answered(as_it_is: Path, model: Path, run: Run) -> None:
    folder = as_it_is / "person_0001"
    done = run("predict", folder / "clip.mp4", folder / "0000.jpg.xmp", folder / "0000.jpg", "-m", model)
    assert done.exit_code == 3
    video, sidecar, photo = done.stdout.splitlines()
    assert "not a picture but a video" in video
    assert "not a picture but a sidecar" in sidecar
    assert "delete" not in done.stdout
    assert "%" in photo


@pytest.mark.fault("X-sidecars")
def test_a_folder_of_videos_only_holds_no_photos(model: Path, run: Run, tmp_path: Path) -> None:
    (tmp_path / "clip.mov").write_bytes(b"\0\0\0\x14ftypqt  ")
    done = run("predict", tmp_path, "-m", model)
    assert done.exit_code == 3
    assert "no photos in it, but 1 video (.mov)" in done.stdout


@pytest.mark.fault("D16")
def test_a_folder_that_begins_with_two_dots_is_named(data: Path, model: Path, run: Run, tmp_path: Path) -> None:
    (data / "person_0000").rename(data / "..x")
    (data / ".git").mkdir()
    named = "..x: hidden, as its name begins with dots, and left out: rename it"
    trained = run("train", data, *QUICK, "--out", tmp_path / "runs", "--name", "r", "--format", "json")
    assert trained.exit_code == 0
    assert json.loads(trained.stdout)["classes"] == ["person_0001", "person_0002"]
    answered = run("predict", data, "-m", model)
    assert answered.exit_code == 0
    for done in (trained, answered):
        assert named in done.stderr
        assert ".git" not in done.stderr
    strict = run("train", data, *QUICK, "--strict", "--out", tmp_path / "runs", "--name", "s")
    assert strict.exit_code == 6


@pytest.mark.fault("I20")
@pytest.mark.long
def test_a_jpeg_of_200_megapixels_is_read_at_a_fraction(model: Path, run: Run, tmp_path: Path) -> None:
    """In 1 GB (beside what the program takes itself) and 20 s; the same picture as PNG is refused."""
    small = Image.radial_gradient("L").convert("RGB")
    huge = small.resize((20_000, 10_000), Image.Resampling.NEAREST)
    huge.save(tmp_path / "huge.jpg", quality=50)
    done = run(
        "predict", tmp_path / "huge.jpg", "-m", model, "--format", "json", before="ulimit -v 4000000", timeout=60
    )
    assert done.exit_code == 0, done.stderr
    (answer,) = json.loads(done.stdout)
    left, top, right, bottom = answer["box"]
    assert (left + right, top + bottom) == (20_000, 10_000)  # the middle, in pixels of the whole photo
    huge.close()
    small.resize((8_000, 8_000)).save(tmp_path / "huge.png")
    done = run("predict", tmp_path / "huge.png", "-m", model)
    assert done.exit_code == 3
    assert "8000x8000 pixels, more than 50 million" in done.stdout
