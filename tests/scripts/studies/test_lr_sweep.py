"""studies/lr_sweep.py: every rate is trained with and compared, and what was done is not done again."""

from pathlib import Path

import pytest

from scripts.running import assert_picture, run_script

pytestmark = pytest.mark.slow  # a study that trains networks


def test_the_suggestion_stands_among_the_nine(people: Path, tmp_path: Path) -> None:
    arguments = [people, "-c", "smoke", "--epochs", "3", "--folds", "1", "--seeds", "1"]
    arguments += ["--keep", tmp_path / "kept.jsonl", "--output", tmp_path / "sweep.png"]
    done = run_script("studies/lr_sweep", *map(str, arguments))
    assert done.exit_code == 0, done.stderr
    (table,) = done.tables
    assert len(table) == 10
    (own,) = (row for row in table if "lr-find" in row["rate"])
    assert float(own["last loss"]) < 0.5 * float(table[0]["last loss"])
    assert_picture(tmp_path / "sweep.png")
    kept = (tmp_path / "kept.jsonl").read_text()
    assert len(kept.splitlines()) == 10
    again = run_script("studies/lr_sweep", *map(str, arguments))
    assert again.stdout == done.stdout
    assert (tmp_path / "kept.jsonl").read_text() == kept
