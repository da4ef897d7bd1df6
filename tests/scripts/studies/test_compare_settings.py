"""studies/compare_settings.py: settings are cross-validated on equal folds, and what was done is not done again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.running import Outcome, run_script

pytestmark = pytest.mark.slow  # a study that trains networks

QUICK = ("-c", "smoke", "--epochs", "4", "--folds", "2", "--threads", "1")


def compare(*arguments: str | Path) -> Outcome:
    done = run_script("studies/compare_settings", *arguments)
    assert done.exit_code == 0, done.stderr
    return done


def test_a_row_a_setting_and_the_difference_to_the_first(people: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.yaml").write_text("frozen: {optimizer.learning_rate: 1.0e-12}\n", encoding="utf-8")
    done = compare(people, *QUICK, "--set", "train.batch_size=8", "--settings", tmp_path / "rows.yaml")
    ((first, same, frozen),) = done.tables
    assert [first["setting"], same["setting"], frozen["setting"]] == ["smoke", "train.batch_size=8", "frozen"]
    assert same["accuracy"] == first["accuracy"]  # as the config says anyway
    assert same["log loss"] == first["log loss"]
    assert first["accuracy - first"] == first["log loss - first"] == ""
    assert same["accuracy - first"] == "+0.0 ± 0.0"
    assert same["log loss - first"] == "+0.000 ± 0.000"
    better, worse = float(first["log loss"]), float(frozen["log loss"])
    assert worse > better + 0.05
    assert float(frozen["log loss - first"].split()[0]) == pytest.approx(worse - better, abs=0.0011)


def test_goes_on_from_what_was_kept(people: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept.jsonl"
    some = (people, *QUICK, "--keep", kept, "--set", "loss.label_smoothing=0.1")
    compare(*some)
    assert [json.loads(line)["setting"] for line in kept.read_text().splitlines()] == [
        "smoke",
        "loss.label_smoothing=0.1",
    ]
    # Kept figures are used: marked, they come back.
    rows = [json.loads(line) for line in kept.read_text().splitlines()]
    kept.write_text("".join(json.dumps(row | {"log_loss": [7.0, 7.0]}) + "\n" for row in rows))
    done = compare(*some, "--set", "train.batch_size=4", "--seeds", "1")
    ((first, smoothed, new),) = done.tables
    assert first["log loss"] == smoothed["log loss"] == "7.000"
    assert float(new["log loss"]) < 2
    assert len(kept.read_text().splitlines()) == 3
    # Another seed is another training.
    compare(*some, "--seeds", "2")
    assert sorted(json.loads(line)["seed"] for line in kept.read_text().splitlines()) == [0, 0, 0, 1, 1]


def test_figures_of_other_photos_are_not_taken(write_people: Callable[..., Path], tmp_path: Path) -> None:
    kept = tmp_path / "kept.jsonl"
    options = (*QUICK, "--keep", kept, "--set", "train.batch_size=4")
    compare(write_people({"ann": 4, "bob": 4}, folder=tmp_path / "one"), *options)
    compare(write_people({"ann": 4, "bob": 4}, folder=tmp_path / "two", start=4), *options)
    assert len(kept.read_text().splitlines()) == 4


@pytest.mark.parametrize(
    ("arguments", "exit_code", "words"),
    [
        ((), 2, "nothing to compare with"),
        (("--set", "train.epoch=3"), 2, "did you mean"),
        (("--set", "train.seed=3", "--set", "train.seed=3"), 2, "given twice"),
        (("--settings", "list.yaml"), 2, "expected lines like"),
        (("--set", "train.seed=3", "--keep", "list.yaml"), 6, "something else than kept results"),
    ],
)
def test_mistakes_are_told(
    people: Path, tmp_path: Path, arguments: tuple[str, ...], exit_code: int, words: str
) -> None:
    (tmp_path / "list.yaml").write_text("- one\n", encoding="utf-8")
    placed = [tmp_path / argument if argument == "list.yaml" else argument for argument in arguments]
    done = run_script("studies/compare_settings", people, "-c", "smoke", *placed)
    assert done.exit_code == exit_code
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "list.yaml").read_text() == "- one\n"


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    done = run_script("studies/compare_settings", tmp_path / "nobody", "-c", "smoke", "--set", "train.seed=3")
    assert done.exit_code == 3
    assert "nobody" in done.stderr


def test_settings_that_diverge_are_a_row(people: Path) -> None:
    wild = ("--set", "optimizer={name: sgd, learning_rate: 1000000000}", "loss={name: mean_squared_error}")
    ((first, row),) = compare(people, *QUICK, *wild).tables
    assert "%" in first["accuracy"]
    assert row["accuracy"] == "diverged"
