"""Copy or link photos of an unsorted album into folders. Originals are only read, and no file is ever replaced."""

import errno
import os
from pathlib import Path

from facecnn.errors import PhotoError, UsageError, shown
from facecnn.jobs.console import Console
from facecnn.photos.decode import read
from facecnn.photos.folder import is_folder, list_photos, remarks
from facecnn.reports.findings import counted
from facecnn.runs.atomic import write_atomically

_LONGEST_NAME = 255  # bytes: what most file systems take


def photos_to_place(source: Path, destination: Path, console: Console) -> list[Path]:
    """The photos of ``source``, without those within ``destination`` (unless all of ``source`` is).

    ``source``: a folder of photos, or one photo. Raises UsageError if the two are the same folder, and PhotoError
    if there are no photos in ``source``.
    """
    if os.path.lexists(source) and not is_folder(source):
        return [source]
    outer, inner = (Path(os.path.realpath(path)) for path in (source, destination))
    if outer == inner:
        raise UsageError(f"{shown(destination)}: the same folder as the photos': choose another one to sort them into")
    listing = list_photos(source)
    for line in remarks(listing.passed_over, listing.warnings):
        console.info(line)
    found = listing.files
    if outer.is_relative_to(inner):
        return found
    folders: dict[Path, bool] = {}
    files = []
    for path in found:
        if path.parent not in folders:
            folders[path.parent] = Path(os.path.realpath(path.parent)).is_relative_to(inner)
        if not folders[path.parent]:
            files.append(path)
    if not files:
        raise PhotoError(f"{shown(source)}: no photos in it, but those in {shown(destination)}")
    if any(folders.values()):
        console.info(f"Not read: what is in {shown(destination)}, which lies within {shown(source)}")
    return files


class Copier:
    """Copies photos, and counts what it does."""

    def __init__(self, *, link: bool) -> None:
        """``link``: make hard links, which take no space, and copies only where that fails."""
        self._link = link
        self.copied = self.linked = self.already_there = 0
        self._not_linked = 0
        self._why_not_linked = ""

    @property
    def doing(self) -> str:
        """What it does, for a progress bar."""
        return "Linking photos" if self._link else "Copying photos"

    def put(self, photo: Path, target: Path) -> None:
        """Copy or link a photo, with its times, to a path where nothing is. Raises UnusablePhoto, OutputError."""
        if self._link and self._linked(photo, target):
            self.linked += 1
            return
        data, status = read(photo, largest=None), photo.stat()
        write_atomically(target, data, times=(status.st_atime_ns, status.st_mtime_ns))
        self.copied += 1

    def report(self, console: Console) -> None:
        """Say how many links couldn't be made, if any, and why."""
        if self._not_linked:
            copies = counted(self._not_linked, "copy", "copies")
            console.info(f"Links couldn't be made ({self._why_not_linked}): {copies} instead")

    def _linked(self, photo: Path, target: Path) -> bool:
        try:
            os.link(os.path.realpath(photo), target)
        except OSError as error:  # if more than linking fails, copying raises
            other_system = error.errno == errno.EXDEV
            self._why_not_linked = "another file system" if other_system else error.strerror or str(error)
            self._not_linked += 1
            return False
        return True


def numbered_name(name: str, number: int) -> str:
    """The name of the ``number``-th of several files of one name: photo.jpg, photo-2.jpg, …"""
    if number == 1:
        return name
    path = Path(name)
    stem, end = path.stem, f"-{number}{path.suffix}"
    while len(stem) > 1 and len(os.fsencode(stem + end)) > _LONGEST_NAME:
        stem = stem[:-1]
    return stem + end
