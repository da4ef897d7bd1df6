"""``facecnn cross-validate``."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facecnn.jobs import cross_validate
from facecnn.jobs.training.setup import make_any_trainer

from .contract import NUMBER, check
from .running import Facecnn

FIGURES = {
    "device": str,
    "classes": [str],
    "accuracy": float,
    "closed_set_accuracy": float,
    "folds": [{"accuracy": float, "closed_set_accuracy": float, "log_loss": float, "photos": int, "seconds": NUMBER}],
    "mean": float,
    "std": float,
    "predictions": [{"path": str, "fold": int, "truth": str, "probabilities": dict}],
}


def test_every_photo_is_judged_once(
    people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, facecnn: Facecnn
) -> None:
    monkeypatch.chdir(tmp_path)
    done = facecnn("cross-validate", people, "-c", "smoke", "--epochs", "4", "--folds", "3", "--format", "json")
    assert done.exit_code == 0, done.stderr
    figures = done.json()
    check(figures, FIGURES)
    assert len(figures["folds"]) == 3
    predictions = figures["predictions"]
    assert sorted(row["path"] for row in predictions) == sorted(
        str(p.relative_to(people)) for p in people.rglob("*.png")
    )
    for number, fold in enumerate(figures["folds"], start=1):
        rows = [row for row in predictions if row["fold"] == number]
        assert len(rows) == fold["photos"]
        right = [max(row["probabilities"], key=row["probabilities"].get) == row["truth"] for row in rows]
        assert fold["accuracy"] == fold["closed_set_accuracy"] == pytest.approx(np.mean(right))
        loss = np.mean([-np.log(row["probabilities"][row["truth"]]) for row in rows])
        assert fold["log_loss"] == pytest.approx(loss)
        assert all(sum(row["probabilities"].values()) == pytest.approx(1) for row in rows)
    accuracies = [fold["accuracy"] for fold in figures["folds"]]
    assert figures["mean"] == pytest.approx(np.mean(accuracies))
    assert figures["std"] == pytest.approx(np.std(accuracies))
    assert figures["closed_set_accuracy"] == figures["accuracy"] == figures["mean"]
    assert list(tmp_path.iterdir()) == []


def test_what_can_only_be_learned_by_heart_is_not_known_outside(noise: Path, tmp_path: Path, facecnn: Facecnn) -> None:
    options = ["-c", "smoke", "--epochs", "120", "--set", "photos.augment=null", "--format", "json"]
    assert facecnn("train", noise, *options, "--out", tmp_path, "--name", "run").exit_code == 0
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["train_accuracy"] > 0.9, "it learns them by heart"
    for calibrated in ([], ["--calibrate"]):
        figures = facecnn("cross-validate", noise, *options, "--folds", "2", *calibrated).json()
        assert 0.3 < figures["closed_set_accuracy"] < 0.7, "80 throws of a coin"


@pytest.mark.parametrize("calibrated", [[], ["--calibrate"]])
def test_a_fold_is_judged_by_photos_that_its_training_never_saw(
    calibrated: list[str], people_and_strangers: Path, monkeypatch: pytest.MonkeyPatch, facecnn: Facecnn
) -> None:
    seen = []

    def made(loaded: Any, dataset: Any, training: Any, *rest: Any, **more: Any) -> Any:
        trainer = make_any_trainer(loaded, dataset, training, *rest, **more)
        seen.append((dataset, training.photos.tolist(), trainer.data.validation.rows.tolist()))
        return trainer

    monkeypatch.setattr(cross_validate, "make_any_trainer", made)
    options = ["-c", "smoke", "--epochs", "2", "--folds", "2", *calibrated, "--format", "json"]
    predictions = facecnn("cross-validate", people_and_strangers, *options).json()["predictions"]
    assert len(seen) == 2
    for fold, (dataset, trained_on, validation) in enumerate(seen, start=1):
        number = {path: index for index, path in enumerate(dataset.paths)}
        judged = {number[row["path"]] for row in predictions if row["fold"] == fold}
        assert len(judged) == 10
        assert judged.isdisjoint(trained_on)
        assert set(dataset.rows[list(judged)].tolist()).isdisjoint(validation)
        assert set(dataset.rows[trained_on].tolist()).isdisjoint(validation)
        assert len(validation) == (3 if calibrated else 0)
        if not calibrated:
            assert len(trained_on) == len(dataset.paths) - 15, "all but the fold, strangers' photos among them"


def test_strangers_are_trained_on_but_not_judged(people_and_strangers: Path, facecnn: Facecnn) -> None:
    options = ["-c", "smoke", "--epochs", "2", "--folds", "2", "--format", "json"]
    figures = facecnn("cross-validate", people_and_strangers, *options).json()
    check(figures, FIGURES)
    assert figures["classes"] == ["ann", "bob"]
    assert len(figures["predictions"]) == 20
    assert {frozenset(row["probabilities"]) for row in figures["predictions"]} == {frozenset({"ann", "bob"})}


def test_calibrated_folds_hold_photos_out_and_are_judged_as_predict_answers(
    people_and_strangers: Path, facecnn: Facecnn
) -> None:
    options = ["-c", "smoke", "--epochs", "6", "--folds", "2", "--calibrate"]
    figures = facecnn("cross-validate", people_and_strangers, *options, "--format", "json").json()
    check(figures, FIGURES)
    for fold in figures["folds"]:
        known, unknown = fold["known"], fold["unknown"]
        assert known["photos"] == known["named_right"] + known["named_wrong"] + known["refused"] == 10
        assert unknown["photos"] == unknown["named"] + unknown["refused"] == 5
        assert fold["held_out"] == 3, "a fifth of 15"
        assert fold["threshold"] == 0.5, "too few photos for another"
        assert fold["temperature"] != 1
        assert fold["accuracy"] == pytest.approx(known["named_right"] / 10)
        assert fold["accuracy"] <= fold["closed_set_accuracy"]
    assert figures["accuracy"] == pytest.approx(figures["known"]["named_right"] / 20)
    assert figures["unknown"]["photos"] == 10
    assert len(figures["predictions"]) == 20
    text = facecnn("cross-validate", people_and_strangers, *options).stdout
    assert "named right: mean" in text
    assert max(map(len, text.splitlines())) <= 80


def test_nothing_held_out_calibrates_nothing(people: Path, facecnn: Facecnn) -> None:
    done = facecnn("cross-validate", people, "-c", "smoke", "--calibrate", "--set", "photos.validation=0")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "photos.validation" in done.stderr


def test_it_is_the_same_twice(people: Path, facecnn: Facecnn) -> None:
    arguments = ["cross-validate", people, "-c", "smoke", "--epochs", "2", "--folds", "2", "--format", "json"]
    one, other = (facecnn(*arguments).json() for _ in range(2))
    assert one["predictions"] == other["predictions"]


def test_the_text_fits_a_terminal(people: Path, facecnn: Facecnn) -> None:
    done = facecnn("cross-validate", people, "-c", "smoke", "--epochs", "1", "--folds", "2")
    assert done.exit_code == 0
    assert "mean" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


@pytest.mark.parametrize("folds", ["11", "1", "0", "x"])
def test_no_such_folds(folds: str, people: Path, facecnn: Facecnn) -> None:
    done = facecnn("cross-validate", people, "-c", "smoke", "--folds", folds)
    assert (done.exit_code, done.stdout) == (2, "")
    if folds == "11":
        assert "ann has 10" in done.stderr


def test_strict(people: Path, tmp_path: Path, facecnn: Facecnn) -> None:
    shutil.copytree(people, tmp_path / "photos")
    (tmp_path / "photos" / "ann" / "empty.jpg").touch()
    done = facecnn("cross-validate", tmp_path / "photos", "-c", "smoke", "--strict")
    assert done.exit_code == 6


def test_one_person_only(write_people: Callable[..., Path], facecnn: Facecnn) -> None:
    assert facecnn("cross-validate", write_people({"ann": 6}), "-c", "smoke").exit_code == 3
