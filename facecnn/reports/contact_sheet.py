"""Contact sheets: of ``data check --faces``, with each person's photos, and of ``group``, with each group's faces."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from facecnn.errors import OutputError, shown
from facecnn.photos.folder import UNCLEAR
from facecnn.reports.page import link_to, rendered, thumbnail
from facecnn.runs.atomic import (
    TEMPORARY_SUFFIX,
    make_folder,
    output_error,
    refuse_inside,
    refuse_unwritable,
    write_atomically,
)

PAGE = "index.html"

LARGEST_CROP = 192
"""CSS pixels of a crop's longer side at most."""

_TITLE = ": facecnn data check --faces"
_HEAD = 4096
"""Bytes at the beginning of a page that contain its title."""


@dataclass(frozen=True)
class PhotoCard:
    """A photo on the sheet of an album that is checked."""

    file: Path
    name: str
    """The file's name within its person's folder."""
    crop: np.ndarray
    """(rows, columns, 1 or 3) uint8: the face."""
    photo: np.ndarray | None
    """(rows, columns, 3) uint8: a thumbnail of the photo with its faces framed; None for fewer than two faces."""
    likeliest: str
    confidence: float | None
    reasons: Sequence[str]
    is_doubtful: bool

    @property
    def kinds(self) -> list[str]:
        """CSS classes."""
        return ["doubtful"] * self.is_doubtful + ["several"] * (self.photo is not None)


@dataclass(frozen=True)
class Sheet:
    """The contents of the page."""

    album: str
    size: tuple[int, int]
    """Width and height in pixels of the network's input; crops are shown twice as large."""
    explanation: str
    remarks: Sequence[str]
    """Remarks about the album, such as on two folders that may be one person."""
    people: Sequence[tuple[str, Sequence[PhotoCard]]]
    """Each person's name and photos, the most doubtful first."""

    @property
    def cards(self) -> list[PhotoCard]:
        """The photos of all people."""
        return [card for _, cards in self.people for card in cards]


@dataclass(frozen=True)
class FaceCard:
    """A face on the sheet of groups."""

    file: Path
    """The photo's copy."""
    crop: np.ndarray
    """(rows, columns, 3) uint8"""
    reason: str | None
    """Why the face is in no group."""


@dataclass(frozen=True)
class GroupSection:
    """A group, or the unclear faces."""

    name: str
    """Of the folder."""
    faces: int
    """In the folder, of which ``cards`` may show only some."""
    cards: Sequence[FaceCard]

    @property
    def is_person(self) -> bool:
        """Whether it is a group."""
        return self.name != UNCLEAR


@dataclass(frozen=True)
class GroupSheet:
    """The contents of the page."""

    album: str
    groups: int
    """In all, of which ``sections`` may show only the largest."""
    sections: Sequence[GroupSection]

    @property
    def left_out(self) -> int:
        """The number of groups that aren't shown."""
        return self.groups - sum(section.is_person for section in self.sections)


def check_folder(folder: Path, photos: Path) -> None:
    """Make the folder for a sheet, before the work begins.

    Raises OutputError if it holds anything but an older sheet, lies within the album, or can't be written to.
    """
    try:
        refuse_inside(folder, photos, "it would be taken for a person")
        make_folder(folder)
        refuse_unwritable(folder)
        others = [entry for entry in folder.iterdir() if not entry.name.endswith(TEMPORARY_SUFFIX)]
        if others and not (len(others) == 1 and _is_ours(others[0])):
            raise OutputError(
                f"{shown(folder)}: holds more than a contact sheet of data check: choose another, or empty it"
            )
    except OSError as error:
        raise output_error(folder, error) from error


def _is_ours(path: Path) -> bool:
    if path.name != PAGE or path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as stream:
        return f"{_TITLE}</title>".encode() in stream.read(_HEAD)


def write_contact_sheet(folder: Path, sheet: Sheet) -> Path:
    """Write the page into the folder, and return its path. Raises OutputError; an older page is then intact."""
    scale = min(2.0, LARGEST_CROP / max(sheet.size))
    width, height = (round(scale * side) for side in sheet.size)
    return _write(folder, "contact_sheet.html", sheet=sheet, title=_TITLE, width=width, height=height)


def write_group_sheet(folder: Path, sheet: GroupSheet) -> Path:
    """Write the page of ``group`` into the folder, and return its path. Raises OutputError."""
    return _write(folder, "group_sheet.html", sheet=sheet)


def _write(folder: Path, template: str, **values: Any) -> Path:
    def link(file: Path) -> str:
        # Anyone with the sheet has the album: its path is no secret.
        return link_to(file, folder) or file.absolute().as_uri()

    path = folder / PAGE
    write_atomically(path, rendered(template, link=link, thumbnail=thumbnail, **values).encode())
    return path
