"""A folder with one folder of photos per person → which files are whose. Nothing is opened but folders."""

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
"""Name of the folder of strangers, who are nobody's photos, in lower or upper case; their class is always named so."""

_LAYOUT = "expected {folder}/PERSON/photo.jpg"

# By name, all in lower case; what starts with a dot is left out anyway.
_SYSTEM_NAMES = frozenset(
    {"thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "picasa.ini", "icon\r", "$recycle.bin"}
    | {"system volume information", "__macosx", "lost+found", "@eadir", "@recycle", "#recycle", "#snapshot"}
)
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


class Listing(NamedTuple):
    """The files in a folder of anybody's photos."""

    files: list[Path]
    """Sorted."""
    passed_over: Counter[str]
    """How many files of each suffix were passed over; see ``companions``."""
    warnings: list[str]


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
    passed_over: Counter[str] = field(default_factory=Counter)
    """How many files of each suffix were passed over; see ``companions``."""

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
    the person, but for those that are passed over by their suffix (see ``companions``). ``unknown``, in lower or upper
    case, has the strangers. Names are NFC-normalised and sorted. Hidden files, those of operating systems, unfinished
    downloads and folders written by a training are left out in silence. A folder that links lead to more than once is
    read once.

    Raises:
        PhotoError: the folder is missing, no folder, can't be opened, has no person folders with files in it, has two
            whose names read the same, or two of strangers.
    """
    root = Path(folder)
    refuse_no_folder(root)
    result = Scan(root)
    walk = _Walk(root)
    folders: dict[str, Path] = {}
    beside = []
    for entry in walk.entries(root, _names(root)):
        if is_folder(entry):
            name = unicodedata.normalize("NFC", readable_name(entry.name))
            if name in folders:
                both = f"{_codes(folders[name].name)} and {_codes(entry.name)}"
                raise PhotoError(f"{shown(root)}: two folders that read the same, {both}: rename or merge them")
            folders[name] = entry
        elif _PICTURE_NAME.search(entry.name):
            beside.append(entry)
    owned: dict[str, Path] = {}
    for name, person in folders.items():  # before any is read, so that no link takes a person's folder away
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


def list_photos(folder: str | os.PathLike[str]) -> Listing:
    """All files in a folder and below it that may be photos, sorted; left out is what ``scan`` leaves out.

    Raises:
        PhotoError: the folder is missing, no folder, can't be opened, or there is nothing in it.
    """
    root = Path(folder)
    refuse_no_folder(root)
    walk = _Walk(root)
    files = list(walk.files(root))
    if not files:
        instead = describe(walk.passed_over)
        raise PhotoError(f"{shown(root)}: no photos in it" + (f", but {instead}" if instead else ""))
    return Listing(files, walk.passed_over, walk.warnings)


def remarks(passed_over: Mapping[str, int], warnings: Sequence[str] = ()) -> list[str]:
    """What to say of what isn't read in a folder, a line each."""
    files = describe(passed_over)
    return [*warnings, f"Passed over, as no photos by their names: {files}"] if files else list(warnings)


def class_order(name: str) -> tuple[object, ...]:
    """A key to list classes by: people as their names are read, s2 before s10, and strangers last."""
    return (name == UNKNOWN, natural_order(name))


def some(names: Sequence[str], limit: int = 3) -> str:
    """A few of the names and how many more there are, so that a message stays a line."""
    more = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {more} more" if more > 0 else "")


class _Walk:
    """Goes through folders, each of which is read once, and notes what is left out."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._seen: dict[tuple[int, int], Path] = {_identity(root): root}
        self.warnings: list[str] = []
        self.passed_over: Counter[str] = Counter()
        self.met_run = False
        """Whether the last ``files`` came upon a folder that a training wrote."""

    def is_first(self, folder: Path) -> bool:
        """Whether no other path led to this folder before."""
        return self._seen.setdefault(_identity(folder), folder) is folder

    def files(self, folder: Path) -> Iterator[Path]:
        """The files in and below a folder, sorted. Not recursive: folders may be nested as deep as a path is long."""
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
        """A folder's entries, sorted by name, without hidden, system's and unfinished ones and photos' companions."""
        kept = []
        for name in sorted(names, key=readable_name):
            path = folder / name
            suffix = companion(name)
            if name.lower() in _SYSTEM_NAMES or name.lower().endswith(_UNFINISHED):
                continue
            if name.startswith(".") and suffix != PLACEHOLDER:
                if name.startswith("..") and is_folder(path):  # more likely somebody's name than meant to be hidden
                    where = shown(path.relative_to(self._root))
                    self.warnings.append(f"{where}: hidden, as its name begins with dots, and left out: rename it")
            elif suffix is not None and not is_folder(path):
                self.passed_over[suffix] += 1
            else:
                kept.append(path)
        return kept


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


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208 (names, not paths, are filtered and sorted)
    except PermissionError as error:
        raise PhotoError(f"{shown(folder)}: no permission to open the folder: chmod u+rx, or move it away") from error
    except OSError as error:
        text = error.strerror or str(error)
        raise PhotoError(f"{shown(folder)}: the folder can't be read ({text}): check the path and the disk") from error


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
