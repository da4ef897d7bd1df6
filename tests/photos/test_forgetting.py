"""Photos are removed from the caches: their entries, and their pixels."""

import contextlib
import hashlib
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facecnn.photos.cache import load_photos
from facecnn.photos.cache_folder import CACHE_VARIABLE
from facecnn.photos.database import erasing
from facecnn.photos.forgetting import find_cached, forget_cached
from facecnn.photos.preparation import PhotoSettings

from .finders import KnownFaces, face_at

SIZES = (16, 24)


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Three photos, in a cache of their own with two preparations."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    files = []
    for number in range(3):
        files.append(tmp_path / f"{number}.png")
        Image.fromarray(np.random.default_rng(number).integers(1, 256, (40, 40), np.uint8)).save(files[-1])
    for size in SIZES:
        load_photos(files, PhotoSettings(size=size))
    return files


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_nothing_of_a_forgotten_photo_is_left(photos: list[Path], tmp_path: Path) -> None:
    loaded = [load_photos(photos, PhotoSettings(size=size)) for size in SIZES]
    crops = [one.pixels[one.row[1]].tobytes() for one in loaded]
    others = [one.pixels[one.row[0]].tobytes() for one in loaded]
    found = find_cached(frozenset({digest(photos[1])}))
    assert found.crops == 2
    assert sorted(crop.tobytes() for crop in found.pixels()) == sorted(crops)
    forget_cached(found)
    content = b"".join(file.read_bytes() for file in (tmp_path / "cache").rglob("*") if file.is_file())
    assert not any(crop in content for crop in crops)
    assert digest(photos[1]).encode() not in content
    assert all(crop in content for crop in others)
    assert find_cached(frozenset({digest(photos[1])})).crops == 0


def test_the_others_are_still_cached(photos: list[Path]) -> None:
    forget_cached(find_cached(frozenset({digest(photos[1])})))
    found = find_cached(frozenset(map(digest, photos)))
    assert found.crops == 4
    loaded = load_photos(photos, PhotoSettings(size=16))  # the forgotten one is read anew
    assert loaded.warnings == ()
    assert loaded.reasons == (None, None, None)


def test_found_faces_are_forgotten_too(photos: list[Path]) -> None:
    finder = KnownFaces({(40, 40): [face_at(20, 20, 10)]})
    load_photos(photos, PhotoSettings(size=16), finder=finder)
    wanted = frozenset({digest(photos[1])})
    assert find_cached(wanted).searched == 1
    forget_cached(find_cached(wanted))
    assert find_cached(wanted).searched == 0
    assert find_cached(frozenset(map(digest, photos))).searched == 2


def content(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())


def test_one_photo_after_the_other_is_forgotten(photos: list[Path], tmp_path: Path) -> None:
    loaded = [load_photos(photos, PhotoSettings(size=size)) for size in SIZES]
    crops = [[one.pixels[row].tobytes() for row in one.row] for one in loaded]
    order = np.argsort(loaded[0].row)[::-1]  # the last rows first
    forget_cached(find_cached(frozenset({digest(photos[order[0]])})))
    forget_cached(find_cached(frozenset({digest(photos[order[1]])})))
    left = content(tmp_path / "cache")
    for of_size in crops:
        for start in (0, 64, 128):
            assert [of_size[number][start : start + 32] in left for number in order] == [False, False, True]


def test_older_pixels_of_a_photo_are_forgotten_too(photos: list[Path], tmp_path: Path) -> None:
    for index in (tmp_path / "cache").rglob("index.sqlite"):
        with contextlib.closing(sqlite3.connect(index)) as entries:  # as after damage: the photo is read once more
            entries.execute("update photos set crc = crc + 1 where sha256 = ?", (digest(photos[1]),))
            entries.commit()
    loaded = load_photos(photos, PhotoSettings(size=16))
    crop = loaded.pixels[loaded.row[1]].tobytes()
    assert content(tmp_path / "cache").count(crop) == 2
    forget_cached(find_cached(frozenset({digest(photos[1])})))
    assert crop not in content(tmp_path / "cache")


def test_a_store_that_does_not_tell_whose_rows_are_whose_is_deleted(photos: list[Path], tmp_path: Path) -> None:
    crops = load_photos(photos, PhotoSettings(size=16)).pixels.tobytes()
    damaged = next(index for index in (tmp_path / "cache").rglob("index.sqlite") if crops in content(index.parent))
    damaged.write_bytes(b"SQLite format 3\0" + bytes(1000))
    found = find_cached(frozenset({digest(photos[1])}))
    assert found.crops == 1  # of the other size
    forget_cached(found)
    assert not damaged.parent.exists()


def test_rows_that_sqlite_moved_are_gone_for_good(tmp_path: Path) -> None:
    file = tmp_path / "rows.sqlite"
    rows = [(hashlib.sha256(bytes([number % 256, number // 256])).hexdigest(),) for number in range(2000)]
    with contextlib.closing(sqlite3.connect(file)) as index:
        index.execute("pragma secure_delete = off")
        index.execute("create table rows (sha256 text primary key)")
        index.executemany("insert into rows values (?)", rows)
        index.commit()
    with erasing(file) as index:
        index.executemany("delete from rows where sha256 = ?", rows[::2])
    left = file.read_bytes()
    assert not [one for (one,) in rows[::2] if one.encode() in left]
    assert all(one.encode() in left for (one,) in rows[1::2])


def test_of_a_photo_with_several_faces_all_crops_are_forgotten(photos: list[Path], tmp_path: Path) -> None:
    finder = KnownFaces({(40, 40): [face_at(12, 20, 9), face_at(28, 20, 9)]}, "two")
    loaded = load_photos(photos, PhotoSettings(size=16), finder=finder)
    crops = [[loaded.pixels[row + face].tobytes() for face in range(2)] for row in loaded.row.tolist()]
    found = find_cached(frozenset({digest(photos[1])}))
    stored = [crop.tobytes() for crop in found.pixels()]
    assert all(crop in stored for crop in crops[1])
    assert found.crops == 2 + 2  # of the two preparations without a finder
    forget_cached(found)
    content = b"".join(file.read_bytes() for file in (tmp_path / "cache").rglob("*") if file.is_file())
    assert not any(crop in content for crop in crops[1])
    assert all(crop in content for crop in crops[0] + crops[2])


def test_faces_found_in_a_photo_read_at_a_fraction_are_forgotten_too(photos: list[Path], tmp_path: Path) -> None:
    """Large photos can be decoded at half their sides and less."""
    large = tmp_path / "large.jpg"
    Image.fromarray(np.random.default_rng(9).integers(0, 256, (1200, 1200), np.uint8)).save(large)
    finder = KnownFaces({(side, side): [face_at(side / 2, side / 2, side / 4)] for side in (300, 600, 1200)})
    loaded = load_photos([large], PhotoSettings(size=16, largest_picture=1), finder=finder)
    assert loaded.reasons == (None,)
    assert finder.searched[0] != (1200, 1200)
    wanted = frozenset({digest(large)})
    assert find_cached(wanted).searched == 1
    forget_cached(find_cached(wanted))
    assert find_cached(wanted).searched == 0
