"""studies/few_photos.py."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facecnn.body.threshold import ThresholdFormula
from scripts.running import run_script
from studies.embedded_album import EmbeddedAlbum, write
from studies.threshold_fit import least_squares

ALIKE = 0.06
"""How far photos of one person scatter, in each of 128 directions, around vectors of people with deviation 0.2."""


def album(random: Any, people: int, photos: int, folds: int = 0) -> EmbeddedAlbum:
    """Embeddings that lie as far apart as faces do: cosines of 0.86 between people."""
    common = np.full(128, 0.5)
    labels = np.repeat(np.arange(people), photos)
    means = common + random.normal(0, 0.2, (people, 128))
    embeddings = means[labels] + random.normal(0, ALIKE, (len(labels), 128))
    by_dlib = embeddings + random.normal(0, ALIKE, embeddings.shape)
    fold = np.arange(len(labels)) % folds if folds else np.full(len(labels), -1)
    return EmbeddedAlbum(np.float32(embeddings), np.float32(by_dlib), labels, fold)


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    path = tmp_path / "kept.npz"
    write(path, {"people": album(random, 8, 6), "strangers": album(random, 40, 1), "folds": album(random, 2, 60, 5)})
    return path


def test_tables_of_made_up_embeddings(kept: Path) -> None:
    done = run_script("studies/few_photos", "nowhere", "nowhere", "--keep", kept, "--draws", "3")
    assert done.exit_code == 0, done.stderr
    constants, thresholds, rates, comparison, folds = done.tables
    assert [row["fitted to"] for row in constants] == ["one half", "the other half", "all", "(the module)"]
    assert [(row["photos"], row["people"]) for row in thresholds] == [(n, p) for n in "135" for p in "28"]
    for row in thresholds:
        each = [float(half.removesuffix(" %")) for half in row["each half"].split(", ")]
        assert float(row["strangers named"].removesuffix(" %")) == pytest.approx(np.mean(each), abs=0.11)
        assert 0 <= min(each) <= max(each) <= 25
        assert float(row["named right"].removesuffix(" %")) + float(row["refused"].removesuffix(" %")) > 95
    named = [float(row["strangers named"].removesuffix(" %")) for row in rates]
    assert named == sorted(named), "the more are asked for"
    ways = ("means", "means, largest score", "nearest")
    assert [(row["photos"], row["way"]) for row in comparison] == [(n, way) for n in "135" for way in ways]
    assert all(float(row["accuracy"].removesuffix(" %")) > 95 for row in comparison)
    assert {row["accuracy"] for row in folds} == {"100.00 %"}


def test_a_fit_finds_the_constants_of_exact_thresholds() -> None:
    formula = ThresholdFormula(base=0.9, per_decade=0.02, rival=0.03, few_photos=0.01)
    cases = np.array([(k, n, rate) for k in (1, 3, 10) for n in (2, 9, 80) for rate in (0.01, 0.05)])
    found = least_squares(cases, np.array([formula.threshold(int(n), rate) - 0.01 / k for k, n, rate in cases]))
    # What a rival adds is found on a grid, whose step is a quarter.
    assert found.rival == pytest.approx(0.03, rel=0.13)
    assert (found.base, found.per_decade, found.few_photos) == pytest.approx((0.9, 0.02, 0.01), abs=5e-4)


def test_too_few_people_are_refused(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    write(tmp_path / "few.npz", {"people": album(random, 3, 6), "strangers": album(random, 40, 1)})
    done = run_script("studies/few_photos", "nowhere", "nowhere", "--keep", tmp_path / "few.npz")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "four people and four strangers at least" in done.stderr


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.npz").write_bytes(b"something else")
    done = run_script("studies/few_photos", "nowhere", "nowhere", "--keep", tmp_path / "other.npz")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "other.npz: no embeddings kept by this script" in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(
    not (find_spec("face_recognition_models") and find_spec("mtcnn")), reason="needs the body's weights"
)
def test_real_faces(faces: Path, face_finding: None) -> None:
    """What docs/BODY.md promises."""
    folders = (faces / "many", faces / "strangers", "--folds-of", faces / "blair_schroeder")
    done = run_script("studies/few_photos", *folders)
    assert done.exit_code == 0, done.stderr
    _, thresholds, _, comparison, folds = done.tables

    def number(row: dict[str, str], column: str) -> float:
        return float(row[column].removesuffix(" %"))

    assert {row["people"] for row in thresholds} == {"2", "5", "10", "20", "40", "80"}
    assert all(1 <= number(row, "strangers named") <= 4 for row in thresholds)
    means = [row for row in comparison if row["way"] == "means"]
    for row, least in zip(means, (89, 97, 98), strict=True):
        assert number(row, "named right at 2 %") >= least
    for ours, nearest in zip(means, [row for row in comparison if row["way"] == "nearest"], strict=False):
        for column in ("accuracy", "AUROC", "named right at 2 %"):
            assert number(ours, column) >= number(nearest, column)
    for row in folds:
        assert number(row, "accuracy") >= 99.5
        assert float(row["AUROC"]) >= 0.998
        assert number(row, "strangers named") <= 1
        assert number(row, "refused") <= 2
