"""Where compiled kernels are kept, so that every edit of their sources is noticed.

Numba keys its cache by the file that a function stands in, and so misses edits of the helpers that the function calls
in other files. Here the folder itself is named by a hash of all of a backend's sources, and of what compiles them.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numba
import platformdirs
from numba.core import config as _numba_config

config: Any = _numba_config  # its attributes are made at run time


@cache
def code_folder(sources: Path, *compiler: str) -> str:
    """The folder for the compiled code of the modules in ``sources``: in the user's NUMBA_CACHE_DIR, else in facecnn's
    cache (FACECNN_CACHE_DIR, or the system's place for caches), else, where that can't be written to, a temporary one.

    ``compiler``: what the code depends on besides the sources and Numba's version.
    """
    digest = hashlib.sha256()
    for part in (numba.__version__, *compiler):
        digest.update(part.encode() + b"\0")
    for source in [sources.parent / "protocol.py", *sorted(sources.glob("*.py"))]:
        digest.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    own = os.environ.get("FACECNN_CACHE_DIR") or platformdirs.user_cache_dir("facecnn", appauthor=False)
    base = Path(config.CACHE_DIR) / "facecnn" if config.CACHE_DIR else Path(own).expanduser() / "kernels"
    folder = base / digest.hexdigest()[:32]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return tempfile.mkdtemp(prefix="facecnn-kernels-")
    return str(folder)


def code_files(folder: str) -> set[Path]:
    """The compiled functions that are kept there, a file for each; of other networks' kernels, maybe."""
    return set(Path(folder).rglob("*.nbc"))


@contextmanager
def kept_in(folder: str) -> Iterator[None]:
    """What Numba's decorators are applied to meanwhile is kept there. Numba reads the folder when it decorates; it is
    put back, since it is meant for all users of Numba."""
    before = config.CACHE_DIR
    config.CACHE_DIR = folder
    try:
        yield
    finally:
        config.CACHE_DIR = before
