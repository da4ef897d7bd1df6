"""studies/doubtful_labels.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.running import run_script

SETTINGS = ("-c", "smoke", "--threads", "1", "--set", "photos.faces=off", "--set", "train.epochs=6")


@pytest.fixture(scope="module")
def album(write_people: Callable[..., Path]) -> Path:
    return write_people({"ann": 20, "bob": 20})


@pytest.mark.slow
def test_flipped_photos_are_counted(album: Path) -> None:
    done = run_script("studies/doubtful_labels", album, *SETTINGS, "--seeds", "3", "4")
    assert done.exit_code == 0, done.stderr
    rows, total = done.tables
    assert [row["seed"] for row in rows] == ["3", "4"]
    for row in rows:
        assert (row["photos"], row["flipped"]) == ("40", "4"), "a tenth"
        for way in ("ridge", "network", "ranks added", "the list"):
            first, second = map(int, row[way].split(", "))
            assert 0 <= first <= second <= 4
    found = sum(int(row["the list"].split(", ")[1]) for row in rows)
    assert total[0]["the list"].endswith(f" {100 * found / 8:.1f} %")
    assert found == 8, "stripes one way among stripes the other"


def test_an_album_with_strangers_is_refused(write_people: Callable[..., Path]) -> None:
    done = run_script("studies/doubtful_labels", write_people({"ann": 5, "bob": 5, "unknown": 5}), *SETTINGS)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "unknown" in done.stderr
