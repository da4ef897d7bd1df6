"""``facecnn eval``."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .contract import check
from .running import Facecnn, Trained

FIGURES = {
    "model": str,
    "photos": int,
    "trained_on": int,
    "accuracy": (float, None),
    "interval": ([float], None),
    "closed_set_accuracy": (float, None),
    "balanced_accuracy": (float, None),
    "log_loss": (float, None),
    "expected_calibration_error": (float, None),
    "classes": [str],
    "confusion": [[int]],
    "per_class": [
        {"name": str, "precision": (float, None), "recall": (float, None), "f1": (float, None), "support": int}
    ],
    "known": {"photos": int, "named_right": int, "named_wrong": int, "refused": int},
    "several": {"photos": int, "named_right": int, "named_wrong": int, "refused": int},
    "unknown": (
        {"photos": int, "auroc": (float, None), "named": int, "refused": int, "threshold": (float, None)},
        None,
    ),
    "skipped": [{"path": str, "reason": str}],
}
PREDICTION = {
    "path": str,
    "truth": str,
    "label": str,
    "confidence": float,
    "probabilities": dict,
    "unknown_score": float,
    "also_like": (str, None),
    "names": [str],
}


def judge(facecnn: Facecnn, *arguments: str | Path) -> Any:
    done = facecnn("eval", *arguments, "--format", "json")
    assert done.exit_code == 0, done.stderr
    check(done.json(), FIGURES)
    return done.json()


def test_without_photos_the_runs_own_held_out_ones(trained: Trained, facecnn: Facecnn) -> None:
    figures = judge(facecnn, "-m", trained.path)
    assert figures["model"] == str(trained.path / "best.safetensors")
    assert (figures["photos"], figures["trained_on"]) == (4, 0)
    assert figures["accuracy"] == pytest.approx(trained.figures["validation"]["accuracy"])
    assert figures["classes"] == ["ann", "bob"]
    assert figures["unknown"] is None
    assert sum(map(sum, figures["confusion"])) == 4


def test_strangers_are_counted_apart(trained_with_strangers: Trained, facecnn: Facecnn) -> None:
    figures = judge(facecnn, "-m", trained_with_strangers.path, "--split", "all")
    assert figures["photos"] == 30
    assert figures["classes"] == ["ann", "bob"]
    known = figures["known"]
    assert known["photos"] == known["named_right"] + known["named_wrong"] + known["refused"] == 20
    assert figures["unknown"]["photos"] == figures["unknown"]["named"] + figures["unknown"]["refused"] == 10
    assert sum(map(sum, figures["confusion"])) == 20
    assert [row["support"] for row in figures["per_class"]] == [10, 10]
    right = sum(figures["confusion"][i][i] for i in range(2))
    assert figures["accuracy"] == pytest.approx(right / 20) == pytest.approx(known["named_right"] / 20)
    assert sum(row[2] for row in figures["confusion"]) == known["refused"]
    low, high = figures["interval"]
    assert low < figures["accuracy"] <= high
    assert figures["unknown"]["auroc"] > 0.9


def test_photos_trained_on_are_left_out_by_content(
    trained: Trained, write_people: Callable[..., Path], tmp_path: Path, facecnn: Facecnn
) -> None:
    photos = write_people({"ann": 2, "bob": 3}, start=50)
    assert judge(facecnn, photos, "-m", trained.path)["photos"] == 5
    for number in range(10):  # under other names
        shutil.copy(trained.photos / "ann" / f"{number:02}.png", photos / "ann" / f"copy{number}.dat")
    figures = judge(facecnn, photos, "-m", trained.path)
    assert figures["trained_on"] == 8
    assert figures["photos"] == 7
    assert judge(facecnn, photos, "-m", trained.path, "--split", "train")["photos"] == 8
    assert judge(facecnn, photos, "-m", trained.path, "--split", "all")["photos"] == 15
    assert judge(facecnn, photos, "-m", trained.path, "--split", "validation")["photos"] == 7


def test_splits_of_the_runs_own_photos(trained: Trained, facecnn: Facecnn) -> None:
    for split, photos in (("validation", 4), ("train", 16), ("all", 20)):
        assert judge(facecnn, "-m", trained.path, "--split", split)["photos"] == photos


def test_a_part_of_the_models_people_will_do(
    trained: Trained, write_people: Callable[..., Path], facecnn: Facecnn
) -> None:
    figures = judge(facecnn, write_people({"unused": 0, "bob": 4}, start=50), "-m", trained.path)
    assert figures["photos"] == 4
    assert figures["classes"] == ["ann", "bob"]
    assert [row["support"] for row in figures["per_class"]] == [0, 4]


def test_strangers_of_a_model_without_unknown(
    trained: Trained, write_people: Callable[..., Path], facecnn: Facecnn
) -> None:
    figures = judge(facecnn, write_people({"ann": 3, "bob": 3, "unknown": 4}, start=50), "-m", trained.path)
    assert figures["known"]["photos"] == 6
    assert figures["unknown"]["photos"] == 4
    strangers = write_people({"unknown": 4}, start=50)
    only = judge(facecnn, strangers, "-m", trained.path)
    assert only["accuracy"] is None
    assert only["unknown"]["auroc"] is None
    assert facecnn("eval", strangers, "-m", trained.path, "--fail-under", "0.5").exit_code == 6


def test_a_name_that_the_model_does_not_know(
    trained: Trained, write_people: Callable[..., Path], facecnn: Facecnn
) -> None:
    done = facecnn("eval", write_people({"ann": 3, "carl": 3}), "-m", trained.path)
    assert done.exit_code == 3
    assert "carl" in done.stderr
    assert "ann, bob" in done.stderr
    assert "--others-as-unknown" in done.stderr


def test_others_are_strangers_where_that_is_asked_for(
    trained: Trained, write_people: Callable[..., Path], facecnn: Facecnn, tmp_path: Path
) -> None:
    photos = write_people({"ann": 3, "bob": 0, "carl": 5}, start=50)
    write_people({"unknown": 2}, start=50, folder=photos)
    file = tmp_path / "answers.json"
    figures = judge(facecnn, photos, "-m", trained.path, "--others-as-unknown", "--predictions", file)
    assert figures["known"]["photos"] == 3
    assert figures["unknown"]["photos"] == 7
    assert figures["classes"] == ["ann", "bob"]
    truths = [row["truth"] for row in json.loads(file.read_text())]
    assert truths == ["ann"] * 3 + ["carl"] * 5 + ["unknown"] * 2


def test_held_out_photos_that_have_changed_are_told(
    people: Path, tmp_path: Path, write_people: Callable[..., Path], facecnn: Facecnn
) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(people, photos)
    options = ["-c", "smoke", "--epochs", "1", "--out", tmp_path, "--name", "run"]
    assert facecnn("train", photos, *options).exit_code == 0
    run = tmp_path / "run"
    assert "since the training" not in facecnn("eval", "-m", run).stderr
    first, second, *_ = sorted(json.loads((run / "split.json").read_text())["validation"])
    other = write_people({"carl": 1}, start=90) / "carl" / "90.png"
    shutil.copy(other, photos / first)
    (photos / second).unlink()
    done = facecnn("eval", "-m", run, "--quiet")
    assert done.exit_code == 0
    assert f"of 4 held-out photos, 1 changed ({first}) and 1 gone ({second}) since the training" in done.stderr


def test_nothing_to_judge_by(trained: Trained, tmp_path: Path, facecnn: Facecnn) -> None:
    shutil.copytree(trained.path, tmp_path / "run")
    (tmp_path / "empty").mkdir()
    split = json.loads((trained.path / "split.json").read_text())
    for path in split["train"]:
        (tmp_path / "photos" / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(trained.photos / path, tmp_path / "photos" / path)
    for folder in ("empty", "nosuch", "photos"):
        done = facecnn("eval", tmp_path / folder, "-m", tmp_path / "run")
        assert (done.exit_code, done.stdout) == (3, "")
        assert str(tmp_path / folder) in done.stderr


def test_a_model_apart_from_its_run_needs_photos(trained: Trained, tmp_path: Path, facecnn: Facecnn) -> None:
    shutil.copy(trained.path / "best.safetensors", tmp_path / "moved.safetensors")
    done = facecnn("eval", "-m", tmp_path / "moved.safetensors")
    assert done.exit_code == 4
    assert "give PHOTOS" in done.stderr
    assert judge(facecnn, trained.photos, "-m", tmp_path / "moved.safetensors")["photos"] == 4


@pytest.mark.parametrize(("limit", "exit_code"), [("0", 0), ("1", 6), ("0.75", 0), ("0.7501", 6)])
def test_fail_under(limit: str, exit_code: int, trained: Trained, tmp_path: Path, facecnn: Facecnn) -> None:
    # Three of ann's photos and one of another person's under her name: three in four are right.
    for number, person in enumerate(("ann", "ann", "ann", "bob")):
        (tmp_path / "ann").mkdir(exist_ok=True)
        shutil.copy(trained.photos / person / f"{number:02}.png", tmp_path / "ann" / f"{number}.png")
    answers = facecnn("predict", tmp_path, "-m", trained.path, "--threshold", "off", "--format", "json").json()
    if [answer["label"] for answer in answers] != ["ann", "ann", "ann", "bob"]:
        pytest.fail("the smoke network no longer learns these photos")
    done = facecnn("eval", tmp_path, "-m", trained.path, "--split", "all", "--fail-under", limit, "--format", "json")
    assert done.exit_code == exit_code
    assert done.json()["accuracy"] == 0.75
    assert ("--fail-under" in done.stderr) == (exit_code == 6)


@pytest.mark.parametrize("limit", ["-0.1", "1.5", "nan", "x"])
def test_fail_under_is_a_fraction(limit: str, trained: Trained, facecnn: Facecnn) -> None:
    assert facecnn("eval", "-m", trained.path, "--fail-under", limit).exit_code == 2


@pytest.mark.parametrize("suffix", ["csv", "json", "jsonl"])
def test_predictions(suffix: str, trained_with_strangers: Trained, tmp_path: Path, facecnn: Facecnn) -> None:
    file = tmp_path / f"answers.{suffix}"
    figures = judge(facecnn, "-m", trained_with_strangers.path, "--split", "all", "--predictions", file)
    rows: list[dict[str, Any]]
    if suffix == "csv":
        with file.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        assert list(rows[0]) == [
            *("path", "truth", "label", "confidence", "unknown_score", "also_like", "names"),
            *("p(ann)", "p(bob)"),
        ]
        best = [max("ann", "bob", key=lambda name: float(row[f"p({name})"])) for row in rows]
    else:
        text = file.read_text(encoding="utf-8")
        rows = json.loads(text) if suffix == "json" else [json.loads(line) for line in text.splitlines()]
        check(rows, [PREDICTION])
        shares: list[dict[str, float]] = [row["probabilities"] for row in rows]
        assert all(sum(share.values()) == pytest.approx(1) for share in shares)
        best = [max(share, key=share.__getitem__) for share in shares]
    assert len(rows) == figures["photos"] == 30
    assert {row["path"] for row in rows} >= {"ann/00.png", "unknown/09.png"}
    known = [(row["truth"], row["label"], name) for row, name in zip(rows, best, strict=True)]
    known = [row for row in known if row[0] != "unknown"]
    assert figures["accuracy"] == pytest.approx(sum(truth == label for truth, label, _ in known) / len(known))
    assert figures["closed_set_accuracy"] == pytest.approx(sum(truth == name for truth, _, name in known) / len(known))
    assert sum(row["label"] == "unknown" for row in rows) == figures["known"]["refused"] + figures["unknown"]["refused"]


def test_predictions_to_no_format_or_place(trained: Trained, tmp_path: Path, facecnn: Facecnn) -> None:
    done = facecnn("eval", "-m", trained.path, "--predictions", tmp_path / "answers.txt")
    assert (done.exit_code, done.stdout) == (2, "")
    done = facecnn("eval", "-m", trained.path, "--predictions", tmp_path / "nosuch" / "answers.csv", "--format", "json")
    assert done.exit_code == 6
    check(done.json(), FIGURES)
    assert list(tmp_path.iterdir()) == []


def test_the_newest_run_is_taken_and_named(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, facecnn: Facecnn
) -> None:
    monkeypatch.chdir(tmp_path)
    assert facecnn("eval").exit_code == 4
    for name in ("old", "new"):
        shutil.copytree(trained.path, tmp_path / "runs" / name, copy_function=shutil.copy)
    done = facecnn("eval")
    assert done.exit_code == 0
    assert "runs/new/best.safetensors" in done.stderr


def test_the_table_fits_a_terminal(trained_with_strangers: Trained, facecnn: Facecnn) -> None:
    done = facecnn("eval", "-m", trained_with_strangers.path)
    assert max(map(len, done.stdout.splitlines())) <= 80
