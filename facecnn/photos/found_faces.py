"""Keeps found faces on disk: another crop size, or hidden faces, need no second search."""

import contextlib
import sqlite3
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import NamedTuple, Self

from PIL import Image

from facecnn.photos.cache_folder import make_private
from facecnn.photos.database import checksum, open_checked
from facecnn.photos.face import Face, Finder, as_json, from_json

_BATCH = 64  # photos whose faces are written in one transaction

_TABLES = "create table if not exists faces (sha256 text primary key, faces text not null, checksum integer not null);"


class Sought(NamedTuple):
    """A picture whose faces are asked for."""

    content: str
    """SHA-256 of its file; with something appended if the picture isn't read at full size."""
    picture: Image.Image
    """Of mode L or RGB."""
    keep: bool
    """Whether the faces are stored."""


class FoundFaces:
    """A finder that remembers faces in an SQLite file of a folder, or forgets them if that can't be used.

    Any thread may call it in its ``with`` block, at whose end the finder rests. Each content is searched once, even if
    two threads ask for it at the same time.
    """

    def __init__(self, finder: Finder, folder: Path | None, *, alone: bool) -> None:
        """``folder``: None keeps nothing; ``alone``: whether only one picture is searched at a time."""
        self._finder = finder
        self._alone = alone
        self._path = None if folder is None else folder / f"{finder.identity}.sqlite"
        self._lock = threading.Lock()
        self._asked: dict[str, Future[list[Face]]] = {}
        self._index: sqlite3.Connection | None = None
        self._waiting: list[tuple[str, str, int]] = []

    def __enter__(self) -> Self:
        # Faces that can't be stored are searched again.
        if self._path is None:
            return self
        with contextlib.suppress(OSError, sqlite3.Error):
            make_private(self._path.parent)
            self._index, _ = open_checked(self._path, _TABLES)
        return self

    def __exit__(self, *_: object) -> None:
        self._finder.rest()
        if self._index is not None:
            with contextlib.suppress(sqlite3.Error), self._lock:
                self._write()
            self._index.close()

    def find(self, sought: Sequence[Sought]) -> list[list[Face]]:
        """The faces of each picture. Those that must be searched are searched together."""
        with self._lock:
            own = {one.content: one for one in sought if one.content not in self._asked}
            self._asked |= {content: Future() for content in own}
        try:
            faces = {content: self._remembered(content) for content in own}
            unknown = [own[content] for content in own if faces[content] is None]
            found = self._search(unknown) if unknown else []
            faces |= {one.content: own_faces for one, own_faces in zip(unknown, found, strict=True)}
            for content in own:
                self._asked[content].set_result(faces[content] or [])
        except BaseException as error:
            for content in own:
                self._asked[content].set_exception(error)
            raise
        return [list(self._asked[one.content].result()) for one in sought]

    def _remembered(self, sha256: str) -> list[Face] | None:
        with contextlib.suppress(sqlite3.Error), self._lock:
            if self._index is not None:
                row = self._index.execute("select faces, checksum from faces where sha256 = ?", (sha256,)).fetchone()
                if row is not None and row[1] == checksum((sha256, row[0])):
                    return list(from_json(row[0].decode()))
        return None

    def _search(self, unknown: Sequence[Sought]) -> list[list[Face]]:
        pictures = [one.picture for one in unknown]
        found = list(map(self._finder.find, pictures)) if self._alone else self._finder.find_in_each(pictures)
        with contextlib.suppress(sqlite3.Error), self._lock:
            if self._index is not None:
                rows = [(one.content, as_json(faces)) for one, faces in zip(unknown, found, strict=True) if one.keep]
                self._waiting += [(*row, checksum(row)) for row in rows]
                if len(self._waiting) >= _BATCH:
                    self._write()
        return found

    def _write(self) -> None:
        """Write the faces that wait in one transaction: each keeps other processes from writing."""
        assert self._index is not None
        rows, self._waiting = self._waiting, []
        if rows:
            self._index.execute("begin immediate")
            try:
                self._index.executemany("insert or replace into faces values (?, ?, ?)", rows)
            except sqlite3.Error:
                self._index.execute("rollback")
                raise
            self._index.execute("commit")
