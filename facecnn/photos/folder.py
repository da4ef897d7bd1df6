"""A folder with one folder of photos per person → which files are whose. Nothing is opened but folders."""

import contextlib
import difflib
import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from facecnn.errors import PhotoError, natural_order, shown

UNKNOWN = "unknown"
"""Name of the folder of strangers, who are nobody's photos, in lower or upper case; their class is always named so."""

_LAYOUT = "expected {folder}/PERSON/photo.jpg"

# By name, all in lower case; what starts with a dot is left out anyway.
_SYSTEM_NAMES = frozenset({"thumbs.db", "desktop.ini", "__macosx", "@eadir", "lost+found", "$recycle.bin"})
_UNFINISHED = ("~", ".part", ".crdownload", ".tmp")

# A photo is known by its content; names count only where a message guesses what somebody meant.
_PICTURE_NAME = re.compile(r"\.(jpe?g|png|bmp|gif|webp|tiff?|p[gpn]m|heic|heif|mpo)\Z", re.IGNORECASE)
_ARCHIVE_NAME = re.compile(r"\.(zip|rar|7z|tar|tgz|tar\.\w+)\Z", re.IGNORECASE)

# A folder with one of these was written by a training: the pictures in it are no photos of anybody.
_RUN_FILES = frozenset({"metrics.jsonl", "last.safetensors", "best.safetensors", "split.json"})


class Skipped(NamedTuple):
    """A photo or folder that isn't used, as it can be printed, and why."""

    path: str
    reason: str


@dataclass
class Scan:
    """The files in a folder of photos."""

    folder: Path
    people: dict[str, list[Path]] = field(default_factory=dict)
    """For each person, sorted by name, the files in order."""
    unknown: list[Path] = field(default_factory=list)
    """The strangers' files."""
    left_out: list[Skipped] = field(default_factory=list)
    """Photos that are nobody's."""
    warnings: list[str] = field(default_factory=list)

    @property
    def classes(self) -> dict[str, list[Path]]:
        """The people, and ``unknown`` after them where it has files."""
        return self.people | ({UNKNOWN: self.unknown} if self.unknown else {})


def is_folder(path: Path) -> bool:
    """Whether it is a folder; False for what can't be looked at, as its reader will say why (Path.is_dir raises)."""
    return os.path.isdir(path)  # noqa: PTH112


def readable_name(path: str | os.PathLike[str]) -> str:
    r"""A name as text that can be written as UTF-8: bytes that aren't UTF-8 become ``\xNN``. Nothing else changes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def scan(folder: str | os.PathLike[str]) -> Scan:
    """Find the people and their files.

    A person is a folder directly in ``folder``; all regular and special files in it and in folders below it belong to
    the person. ``unknown``, in lower or upper case, has the strangers. Names are NFC-normalised and sorted. Hidden
    files, those of operating systems, unfinished downloads and folders written by a training are left out in silence.
    A folder that links lead to more than once is read once.

    Raises:
        PhotoError: the folder is missing, no folder, can't be opened, has no person folders with files in it, has two
            whose names read the same, or two of strangers.
    """
    root = Path(folder)
    refuse_no_folder(root)
    result = Scan(root)
    folders: dict[str, Path] = {}
    beside = []
    for entry in _entries(root):
        if is_folder(entry):
            name = unicodedata.normalize("NFC", readable_name(entry.name))
            if name in folders:
                both = f"{_codes(folders[name].name)} and {_codes(entry.name)}"
                raise PhotoError(f"{shown(root)}: two folders that read the same, {both}: rename or merge them")
            folders[name] = entry
        elif _PICTURE_NAME.search(entry.name):
            beside.append(entry)
    seen = {_identity(root): root}
    owned: dict[str, Path] = {}
    for name, person in folders.items():  # before any is read, so that no link takes a person's folder away
        if seen.setdefault(_identity(person), person) is person:
            owned[name] = person
        else:
            result.warnings.append(f"{shown(name)}: a link to a folder that is read already, left out")
    strangers = ""
    for name in sorted(owned):
        walk = _Walk(seen, result.warnings, root)
        files = list(walk.files(owned[name]))
        if not files and not walk.met_run:
            result.warnings.append(f"{shown(name)}: no photos, left out")
        elif files and name.casefold() == UNKNOWN:
            if strangers:
                both = f"{shown(strangers)} and {shown(name)}"
                raise PhotoError(f"{shown(root)}: two folders of strangers, {both}: move all their photos into one")
            strangers, result.unknown = name, files
        elif files:
            result.people[name] = files
    if not result.classes:
        where = shown(root)
        if beside:
            reason = "photos but no person folders; put each person's photos in a folder of that name"
            raise PhotoError(f"{where}: {reason}, {_LAYOUT.format(folder=where)}")
        raise PhotoError(f"{where}: no folders with photos in it; {_LAYOUT.format(folder=where)}")
    for path in beside:
        result.left_out.append(Skipped(shown(path.name), "outside any person folder"))
    if beside:
        result.warnings.append(f"{some([shown(path.name) for path in beside])}: outside any person folder, left out")
    result.warnings += _look_alikes(list(result.people))
    return result


def list_photos(folder: str | os.PathLike[str]) -> list[Path]:
    """All files in a folder and below it that may be photos, sorted; left out is what ``scan`` leaves out.

    Raises:
        PhotoError: the folder is missing, no folder, can't be opened, or there is nothing in it.
    """
    root = Path(folder)
    refuse_no_folder(root)
    files = list(_Walk({_identity(root): root}, [], root).files(root))
    if not files:
        raise PhotoError(f"{shown(root)}: no photos in it")
    return files


def class_order(name: str) -> tuple[object, ...]:
    """A key to list classes by: people as their names are read, s2 before s10, and strangers last."""
    return (name == UNKNOWN, natural_order(name))


def some(names: Sequence[str], limit: int = 3) -> str:
    """A few of the names and how many more there are, so that a message stays a line."""
    more = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {more} more" if more > 0 else "")


class _Walk:
    """Goes through the folders of one person."""

    def __init__(self, seen: dict[tuple[int, int], Path], warnings: list[str], root: Path) -> None:
        self._seen = seen
        self._warnings = warnings
        self._root = root
        self.met_run = False

    def files(self, folder: Path) -> Iterator[Path]:
        """The files in and below a folder, sorted. Not recursive: folders may be nested as deep as a path is long."""
        waiting = [folder]
        while waiting:
            path = waiting.pop()
            if not is_folder(path):
                yield path
                continue
            if path is not folder and self._seen.setdefault(_identity(path), path) is not path:
                continue
            entries = _entries(path)
            if any(entry.name in _RUN_FILES for entry in entries):
                self.met_run = True
                continue
            if path is not folder and _PICTURE_NAME.search(path.name):
                name = shown(path.relative_to(self._root))
                self._warnings.append(f"{name}: a folder, not a photo; what is in it is read")
            waiting += reversed(entries)


def refuse_no_folder(root: Path) -> None:
    """Raise PhotoError where there is no folder, with what is there instead or may have been meant."""
    where = shown(root)
    try:
        if root.is_dir():
            return
        exists = root.exists()
    except (OSError, ValueError) as error:
        raise PhotoError(f"{where}: no such folder ({shown(str(error))})") from error
    if exists and _ARCHIVE_NAME.search(root.name):
        raise PhotoError(f"{where}: an archive: unpack it first")
    if exists:
        raise PhotoError(f"{where}: a file, a folder with one folder per person is expected")
    siblings = []
    with contextlib.suppress(OSError):
        siblings = [entry.name for entry in root.parent.iterdir() if is_folder(entry)]
    near = difflib.get_close_matches(root.name, siblings, n=1)
    hint = f"; did you mean {shown(root.parent / near[0])}?" if near else ": check the path"
    raise PhotoError(f"{where}: no such folder{hint}")


def _entries(folder: Path) -> list[Path]:
    """A folder's entries, sorted by name, without hidden, system's and unfinished ones."""
    try:
        names = os.listdir(folder)  # noqa: PTH208 (names, not paths, are filtered and sorted)
    except PermissionError as error:
        raise PhotoError(f"{shown(folder)}: no permission to open the folder: chmod u+rx, or move it away") from error
    except OSError as error:
        text = error.strerror or str(error)
        raise PhotoError(f"{shown(folder)}: the folder can't be read ({text}): check the path and the disk") from error
    kept = [
        name
        for name in names
        if not name.startswith(".") and name.lower() not in _SYSTEM_NAMES and not name.lower().endswith(_UNFINISHED)
    ]
    return [folder / name for name in sorted(kept, key=readable_name)]


def _identity(folder: Path) -> tuple[int, int]:
    try:
        status = folder.stat()
    except OSError as error:
        text = error.strerror or str(error)
        raise PhotoError(f"{shown(folder)}: the folder can't be read ({text}): check the path and the disk") from error
    return status.st_dev, status.st_ino


def _codes(name: str) -> str:
    """A name with everything but ASCII as code points, for names that look the same."""
    return ascii(readable_name(name))


def _look_alikes(names: list[str]) -> list[str]:
    """Warnings about names that differ in case, spaces or punctuation only."""
    alike: dict[str, list[str]] = {UNKNOWN: [UNKNOWN]}
    for name in names:
        alike.setdefault(_letters(name) or name, []).append(name)
    return [
        "names equal but for case, spaces or punctuation are taken for different people: "
        f"{some(list(map(repr, same)))}: if they are one person, move all the photos into one folder"
        for same in alike.values()
        if len(same) > 1
    ]


def _letters(name: str) -> str:
    """A name's letters and digits, in one case; numbers that something parts stay apart (``1-11`` isn't ``11-1``)."""
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    kept = "".join(" " if unicodedata.category(letter)[0] in "PZC" else letter for letter in plain)
    return re.sub(r" +(?!\d)|(?<!\d) +", "", re.sub(r" +", " ", kept))
