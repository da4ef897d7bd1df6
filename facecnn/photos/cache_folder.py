"""The folder for everything that can be made again: prepared photos, found faces, compiled kernels."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import platformdirs

from facecnn.errors import UsageError, shown

CACHE_VARIABLE = "FACECNN_CACHE_DIR"
"""Environment variable that names another cache folder."""

SIZE_VARIABLE = "FACECNN_CACHE_GIB"
"""Environment variable: how many GiB all prepared photos may take up together."""

_USUAL_GIB, _MOST_GIB = 4.0, 1e6


def cache_folder() -> Path:
    """The user's cache folder, or ``FACECNN_CACHE_DIR``."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("facecnn", appauthor=False))


def largest_photo_cache() -> int:
    """Bytes that all prepared photos may take up together: 4 GiB, or ``FACECNN_CACHE_GIB``. Raises UsageError."""
    text = os.environ.get(SIZE_VARIABLE, "").strip()
    try:
        size = float(text or _USUAL_GIB)
    except ValueError:
        size = 0.0
    if not 0 < size <= _MOST_GIB:
        raise UsageError(f"{SIZE_VARIABLE} is {shown(text[:40])!r}: set it to a number of GiB above 0, or unset it")
    return int(size * 2**30)


_elsewhere: ContextVar[Path | None] = ContextVar("folder of what is known of photos", default=None)


def photo_cache_folder() -> Path:
    """The folder for what is known of photos: ``cache_folder``, except within ``photos_cached_in``."""
    return _elsewhere.get() or cache_folder()


@contextmanager
def photos_cached_in(folder: Path) -> Iterator[None]:
    """Within the context, what this thread learns of photos is kept in another folder."""
    token = _elsewhere.set(folder)
    try:
        yield
    finally:
        _elsewhere.reset(token)


def make_private(folder: Path) -> None:
    """Make a folder and its missing parents, accessible to this user only. Raises OSError."""
    for missing in [*reversed(folder.parents), folder]:
        if not missing.exists():
            missing.mkdir(mode=0o700, exist_ok=True)
    folder.mkdir(exist_ok=True)  # an error where it is a file
