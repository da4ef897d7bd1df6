"""The cache of prepared photos, damaged. Here by commands; tests/photos/test_cache_damage.py tries much more."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from .conftest import Outcome, Run


@pytest.fixture
def check(data: Path, run: Run, tmp_path: Path) -> Any:
    """Runs ``data check`` with a cache of its own, so that no kernel has to be compiled."""
    environment = {"FACECNN_CACHE_DIR": str(tmp_path / "cache")}

    def call() -> Outcome:
        options = ("--set", "photos.faces=off", "--strict", "--format", "json")
        done: Outcome = run("data", "check", data, *options, environment=environment)
        assert done.exit_code == 0, done.stderr  # the photos are all right, whatever the cache is
        return done

    return call


@pytest.mark.fault("X-index")
@pytest.mark.long
def test_flipped_bits_in_the_index_change_no_answer(check: Any, tmp_path: Path) -> None:
    expected = json.loads(check().stdout)
    (index,) = (tmp_path / "cache" / "photos").glob("*/index.sqlite")
    whole = index.read_bytes()
    chance = random.Random(0)
    for _ in range(8):
        damaged = bytearray(whole)
        damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        index.write_bytes(damaged)
        found = json.loads(check().stdout)
        assert found | {"notes": []} == expected
        assert len(found["notes"]) <= 1


@pytest.mark.fault("X-index")
def test_an_index_that_is_no_database_is_made_anew_with_a_note(check: Any, tmp_path: Path) -> None:
    check()
    (index,) = (tmp_path / "cache" / "photos").glob("*/index.sqlite")
    index.write_bytes(b"no database" * 1000)
    (note,) = json.loads(check().stdout)["notes"]
    assert "was damaged: made anew" in note
    assert json.loads(check().stdout)["notes"] == []
