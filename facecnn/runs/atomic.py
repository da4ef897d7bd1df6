"""Write files atomically: whatever happens, a file is either the old one or the new one."""

import errno
import os
import secrets
from contextlib import suppress
from pathlib import Path

from facecnn.errors import OutputError, shown

TEMPORARY_SUFFIX = ".facecnn-tmp"
"""Suffix of temporary files. A killed process may leave one behind, but nothing ever reads it."""

_ANOTHER_PLACE = "choose another place"
_REASONS = {
    errno.ENOENT: ("its folder does not exist", "was it deleted or moved?"),
    errno.EACCES: ("no permission to write", "change the permissions or choose another place"),
    errno.EPERM: ("no permission to write", "change the permissions or choose another place"),
    errno.EROFS: ("read-only file system", _ANOTHER_PLACE),
    errno.EFBIG: ("larger than files may be here", "raise the limit (ulimit -f) or choose another place"),
    errno.ENOTDIR: ("a part of the path is a file, not a folder", _ANOTHER_PLACE),
    errno.EISDIR: ("a folder has this name", "move it away or choose another place"),
    errno.ENAMETOOLONG: ("the name is too long", "choose a shorter one"),
    errno.ELOOP: ("a symbolic link, which is not followed here", "delete it or choose another place"),
}


def output_error(path: Path, error: OSError, size: int | None = None) -> OutputError:
    """The OutputError that explains why ``path`` (of ``size`` bytes, if known) couldn't be written."""
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        quota = " (quota)" if error.errno != errno.ENOSPC else ""
        needed = "" if size is None else f"; needs about {max(size / 1e6, 0.1):.1f} MB"
        return OutputError(
            f"{shown(path)}: no space left on the device{quota}{needed}: free some or choose another place"
        )
    reason, remedy = _REASONS.get(error.errno or 0, (error.strerror or str(error), _ANOTHER_PLACE))
    if error.errno == errno.ENOENT and not path.is_absolute() and _working_folder_is_gone():
        reason, remedy = "the current folder no longer exists", "go to another one, or give a whole path"
    return OutputError(f"{shown(path)}: {reason}: {remedy}")


def _working_folder_is_gone() -> bool:
    try:
        Path.cwd()
    except FileNotFoundError:
        return True
    return False


def make_folder(path: Path, remedy: str = _ANOTHER_PLACE) -> None:
    """Make a folder and its parents, if missing. Raises OutputError, with a remedy where a file is in the way."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise no_folder(path, remedy) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise output_error(path, error if isinstance(error, OSError) else OSError(str(error))) from error


def no_folder(path: Path, remedy: str) -> OutputError:
    """The error where something else than a folder has its name."""
    return OutputError(f"{shown(path)}: a file, or a link to nothing, and no folder: {remedy}")


def check_output(path: Path) -> None:
    """Check that a file can be made at ``path``, so that a long job can fail before it begins.

    Raises OutputError where a folder has the name, or the parent folder is missing or can't be written to.
    """
    try:
        if path.name in ("", "..") or path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "")
        if not path.parent.is_dir():
            raise OSError(errno.ENOTDIR if path.parent.exists() else errno.ENOENT, "")
        refuse_unwritable(path.parent)
    except OSError as error:
        raise output_error(path, error) from error


def refuse_inside(folder: Path, photos: Path, why: str) -> None:
    """Raise OutputError where a folder to write to lies within a folder of photos, saying ``why`` that is bad."""
    if folder.resolve().is_relative_to(photos.resolve()):
        raise OutputError(f"{shown(folder)}: inside {shown(photos)}, where {why}: choose another")


def refuse_unwritable(folder: Path) -> None:
    """Raise OSError where no file can be made in a folder: no permission, or a read-only file system."""
    if not os.access(folder, os.W_OK | os.X_OK):
        read_only = hasattr(os, "statvfs") and os.statvfs(folder).f_flag & os.ST_RDONLY
        raise OSError(errno.EROFS if read_only else errno.EACCES, "")


def append_whole(path: Path, data: bytes, *, header: bytes = b"") -> None:
    """Append all of ``data`` to a file, or nothing. A new file begins with ``header``.

    Raises OutputError where it couldn't be written; the file is then as before.
    """
    try:
        with path.open("ab") as stream:
            before = stream.tell()
            try:
                stream.write(data if before else header + data)
                stream.flush()
            except OSError:
                with suppress(OSError):
                    os.truncate(path, before)
                raise
    except OSError as error:
        raise output_error(path, error, len(data)) from error


def write_atomically(
    path: Path, data: bytes, *, keep_old_as: Path | None = None, times: tuple[int, int] | None = None
) -> None:
    """Write a file so that a reader, a kill or a power cut finds the old file or the new one, never a part.

    The order is: temporary file in the same folder, write, flush, fsync, rename, fsync of the folder. A symbolic link
    at ``path`` is replaced; its target isn't touched. The file's mode is what the umask gives.

    Args:
        keep_old_as: the old file is first renamed to this; between the two renames, ``path`` is missing.
        times: of access and modification, in nanoseconds, as far as the file system keeps them.

    Raises:
        OutputError: it couldn't be written. The old file is intact and no temporary file is left.
    """
    if not path.name:  # "." or "/", beside which there is no name
        raise output_error(path, IsADirectoryError(errno.EISDIR, ""))
    temporary = path.with_name(f".{secrets.token_hex(8)}{TEMPORARY_SUFFIX}")
    try:
        with temporary.open("xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        if times is not None:
            with suppress(OSError):
                os.utime(temporary, ns=times)
        if keep_old_as is not None and os.path.lexists(path):
            path.replace(keep_old_as)
        temporary.replace(path)
    except OSError as error:
        raise output_error(path, error, len(data)) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make a rename durable, where the system can: Windows opens no folders, and some file systems sync none."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
