"""The folder for everything that can be made again: prepared photos, found faces, compiled kernels."""

import os
from pathlib import Path

import platformdirs

CACHE_VARIABLE = "FACECNN_CACHE_DIR"
"""Environment variable that names another cache folder."""


def cache_folder() -> Path:
    """The user's cache folder, or ``FACECNN_CACHE_DIR``."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("facecnn", appauthor=False))


def make_private(folder: Path) -> None:
    """Make a folder and its missing parents, accessible to this user only. Raises OSError."""
    for missing in [*reversed(folder.parents), folder]:
        if not missing.exists():
            missing.mkdir(mode=0o700, exist_ok=True)
    folder.mkdir(exist_ok=True)  # an error where it is a file
