"""Photos that ranks share are answered as by one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cli.running import call
from facecnn.jobs import predict as job
from facecnn.parallel.ranks import Ranks
from facecnn.photos.dataset import Listing, list_files

from .threads import on_ranks


class _Quiet:
    def __getattr__(self, name: str) -> Any:
        from contextlib import nullcontext

        return (lambda *arguments: nullcontext(lambda *counts: None)) if name == "counting" else lambda *arguments: None


@pytest.fixture(scope="module")
def model(people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    arguments = ("-c", "smoke", "--set", "photos.faces=off", "--epochs", "1", "--device", "reference")
    assert call("train", people, *arguments, "--out", folder, "--name", "run").exit_code == 0
    return folder / "run" / "best.safetensors"


def answers(model: Path, photos: list[Path], ranks: Ranks) -> list[dict[str, Any]]:
    console: Any = _Quiet()
    return job.predict(model, photos, "auto", console, "reference", 1, ranks)


def test_on_three_ranks_the_answers_are_those_of_one(model: Path, people: Path, tmp_path: Path) -> None:
    photos = [tmp_path, people / "bob", people / "ann" / "03.png", tmp_path / "gone.png"]
    (alone,) = on_ranks(1, lambda ranks: answers(model, photos, ranks))
    shared, *others = on_ranks(3, lambda ranks: answers(model, photos, ranks))
    assert shared == alone
    assert len(shared) == 13
    assert others == [[], []]


def test_the_photos_of_a_rank_that_fails_are_named(model: Path, people: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = job._answer

    def failing(model: Any, photos: Listing, *arguments: Any) -> Any:
        if photos.files[0].parent.name == "bob":
            raise MemoryError("too much")
        return whole(model, photos, *arguments)

    monkeypatch.setattr(job, "_answer", failing)
    photos = [people / "ann", people / "bob"]
    shared, _ = on_ranks(2, lambda ranks: answers(model, photos, ranks))
    assert [result["path"] for result in shared] == [str(path) for path in list_files(photos).files]
    assert {result["error"] for result in shared[:10]} == {None}
    assert {result["error"] for result in shared[10:]} == {"rank 1 of 2 failed: too much"}
    assert {result["label"] for result in shared[10:]} == {None}


def test_a_part_of_a_listing_keeps_what_is_known_of_its_folders() -> None:
    files = tuple(map(Path, "abcd"))
    assert Listing(files, {1: "empty", 3: "no photos"}, ()).part(2, 4) == Listing(files[2:], {1: "no photos"}, ())
