"""``facecnn train --resume`` where something is no longer as it was when the run was started."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from facecnn.runs.checkpoint import load_checkpoint, save_checkpoint

from .running import Facecnn

Begin = Callable[..., Path]


@pytest.fixture
def begin(write_people: Callable[..., Path], tmp_path: Path, facecnn: Facecnn) -> Begin:
    """Train to the end on photos of its own; gives the run's folder."""

    def run(*options: str) -> Path:
        write_people({"ann": 10, "bob": 10}, folder=tmp_path / "photos")
        arguments = ["-c", "smoke", "--epochs", "4", "--out", tmp_path, "--name", "run"]
        assert facecnn("train", tmp_path / "photos", *arguments, *options).exit_code == 0
        return tmp_path / "run"

    return run


def trained_on(run: Path) -> int:
    return len(load_checkpoint(run / "best.safetensors").arrays["trained_on"])


def test_a_run_that_had_ended_keeps_its_model(begin: Begin, tmp_path: Path, facecnn: Facecnn) -> None:
    run = begin()
    model = (run / "best.safetensors").read_bytes()
    (run / "curves.png").unlink()
    # Fewer photos would give it another temperature.
    (tmp_path / "photos" / next(iter(json.loads((run / "split.json").read_text())["validation"]))).unlink()
    done = facecnn("train", "--resume", run)
    assert done.exit_code == 0
    assert "had ended" in done.stderr
    assert (run / "best.safetensors").read_bytes() == model
    assert (run / "curves.png").exists()


def test_what_it_was_trained_on_is_remembered_when_photos_go(begin: Begin, tmp_path: Path, facecnn: Facecnn) -> None:
    run = begin()
    before = trained_on(run)
    # As if it had been killed right before its end, where the model is written once more.
    best = load_checkpoint(run / "best.safetensors")
    save_checkpoint(run / "best.safetensors", replace(best, state={**best.state, "calibration": None}))
    for person in ("ann", "bob"):
        for photo in sorted((tmp_path / "photos" / person).iterdir())[:3]:
            photo.rename(photo.with_name(f"moved-{photo.name}"))
    done = facecnn("train", "--resume", run)
    assert done.exit_code == 0
    assert "the photos have changed" in done.stderr
    assert "6 gone" in done.stderr
    assert "6 new" in done.stderr
    assert trained_on(run) == before
    strict = facecnn("train", "--resume", run, "--strict")
    assert strict.exit_code == 6


def test_another_photo_under_a_held_out_name_is_noticed(begin: Begin, tmp_path: Path, facecnn: Facecnn) -> None:
    run = begin()
    split = json.loads((run / "split.json").read_text(encoding="ascii"))
    held_out, trained = next(iter(split["validation"])), next(iter(split["train"]))
    shutil.copy(tmp_path / "photos" / trained, tmp_path / "photos" / held_out)
    done = facecnn("train", "--resume", run)
    assert "1 with other contents" in done.stderr


def test_nobody_may_be_left_without_photos(
    begin: Begin, write_people: Callable[..., Path], tmp_path: Path, facecnn: Facecnn
) -> None:
    run = begin()
    shutil.rmtree(tmp_path / "photos" / "bob")
    other = write_people({"ann": 2, "bob": 4}, start=40)
    shutil.copytree(other / "bob", tmp_path / "photos" / "bob")
    for number, photo in enumerate(sorted((tmp_path / "photos" / "bob").iterdir())):
        photo.rename(photo.with_name(f"new-{number}.png"))
    done = facecnn("train", "--resume", run)
    assert done.exit_code == 3
    assert "no photo of bob is left" in done.stderr


def test_edited_settings_are_refused(begin: Begin, facecnn: Facecnn) -> None:
    run = begin()
    config = run / "config.yaml"
    text = config.read_text(encoding="utf-8")
    assert "learning_rate: 0.01 " in text
    config.write_text(text.replace("learning_rate: 0.01 ", "learning_rate: 0.02 "), encoding="utf-8")
    done = facecnn("train", "--resume", run)
    assert done.exit_code == 4
    assert "other settings than the run was started with (optimizer.learning_rate is 0.02, was 0.01): " in done.stderr


def test_lost_figures_are_said(begin: Begin, facecnn: Facecnn) -> None:
    run = begin()
    (run / "metrics.jsonl").unlink()
    done = facecnn("train", "--resume", run)
    assert done.exit_code == 4
    assert "metrics.jsonl: lines of the first 4 epochs are missing" in done.stderr


def test_another_folder_for_runs_makes_no_sense(begin: Begin, tmp_path: Path, facecnn: Facecnn) -> None:
    done = facecnn("train", "--resume", begin(), "--out", tmp_path / "elsewhere")
    assert done.exit_code == 2
    assert "--out" in done.stderr
