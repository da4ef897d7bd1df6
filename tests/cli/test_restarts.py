"""Trainings that try several initial weights first, from the command line."""

import json
from pathlib import Path

import pytest

from .contract import check
from .running import Facecnn, Trained

TRIED = ["--set", "train.restarts=3", "--set", "train.restart_epochs=2"]


def test_the_losing_starts_are_told_of(people: Path, tmp_path: Path, facecnn: Facecnn) -> None:
    done = facecnn("train", people, "-c", "smoke", "--out", tmp_path, "--name", "run", "--format", "json", *TRIED)
    assert done.exit_code == 0, done.stderr
    figures = done.json()
    check(figures, {"restarts": [{"start": int, "loss": float}]})
    losses = [row["loss"] for row in figures["restarts"]]
    for start, loss in enumerate(losses):
        assert f"start {start}: training loss {loss:.4f}" in done.stderr
    assert f"start {losses.index(min(losses))} has learned best" in done.stderr
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == list(range(1, 9))
    assert rows[1]["train_loss"] == min(losses)


def test_quiet_says_nothing_of_them(people: Path, tmp_path: Path, facecnn: Facecnn) -> None:
    done = facecnn("train", people, "-c", "smoke", "--epochs", "2", "--out", tmp_path, "--quiet", *TRIED)
    assert (done.exit_code, done.stderr) == (0, "")


def test_without_them_json_has_null(trained: Trained) -> None:
    assert trained.figures["restarts"] is None


def test_each_fold_of_a_cross_validation_has_its_own(people: Path, facecnn: Facecnn) -> None:
    options = ["-c", "smoke", "--epochs", "2", "--folds", "2", "--format", "json", *TRIED]
    done = facecnn("cross-validate", people, *options)
    assert done.exit_code == 0, done.stderr
    for number, fold in enumerate(done.json()["folds"], start=1):
        losses = [row["loss"] for row in fold["restarts"]]
        assert len(losses) == 3
        assert fold["train_loss"] == min(losses)  # the trials are as long as the training
        assert f"Fold {number} of 2, start 2: training loss {losses[2]:.4f}" in done.stderr


def test_looking_ahead_and_single_batches_try_none(people: Path, facecnn: Facecnn) -> None:
    plan = facecnn("train", people, "-c", "smoke", "--dry-run", *TRIED)
    assert plan.exit_code == 0
    assert "3 different initial weights are tried for 2 epochs each" in plan.stderr
    overfit = facecnn("train", people, "-c", "smoke", "--overfit-batch", *TRIED)
    assert overfit.exit_code == 0
    assert "start 0" not in overfit.stderr


def test_lr_find_leaves_them_out(
    people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, facecnn: Facecnn
) -> None:
    monkeypatch.chdir(tmp_path)
    found = [
        facecnn("lr-find", people, "-c", "smoke", "--steps", "20", "--format", "json", *options)
        for options in ([], ["--set", "train.restarts=3", "--set", "train.restart_epochs=99"])
    ]
    assert [done.exit_code for done in found] == [0, 0]
    assert found[0].json() == found[1].json()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["train.restarts=2", "train.restart_epochs=9"], "train.restart_epochs 9: longer than the training"),
        (["train.restarts=0"], "train.restarts must be"),
        (["train.restart_epochs=0"], "train.restart_epochs must be"),
        (["train.restart=2"], "did you mean restarts?"),
    ],
)
def test_what_makes_no_sense_is_refused(
    settings: list[str], message: str, people: Path, tmp_path: Path, facecnn: Facecnn
) -> None:
    options = [part for setting in settings for part in ("--set", setting)]
    done = facecnn("train", people, "-c", "smoke", "--out", tmp_path / "runs", *options)
    assert (done.exit_code, done.stdout) == (2, "")
    assert message in done.stderr
    assert not (tmp_path / "runs").exists()
