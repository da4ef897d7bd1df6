"""The folder for everything that can be made again: prepared photos, found faces, compiled kernels."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import platformdirs

CACHE_VARIABLE = "FACECNN_CACHE_DIR"
"""Environment variable that names another cache folder."""


def cache_folder() -> Path:
    """The user's cache folder, or ``FACECNN_CACHE_DIR``."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("facecnn", appauthor=False))


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
