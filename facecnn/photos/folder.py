"""Finds out which files belong to which person, in a folder with a folder for each. Only folders are opened."""

import contextlib
import difflib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from facecnn.errors import PhotoError, natural_order, shown
from facecnn.photos.companions import PLACEHOLDER, companion, describe

UNKNOWN = "unknown"
"""Name of the folder of strangers, in lower or upper case, and of their class."""

UNCLEAR, GROUPS = "unclear", "groups.csv"
"""Names in the folder that ``facecnn group`` makes: the folder of photos in which nobody was recognised, which isn't a
person, and the table."""

_LAYOUT = "expected {folder}/PERSON/photo.jpg"

# Names in lower case; those that start with a dot are left out anyway.
_SYSTEM_NAMES = frozenset(
    {"thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "picasa.ini", "icon\r", "$recycle.bin"}
    | {"system volume information", "__macosx", "lost+found", "@eadir", "@recycle", "#recycle", "#snapshot"}
)
_UNFINISHED = ("~", ".part", ".crdownload", ".tmp")

# Content decides what is a photo. Names only help messages to guess what somebody meant.
_PICTURE_NAME = re.compile(r"\.(jpe?g|png|bmp|gif|webp|tiff?|p[gpn]m|heic|heif|mpo)\Z", re.IGNORECASE)
_ARCHIVE_NAME = re.compile(r"\.(zip|rar|7z|tar|tgz|tar\.\w+)\Z", re.IGNORECASE)

# Any of these marks a folder as the output of training: the pictures in it aren't photos.
_RUN_FILES = frozenset({"metrics.jsonl", "last.safetensors", "best.safetensors", "split.json"})


class Skipped(NamedTuple):
    """The printable path of a photo or folder that isn't used, and why."""

    path: str
    reason: str


class UnsortedFiles(NamedTuple):
    """The files in a folder of unsorted photos."""

    files: list[Path]
    """Sorted."""
    passed_over: Counter[str]
    """Number of files of each suffix that were skipped; see ``companions``."""
    warnings: list[str]


@dataclass
class Scan:
    """The files in a folder of photos."""

    folder: Path
    people: dict[str, list[Path]] = field(default_factory=dict)
    """Files of each person in order; people are sorted by name."""
    unknown: list[Path] = field(default_factory=list)
    """The strangers' files."""
    left_out: list[Skipped] = field(default_factory=list)
    """Photos outside of any person's folder."""
    warnings: list[str] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)
    """Number of files of each suffix that were skipped; see ``companions``."""

    @property
    def classes(self) -> dict[str, list[Path]]:
        """The people, then ``unknown`` if it has files."""
        return self.people | ({UNKNOWN: self.unknown} if self.unknown else {})


def is_folder(path: Path) -> bool:
    """Like ``Path.is_dir``, but False for what can't be examined; reading it will report why."""
    return os.path.isdir(path)  # noqa: PTH112


def readable_name(path: str | os.PathLike[str]) -> str:
    r"""A name as valid UTF-8, in which other bytes are written as ``\xNN``."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def scan(folder: str | os.PathLike[str]) -> Scan:
    """Find the people and their files.

    A person is a folder directly in ``folder``. All regular and special files in and below it belong to the person,
    except those that are skipped by suffix (see ``companions``). ``unknown``, in lower or upper case, holds strangers.
    Names are NFC-normalised and sorted. Hidden files, those of operating systems, unfinished downloads and the output
    of training are skipped silently. A folder that several links lead to is read once. Raises PhotoError where the
    folder is missing, not a folder or can't be opened; no person has files; the names of two folders read the same; or
    there are two folders of strangers.
    """
    root = Path(folder)
    refuse_no_folder(root)
    result = Scan(root)
    walk = _Walk(root)
    folders, beside = _folders_and_photos(root, walk)
    owned: dict[str, Path] = {}
    for name, person in folders.items():  # before any is read, so that no link claims a person's folder
        if walk.is_first(person):
            owned[name] = person
        else:
            walk.warnings.append(f"{shown(name)}: a link to a folder that is read already, left out")
    strangers = ""
    for name in sorted(owned):
        files = list(walk.files(owned[name]))
        if not files and not walk.met_run:
            walk.warnings.append(f"{shown(name)}: no photos, left out")
        elif files and name.casefold() == UNKNOWN:
            if strangers:
                both = f"{shown(strangers)} and {shown(name)}"
                raise PhotoError(f"{shown(root)}: two folders of strangers, {both}: move all their photos into one")
            strangers, result.unknown = name, files
        elif files:
            result.people[name] = files
    result.warnings, result.passed_over = walk.warnings, walk.passed_over
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


def list_photos(folder: str | os.PathLike[str]) -> UnsortedFiles:
    """All files in and below a folder that may be photos, sorted, without those that ``scan`` skips.

    Raises PhotoError where the folder is missing, not a folder, can't be opened, or has no photos.
    """
    root = Path(folder)
    refuse_no_folder(root)
    walk = _Walk(root)
    files = list(walk.files(root))
    if not files:
        instead = describe(walk.passed_over)
        raise PhotoError(f"{shown(root)}: no photos in it" + (f", but {instead}" if instead else ""))
    return UnsortedFiles(files, walk.passed_over, walk.warnings)


def remarks(passed_over: Mapping[str, int], warnings: Sequence[str] = ()) -> list[str]:
    """What to tell the user about files that are skipped, one remark a line."""
    files = describe(passed_over)
    return [*warnings, f"Passed over, as no photos by their names: {files}"] if files else list(warnings)


def class_order(name: str) -> tuple[object, ...]:
    """Sort key for classes: people in natural order (s2 before s10), strangers last."""
    return (name == UNKNOWN, natural_order(name))


def some(names: Sequence[str], limit: int = 3) -> str:
    """The first few names and the number of the others, to keep a message on one line."""
    more = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {more} more" if more > 0 else "")


class _Walk:
    """Walks through folders, reads each of them once, and notes what is skipped."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._seen: dict[tuple[int, int], Path] = {_identity(root): root}
        self.warnings: list[str] = []
        self.passed_over: Counter[str] = Counter()
        self.met_run = False
        """Whether the last call of ``files`` met the output of training."""

    def is_first(self, folder: Path) -> bool:
        """Whether no other path has led to this folder before."""
        return self._seen.setdefault(_identity(folder), folder) is folder

    def files(self, folder: Path) -> Iterator[Path]:
        """The files in and below a folder, sorted. Iterative, because folders can be nested very deep."""
        self.met_run = False
        waiting = [folder]
        while waiting:
            path = waiting.pop()
            if not is_folder(path):
                yield path
                continue
            if path is not folder and not self.is_first(path):
                continue
            names = _names(path)
            if not _RUN_FILES.isdisjoint(names):
                self.met_run = True
                continue
            if path is not folder and _PICTURE_NAME.search(path.name):
                name = shown(path.relative_to(self._root))
                self.warnings.append(f"{name}: a folder, not a photo; what is in it is read")
            waiting += reversed(self.entries(path, names))

    def entries(self, folder: Path, names: Sequence[str]) -> list[Path]:
        """A folder's entries sorted by name, without hidden, system and unfinished files and photos' companions."""
        kept = []
        for name in sorted(names, key=readable_name):
            path = folder / name
            suffix = companion(name)
            if name.lower() in _SYSTEM_NAMES or name.lower().endswith(_UNFINISHED):
                continue
            if name.startswith(".") and suffix != PLACEHOLDER:
                if name.startswith("..") and is_folder(path):  # more likely a name than meant to be hidden
                    where = shown(path.relative_to(self._root))
                    self.warnings.append(f"{where}: hidden, as its name begins with dots, and left out: rename it")
            elif suffix is not None and not is_folder(path):
                self.passed_over[suffix] += 1
            else:
                kept.append(path)
        return kept


def _folders_and_photos(root: Path, walk: _Walk) -> tuple[dict[str, Path], list[Path]]:
    """The folders in ``root``, by name, and the photos beside them. Raises PhotoError."""
    folders: dict[str, Path] = {}
    beside = []
    names = _names(root)
    if GROUPS in names:
        names = [name for name in names if name != UNCLEAR]
    for entry in walk.entries(root, names):
        if is_folder(entry):
            name = unicodedata.normalize("NFC", readable_name(entry.name))
            if name in folders:
                both = f"{_codes(folders[name].name)} and {_codes(entry.name)}"
                raise PhotoError(f"{shown(root)}: two folders that read the same, {both}: rename or merge them")
            folders[name] = entry
        elif _PICTURE_NAME.search(entry.name):
            beside.append(entry)
    return folders, beside


def refuse_no_folder(root: Path) -> None:
    """Raise PhotoError if there is no such folder, with what is there instead or may have been meant."""
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


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208 (names, not paths, are filtered and sorted)
    except PermissionError as error:
        raise PhotoError(f"{shown(folder)}: no permission to open the folder: chmod u+rx, or move it away") from error
    except OSError as error:
        raise _unreadable(folder, error) from error


def _identity(folder: Path) -> tuple[int, int]:
    try:
        status = folder.stat()
    except OSError as error:
        raise _unreadable(folder, error) from error
    return status.st_dev, status.st_ino


def _unreadable(folder: Path, error: OSError) -> PhotoError:
    reason = error.strerror or str(error)
    return PhotoError(f"{shown(folder)}: the folder can't be read ({reason}): check the path and the disk")


def _codes(name: str) -> str:
    """A name with code points in place of all but ASCII, to distinguish names that look the same."""
    return ascii(readable_name(name))


def _look_alikes(names: list[str]) -> list[str]:
    """Warnings about names that differ only in case, spaces or punctuation."""
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
    """A name's letters and digits, case-folded; separate numbers stay separate (``1-11`` isn't ``11-1``)."""
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    kept = "".join(" " if unicodedata.category(letter)[0] in "PZC" else letter for letter in plain)
    return re.sub(r" +(?!\d)|(?<!\d) +", "", re.sub(r" +", " ", kept))
