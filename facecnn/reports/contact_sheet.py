"""A contact sheet of an album: a page with each person's photos in order of doubt, to be looked through by a person."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from facecnn.errors import OutputError, shown
from facecnn.reports.findings import confidence, counted
from facecnn.reports.page import (
    PRIVATE,
    embedded,
    escaped,
    escaped_name,
    link_to,
    paragraph,
    thumbnail,
    warning,
    whole_page,
)
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
"""Bytes from a page's beginning within which its title ends."""


@dataclass(frozen=True)
class Card:
    """A photo on the sheet."""

    file: Path
    name: str
    """Within its person's folder."""
    crop: np.ndarray
    """(rows, columns, 1 or 3) uint8: the face."""
    photo: np.ndarray | None
    """(rows, columns, 3) uint8: the whole photo, made small and its faces framed, where it has several."""
    likeliest: str
    confidence: float | None
    reasons: Sequence[str]
    is_doubtful: bool


@dataclass(frozen=True)
class Sheet:
    """What the page shows."""

    album: str
    size: tuple[int, int]
    """Width and height in pixels of what the network sees; crops are shown twice as large."""
    explanation: str
    remarks: Sequence[str]
    """What there is to say of the album, such as two folders that may be one person's."""
    people: Sequence[tuple[str, Sequence[Card]]]
    """Each person's name and photos, the most doubtful first."""


def check_folder(folder: Path, photos: Path) -> None:
    """Make the folder for a sheet, before the work begins.

    Raises OutputError where it holds anything but an older sheet, lies within the album, or can't be written to.
    """
    try:
        refuse_inside(folder, photos, "it would be taken for a person")
        make_folder(folder)
        refuse_unwritable(folder)
        others = [entry for entry in folder.iterdir() if not entry.name.endswith(TEMPORARY_SUFFIX)]
        if others and not (len(others) == 1 and _is_ours(others[0])):
            raise OutputError(
                f"{shown(folder)}: holds other things than a contact sheet of data check: choose another, or empty it"
            )
    except OSError as error:
        raise output_error(folder, error) from error


def _is_ours(path: Path) -> bool:
    if path.name != PAGE or path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as stream:
        return f"{_TITLE}</title>".encode() in stream.read(_HEAD)


def write_contact_sheet(folder: Path, sheet: Sheet) -> Path:
    """Write the page into the folder; its path. Raises OutputError, and then an older page is intact."""
    path = folder / PAGE
    write_atomically(path, contact_sheet_html(sheet, folder).encode())
    return path


def contact_sheet_html(sheet: Sheet, folder: Path) -> str:
    """The page, whose links are such as lead from the folder to the photos."""
    photos = sum(len(cards) for _, cards in sheet.people)
    doubtful = [sum(card.is_doubtful for card in cards) for _, cards in sheet.people]
    contents = "".join(
        f'<li><a href="#person-{number}">{escaped_name(name)}</a>{f" ({count})" if count else ""}</li>'
        for number, ((name, _), count) in enumerate(zip(sheet.people, doubtful, strict=True), start=1)
    )
    width, height = _shown_size(sheet.size)
    parts = [
        "<header>",
        f"<h1>Photos of {escaped_name(sheet.album)}, in order of doubt</h1>",
        f'<p class="lead">{_counts(photos, sum(doubtful))}. Nothing was changed.</p>',
        "</header>",
        "<main>",
        paragraph(sheet.explanation),
        *map(warning, sheet.remarks),
        f'<nav aria-label="People"><ul>{contents}</ul></nav>',
    ]
    for number, (name, cards) in enumerate(sheet.people, start=1):
        items = "\n".join(_card(card, name, folder) for card in cards)
        parts += [
            f'<section aria-labelledby="person-{number}">',
            f'<h2 id="person-{number}">{escaped_name(name)}</h2>',
            f'<p class="soft">{_counts(len(cards), doubtful[number - 1])}</p>',
            f'<ul class="cards sheet" style="--wide: {width}px; --tall: {height}px">',
            items,
            "</ul>",
            "</section>",
        ]
    return whole_page(f"{escaped(sheet.album)}{_TITLE}", [*parts, "</main>", PRIVATE])


def _counts(photos: int, doubtful: int) -> str:
    return f"{counted(photos, 'photo')}, {doubtful or 'none'} worth a look"


def _shown_size(size: tuple[int, int]) -> tuple[int, int]:
    """CSS pixels: twice what the network sees, and not more than is good for a sheet."""
    scale = min(2.0, LARGEST_CROP / max(size))
    return round(scale * size[0]), round(scale * size[1])


def _card(card: Card, person: str, folder: Path) -> str:
    pictures = embedded(thumbnail(card.crop), "jpeg", f"The face looked at in {card.name}", "crop")
    if card.photo is not None:
        alt = f"All of {card.name}, with a frame around that face"
        pictures += embedded(thumbnail(card.photo), "jpeg", alt, "photo")
    link = link_to(card.file, folder)
    if link is None:  # the sheet is for who has the album: where it lies is no secret
        link = card.file.absolute().as_uri()
    lines = [f'<span class="soft">{escaped_name(card.name)}</span>']
    if card.likeliest != person and card.confidence is not None:
        lines.append(f"<span><b>likeliest</b> {escaped_name(card.likeliest)}, {confidence(card.confidence)}</span>")
    lines += [f"<span>{escaped_name(reason)}</span>" for reason in card.reasons]
    kinds = ["doubtful"] * card.is_doubtful + ["several"] * (card.photo is not None)
    return f'<li class="{" ".join(kinds)}"><a href="{html.escape(link)}">{pictures}</a><div>{"".join(lines)}</div></li>'
