"""Faces from the first photo to the answer: found, carried by the model, hidden, several in a photo, none."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cli.running import Outcome, call
from facecnn.errors import CheckpointError, UsageError
from facecnn.faces.finder import FaceFinder
from facecnn.faces.weights import installed_arrays
from facecnn.jobs import faces
from facecnn.jobs.faces import arrays_for_checkpoint, finder_of_checkpoint, installed_finder
from facecnn.photos.preparation import PhotoSettings
from facecnn.photos.sample import write_sample
from facecnn.runs.checkpoint import load_checkpoint

ALIGNED = ("--set", "photos.faces=auto")


class Listener:
    """A console that remembers what it was told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def info(self, text: str) -> None:
        self.said.append(text)


def test_without_the_extra_photos_are_cropped_and_it_is_said() -> None:
    listener = Listener()
    assert installed_finder(PhotoSettings(), listener) is None  # type: ignore[arg-type]
    (said,) = listener.said
    assert "facecnn[faces]" in said
    assert "accuracy" in said


def test_off_says_nothing() -> None:
    listener = Listener()
    assert installed_finder(PhotoSettings(faces="off"), listener) is None  # type: ignore[arg-type]
    assert listener.said == []


@pytest.mark.parametrize(
    "settings",
    [PhotoSettings(faces="required"), PhotoSettings(hide_face=True), PhotoSettings(faces="off", hide_face=True)],
)
def test_what_needs_faces_is_refused_without(settings: PhotoSettings) -> None:
    with pytest.raises(UsageError, match="photos"):
        installed_finder(settings, Listener())  # type: ignore[arg-type]


@pytest.mark.usefixtures("face_finding")
def test_a_checkpoint_brings_the_same_finder() -> None:
    own = installed_finder(PhotoSettings(), Listener())  # type: ignore[arg-type]
    assert own is not None
    kept = {**arrays_for_checkpoint(own), "model.conv1.weight": np.zeros(3, np.float32)}
    brought = finder_of_checkpoint(kept)
    assert brought is not None
    assert brought.identity == own.identity
    assert finder_of_checkpoint({"model.conv1.weight": np.zeros(3, np.float32)}) is None
    damaged = next(name for name in kept if name.startswith("finder."))
    with pytest.raises(CheckpointError):
        finder_of_checkpoint({**kept, damaged: np.zeros(7, np.float32)})


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two people of the ORL faces. Not to be written to."""
    return write_sample(tmp_path_factory.mktemp("sample") / "people").folder


@pytest.fixture
def model(sample: Path, tmp_path: Path, face_finding: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run on aligned faces; from now on the extra is not installed."""
    done = call("train", sample, "-c", "smoke", *ALIGNED, "--out", tmp_path, "--name", "run", "--format", "json")
    assert done.exit_code == 0, done.stderr
    assert "Faces: not looked for" not in done.stderr
    background = done.json()["background"]
    assert background["plain"] == done.json()["validation"]["accuracy"]
    assert 0 <= background["hidden"] <= 1
    assert background == json.loads((tmp_path / "run" / "background.json").read_text())
    monkeypatch.setattr(faces, "installed_arrays", lambda: None)
    return tmp_path / "run"


def answers(done: Outcome) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = done.json()
    return found


def test_the_model_finds_faces_by_itself(model: Path, sample: Path, tmp_path: Path) -> None:
    face = Image.open(sample / "s1" / "1.pgm").convert("RGB")
    both = Image.new("RGB", (300, 150), (90, 90, 90))
    both.paste(face, (100, 20))
    both.paste(Image.open(sample / "s2" / "1.pgm").convert("RGB"), (205, 10))
    both.save(tmp_path / "both.png")
    Image.new("RGB", (200, 200), (90, 90, 90)).save(tmp_path / "wall.png")
    face.rotate(90, expand=True).save(tmp_path / "lying.png")
    done = call(
        "predict", *(tmp_path / f"{name}.png" for name in ("both", "wall", "lying")), "-m", model, "--format", "json"
    )
    assert done.exit_code == 0, done.stderr
    two, wall, lying = answers(done)

    assert len(two["faces"]) == 2
    first, second = two["faces"]
    assert {key: two[key] for key in ("box", "label", "confidence")} == {
        key: first[key] for key in ("box", "label", "confidence")
    }
    assert 100 < np.mean(first["box"][::2]) < 192 < np.mean(second["box"][::2])
    for answer in two["faces"]:
        left, top, right, bottom = answer["box"]
        assert all(left < x < right and top < y < bottom for x, y in answer["landmarks"])
        assert sum(answer["probabilities"].values()) == pytest.approx(1)

    assert wall == {
        "path": str(tmp_path / "wall.png"),
        "label": "no_face",
        "confidence": None,
        "probabilities": None,
        "unknown_score": None,
        "also_like": None,
        "box": None,
        "faces": [],
        "error": None,
    }
    assert len(lying["faces"]) == 1
    (left_eye, right_eye, *_) = lying["faces"][0]["landmarks"]
    assert abs(left_eye[1] - right_eye[1]) > 2 * abs(left_eye[0] - right_eye[0])  # one above the other

    text = call("predict", tmp_path / "both.png", tmp_path / "wall.png", "-m", model)
    lines = text.stdout.splitlines()
    assert lines[0].startswith(f"{tmp_path / 'both.png'}: s")
    assert lines[1].startswith("  and s")
    assert " at left 2" in lines[1]
    assert lines[2] == f"{tmp_path / 'wall.png'}: no face found"
    table = call("predict", tmp_path / "both.png", tmp_path / "wall.png", "-m", model, "--format", "csv")
    assert [row.split(",")[1] for row in table.stdout.splitlines()[1:]] == [first["label"], second["label"], "no_face"]


@pytest.mark.slow
def test_the_finder_keeps_to_the_threads_that_were_asked_for(
    model: Path, sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int | None] = []

    class Finder(FaceFinder):
        def __init__(self, arrays: Any, threads: int | None = None, device: str = "cpu") -> None:
            asked.append(threads)
            super().__init__(arrays, threads, device)

    monkeypatch.setattr(faces, "FaceFinder", Finder)
    monkeypatch.setattr(faces, "installed_arrays", installed_arrays)
    train = ("-c", "smoke", *ALIGNED, "--epochs", "1", "--out", tmp_path)
    for command in (
        ("predict", sample / "s1" / "1.pgm", "-m", model),
        ("eval", "-m", model),
        ("train", sample, *train, "--name", "again"),
        ("train", sample, *train, "--dry-run"),
        ("cross-validate", sample, "-c", "smoke", *ALIGNED, "--folds", "2", "--set", "train.epochs=1"),
        ("train", "--resume", model),
    ):
        asked.clear()
        done = call(*command, "--threads", "1")
        assert done.exit_code == 0, done.stderr
        assert asked, command
        assert set(asked) == {1}, command


def test_hidden_faces_are_judged_by_the_models_own_finder(model: Path, sample: Path) -> None:
    plain, hidden = (
        call("eval", "-m", model, *options, "--format", "json").json() for options in ((), ("--hide-face",))
    )
    assert plain["photos"] == hidden["photos"]
    assert hidden["log_loss"] > plain["log_loss"]
    background = json.loads((model / "background.json").read_text())
    assert hidden["accuracy"] == background["hidden"]


def test_hiding_needs_a_model_that_finds_faces(trained_plain: Path) -> None:
    done = call("eval", "-m", trained_plain, "--hide-face")
    assert done.exit_code == 2
    assert "--hide-face" in done.stderr


@pytest.fixture
def trained_plain(people: Path, tmp_path: Path) -> Path:
    done = call("train", people, "-c", "smoke", "--epochs", "1", "--out", tmp_path, "--name", "plain")
    assert done.exit_code == 0, done.stderr
    assert not (tmp_path / "plain" / "background.json").exists()
    return tmp_path / "plain"


def test_resuming_needs_no_extra_and_keeps_to_what_was_begun(model: Path, sample: Path) -> None:
    before = load_checkpoint(model)
    again = call("train", "--resume", model, "--format", "json")
    assert again.exit_code == 0, again.stderr
    after = load_checkpoint(model)
    assert before.arrays.keys() == after.arrays.keys()
    assert any(name.startswith("finder.") for name in after.arrays)


def test_damaged_figures_of_the_surroundings_are_made_anew(model: Path) -> None:
    figures = (model / "background.json").read_text()
    (model / "background.json").write_text("{")
    again = call("train", "--resume", model)
    assert again.exit_code == 0, again.stderr
    assert "background.json was damaged, and is made anew" in " ".join(again.stderr.split())
    assert (model / "background.json").read_text() == figures


@pytest.mark.usefixtures("face_finding")
def test_crops_are_written_to_look_at(sample: Path, tmp_path: Path) -> None:
    done = call("data", "crop", sample, tmp_path / "crops", "--format", "json")
    assert done.exit_code == 0, done.stderr
    figures = done.json()
    assert figures["aligned"]
    assert figures["crops"] + len(figures["skipped"]) == 20
    assert figures["crops"] >= 19
    with Image.open(tmp_path / "crops" / "s1" / "1.png") as crop:
        assert crop.size == (48, 48)
    with Image.open(tmp_path / "crops" / "contact_sheet.png") as sheet:
        assert sheet.size == (48 * figures["crops"], 48) or sheet.height == 48 * -(-figures["crops"] // 20)
    again = call("data", "crop", sample, tmp_path / "crops")
    assert again.exit_code == 6
    assert "not an empty folder" in again.stderr
    inside = call("data", "crop", sample, sample / "crops")
    assert inside.exit_code == 6
    assert not (sample / "crops").exists()


def test_crops_without_faces_are_the_middle(people: Path, tmp_path: Path) -> None:
    done = call(
        "data", "crop", people, tmp_path / "crops", "--set", "photos.size=[20, 30]", "--set", "photos.colour=rgb"
    )
    assert done.exit_code == 0, done.stderr
    with Image.open(tmp_path / "crops" / "ann" / "00.png") as crop:
        assert (crop.size, crop.mode) == ((30, 20), "RGB")
    with Image.open(tmp_path / "crops" / "contact_sheet.png") as sheet:
        assert sheet.size == (600, 20)
