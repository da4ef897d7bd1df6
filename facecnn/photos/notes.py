"""What is good to know about single photos, and how to say it in few lines."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from facecnn.photos.folder import some


class Note(NamedTuple):
    """A photo, as it can be printed, and what there is to know about it: ``3 frames, the first used``."""

    path: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}: {self.text}"


def grouped(notes: Sequence[Note]) -> list[str]:
    """A line for each kind of note, with a count and the first few photos; kinds differ in more than a number."""
    kinds: dict[str, list[Note]] = {}
    for note in notes:
        kinds.setdefault(re.sub(r"^[0-9]+ ", "several ", note.text), []).append(note)
    return [
        str(same[0]) if len(same) == 1 else f"{text}: {len(same)} photos ({some([note.path for note in same])})"
        for text, same in kinds.items()
    ]
