"""SQLite files that can be made again and may be damaged: what is read from them is right, or not there.

Each row carries a checksum, as SQLite has none. What is wrong with a file as a whole shows when it is opened, and it is
then made anew.
"""

import contextlib
import os
import sqlite3
import zlib
from collections.abc import Iterable
from pathlib import Path

# Not the file's fault: another process writes, the disk is full, access is not allowed. Anything else is damage.
_OF_THE_SYSTEM = frozenset(
    {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN}
    | {sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_PERM, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_INTERRUPT}
)


def open_checked(path: Path, tables: str) -> tuple[sqlite3.Connection, bool]:
    """Open or make an SQLite file with these tables, for any thread.

    Returns:
        The connection, whose texts are bytes, and whether a damaged file was removed for it.

    Raises:
        OSError, sqlite3.Error: it can't be used, and not for being damaged.
    """
    try:
        return _open(path, tables), False
    except sqlite3.Error as error:
        if not is_damage(error, path):
            raise
    remove(path)
    return _open(path, tables), True


def is_damage(error: Exception, path: Path) -> bool:
    """Whether an error came from the file's contents, so that a new file would do."""
    if not isinstance(error, sqlite3.Error):
        return False
    code = getattr(error, "sqlite_errorcode", None)
    if code is not None and code & 0xFF == sqlite3.SQLITE_READONLY:  # also what a damaged header says of itself
        return os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)
    return code is None or code & 0xFF not in _OF_THE_SYSTEM


def remove(path: Path) -> None:
    """Remove an SQLite file and what belongs to it."""
    for suffix in ("", "-journal", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + suffix).unlink()


def checksum(values: Iterable[object]) -> int:
    """Of a row's values, texts as bytes; another where any of them is, or is of another type."""
    return zlib.crc32(repr([value.encode() if isinstance(value, str) else value for value in values]).encode())


def _open(path: Path, tables: str) -> sqlite3.Connection:
    index = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
    try:
        index.text_factory = bytes  # a text may be damaged, and is checked before it is read as one
        # Losing the last entries in a power cut costs making them again.
        index.execute("pragma synchronous = off")
        index.executescript(tables)
        if _schema(index) != _expected(tables):
            raise sqlite3.DatabaseError("other tables than expected")
        found = index.execute("pragma quick_check(1)").fetchone()
        if found != (b"ok",):
            raise sqlite3.DatabaseError("damaged")
        # A header may say that the file can be read only.
        index.execute("begin immediate")
        index.execute("rollback")
    except UnicodeDecodeError as error:  # in SQLite's message, which quotes what is damaged
        index.close()
        raise sqlite3.DatabaseError("damaged") from error
    except BaseException:
        index.close()
        raise
    return index


def _schema(index: sqlite3.Connection) -> list[tuple[object, ...]]:
    return index.execute("select type, name, tbl_name, sql from sqlite_master order by name").fetchall()


def _expected(tables: str) -> list[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(":memory:")) as index:
        index.text_factory = bytes
        index.executescript(tables)
        return _schema(index)
