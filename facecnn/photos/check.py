"""A report on a folder of photos: what would be trained on, what wouldn't, and what looks wrong."""

import textwrap
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from facecnn.errors import PhotoError, shown
from facecnn.photos.dataset import Dataset, Note, grouped, load_dataset
from facecnn.photos.doubts import same_content
from facecnn.photos.face import Finder
from facecnn.photos.folder import Skipped, class_order, remarks, some
from facecnn.photos.preparation import PhotoSettings

_COLUMNS = 80
_LINES = 20  # rows of the table of people in the text
_NAMES = 20  # names in a group of similar files in the text


@dataclass(frozen=True)
class Report:
    """What ``check`` found; names are printable."""

    folder: str
    photos: int
    """Usable photos."""
    classes: dict[str, int]
    """Usable photos of each person, in natural order of the names, then of ``unknown``."""
    validation: dict[str, int] | None
    """Photos of each class that would be held out with seed 0; None if the photos can't be split."""
    sizes: dict[str, dict[str, int]]
    """``min``, ``median`` and ``max`` of ``width`` and ``height`` of the upright originals, in pixels."""
    skipped: list[Skipped]
    passed_over: dict[str, int]
    """Number of files of each suffix that aren't photos by their names; see ``companions``."""
    copies: list[list[str]]
    """Files of equal content."""
    same_pictures: list[list[str]]
    """Groups of files with different content that show the same picture."""
    warnings: list[str]
    notes: list[Note]
    several_faces: int
    """Usable photos with more than one face."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        fields = {name: value for name, value in vars(self).items() if name != "validation"}
        return fields | {
            "photos": {"usable": self.photos, "skipped": len(self.skipped)},
            "classes": [
                {"name": name, "photos": count, "validation": self.validation and self.validation[name]}
                for name, count in self.classes.items()
            ],
            "skipped": [skipped._asdict() for skipped in self.skipped],
            "notes": list(map(str, self.notes)),
        }

    def text(self, *, all_notes: bool = False) -> str:
        """Text of at most 80 columns, except for longer words; with a line for each kind of note, or for every note."""
        lines = wrapped(f"{self.folder}: {self.photos} photos usable, {len(self.skipped)} not")
        lines += [line for text in remarks(self.passed_over) for line in wrapped(text)]
        if self.several_faces:
            photos = f"{self.several_faces} photo{' has' if self.several_faces == 1 else 's have'}"
            lines += wrapped(f"{photos} several faces: data check --faces looks at who is who")
        for name, extent in self.sizes.items():
            lines.append(f"{name}: {extent['min']} to {extent['max']} pixels, median {extent['median']}")
        lines += ["", f"{cell('person', 48)}{'photos':>10}{'validation':>14}"]
        rows = [
            f"{cell(name, 48)}{count:>10}{self.validation[name] if self.validation else '-':>14}"
            for name, count in self.classes.items()
        ]
        lines += rows if len(rows) <= _LINES else [*rows[:_LINES], f"… {len(rows) - _LINES} more"]
        notes = list(map(str, self.notes)) if all_notes else grouped(self.notes)
        hint = "" if len(notes) == len(self.notes) else "; -v lists all"
        for title, found in (
            (f"not usable ({len(self.skipped)})", [f"{skipped.path}: {skipped.reason}" for skipped in self.skipped]),
            (f"equal files ({len(self.copies)})", [some(group, _NAMES) for group in self.copies]),
            (
                f"one picture in several files ({len(self.same_pictures)})",
                [some(group, _NAMES) for group in self.same_pictures],
            ),
            (f"notes ({len(self.notes)}{hint})", notes),
            (f"warnings ({len(self.warnings)})", self.warnings),
        ):
            if found:
                lines += ["", title, *(line for text in found for line in wrapped(f"- {text}"))]
        return "\n".join(lines) + "\n"


def check(
    folder: str | Path,
    settings: PhotoSettings,
    finder: Finder | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Examine a folder of photos as training would.

    Raises PhotoError where no photo is usable; see ``load_dataset``.
    """
    dataset = load_dataset(folder, settings, progress, finder=finder, for_training=False)
    warnings = list(dataset.warnings)
    if len(dataset.classes) < 2:
        warnings.append(f"only {shown(dataset.classes[0])}: nothing to tell apart")
    validation = None
    try:
        split = dataset.split(seed=0)
        counts = np.bincount(dataset.labels[split.validation], minlength=len(dataset.classes)).tolist()
        validation = dict(zip(map(shown, dataset.classes), counts, strict=True))
        warnings += split.warnings
    except PhotoError as error:
        warnings.append(str(error))
    used = Counter(dataset.classes[label] for label in dataset.labels)
    return Report(
        folder=shown(dataset.folder),
        photos=len(dataset.paths),
        classes={shown(name): used[name] for name in sorted(used, key=class_order)},
        validation=validation,
        sizes={
            name: {"min": int(values.min()), "median": int(np.median(values)), "max": int(values.max())}
            for name, values in zip(("width", "height"), dataset.sizes.T, strict=True)
        },
        skipped=list(dataset.skipped),
        passed_over=dict(dataset.passed_over),
        copies=_names(dataset, same_content(dataset.sha256)),
        same_pictures=_names(dataset, dataset.same_pictures),
        warnings=warnings,
        notes=list(dataset.notes),
        several_faces=sum(len(faces) > 1 for faces in dataset.faces),
    )


def _names(dataset: Dataset, groups: Sequence[list[int]]) -> list[list[str]]:
    return [[shown(dataset.paths[index]) for index in group] for group in groups]


def wrapped(text: str, indent: str = "") -> list[str]:
    """Wrap text at 80 columns; longer words aren't broken."""
    # Half of that if there are letters of double width, as in Chinese.
    wide = any(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    width = _COLUMNS // 2 if wide else _COLUMNS
    return textwrap.wrap(
        text,
        width,
        initial_indent=indent,
        subsequent_indent=f"{indent}  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def cell(text: str, columns: int) -> str:
    """Pad text to ``columns``, or cut it with an ellipsis."""
    kept, width = "", 0
    for letter in text:
        step = 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        if width + step > columns - 2:
            return f"{kept}…" + " " * (columns - width - 1)
        kept, width = kept + letter, width + step
    return kept + " " * (columns - width)
