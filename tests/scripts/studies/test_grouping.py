"""``studies/grouping.py``: groups of faces judged by whose they are."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from cli.patterns import PatternEmbedder, finder, picture
from scripts.running import run_script
from studies.grouping import halves, judge


@pytest.fixture
def album(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Four people with two to five photos each, and four strangers."""
    people, strangers = tmp_path / "people", tmp_path / "strangers"
    strangers.mkdir()
    for person, count in enumerate((5, 4, 3, 2, 1, 1, 1, 1)):
        for number in range(count):
            file = people / f"p{person}" / f"{number}.png" if count > 1 else strangers / f"{person}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            picture([person], 10 * person + number).save(file)
    monkeypatch.setattr("facecnn.jobs.faces.installed_finder", lambda *_: finder())
    monkeypatch.setattr("facecnn.body.embedder.Embedder", PatternEmbedder)
    monkeypatch.setitem(sys.modules, "dlib", None)  # as good as not installed: these are no faces to it
    return people, strangers


def test_people_who_are_clearly_apart(album: tuple[Path, Path]) -> None:
    done = run_script("studies/grouping", *album)
    assert done.exit_code == 0, done.stderr
    assert "18 photos of 4 people and 4 strangers" in done.stdout
    assert "dlib is left out" in done.stderr
    (rows,) = done.tables
    names = ["facecnn, as shipped", "facecnn, chosen"]
    if find_spec("sklearn") is not None:
        names.append("average linkage on facecnn's")
    assert [row["method"] for row in rows] == names
    assert rows[0]["thresholds"] == "0.9375"
    for row in rows:
        assert row["F1 of the halves"] == "100.0 %, 100.0 %"
        assert row["F1"] == row["pairs: precision"] == row["recall"] == row["F1 in all"] == "100.0 %"
        assert row["groups in all"] == "4"


def test_time_of_jittered_faces(album: tuple[Path, Path]) -> None:
    done = run_script("studies/grouping", *album, "--jitter", "500")
    assert done.exit_code == 0, done.stderr
    ((row,),) = done.tables
    assert row["faces"] == "500"
    assert float(row["seconds"]) >= 0


def test_figures_of_a_worked_example() -> None:
    """Three faces in one group, a a b, and another b alone."""
    figures = judge(np.array([7, 7, 7, 3]), np.array([1, 1, 2, 2]))
    precision, recall = (2 / 3 + 2 / 3 + 1 / 3 + 1) / 4, (1 + 1 + 1 / 2 + 1 / 2) / 4
    assert figures["F1"] == pytest.approx(2 * precision * recall / (precision + recall))
    assert (figures["precision"], figures["recall"]) == (pytest.approx(1 / 3), pytest.approx(1 / 2))


def test_halves_share_nobody() -> None:
    owner = np.array([0, 0, 1, 1, 1, 2, 3, 4, 5, 5])
    first, second = halves(owner)
    assert sorted([*first.tolist(), *second.tolist()]) == list(range(10))
    assert set(owner[first].tolist()) == {0, 5, 2, 4}
    assert set(owner[second].tolist()) == {1, 3}


def test_wrong_arguments(tmp_path: Path) -> None:
    assert run_script("studies/grouping", tmp_path / "nosuch", tmp_path).exit_code == 3
    assert run_script("studies/grouping", tmp_path, tmp_path, "--jitter", "1").exit_code == 2
