"""``facecnn train --track``: what TensorBoard's own reader finds in the files."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from facecnn.runs import event_file
from facecnn.runs.checkpoint import load_checkpoint
from facecnn.runs.event_file import EventFile

from .running import Facecnn
from .sweeping import PLACE, RATE, Judge, write_config

accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

EPOCHS = 6


class Read:
    """A folder of event files, as TensorBoard reads it."""

    def __init__(self, folder: Path) -> None:
        self.events = accumulator.EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
        self.events.Reload()

    def scalars(self, name: str) -> dict[int, float]:
        """By step. No step may occur twice."""
        found = self.events.Scalars(name)
        assert len({event.step for event in found}) == len(found), f"{name}: a step occurs twice"
        return {event.step: event.value for event in found}

    def images(self, name: str) -> dict[int, bytes]:
        """PNG files by step."""
        found = self.events.Images(name)
        assert len({event.step for event in found}) == len(found), f"{name}: a step occurs twice"
        return {event.step: event.encoded_image_string for event in found}

    def table(self, name: str) -> Any:
        """A part of the table of runs: experiment, session_start_info or session_end_info."""
        from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

        data = HParamsPluginData.FromString(self.events.summary_metadata[f"_hparams_/{name}"].plugin_data.content)
        return getattr(data, name)


@pytest.fixture(scope="module")
def tracked(people: Path, tmp_path_factory: pytest.TempPathFactory, facecnn: Facecnn) -> Path:
    """A run that was tracked. Not to be written to."""
    return trained(facecnn, people, tmp_path_factory.mktemp("tracked"), "--track")


def trained(facecnn: Facecnn, people: Path, out: Path, *options: str) -> Path:
    done = facecnn("train", people, "-c", "smoke", "--epochs", str(EPOCHS), "--out", out, "--name", "run", *options)
    assert done.exit_code == 0, done.stderr
    return out / "run"


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_the_curves_are_those_of_the_metrics(tracked: Path) -> None:
    read = Read(tracked / "tensorboard")
    for name, key in (
        ("loss/train", "train_loss"),
        ("loss/held_out", "validation_loss"),
        ("loss/worst", "train_worst_loss"),
        ("accuracy/train", "train_accuracy"),
        ("accuracy/held_out", "validation_accuracy"),
        ("learning_rate", "learning_rate"),
    ):
        expected = {line["epoch"]: line[key] for line in lines(tracked) if line[key] is not None}
        assert EPOCHS in expected
        assert read.scalars(name) == pytest.approx(expected, rel=1e-6), name
    changes = {line["epoch"]: line["kernel_change"]["conv2"] for line in lines(tracked)}
    assert read.scalars("kernel_change/conv2") == pytest.approx(changes, rel=1e-6)


def test_the_first_kernels_are_red_where_a_weight_is_positive_and_blue_where_it_is_negative(tracked: Path) -> None:
    pictures = Read(tracked / "tensorboard").images("kernels/conv1")
    assert set(pictures) == set(range(EPOCHS + 1)), "before the first step, and after each epoch"
    assert len(set(pictures.values())) == EPOCHS + 1
    weights = load_checkpoint(tracked / "last.safetensors").arrays["model.conv1.weight"]
    kernels, height, width, _ = weights.shape
    pixels = np.asarray(Image.open(io.BytesIO(pictures[EPOCHS])).convert("RGB")).astype(int)
    pitch, gap = (pixels.shape[1] + 3) / kernels, 3
    for kernel, row, column in np.ndindex(kernels, height, width):
        weight = weights[kernel, row, column, 0]
        if abs(weight) > 0.2 * np.abs(weights).max():
            y, x = (row + 0.5) * (pitch - gap) / height, kernel * pitch + (column + 0.5) * (pitch - gap) / width
            red, _, blue = pixels[int(y), int(x)]
            assert (red > blue) == (weight > 0)


def test_at_the_end_come_the_figures_and_pictures(tracked: Path) -> None:
    read = Read(tracked / "tensorboard")
    figures = json.loads((tracked / "figures.json").read_text())["training"]["validation"]
    for key in ("accuracy", "closed_set_accuracy", "loss"):
        assert read.scalars(f"final/{key}") == {EPOCHS: pytest.approx(figures[key], rel=1e-6)}
    assert read.images("confusion") == {EPOCHS: (tracked / "confusion.png").read_bytes()}
    assert read.images("kernels_and_change") == {EPOCHS: (tracked / "kernels.png").read_bytes()}


def test_the_table_of_runs_has_the_settings_and_no_path(tracked: Path, people: Path) -> None:
    read = Read(tracked / "tensorboard")
    settings = read.table("session_start_info").hparams
    assert settings["train.batch_size"].number_value == 8
    assert settings["train.epochs"].number_value == EPOCHS
    assert settings["optimizer.name"].string_value == "adamw"
    assert settings["photos.augment.mirror"].bool_value is True
    assert settings["network"].string_value == "conv 4, conv 8, neuron 2, dense people"
    assert (settings["people"].number_value, settings["photos.trained_on"].number_value) == (2, 16)
    assert {info.name.tag for info in read.table("experiment").metric_infos} == {
        "final/accuracy", "final/closed_set_accuracy", "final/loss"
    }  # fmt: skip
    assert read.table("session_end_info").status == 1  # STATUS_SUCCESS
    (file,) = (tracked / "tensorboard").iterdir()
    assert str(people).encode() not in file.read_bytes()


def test_the_model_is_the_same_as_without(tracked: Path, people: Path, tmp_path: Path, facecnn: Facecnn) -> None:
    plain = trained(facecnn, people, tmp_path)
    assert not (plain / "tensorboard").exists()
    for name in ("best.safetensors", "last.safetensors", "kernels.frames"):
        assert (plain / name).read_bytes() == (tracked / name).read_bytes(), name


def test_a_run_that_had_ended_has_each_step_once_when_its_results_are_made_anew(
    tracked: Path, tmp_path: Path, facecnn: Facecnn
) -> None:
    run = shutil.copytree(tracked, tmp_path / "run")
    before = Read(run / "tensorboard")
    assert facecnn("train", "--resume", run).exit_code == 0
    assert len(list((run / "tensorboard").iterdir())) == 2
    after = Read(run / "tensorboard")
    for name in before.events.Tags()["scalars"]:
        assert after.scalars(name) == before.scalars(name), name
    assert set(after.images("kernels/conv1")) == set(before.images("kernels/conv1"))
    assert set(after.images("confusion")) == {EPOCHS}


@pytest.mark.slow
def test_a_run_can_be_tracked_afterwards(people: Path, tmp_path: Path, tracked: Path, facecnn: Facecnn) -> None:
    run = trained(facecnn, people, tmp_path)
    assert facecnn("train", "--resume", run, "--track").exit_code == 0
    found, expected = Read(run / "tensorboard"), Read(tracked / "tensorboard")
    assert found.scalars("loss/train") == expected.scalars("loss/train")
    assert found.scalars("final/loss") == expected.scalars("final/loss")
    assert set(found.images("kernels/conv1")) >= set(range(1, EPOCHS + 1))


def test_what_was_written_after_the_last_save_is_written_once_more(tmp_path: Path) -> None:
    """As if a process had been killed in epoch 6 and went on from a save after epoch 3."""
    with EventFile(tmp_path, 0) as first:
        for epoch in range(1, 6):
            first.scalars(epoch, {"loss/train": float(epoch)})
    torn = first.path.read_bytes()
    first.path.write_bytes(torn[:-7])  # in the midst of a record
    with EventFile(tmp_path, 4) as second:
        for epoch in range(4, 8):
            second.scalars(epoch, {"loss/train": 10.0 * epoch})
    assert first.path.name < second.path.name, "though both are of the same second"
    assert Read(tmp_path).scalars("loss/train") == {1: 1, 2: 2, 3: 3, 4: 40, 5: 50, 6: 60, 7: 70}


def test_a_new_run_of_the_same_name_begins_anew(tracked: Path, people: Path, tmp_path: Path, facecnn: Facecnn) -> None:
    run = shutil.copytree(tracked, tmp_path / "run")
    (run / "tensorboard" / "mine.txt").write_text("not facecnn's")
    trained(facecnn, people, tmp_path, "--overwrite")
    assert [path.name for path in (run / "tensorboard").iterdir()] == ["mine.txt"]


def test_without_the_extra_nothing_begins(
    people: Path, tmp_path: Path, facecnn: Facecnn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_file, "is_installed", lambda: False)
    done = facecnn("train", people, "-c", "smoke", "--out", tmp_path / "runs", "--track")
    assert done.exit_code == 2
    assert "pip install 'facecnn[track]'" in done.stderr
    done.one_block()
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_without_the_extra_a_tracked_run_goes_on_untracked(
    tracked: Path, tmp_path: Path, facecnn: Facecnn, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shutil.copytree(tracked, tmp_path / "run")
    monkeypatch.setattr("facecnn.jobs.training.tracking.is_installed", lambda: False)
    done = facecnn("train", "--resume", run)
    assert done.exit_code == 0
    assert "tensorboardX is missing" in done.stderr
    assert len(list((run / "tensorboard").iterdir())) == 1


def test_what_makes_no_run_is_not_tracked(people: Path, facecnn: Facecnn) -> None:
    for option in ("--dry-run", "--overfit-batch"):
        done = facecnn("train", people, "-c", "smoke", "--track", option)
        assert done.exit_code == 2
        assert "--track follows a training" in done.stderr


def test_trials_of_a_sweep_are_a_row_each(
    people: Path, tmp_path: Path, facecnn: Facecnn, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("optuna")
    monkeypatch.setattr(PLACE, Judge())
    config = write_config(tmp_path)
    arguments = ["sweep", config, people, "--out", tmp_path, "--name", "one", "--outer-folds", "0", "--format", "json"]
    for trials, more in (("2", []), ("4", ["--resume"])):
        done = facecnn(*arguments, "--track", "--trials", trials, *more)
        assert done.exit_code == 0, done.stderr
        rows = done.json()["trials"]
        folders = sorted((tmp_path / "one" / "tensorboard").iterdir())
        assert len(folders) == len(rows) == int(trials)
        for folder, row in zip(folders, rows, strict=True):
            assert len(list(folder.iterdir())) == 1, "in place of the file of the sweep before it was resumed"
            read = Read(folder)
            settings = read.table("session_start_info").hparams
            assert settings[RATE].number_value == row["parameters"][RATE]
            assert settings["train.epochs"].number_value == row["parameters"]["train.epochs"]
            if row["log_loss"] is not None:
                assert read.scalars("log_loss") == {len(row["folds"]): pytest.approx(row["log_loss"], rel=1e-6)}
                assert read.scalars("fold/log_loss") == {
                    number: pytest.approx(fold["log_loss"], rel=1e-6) for number, fold in enumerate(row["folds"], 1)
                }
