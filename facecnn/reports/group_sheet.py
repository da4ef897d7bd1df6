"""The contact sheet of ``group``: a page with the faces of each group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from facecnn.photos.folder import UNCLEAR
from facecnn.reports.contact_sheet import PAGE
from facecnn.reports.page import link_to, rendered, thumbnail
from facecnn.runs.atomic import write_atomically


@dataclass(frozen=True)
class FaceCard:
    """A face on the sheet."""

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


def write_group_sheet(folder: Path, sheet: GroupSheet) -> Path:
    """Write the page into the folder, and return its path. Raises OutputError."""

    def link(file: Path) -> str:
        return link_to(file, folder) or file.absolute().as_uri()

    path = folder / PAGE
    page = rendered("group_sheet.html", sheet=sheet, link=link, thumbnail=thumbnail)
    write_atomically(path, page.encode())
    return path
