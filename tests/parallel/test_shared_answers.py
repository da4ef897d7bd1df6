"""Photos that ranks share are answered as by one process."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from facecnn.jobs import predict as job
from facecnn.parallel.ranks import PortionSize, Ranks
from facecnn.photos.dataset import Listing, list_files

from .threads import on_ranks


class _Quiet:
    def __getattr__(self, name: str) -> Any:
        from contextlib import nullcontext

        return (lambda *arguments: nullcontext(lambda *counts: None)) if name == "counting" else lambda *arguments: None


def answers(model: Path, photos: list[Path], ranks: Ranks) -> list[dict[str, Any]]:
    console: Any = _Quiet()
    return job.predict(model, photos, "auto", console, "reference", 1, ranks)


def without_numbers(result: dict[str, Any]) -> dict[str, Any]:
    return {key: result[key] for key in ("path", "label", "box", "error")}


def test_on_three_ranks_the_answers_are_those_of_one(
    model: Path, people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "PHOTOS", PortionSize(largest=2))
    photos = [tmp_path, people / "bob", people / "ann" / "03.png", tmp_path / "gone.png"]
    (alone,) = on_ranks(1, lambda ranks: answers(model, photos, ranks))
    shared, *others = on_ranks(3, lambda ranks: answers(model, photos, ranks))
    assert [without_numbers(result) for result in shared] == [without_numbers(result) for result in alone]
    # NumPy's products round differently with other numbers of photos in a batch; the compiled kernels' don't.
    for one, other in zip(shared, alone, strict=True):
        if one["error"] is None:
            assert one["confidence"] == pytest.approx(other["confidence"], rel=1e-6)
    assert len(shared) == 13
    assert others == [[], []]


def test_the_photos_of_a_rank_that_fails_are_named(model: Path, people: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "PHOTOS", PortionSize(smallest=10, largest=10))
    whole = job._Answering.answer
    both_at_work = threading.Barrier(2)

    def failing(self: Any, start: int, *arguments: Any) -> Any:
        both_at_work.wait(60)
        if threading.current_thread().name == "rank 1":
            failed.append(start)
            raise MemoryError("too much")
        return whole(self, start, *arguments)

    failed: list[int] = []
    monkeypatch.setattr(job._Answering, "answer", failing)
    photos = [people / "ann", people / "bob"]
    shared, _ = on_ranks(2, lambda ranks: answers(model, photos, ranks))
    assert [result["path"] for result in shared] == [str(path) for path in list_files(photos).files]
    lost = slice(failed[0], failed[0] + 10)
    assert {result["error"] for result in shared[lost]} == {"rank 1 of 2 failed: too much"}
    assert {result["label"] for result in shared[lost]} == {None}
    del shared[lost]
    assert len(shared) == 10
    assert {result["error"] for result in shared} == {None}


def test_a_part_of_a_listing_keeps_what_is_known_of_its_folders() -> None:
    files = tuple(map(Path, "abcd"))
    whole = Listing(files, {1: "empty", 3: "no photos"}, ("2 films passed over",))
    assert whole.part(2, 4) == Listing(files[2:], {1: "no photos"}, ())
