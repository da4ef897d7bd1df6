"""``facecnn predict --explain``: a picture for each answered photo, and nothing else changes."""

import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from facecnn.photos.preparation import PhotoSettings
from facecnn.reports.drawing import NamedFace
from facecnn.reports.explanation import FaceMaps

from .running import COMMAND, Facecnn, Trained, all_names, call_process


def assert_picture(path: Path) -> None:
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert picture.width > 800
        assert np.asarray(picture.convert("L")).std() > 20


def test_the_answers_stay_as_they_are(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, facecnn: Facecnn
) -> None:
    photos = [trained.photos / person / "00.png" for person in ("ann", "bob")]
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in photos}
    (tmp_path / "notes.txt").write_text("holidays\n")
    arguments = ["predict", photos[0], tmp_path / "notes.txt", photos[1], "-m", trained.path]
    folder = tmp_path / "new" / "why"
    for form in ("text", "json", "jsonl", "csv"):
        plain = facecnn(*arguments, "--format", form)
        explained = facecnn(*arguments, "--format", form, "--explain", folder)
        assert explained.stdout == plain.stdout
        assert explained.exit_code == plain.exit_code == 3  # of the text
        assert "2 of 3 photos" in explained.stderr
        assert f"Not explained, as there is no face with an answer: {tmp_path / 'notes.txt'}" in explained.stderr
        for photo, name in zip(photos, ("00.explained.png", "00-2.explained.png"), strict=True):
            assert f"{photo}: explained in {folder / name}\n" in explained.stderr or form != "text"
        assert all_names(folder) == {"00.explained.png", "00-2.explained.png"}
        drawings(monkeypatch)  # once is enough, as it takes long
    for path in folder.iterdir():
        assert_picture(path)
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in photos} == before


def test_pictures_are_numbered_and_equal_answers_give_equal_ones(
    trained: Trained, tmp_path: Path, facecnn: Facecnn
) -> None:
    for person, name in (("bob", "00"), ("ann", "00-2"), ("bob", "00-3")):  # beside those that are there
        photo = trained.photos / person / "00.png"
        done = facecnn("predict", photo, "-m", trained.path, "--explain", tmp_path)
        assert done.exit_code == 0, done.stderr
        assert f"{photo}: explained in {tmp_path / name}.explained.png" in done.stderr
    first, second, third = ((tmp_path / f"{name}.explained.png").read_bytes() for name in ("00", "00-2", "00-3"))
    assert first == third != second
    assert all_names(tmp_path) == {"00.explained.png", "00-2.explained.png", "00-3.explained.png"}


def test_only_the_largest_faces_are_explained(
    finding: Path, sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, facecnn: Facecnn
) -> None:
    """Of six, the four largest, wherever they are; they keep their order."""
    from facecnn.jobs import explain

    sides = [30, 60, 50, 20, 70, 40]
    result = facecnn(
        "predict", sample / "s1" / "1.pgm", "-m", finding, "--threshold", "off", "--format", "json"
    ).json()[0]
    face = result["faces"][0]
    result["faces"] = [{**face, "box": [10, 10, 10 + side, 10 + side]} for side in sides]
    result["path"] = str(sample / "s1" / "1.pgm")
    monkeypatch.setattr("facecnn.jobs.predict.predict", lambda *arguments: [result])
    told: list[list[int]] = []

    def note(*arguments: Any) -> None:
        told.append(list(arguments[4]))

    monkeypatch.setattr(explain, "draw_explanation", note)
    assert facecnn("predict", "x.png", "-m", finding, "--explain", tmp_path).exit_code == 0
    assert told == [[1, 2, 4, 5]]


def test_no_photo_is_ever_replaced(trained: Trained, tmp_path: Path, facecnn: Facecnn) -> None:
    """Nor a picture of an earlier run, of which there is none, either."""
    for name in ("me.png", "me.explained.png", "ME-2.Explained.PNG"):
        shutil.copy(trained.photos / "ann" / "00.png", tmp_path / name)
    photo = (tmp_path / "me.png").read_bytes()
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    given = [tmp_path / "me.png", tmp_path / "me.explained.png", tmp_path / "link" / "ME-2.Explained.PNG"]
    done = facecnn("predict", *given, "-m", trained.path, "--explain", tmp_path)
    assert done.exit_code == 0, done.stderr
    assert all(path.read_bytes() == photo for path in given)
    pictures = all_names(tmp_path) - {"link", *(path.name for path in given)}
    assert pictures == {"me-3.explained.png"}
    assert "Explained: 1 of 3 photos" in done.stderr
    assert f"Not explained, as predict has drawn them: {given[1]}, {given[2]}" in done.stderr
    for name in pictures:
        assert_picture(tmp_path / name)


def test_any_name_has_a_picture(trained: Trained, tmp_path: Path, facecnn: Facecnn) -> None:
    source = os.fsencode(tmp_path / "source")
    Path(os.fsdecode(source)).mkdir()
    raw = [b"li\nne.png", b"\xff\xfe.png", "имя 人.png".encode(), b"$x^2$.png", b"y" * 251 + b".png", b"noend"]
    try:
        for name in raw:
            shutil.copy(os.fsencode(trained.photos / "ann" / "00.png"), source + b"/" + name)
    except OSError:
        pytest.skip("this file system takes no such names")
    done = facecnn("predict", tmp_path / "source", "-m", trained.path, "--explain", tmp_path / "why")
    assert done.exit_code == 0, done.stderr
    made = {os.fsencode(path.name) for path in (tmp_path / "why").iterdir()}
    assert made == {
        *(name.removesuffix(b".png") + b".explained.png" for name in raw if len(name) < 255),
        b"y" * 200 + b".explained.png",
    }


def test_a_stranger_is_explained_by_the_likeliest(
    trained_with_strangers: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, facecnn: Facecnn
) -> None:
    drawn = drawings(monkeypatch)
    photo = trained_with_strangers.photos / "unknown" / "00.png"
    arguments = ["predict", photo, "-m", trained_with_strangers.path, "--threshold", "0", "--format", "json"]
    (answer,) = facecnn(*arguments, "--explain", tmp_path).json()
    ((title, faces, maps),) = drawn
    assert answer["label"] == "unknown"
    assert (title, faces[0].name, faces[0].is_person) == ("00.png", "unknown", False)
    assert maps[0].person == max(answer["probabilities"], key=answer["probabilities"].get)


Drawing = tuple[str, Sequence[NamedFace], Sequence[FaceMaps]]


def drawings(monkeypatch: pytest.MonkeyPatch) -> list[Drawing]:
    """From now on, what is told to those who draw."""
    drawn: list[Drawing] = []

    def note(
        path: Path,
        title: str,
        photo: Image.Image,
        faces: Sequence[NamedFace],
        maps: Mapping[int, FaceMaps],
        people: Sequence[str],
    ) -> None:
        drawn.append((title, faces, list(maps.values())))

    monkeypatch.setattr("facecnn.jobs.explain.draw_explanation", note)
    return drawn


@pytest.mark.parametrize("with_strangers", [False, True])
def test_the_odds_are_those_of_the_answer(
    with_strangers: bool,
    trained: Trained,
    trained_with_strangers: Trained,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    facecnn: Facecnn,
) -> None:
    """Against all others: the other people, and strangers where there is an output for them."""
    run = trained_with_strangers if with_strangers else trained
    drawn = drawings(monkeypatch)
    photos = [run.photos / person / f"{number:02}.png" for person in ("ann", "bob") for number in range(3)]
    arguments = ["predict", *photos, "-m", run.path, "--threshold", "off", "--format", "json"]
    answers = facecnn(*arguments, "--explain", tmp_path).json()
    for answer, (_, _, (maps,)) in zip(answers, drawn, strict=True):
        assert maps.person == answer["label"]
        assert maps.before == pytest.approx(-math.log(1 / (1 - answer["unknown_score"]) - 1), abs=1e-3)


def test_a_photo_read_at_a_fraction_is_explained_as_the_whole_one(
    finding: Path, sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, facecnn: Facecnn
) -> None:
    """Boxes are told in pixels of the whole photo, and drawn where they belong; the crop shows the same face."""
    drawn = drawings(monkeypatch)
    photo = Image.open(sample / "s1" / "1.pgm").resize((552, 672), Image.Resampling.LANCZOS)
    photo.save(tmp_path / "photo.jpg", quality=95)
    boxes = []
    for largest in (552 * 672, 552 * 672 - 1):
        monkeypatch.setattr(PhotoSettings, "largest_pixels", largest)
        monkeypatch.setenv("FACECNN_CACHE_DIR", str(tmp_path / f"cache-{largest}"))
        done = facecnn(
            "predict", tmp_path / "photo.jpg", "-m", finding, "--format", "json", "--explain", tmp_path / "why",
            "--device", "reference",
        )  # fmt: skip
        assert done.exit_code == 0, done.stderr
        boxes.append(done.json()[0]["box"])
    (_, (whole, *_), (whole_maps, *_)), (_, (reduced, *_), (reduced_maps, *_)) = drawn
    np.testing.assert_allclose(boxes[0], boxes[1], atol=20)
    np.testing.assert_allclose(whole.box, boxes[0])  # not made smaller to be drawn
    np.testing.assert_allclose(reduced.box, np.array(boxes[1]) / 2)  # drawn on what was read
    difference = whole_maps.crop.astype(float) - reduced_maps.crop
    assert np.abs(difference).mean() < 12, "another part of the photo"


@pytest.mark.slow
def test_the_maps_lie_where_people_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, facecnn: Facecnn) -> None:
    """Two people with the same noise everywhere, but for one spot: there, and hardly elsewhere, the answers rest.

    There they have stripes, equal in mean and contrast: preparing a photo would spread a difference in those over it.
    """
    random = np.random.default_rng(0)
    side, spot = 48, (slice(26, 38), slice(10, 22))
    people = ("upright", "level")
    stripes = 150 * (np.arange(12) // 3 % 2) + 50
    for person in people:
        (tmp_path / "people" / person).mkdir(parents=True)
        for number in range(30):
            pixels = random.integers(110, 141, (side, side))  # faint: a network learns noise by heart, too
            pixels[spot] = stripes if person == "upright" else stripes[:, None]
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "people" / person / f"{number:02}.png")
    settings = ["photos.crop=1", "photos.size=48", "photos.augment.mirror=false", "photos.augment.shift=0"]
    options = [part for setting in settings for part in ("--set", setting)]
    done = facecnn("train", tmp_path / "people", "-c", "smoke", *options, "--out", tmp_path, "--name", "run")
    assert done.exit_code == 0, done.stderr

    drawn = drawings(monkeypatch)
    photos = [tmp_path / "people" / person / "00.png" for person in people]
    for device in ("cpu", "reference"):
        done = facecnn("predict", *photos, "-m", tmp_path / "run", "--explain", tmp_path, "--device", device)
        assert done.exit_code == 0, done.stderr
    near = np.zeros((side, side), bool)
    near[20:44, 4:28] = True  # as far as a patch, or a small kernel, reaches from the spot
    for (_, faces, (maps,)), person in zip(drawn, 2 * people, strict=True):
        assert (faces[0].name, maps.person, faces[0].box) == (person, person, (0, 0, side, side))
        assert maps.drop.shape == maps.gradient.shape[:2] == maps.crop.shape[:2] == (side, side)
        with Image.open(tmp_path / "people" / person / "00.png") as photo:
            assert np.array_equal(maps.crop[..., 0], photo)
        assert near[np.unravel_index(maps.drop.argmax(), maps.drop.shape)]
        assert maps.drop[spot].mean() > 4 * np.abs(maps.drop[~near]).mean()
        strength = np.abs(maps.gradient[..., 0])
        assert strength[spot].mean() > 1.5 * strength[~near].mean()
        assert maps.lowest < maps.before


# -------------------------------------------------------------------------------------------------------- found faces


def test_every_face_and_no_face(
    wall_and_two_people: list[Path], finding: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, facecnn: Facecnn
) -> None:
    arguments = ["predict", *wall_and_two_people, "-m", finding, "--format", "json"]
    done = facecnn(*arguments, "--explain", tmp_path / "why")
    assert done.exit_code == 0, done.stderr
    assert "1 of 2 photos" in done.stderr
    assert f"no face with an answer: {tmp_path / 'wall.png'}" in done.stderr
    assert all_names(tmp_path / "why") == {"both.explained.png"}
    with Image.open(tmp_path / "why" / "both.explained.png") as picture:
        two_rows = picture.height
    assert_picture(tmp_path / "why" / "both.explained.png")

    drawn = drawings(monkeypatch)
    answer = facecnn(*arguments, "--explain", tmp_path / "why").json()[1]
    ((title, faces, maps),) = drawn
    assert (title, len(faces), len(maps)) == ("both.png", 2, 2)
    assert two_rows > 700
    for face, of_face, given in zip(faces, maps, answer["faces"], strict=True):
        assert (face.name, face.confidence) == (given["label"], given["confidence"])
        assert face.box == pytest.approx([0.75 * edge for edge in given["box"]])  # drawn 900 pixels wide
        # The crop is of this face, not of another or of the photo's middle: faces are of many greys, the wall isn't.
        assert of_face.crop.std() > 20


# --------------------------------------------------------------------------------------------------- what can go wrong


def test_nothing_is_made_where_nothing_can_be_answered(trained: Trained, tmp_path: Path, facecnn: Facecnn) -> None:
    for options in (["-m", tmp_path / "nosuch"], ["-m", trained.path, "--threshold", "2"]):
        assert facecnn("predict", trained.photos, *options, "--explain", tmp_path / "why").exit_code in (2, 4)
        assert not (tmp_path / "why").exists()


STOPPED = """
import os, sys
from facecnn.cli import main

number, left = int(sys.argv.pop(1)), 4
fsync = os.fsync

def stopping(descriptor):
    global left
    left -= 1
    if left < 0 and "--explain" in sys.argv:
        os.kill(os.getpid(), number)
    fsync(descriptor)

os.fsync = stopping
main()
"""
"""Sends itself a signal while the third picture is being written: each takes a call for it and one for its folder."""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
@pytest.mark.parametrize("name", ["SIGTERM", pytest.param("SIGKILL", marks=pytest.mark.slow)])
def test_stopped_while_drawing(name: str, trained: Trained, tmp_path: Path) -> None:
    number, arguments = getattr(signal, name), ["predict", str(trained.photos / "ann"), "-m", str(trained.path)]
    assert call_process(*arguments).exit_code == 0  # so that the photos lie in the cache
    command = [COMMAND[0], "-c", STOPPED, str(int(number)), *arguments, "--explain", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, timeout=300)
    assert done.returncode == (-number if name == "SIGKILL" else 128 + number), done.stderr
    assert len(done.stdout.splitlines()) == 10
    assert b"Traceback" not in done.stderr
    left = {path for path in tmp_path.iterdir() if not path.name.endswith(".facecnn-tmp")}
    assert {path.name for path in left} == {"00.explained.png", "01.explained.png"}
    for path in left:
        assert_picture(path)
    if name != "SIGKILL":
        assert all_names(tmp_path) == {path.name for path in left}
