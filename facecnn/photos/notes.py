"""Remarks on single photos, and how to sum them up."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from facecnn.photos.folder import some


class Note(NamedTuple):
    """The printable path of a photo and a remark: ``3 frames, the first used``."""

    path: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}: {self.text}"


def grouped(notes: Sequence[Note]) -> list[str]:
    """One line for each kind of note, with a count and the first few photos; a kind is a text without its number."""
    kinds: dict[str, list[Note]] = {}
    for note in notes:
        kinds.setdefault(re.sub(r"^[0-9]+ ", "several ", note.text), []).append(note)
    return [
        str(same[0]) if len(same) == 1 else f"{text}: {len(same)} photos ({some([note.path for note in same])})"
        for text, same in kinds.items()
    ]
