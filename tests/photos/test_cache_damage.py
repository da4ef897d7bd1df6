"""Whatever happens to the cache's files, the answer is that of the photos."""

import random
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from facecnn.photos.cache import load_photos
from facecnn.photos.database import is_damage, open_checked
from facecnn.photos.preparation import PhotoSettings

from .finders import KnownFaces, face_at
from .pictures import encoded, picture

SETTINGS = PhotoSettings(size=8)
COUNT = 30
FACES = {(40, 50 + n): [face_at(20, 25, 9), face_at(30, 25, 6)][: 1 + n % 2] for n in range(COUNT)}


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    for number in range(COUNT):
        (tmp_path / f"{number}.png").write_bytes(encoded(picture(number, 40, 50 + number)))
    (tmp_path / "text.png").write_text("no picture")
    return sorted(tmp_path.iterdir())


def answer(photos: list[Path]) -> tuple[Any, tuple[str, ...]]:
    """All that is known about the photos, and what is said of the cache."""
    loaded = load_photos(photos, SETTINGS, finder=KnownFaces(FACES), workers=2)
    pixels = [
        None if row < 0 else loaded.pixels[row : row + len(faces)].tobytes()
        for row, faces in zip(loaded.row.tolist(), loaded.faces, strict=True)
    ]
    known = (pixels, loaded.sha256, loaded.hashes.tolist(), loaded.sizes.tolist(), loaded.faces, loaded.reasons)
    return (*known, loaded.notes), loaded.warnings


def one_bit_anywhere(data: bytearray, chance: random.Random) -> None:
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def one_bit_of_the_header(data: bytearray, chance: random.Random) -> None:
    data[chance.randrange(100)] ^= 1 << chance.randrange(8)


def many_bytes(data: bytearray, chance: random.Random) -> None:
    for _ in range(chance.choice([2, 20, 200])):
        data[chance.randrange(len(data))] = chance.randrange(256)


def cut(data: bytearray, chance: random.Random) -> None:
    del data[chance.randrange(len(data)) :]


@pytest.mark.parametrize("damage", [one_bit_anywhere, one_bit_of_the_header, many_bytes, cut])
@pytest.mark.parametrize("name", ["index.sqlite", "known.sqlite", "pixels.bin"])
def test_damaged_files_change_no_answer(
    photos: list[Path], cache_dir: Path, name: str, damage: Callable[[bytearray, random.Random], None]
) -> None:
    expected, _ = answer(photos)
    files = {path: path.read_bytes() for path in cache_dir.rglob("*") if path.is_file()}
    (damaged,) = [path for path in files if path.name == name]
    chance = random.Random(f"{name} {damage.__name__}")
    for _ in range(12):
        for path, content in files.items():
            path.write_bytes(content)
        data = bytearray(files[damaged])
        damage(data, chance)
        damaged.write_bytes(data)
        found, said = answer(photos)
        assert found == expected
        assert len(said) <= 1
        again, said = answer(photos)  # all is mended
        assert again == expected
        assert said == ()


def values_changed(index: sqlite3.Connection) -> None:
    index.execute("update photos set width = width + 1")


def types_changed(index: sqlite3.Connection) -> None:
    index.execute("update photos set notes = null where notes is not null")


def entries_exchanged(index: sqlite3.Connection) -> None:
    index.execute("update files set sha256 = (select max(sha256) from files)")


@pytest.mark.parametrize("change", [values_changed, types_changed, entries_exchanged])
def test_entries_that_sqlite_finds_in_order_are_checked_too(
    photos: list[Path], cache_dir: Path, change: Callable[[sqlite3.Connection], None]
) -> None:
    expected, _ = answer(photos)
    (path,) = cache_dir.rglob("index.sqlite")
    with sqlite3.connect(path, isolation_level=None) as index:
        try:
            change(index)
        except sqlite3.IntegrityError:  # "not null"
            index.execute("update photos set notes = 7")
    assert answer(photos) == (expected, ())


def test_tables_of_another_version_are_made_anew(photos: list[Path], cache_dir: Path) -> None:
    (cache_dir / "faces").mkdir()
    with sqlite3.connect(cache_dir / "faces" / "known.sqlite") as index:
        index.execute("create table faces (sha256 text primary key, faces text not null)")
    finder = KnownFaces(FACES)
    for size in (8, 12):
        load_photos(photos, PhotoSettings(size=size), finder=finder)
    assert len(finder.searched) == COUNT  # found faces were kept


def test_a_file_that_another_process_is_writing_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = "create table if not exists things (name text primary key);"
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda path, timeout=0, **options: connect(path, timeout=0, **options))
    first, was_damaged = open_checked(tmp_path / "x.sqlite", tables)
    assert not was_damaged
    first.execute("begin immediate")
    first.execute("insert into things values ('a')")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        open_checked(tmp_path / "x.sqlite", tables)
    first.execute("commit")
    second, was_damaged = open_checked(tmp_path / "x.sqlite", tables)
    assert not was_damaged
    assert second.execute("select name from things").fetchall() == [(b"a",)]
    first.close()
    second.close()


def test_a_full_disk_is_no_damage(tmp_path: Path) -> None:
    index, _ = open_checked(tmp_path / "x.sqlite", "create table if not exists things (name text);")
    index.execute("pragma max_page_count = 1")  # none beyond those that are there
    with pytest.raises(sqlite3.OperationalError, match="full") as caught:
        index.execute("insert into things values (?)", ("x" * 10_000,))
    index.close()
    assert not is_damage(caught.value, tmp_path / "x.sqlite")
