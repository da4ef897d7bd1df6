"""studies/strangers.py."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.running import Outcome, assert_picture, run_script

pytestmark = pytest.mark.slow  # a study that trains networks

SETTINGS = ("-c", "smoke", "--folds", "2", "--threads", "1", "--set", "photos.faces=off", "--set", "train.epochs=12")


@pytest.fixture(scope="module")
def folders(write_people: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    people = write_people({"ann": 60, "bob": 60})
    strangers = tmp_path_factory.mktemp("strangers")
    for photo in (write_people({"unknown": 40}) / "unknown").iterdir():
        shutil.copy(photo, strangers)
    return people, strangers


@pytest.fixture(scope="module")
def done(folders: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, Path]:
    out = tmp_path_factory.mktemp("out")
    return run_script(
        "studies/strangers", *folders, *SETTINGS, "--keep", out / "runs", "--output", out / "strangers.png"
    ), out


def test_scores_are_compared_with_and_without_strangers(done: tuple[Outcome, Path]) -> None:
    outcome, out = done
    assert outcome.exit_code == 0, outcome.stderr
    assert "120 photos of people in 2 folds, 20 of strangers in unknown/, 20 of others" in outcome.stdout
    comparison, own = outcome.tables
    assert len(comparison) == 10
    assert {row["training"] for row in comparison} == {"with unknown/", "without"}
    areas = {(row["training"], row["score"]): float(row["AUROC %"].split(" ± ")[0]) for row in comparison}
    assert all(0 <= area <= 100 for area in areas.values())
    # Stripes against none: with strangers to learn from, the score that is used tells nearly all of them.
    assert areas["with unknown/", "what the likeliest person leaves"] > 95
    with_strangers, without = own
    for row in own:
        assert float(row["highest"]) <= 1
        for column, total in (("named right", 120), ("people named", 120), ("strangers let in", 40)):
            share, count, of = re.fullmatch(r"([\d.]+) % \((\d+) of (\d+)\)", row[column]).groups()  # type: ignore[union-attr]
            assert int(of) == total
            assert float(share) == pytest.approx(100 * int(count) / total, abs=0.06)
    assert with_strangers["training"] == "with unknown/"
    assert without["training"] == "without"
    assert_picture(out / "strangers.png")


def test_runs_that_were_kept_are_not_trained_again(
    done: tuple[Outcome, Path], folders: tuple[Path, Path], tmp_path: Path
) -> None:
    outcome, out = done
    before = {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("best.safetensors")}
    assert len(before) == 4
    picture = tmp_path / "again.png"
    again = run_script("studies/strangers", *folders, *SETTINGS, "--keep", out / "runs", "--output", picture)
    assert again.stdout == outcome.stdout
    assert "training" not in again.stderr
    assert {path: path.stat().st_mtime_ns for path in before} == before
    other = run_script(
        "studies/strangers", *folders, *SETTINGS, "--seed", "1", "--keep", out / "runs", "--output", tmp_path / "no.png"
    )
    assert other.exit_code == 2
    assert "a run with other settings" in other.stderr
    assert not (tmp_path / "no.png").exists()


def test_too_few_strangers_are_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    shutil.copy(next(folders[1].iterdir()), tmp_path / "one")
    done = run_script("studies/strangers", folders[0], tmp_path / "one", *SETTINGS, "--output", tmp_path / "no.png")
    assert done.exit_code == 3
    assert "two photos of strangers at least" in done.stderr
