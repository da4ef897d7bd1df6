"""Keeps embeddings on disk, by the content of the crop: a face is run through the body once."""

import contextlib
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from facecnn.arrays import Array, Float32Array
from facecnn.photos.cache_folder import make_private, photo_cache_folder
from facecnn.photos.database import checksum, erasing, open_checked

_TABLES = (
    "create table if not exists embeddings "
    "(sha256 text primary key, embedding blob not null, checksum integer not null);"
)


class EmbeddingCache:
    """An SQLite file of one body's embeddings; where that can't be used, everything is missing from it.

    Each row carries a checksum, so that what is read is right, or missing.
    """

    def __init__(self, body: str) -> None:
        """``body``: the hash of the body's weights."""
        self._path = embeddings_folder() / f"{body[:16]}.sqlite"

    def get(self, keys: Iterable[str]) -> dict[str, Float32Array]:
        """The embeddings that there are, by the SHA-256 of their crops."""
        found: dict[str, Float32Array] = {}
        with contextlib.suppress(OSError, sqlite3.Error), self._open() as index:
            for key in keys:
                row = index.execute("select embedding, checksum from embeddings where sha256 = ?", (key,)).fetchone()
                if row is not None and row[1] == checksum((key, row[0])):
                    found[key] = np.frombuffer(row[0], np.float32)
        return found

    def put(self, embeddings: Mapping[str, Float32Array]) -> None:
        """Keep embeddings, by the SHA-256 of their crops."""
        rows = [(key, array.tobytes()) for key, array in embeddings.items()]
        with contextlib.suppress(OSError, sqlite3.Error), self._open() as index:
            index.execute("begin immediate")
            index.executemany(
                "insert or replace into embeddings values (?, ?, ?)", [(*row, checksum(row)) for row in rows]
            )
            index.execute("commit")

    def _open(self) -> contextlib.closing[sqlite3.Connection]:
        make_private(self._path.parent)
        return contextlib.closing(open_checked(self._path, _TABLES)[0])


def embeddings_folder() -> Path:
    """The folder with a file of embeddings for each body."""
    return photo_cache_folder() / "embeddings"


def forget_embeddings(keys: Iterable[str], embeddings: Array) -> int:
    """Remove embeddings from the files of all bodies. Returns how many there were.

    ``keys`` are SHA-256 of crops, ``embeddings`` (n, 128) float32 those of the same crops or others.

    Raises OSError or sqlite3.Error where a file can't be changed.
    """
    wanted = [(key,) for key in keys]
    values = [(row.tobytes(),) for row in np.asarray(embeddings, np.float32)]
    removed = 0
    for file in sorted(embeddings_folder().glob("*.sqlite")):
        with erasing(file) as index:
            index.execute("create temporary table forgotten (embedding blob primary key)")
            index.executemany("insert or ignore into forgotten values (?)", values)
            removed += index.executemany("delete from embeddings where sha256 = ?", wanted).rowcount
            removed += index.execute("delete from embeddings where embedding in (select * from forgotten)").rowcount
            index.execute("drop table forgotten")
    return removed
