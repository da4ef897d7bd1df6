"""``sort``, ``group``, ``cross-validate`` and ``sweep`` give on several ranks what they give on one."""

from __future__ import annotations

import csv
import io
import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from cli.patterns import PatternEmbedder, finder, picture
from cli.sweeping import PLACE, Judge, write_config
from facecnn.config import Loaded, apply_overrides, load
from facecnn.errors import DeviceError, UsageError
from facecnn.jobs import cross_validate as folds
from facecnn.jobs import face_groups, sharing
from facecnn.jobs.console import Console
from facecnn.jobs.cross_validate import cross_validate
from facecnn.jobs.group import group
from facecnn.jobs.sharing import fill_caches
from facecnn.jobs.sort import sort
from facecnn.jobs.training.options import TrainOptions
from facecnn.jobs.training.ranks import prepare_together
from facecnn.parallel.ranks import PortionSize, Silent

from .threads import ThreadRanks, on_ranks


class Messages(Console):
    """Keeps the messages of one rank."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, text: str) -> None:
        self.lines.append(text)

    warning = info


def consoles(size: int) -> list[Messages]:
    return [Messages() for _ in range(size)]


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


@pytest.fixture(autouse=True)
def _small_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each rank gets some of the few photos here."""
    small = PortionSize(largest=2)
    monkeypatch.setattr("facecnn.jobs.sharing.PHOTOS", small)
    monkeypatch.setattr("facecnn.jobs.predict.PHOTOS", small)


# ------------------------------------------------------------------------------------------------------------- sort


def test_sort(model: Path, people: Path, tmp_path: Path) -> None:
    def sorted_on(size: int) -> list[dict[str, Any]]:
        out, console = tmp_path / str(size), consoles(size)
        return on_ranks(
            size,
            lambda ranks: sort(people, out, model, "auto", console[ranks.rank], "reference", 1, ranks=ranks),
        )

    (alone,), (shared, *others) = sorted_on(1), sorted_on(3)
    assert others == [{}, {}]
    told = {"destination": str(tmp_path / "3"), "table": str(tmp_path / "3" / "sorted.csv")}
    assert shared == alone | told
    assert shared["copied"] == 20
    one, three = files(tmp_path / "1"), files(tmp_path / "3")
    tables = [list(csv.DictReader(io.StringIO(found.pop("sorted.csv").decode()))) for found in (one, three)]
    assert three == one
    # NumPy's products round differently with other numbers of photos in a batch; the compiled kernels' don't.
    assert_alike(*tables)


def assert_alike(wanted: list[dict[str, str]], found: list[dict[str, str]]) -> None:
    """The same rows in the same order, numbers but for rounding."""
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert one.keys() == other.keys()
        for key, text in one.items():
            try:
                assert float(text) == pytest.approx(float(other[key]), rel=1e-6), key
            except ValueError:
                assert text == other[key], key


# ------------------------------------------------------------------------------------------------------------ group


@pytest.fixture
def album(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "album"
    folder.mkdir()
    for number, people in enumerate([[0], [1], [0, 1], [0], [1, 2], [1], [3]]):
        picture(people, number).save(folder / f"{number}.png")
    monkeypatch.setattr("facecnn.jobs.face_groups.installed_finder", lambda *_: finder())
    monkeypatch.setattr("facecnn.jobs.group.Embedder", PatternEmbedder)
    return folder


def group_on(size: int, album: Path, out: Path) -> tuple[list[Any], Messages]:
    console = consoles(size)
    found = on_ranks(size, lambda ranks: group(album, out, console[ranks.rank], "reference", 1, ranks=ranks))
    return found, console[0]


def test_group(album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[list[str]] = []
    whole = face_groups._find_faces

    def seen(photos: Any, *rest: Any) -> Any:
        looked.append([path.name for path in photos])
        return whole(photos, *rest)

    monkeypatch.setattr(face_groups, "_find_faces", seen)
    (shared, *others), _ = group_on(3, album, tmp_path / "3")
    *portions, everything = looked
    assert sorted(name for portion in portions for name in portion) == sorted(everything)
    assert len(everything) == 7
    (alone,), _ = group_on(1, album, tmp_path / "1")
    assert others == [None, None]
    assert shared.faces == alone.faces
    assert shared.folders == alone.folders == {"person-001": 4, "person-002": 3, "unclear": 1}
    assert files(tmp_path / "3") == files(tmp_path / "1")


def test_photos_of_a_rank_that_fails_are_grouped_all_the_same(
    album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, failed = face_groups._find_faces, threading.Event()

    def failing(photos: Any, *rest: Any) -> Any:
        if len(photos) < 7 and threading.current_thread().name == "rank 1":
            failed.set()
            raise MemoryError("too much")
        assert failed.wait(60)
        return whole(photos, *rest)

    (alone,), _ = group_on(1, album, tmp_path / "1")
    monkeypatch.setattr(face_groups, "_find_faces", failing)
    (shared, _), console = group_on(2, album, tmp_path / "2")
    assert shared.faces == alone.faces
    assert console.lines.count("rank 1 of 2 failed: too much: rank 0 does what it has left undone") == 1


class OtherCache(ThreadRanks):
    """Ranks of which the last can't see the cache folder of rank 0."""

    def gather(self, value: Any) -> list[Any]:
        return [*super().gather(value)[:-1], False] if value is True else super().gather(value)


def test_ranks_that_share_no_cache_are_named_and_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    console = consoles(2)

    def fill(ranks: Any) -> None:
        ranks.__class__ = OtherCache
        fill_caches(9, lambda start, stop, done: looked.append(start), "Looking", ranks, console[ranks.rank])

    on_ranks(2, fill)
    assert not looked
    assert console[0].lines == [
        "rank 1 of 2 can't see the cache of rank 0, which therefore does alone what they could do: set "
        "FACECNN_CACHE_DIR to a folder that all of them reach"
    ]


# ------------------------------------------------------------------------------------------------------------ train


def test_photos_of_a_training_are_prepared_once_whichever_rank_does_it(
    settings: Loaded, people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared: list[str] = []
    load_photos = sharing.load_photos

    def seen(files: Sequence[Path], *rest: Any, **options: Any) -> Any:
        prepared.extend(str(file) for file in files)
        return load_photos(files, *rest, **options)

    monkeypatch.setattr(sharing, "load_photos", seen)
    held_out = tmp_path / "held out"
    shutil.copytree(people, held_out)
    options = TrainOptions(photos=people, validation=held_out, threads=1)
    on_ranks(2, lambda ranks: prepare_together(settings, options, ranks, Messages()))
    assert sorted(prepared) == sorted(str(path) for folder in (people, held_out) for path in folder.glob("*/*"))


# --------------------------------------------------------------------------------------------------- cross-validate


@pytest.fixture
def settings() -> Loaded:
    return apply_overrides(load("smoke"), ["photos.faces=off", "train.epochs=1", "train.least_steps=0"])


def cross_validate_on(size: int, settings: Loaded, photos: Path, **options: Any) -> tuple[list[Any], Messages]:
    console = consoles(size)
    train = TrainOptions(photos=photos, device="reference", threads=1)
    found = on_ranks(
        size, lambda ranks: cross_validate(settings, train, 3, console[ranks.rank], ranks=ranks, **options)
    )
    return found, console[0]


def without_seconds(found: Any) -> Any:
    if isinstance(found, dict):
        return {key: without_seconds(value) for key, value in found.items() if key != "seconds"}
    return [without_seconds(one) for one in found] if isinstance(found, list) else found


@pytest.mark.parametrize("calibrated", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_cross_validate(settings: Loaded, people: Path, monkeypatch: pytest.MonkeyPatch, calibrated: bool) -> None:
    trained: list[int] = []
    whole = folds._Folds.train

    def seen(self: Any, start: int, stop: int, done: Callable[[int], None]) -> Any:
        trained.extend(range(start, stop))
        return whole(self, start, stop, done)

    monkeypatch.setattr(folds._Folds, "train", seen)
    (shared, other), console = cross_validate_on(2, settings, people, calibrated=calibrated)
    assert sorted(trained) == [0, 1, 2]
    (alone,), _ = cross_validate_on(1, settings, people, calibrated=calibrated)
    assert other == {}
    assert without_seconds(shared) == without_seconds(alone)
    told = sorted(line[:11] for line in console.lines if " photos named right" in line)
    assert told == ["Fold 1 of 3", "Fold 2 of 3", "Fold 3 of 3"]


def test_a_fold_that_no_rank_has_trained_ends_it_with_its_name(
    settings: Loaded, people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(self: Any, count: int, *rest: Any) -> list[Any]:
        return [Silent("rank 1 of 2: no answer for 600 seconds")] * count

    monkeypatch.setattr(ThreadRanks, "share_out", silent)
    with pytest.raises(DeviceError, match="Fold 1 of 3 wasn't trained: rank 1 of 2: no answer for 600 seconds"):
        cross_validate_on(1, settings, people)


# ------------------------------------------------------------------------------------------------------------ sweep


def sweep_on(size: int, people: Path, tmp_path: Path, processes: int = 1) -> list[dict[str, Any]]:
    pytest.importorskip("optuna")
    from facecnn.jobs.sweep.sweep import SweepOptions, sweep

    console = consoles(size)
    options = TrainOptions(
        photos=people, device="reference", threads=1, out=tmp_path / "sweeps", name="mine", label="mine"
    )
    given = apply_overrides(load(write_config(tmp_path)), ["photos.faces=off"])
    plan = SweepOptions(trials=8, folds=2, outer_folds=0, processes=processes)
    return on_ranks(size, lambda ranks: sweep(given, options, plan, console[ranks.rank], ranks))


def test_sweep(people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PLACE, Judge())
    shared, other = sweep_on(2, people, tmp_path)
    assert other == {}
    assert [trial["number"] for trial in shared["trials"]] == list(range(1, 9))
    best = min(trial["log_loss"] for trial in shared["trials"] if trial["state"] == "complete")
    assert shared["best"]["log_loss"] == best


def test_ranks_and_processes_do_not_go_together(people: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="2 ranks share the trials already: leave --processes out"):
        sweep_on(2, people, tmp_path, processes=2)
