"""The cache of compiled kernels, which notices every edit of their sources and every damaged file.

Numba keys its cache by the file of a function, and so misses edits of the helpers that it calls in other files. Here
the folder's name is a hash of all of a backend's sources, and of the versions of what compiles them.

Numba unpickles whatever it finds, and has LLVM link the machine code in it: a truncated file or a flipped bit ends the
process, or worse. Here each file begins with a hash of the rest, which is checked first. A damaged file is deleted, and
the function compiled again.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numba
from filelock import FileLock, Timeout
from numba.core import caching
from numba.core import config as _numba_config

from facecnn.errors import shown
from facecnn.kernels.compilation import waiting
from facecnn.kernels.notes import Notes
from facecnn.photos.cache_folder import CACHE_VARIABLE, cache_folder, make_private

config: Any = _numba_config  # its attributes are made at run time

_FORMAT = b"2"
"""Of the files; part of the hash in their folder's name."""

_SHARED = ("formulas.py", "protocol.py", "update_rules.py")
"""Modules outside a backend's folder that its compiled code depends on."""

_LONGEST_WAIT = 60.0
"""Seconds for another process to compile a function; it may have failed."""

_TOLD_EVERY = 1.0
"""Seconds of waiting after which the user is told that it goes on."""

_HASH = hashlib.sha256
_HASH_BYTES = 32


# Where


@cache
def code_folder(sources: Path, *compiler: str) -> str | None:
    """The folder for the compiled code of the modules in ``sources`` and its subfolders, and of those that all backends
    share: in the user's NUMBA_CACHE_DIR, else in facecnn's cache folder. None, with a note, where that can't be written
    to.

    ``compiler``: what the code depends on besides the sources and Numba's version.
    """
    digest = hashlib.sha256(_FORMAT)
    for part in (numba.__version__, *compiler):
        digest.update(part.encode() + b"\0")
    for source in [*(sources.parent / name for name in _SHARED), *sorted(sources.rglob("*.py"))]:
        digest.update(source.relative_to(sources.parent).as_posix().encode() + b"\0" + source.read_bytes() + b"\0")
    base = Path(config.CACHE_DIR) / "facecnn" if config.CACHE_DIR else cache_folder() / "kernels"
    folder = base / digest.hexdigest()[:32]
    try:
        make_private(folder)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        _note_not_kept(base, error)
        return None
    return str(folder)


def code_files(folder: str | None) -> set[Path]:
    """The compiled functions in the folder, a file for each; perhaps of other networks' kernels."""
    return set() if folder is None else set(Path(folder).rglob("*.nbc"))


# Notes


_notes = Notes()


def notes_told(tell: Callable[[str], None]) -> AbstractContextManager[None]:
    """Within the context, ``tell`` is called once with each note about the cache, first with those from before."""
    return _notes.told(tell)


def notes() -> tuple[str, ...]:
    """The notes so far."""
    return tuple(_notes.texts)


def _note_not_kept(folder: str | Path, error: OSError) -> None:
    _notes.add(
        f"{shown(folder)}: compiled kernels can't be kept there ({error.strerror or error}), so every command compiles "
        f"them anew: make room there, or set {CACHE_VARIABLE} to a folder that can be written to"
    )


# Keeping


def keep(dispatcher: Any, kind: Any, folder: str | None) -> None:
    """Have what ``dispatcher`` compiles kept in ``folder``, as its decorator's ``cache=True`` would; not at all with
    None. ``kind``: the cache that Numba has for such functions."""
    if folder is None:
        return
    with _kept_in(folder):
        try:
            checked: Any = type("CheckedCache", (_CheckedCache, kind), {})
            dispatcher._cache = checked(dispatcher.py_func)
        except RuntimeError:  # Numba's word for a folder that it can't make or write to
            _note_not_kept(Path(folder).parent, OSError("no room, or no permission to write"))


class Locator(caching.UserProvidedCacheLocator):
    """Numba would name a folder by the path of the sources, so every checkout and every virtual environment would
    compile the same code again."""

    @classmethod
    def get_suitable_cache_subpath(cls, py_file: str) -> str:
        return Path(py_file).parent.name


_configuring = threading.Lock()


@contextmanager
def _kept_in(folder: str) -> Iterator[None]:
    """Numba reads where to keep things when a cache is made; it is put back, since it is meant for all users of
    Numba. One thread at a time: the code of another would be kept where this one wants it."""
    with _configuring:
        before = config.CACHE_DIR, config.CACHE_LOCATOR_CLASSES
        config.CACHE_DIR, config.CACHE_LOCATOR_CLASSES = folder, f"{__name__}.{Locator.__name__}"
        try:
            yield
        finally:
            config.CACHE_DIR, config.CACHE_LOCATOR_CLASSES = before


_AnyCache: Any = object  # mypy doesn't know what Numba's caches have


class _CheckedCache(_AnyCache):  # type: ignore[misc]
    """Replaces parts of one of Numba's caches, the other base class: files are checked, and none are kept where they
    can't be written."""

    _cache_file: Any

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self._cache_file = _CheckedFiles(self._cache_file, self._impl.filename_base)
        self._lock: FileLock | None = None
        """Held while the function is compiled for some types. Made each time: a forked process may not use its
        parent's."""

    def load_overload(self, signature: Any, target: Any) -> Any:
        """If there is none, it is compiled next, and other processes that need it wait until it is kept."""
        found = super().load_overload(signature, target)
        if found is None and self._lock is None:
            lock = self._lock_of(signature, target)
            with suppress(OSError, NotImplementedError, Timeout):
                _acquire(lock)
                found = super().load_overload(signature, target)
                if found is None:
                    self._lock = lock
                else:
                    lock.release()
        return found

    def is_taken(self, signature: Any, target: Any) -> bool:
        """Whether another process is compiling it now."""
        try:
            with self._lock_of(signature, target).acquire(timeout=0):
                return False
        except Timeout:
            return True
        except (OSError, NotImplementedError):
            return False

    def is_kept(self, signature: Any, target: Any) -> bool:
        """Whether it needn't be compiled."""
        return self._index_key(signature, target.codegen()) in self._cache_file._load_index()

    def _lock_of(self, signature: Any, target: Any) -> FileLock:
        key = hashlib.sha256(repr(self._index_key(signature, target.codegen())).encode()).hexdigest()
        return FileLock(self._place(f".{key[:16]}.lock"), thread_local=False)

    def _place(self, suffix: str) -> Path:
        return Path(self._cache_path, f"{self._impl.filename_base}{suffix}")

    def save_overload(self, signature: Any, compiled: Any) -> None:
        index = FileLock(self._place(".lock"), _LONGEST_WAIT, thread_local=False)
        try:
            with ExitStack() as held:
                # Its index is read, and written with one entry more.
                with suppress(OSError, NotImplementedError, Timeout):
                    held.enter_context(index)
                super().save_overload(signature, compiled)
        except OSError as error:
            _note_not_kept(Path(self._cache_path).parent.parent, error)
        finally:
            if self._lock is not None:
                self._lock.release(force=True)
                self._lock = None


def _acquire(lock: FileLock) -> None:
    """Acquire the lock of a function, and tell if another process has it. Raises Timeout, OSError,
    NotImplementedError."""
    with suppress(Timeout):
        lock.acquire(timeout=0)
        return
    left = _LONGEST_WAIT
    with waiting() as still_waiting:
        while True:
            wait = min(left, _TOLD_EVERY)
            left -= wait
            try:
                lock.acquire(timeout=wait)
                return
            except Timeout:
                if left <= 0:
                    raise
            still_waiting()


_Files: Any = caching.IndexDataCacheFile


class _CheckedFiles(_Files):  # type: ignore[misc]
    """A function's index, and its machine code for each signature, in files that begin with their hash.

    The code lies beside the signature that it is for: of two processes that compile the same function for different
    signatures at once, one may overwrite the other's file.
    """

    def __init__(self, files: Any, name: str) -> None:
        """Instead of ``files``, Numba's own."""
        super().__init__(files._cache_path, name, files._source_stamp)
        self._dump = files._dump  # CUDA has one of its own

    def save(self, key: Any, data: Any) -> None:
        super().save(key, (key, data))

    def load(self, key: Any) -> Any:
        entry = super().load(key)
        return entry[1] if entry is not None and entry[0] == key else None

    def _load_index(self) -> dict[Any, str]:
        content = self._read(self._index_path)
        if content is None:
            return {}
        stamp, overloads = pickle.loads(content)
        return overloads if stamp == self._source_stamp else {}

    def _save_index(self, overloads: dict[Any, str]) -> None:
        self._write(self._index_path, (self._source_stamp, overloads))

    def _load_data(self, name: str) -> Any:
        content = self._read(self._data_path(name))
        return None if content is None else pickle.loads(content)

    def _save_data(self, name: str, data: Any) -> None:
        self._write(self._data_path(name), data)

    def _read(self, path: str) -> memoryview | None:
        """The content of a file behind its hash; None if it doesn't exist or is damaged."""
        try:
            whole = memoryview(Path(path).read_bytes())
        except OSError:
            return None
        content = whole[_HASH_BYTES:]
        if whole[:_HASH_BYTES] == _digest(path, content):
            return content
        _notes.add(
            f"{shown(Path(path).parent.parent)}: files of compiled kernels in it are damaged; they are deleted, and "
            "the kernels compiled again"
        )
        with suppress(OSError):
            os.unlink(path)  # noqa: PTH108 (Numba has it as text)
        return None

    def _write(self, path: str, data: Any) -> None:
        content = self._dump(data)
        with self._open_for_write(path) as file:
            file.write(_digest(path, content))
            file.write(content)


def _digest(path: str, content: bytes | memoryview) -> bytes:
    """The file's name counts: a whole file in another one's place is wrong, too."""
    digest = _HASH(os.path.basename(path).encode() + b"\0")  # noqa: PTH119
    digest.update(content)
    return digest.digest()
