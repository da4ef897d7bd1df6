"""The cache of prepared photos on disk: an SQLite index and a file of pixels for each way to prepare photos."""

import contextlib
import hashlib
import json
import os
import shutil
import sqlite3
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import PIL

from facecnn.arrays import UInt8Array
from facecnn.photos.cache_folder import largest_photo_cache, make_private, photo_cache_folder
from facecnn.photos.database import checksum, erasing, is_damage, open_checked
from facecnn.photos.decode import DECODER_VERSION, heic_supported
from facecnn.photos.face import Face, Finder, as_json, from_json
from facecnn.photos.preparation import PREPARATION_VERSION, PhotoSettings

_STORE_VERSION = 4
INDEX, _PIXELS = "index.sqlite", "pixels.bin"
_IN_USE_SECONDS = 3600.0  # another process may be using a preparation that was used more recently

_TABLES = """
create table if not exists files (
    path blob primary key, size integer not null, modified integer not null, sha256 text not null,
    checksum integer not null
) without rowid;
create table if not exists photos (
    sha256 text primary key, row integer, crc integer, width integer, height integer, hash blob, notes text not null,
    faces text, reason text, checksum integer not null
) without rowid;
"""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What is known about the content of a file, whatever its name."""

    sha256: str
    width: int = 0
    height: int = 0
    hash: int = 0
    notes: tuple[str, ...] = ()
    faces: tuple[Face, ...] | None = None
    """None if they weren't looked for."""
    reason: str | None = None
    pixels: UInt8Array | None = None
    """(crops, height, width, channels): one for each face, or one of the photo's middle."""
    row: int | None = None
    """Row of the first crop; the others follow."""

    @property
    def crops(self) -> int:
        return 1 if self.faces is None else len(self.faces)


class PhotoStore:
    """The photos of one preparation in the cache folder: an SQLite index and a file of rows of equal size.

    Rows are only ever appended, in a transaction: written, flushed, then committed. Each row and each entry of the
    index has a checksum. Two processes may share a store, and after a crash or damage the index at worst misses rows.

    Any method may raise OSError or sqlite3.Error, after which the store must not be used any more.
    """

    def __init__(self, folder: Path, settings: PhotoSettings) -> None:
        """Open the store in ``folder``, which is made if it doesn't exist."""
        self.folder = folder
        self._shape = settings.margin_shape
        self._row_bytes = int(np.prod(self._shape))
        self._lock = threading.Lock()
        make_private(self.folder)
        _make_room(self.folder)
        self.folder.touch()  # its time is that of its last use
        self._index, self.was_damaged = open_checked(self.folder / INDEX, _TABLES)
        if self.was_damaged:
            (self.folder / _PIXELS).unlink(missing_ok=True)
        # For readers that don't know the settings; see ``cached_rows``.
        if self._index.execute("pragma user_version").fetchone()[0] != self._row_bytes:
            self._index.execute(f"pragma user_version = {self._row_bytes}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._index.close()

    def pixels(self) -> UInt8Array:
        """All rows, (rows, height, width, channels), mapped into memory read-only."""
        path = self.folder / _PIXELS
        rows = path.stat().st_size // self._row_bytes if path.exists() else 0
        if rows == 0:
            return np.zeros((0, *self._shape), dtype=np.uint8)
        return np.memmap(path, dtype=np.uint8, mode="r", shape=(rows, *self._shape))

    def size(self) -> int:
        """Bytes on the disk."""
        return _size(self.folder)

    def known_file(self, path: Path, status: os.stat_result) -> str | None:
        """The SHA-256 of a file if its size and time are the same as when it was read, else None."""
        with self._lock:
            found = self._index.execute("select * from files where path = ?", (_key(path),)).fetchone()
        if found is None or checksum(found[:-1]) != found[-1]:
            return None
        key, size, modified, sha256 = found[:-1]
        unchanged = (key, size, modified) == (_key(path), status.st_size, status.st_mtime_ns)
        return sha256.decode() if unchanged else None

    def prepared(self, sha256: str, pixels: UInt8Array) -> Prepared | None:
        """What is known about a content; None if nothing, or if its rows of ``pixels`` are damaged."""
        with self._lock:
            found = self._index.execute("select * from photos where sha256 = ?", (sha256,)).fetchone()
        if found is None or checksum(found[:-1]) != found[-1] or found[0] != sha256.encode():
            return None
        row, crc, width, height, fingerprint, notes, faces, reason = found[1:-1]
        if reason is not None:
            return Prepared(sha256, reason=reason.decode())
        photo = Prepared(
            sha256,
            width,
            height,
            int.from_bytes(fingerprint, "big"),
            tuple(json.loads(notes)),
            None if faces is None else from_json(faces.decode()),
            row=row,
        )
        end = row + photo.crops
        return None if end > len(pixels) or zlib.crc32(pixels[row:end].data) != crc else photo

    def add(self, files: Sequence[tuple[Path, os.stat_result, Prepared]]) -> dict[str, int]:
        """Store what was found out about files.

        ``files``: each file, its status from before it was read, and its content. Returns the first row of each content
        that has pixels.
        """
        rows: dict[str, int] = {}
        with self._transaction(), (self.folder / _PIXELS).open("ab") as file:
            file.truncate(file.tell() // self._row_bytes * self._row_bytes)  # a killed process may leave half a row
            file.seek(0, os.SEEK_END)
            for path, status, photo in files:
                self._put("files", (_key(path), status.st_size, status.st_mtime_ns, photo.sha256))
                if photo.row is not None or photo.sha256 in rows:
                    continue
                crc = None
                if photo.pixels is not None:
                    rows[photo.sha256] = file.tell() // self._row_bytes
                    crc = zlib.crc32(photo.pixels.data)
                    file.write(photo.pixels.data)
                self._put(
                    "photos",
                    (
                        photo.sha256,
                        rows.get(photo.sha256),
                        crc,
                        photo.width,
                        photo.height,
                        photo.hash.to_bytes(8, "big"),
                        json.dumps(photo.notes),
                        None if photo.faces is None else as_json(photo.faces),
                        photo.reason,
                    ),
                )
            file.flush()
        self.folder.touch()
        return rows

    def _put(self, table: str, values: tuple[object, ...]) -> None:
        marks = ", ".join("?" * (len(values) + 1))
        self._index.execute(f"insert or replace into {table} values ({marks})", (*values, checksum(values)))

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """Keep other threads and processes from writing."""
        with self._lock:
            self._index.execute("begin immediate")
            try:
                yield
            except BaseException:
                self._index.execute("rollback")
                raise
            self._index.execute("commit")


@dataclass(frozen=True)
class CachedRows:
    """The rows of some photos in a store, whose settings needn't be known."""

    folder: Path
    known: tuple[str, ...] = ()
    """SHA-256 of the photos that the store has, hexadecimal."""
    rows: tuple[int, ...] = ()
    """Those of their crops, in the file of pixels."""
    row_bytes: int = 0
    """Size of a row."""
    readable: bool = True
    """If not, there is no telling which rows are whose, and only the whole store can be removed."""

    def pixels(self) -> Iterator[UInt8Array]:
        """The bytes of each crop."""
        if self.rows:
            with (self.folder / _PIXELS).open("rb") as file:
                for row in self.rows:
                    file.seek(row * self.row_bytes)
                    yield np.frombuffer(file.read(self.row_bytes), np.uint8)


def cached_rows(folder: Path, digests: frozenset[str]) -> CachedRows:
    """Find photos in a store. Raises OSError or sqlite3.Error where it can't be read for another reason than damage."""
    try:
        with contextlib.closing(_connect(folder)) as index:
            row_bytes = index.execute("pragma user_version").fetchone()[0]
            photos = index.execute("select sha256, row, crc, faces from photos").fetchall()
        photos = [photo for photo in photos if photo[0] in digests]
        rows: list[int] = []
        for _, row, crc, faces in photos:
            if row is None:
                continue
            own = range(row, row + (1 if faces is None else len(from_json(faces))))
            with (folder / _PIXELS).open("rb") as file:
                file.seek(row * row_bytes)
                if zlib.crc32(file.read(len(own) * row_bytes)) != crc:
                    return CachedRows(folder, readable=False)
            rows += own
    except (sqlite3.Error, FileNotFoundError, ValueError, TypeError) as error:
        if isinstance(error, sqlite3.Error) and not is_damage(error, folder / INDEX):
            raise
        return CachedRows(folder, readable=False)
    return CachedRows(folder, tuple(photo[0] for photo in photos), tuple(rows), row_bytes)


def forget_rows(found: CachedRows) -> None:
    """Remove photos from a store, and overwrite their pixels and all others that no longer belong to any photo.

    Raises OSError or sqlite3.Error where that fails.
    """
    if not found.readable:
        shutil.rmtree(found.folder)
        return
    with erasing(found.folder / INDEX) as index:
        index.execute("begin immediate")
        for table in ("photos", "files"):
            index.executemany(f"delete from {table} where sha256 = ?", [(digest,) for digest in found.known])
        used: set[int] = set()
        for row, faces in index.execute("select row, faces from photos where row is not null"):
            used.update(range(row, row + (1 if faces is None else len(from_json(faces)))))
        if found.rows:
            with (found.folder / _PIXELS).open("r+b") as file:
                rows = file.seek(0, os.SEEK_END) // found.row_bytes
                for row in sorted({*found.rows, *range(rows)} - used):
                    file.seek(row * found.row_bytes)
                    file.write(bytes(found.row_bytes))
        index.execute("commit")


def _connect(folder: Path) -> sqlite3.Connection:
    return sqlite3.connect(folder / INDEX, timeout=10, isolation_level=None)


def store_folder(settings: PhotoSettings, finder: Finder | None) -> Path:
    """The folder of the store for these settings; anything that changes the stored pixels or faces changes it."""
    key = {
        "photos": settings.cropping(aligned=finder is not None),
        "finder": None if finder is None else finder.identity,
        "versions": [_STORE_VERSION, DECODER_VERSION, PREPARATION_VERSION, PIL.__version__, heic_supported()],
    }
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    return photo_cache_folder() / "photos" / name


def _key(path: Path) -> bytes:
    return os.fsencode(path.absolute())


def _make_room(own: Path) -> None:
    """Remove the least recently used preparations until all together fit ``largest_photo_cache``.

    The one about to be used is only removed if it alone is too large. One that another process may be using stays: that
    process could read on from the open file, but wouldn't find its photos the next time.
    """
    largest = largest_photo_cache()
    used = sorted((_stat(folder, "st_mtime"), folder) for folder in own.parent.iterdir())
    sizes = {folder: _size(folder) for _, folder in used}
    total = sum(sizes.values())
    for moment, folder in used:
        too_large = sizes[folder] > largest if folder == own else total > largest
        if too_large and time.time() - moment > _IN_USE_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)
            total -= sizes[folder]
    own.mkdir(mode=0o700, exist_ok=True)


def _size(folder: Path) -> int:
    return sum(int(_stat(folder / name, "st_size")) for name in (INDEX, _PIXELS))


def _stat(path: Path, field: str) -> float:
    """A file's time or size; 0 if another process has just removed it."""
    try:
        return float(getattr(path.stat(), field))
    except OSError:
        return 0.0
