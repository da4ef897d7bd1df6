"""SQLite files that can be made again and may be damaged: what is read from them is right, or missing.

Since SQLite has no checksums, each row carries one. Damage to a file as a whole is noticed when it is opened; the file
is then replaced.
"""

import contextlib
import os
import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

# The file isn't to blame: another process writes, the disk is full, access isn't allowed. Anything else is damage.
_OF_THE_SYSTEM = frozenset(
    {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN}
    | {sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_PERM, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_INTERRUPT}
)


def open_checked(path: Path, tables: str) -> tuple[sqlite3.Connection, bool]:
    """Open or create an SQLite file with these tables, for use by any thread.

    Returns the connection, which gives texts as bytes, and whether a damaged file was replaced. Raises OSError or
    sqlite3.Error where it can't be used, for another reason than damage.
    """
    try:
        return _open(path, tables), False
    except sqlite3.Error as error:
        if not is_damage(error, path):
            raise
    remove(path)
    return _open(path, tables), True


@contextlib.contextmanager
def erasing(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection in which rows can be deleted for good.

    SQLite leaves deleted rows, and copies of rows that it moved to another page, in the unused parts of a file. So the
    file is rewritten at the end. Raises sqlite3.Error, also if another process keeps the file.
    """
    with contextlib.closing(sqlite3.connect(path, timeout=10, isolation_level=None)) as index:
        index.execute("pragma secure_delete = on")
        yield index
        index.execute("vacuum")


def is_damage(error: Exception, path: Path) -> bool:
    """Whether the file's content caused an error, so that a new file would help."""
    if not isinstance(error, sqlite3.Error):
        return False
    code = getattr(error, "sqlite_errorcode", None)
    if code is not None and code & 0xFF == sqlite3.SQLITE_READONLY:  # a damaged header may claim this
        return os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)
    return code is None or code & 0xFF not in _OF_THE_SYSTEM


def remove(path: Path) -> None:
    """Remove an SQLite file and its journals."""
    for suffix in ("", "-journal", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + suffix).unlink()


def checksum(values: Iterable[object]) -> int:
    """CRC-32 of a row's values and their types; texts count as bytes."""
    return zlib.crc32(repr([value.encode() if isinstance(value, str) else value for value in values]).encode())


def _open(path: Path, tables: str) -> sqlite3.Connection:
    index = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
    try:
        index.text_factory = bytes  # a text may be damaged: check it before decoding
        # A power cut may lose the last entries, which can be made again.
        index.execute("pragma synchronous = off")
        index.executescript(tables)
        if _schema(index) != _expected(tables):
            raise sqlite3.DatabaseError("other tables than expected")
        found = index.execute("pragma quick_check(1)").fetchone()
        if found != (b"ok",):
            raise sqlite3.DatabaseError("damaged")
        # A damaged header may say that the file is read-only.
        index.execute("begin immediate")
        index.execute("rollback")
    except UnicodeDecodeError as error:  # SQLite's message quotes the damage
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
