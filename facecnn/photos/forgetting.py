"""Removes photos from the caches: their crops and the faces found in them."""

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from facecnn.arrays import UInt8Array
from facecnn.photos.cache_folder import cache_folder
from facecnn.photos.database import erasing
from facecnn.photos.store import INDEX, CachedRows, cached_rows, forget_rows


@dataclass(frozen=True)
class Forgotten:
    """What the caches hold of some photos."""

    digests: frozenset[str]
    """SHA-256 of the photos, hexadecimal."""
    stored: tuple[CachedRows, ...]
    """Their crops, in each preparation that has some."""
    searched: int
    """Number of entries of found faces."""

    @property
    def crops(self) -> int:
        """Number of stored crops."""
        return sum(len(found.rows) for found in self.stored)

    def pixels(self) -> Iterator[UInt8Array]:
        """The bytes of each stored crop, as a flat array."""
        for found in self.stored:
            yield from found.pixels()


def find_cached(digests: frozenset[str]) -> Forgotten:
    """Look for photos in the caches.

    A damaged store is among what is found, as it may hold them. One that can't be read for another reason isn't.
    """
    stored = []
    for index in sorted((cache_folder() / "photos").glob(f"*/{INDEX}")):
        with contextlib.suppress(OSError, sqlite3.Error):
            rows = cached_rows(index.parent, digests)
            if rows.known or not rows.readable:
                stored.append(rows)
    searched = 0
    for file in _face_files():
        with contextlib.suppress(OSError, sqlite3.Error), contextlib.closing(_open(file)) as index_of_faces:
            searched += len(_searched(index_of_faces, digests))
    return Forgotten(digests, tuple(stored), searched)


def forget_cached(found: Forgotten) -> None:
    """Remove what ``find_cached`` found, and overwrite it. Raises OSError or sqlite3.Error where that fails."""
    for rows in found.stored:
        forget_rows(rows)
    for file in _face_files():
        with erasing(file) as index:
            keys = [(key,) for key in _searched(index, found.digests)]
            index.executemany("delete from faces where sha256 = ?", keys)


def _face_files() -> list[Path]:
    return sorted((cache_folder() / "faces").glob("*.sqlite"))


def _open(file: Path) -> sqlite3.Connection:
    return sqlite3.connect(file, timeout=10, isolation_level=None)


def _searched(index: sqlite3.Connection, digests: frozenset[str]) -> list[str]:
    """The keys of photos in a file of found faces: a digest, with something appended if it was read at a fraction."""
    keys = [key for (key,) in index.execute("select sha256 from faces")]
    return [key for key in keys if key.partition("/")[0] in digests]
