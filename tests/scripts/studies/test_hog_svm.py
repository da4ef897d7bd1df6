"""studies/hog_svm.py: hand-made features on facecnn's crops and folds."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from scripts.running import run_script

needs_scikit_image = pytest.mark.skipif(find_spec("skimage") is None, reason="needs scikit-image")


@needs_scikit_image
def test_tells_stripes_apart(people_and_strangers: Path) -> None:
    options = ("--set", "photos.faces=off", "--folds", "3", "--cell", "8", "12")
    done = run_script("studies/hog_svm", people_and_strangers, *options)
    assert done.exit_code == 0, done.stderr
    assert "20 photos of 2 people, crops of 48x48" in done.stdout  # strangers are not judged
    (rows,) = done.tables
    assert [(row["cell"], row["mirrored"]) for row in rows] == [("8", "no"), ("8", "yes"), ("12", "no"), ("12", "yes")]
    assert [row["features"] for row in rows] == ["900", "900", "324", "324"]  # 5x5 and 3x3 blocks of 36
    for row in rows:
        assert len(row["folds"].split()) == 3
        assert float(row["accuracy"].split()[0]) >= 90


@needs_scikit_image
def test_a_cell_that_is_too_large_is_refused(people: Path) -> None:
    done = run_script("studies/hog_svm", people, "--set", "photos.faces=off", "--cell", "25")
    assert done.exit_code == 2
    assert "25" in done.stderr


def test_says_what_to_install(people: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "skimage"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "skimage", None)  # as good as not installed
    done = run_script("studies/hog_svm", people)
    assert done.exit_code == 2
    assert "pip install scikit-image" in done.stderr
    assert "Traceback" not in done.stderr
