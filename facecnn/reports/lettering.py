"""Names that a picture can show: with a font that has their letters, else in Latin letters."""

import itertools
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

FONT = "DejaVu Sans"
"""The font of pictures; it comes with matplotlib."""

NAME_LENGTH = 18
"""Characters of a label, at most."""

_BEYOND_LATIN = "\N{LATIN SMALL LETTER B WITH STROKE}"
"""The first letter that ``FONT`` may lack."""


def printable(text: str) -> str:
    """``text`` with unprintable characters replaced, such as control characters and lone surrogates."""
    text = unicodedata.normalize("NFC", text)
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def short(name: str, length: int = NAME_LENGTH) -> str:
    """A name as a label: of a long one the beginning and the end, where names of one kind differ."""
    name = printable(name)
    if len(name) <= length:
        return name
    return f"{name[: length - 7]}…{name[-6:]}"


class Lettering:
    """Spells the texts of one picture.

    A letter that matplotlib's own font lacks is drawn with another installed font. Where none has it, the text is
    transliterated. Where that leaves nothing, as with the rarest Chinese letters, a person gets a number for a name.
    """

    def __init__(self, people: Sequence[str], *others: str, left_to_right: bool = False) -> None:
        """Find fonts for the people's names, in order, and other texts.

        ``left_to_right``: also transliterate right-to-left scripts, for a renderer that can't draw them.
        """
        self._numbers = {name: number for number, name in enumerate(people, 1)}
        characters = frozenset(printable("".join((*people, *others))))
        self._fallbacks, self._missing = _fallback_fonts(characters)
        if left_to_right:
            self._missing |= {char for char in characters if unicodedata.bidirectional(char) in ("R", "AL")}
        self.families = [FONT, *(font.family for font in self._fallbacks)]

    def __call__(self, text: str, length: int = NAME_LENGTH) -> str:
        """The text as a label of at most that many characters."""
        if not self.changes(text):
            return short(text, length)
        from anyascii import anyascii

        known = "".join(char for char in printable(text) if char not in self._missing or anyascii(char))
        latin = short(anyascii(known).strip(), length)
        if latin:
            return latin
        return f"person {self._numbers[text]}" if text in self._numbers else "\N{REPLACEMENT CHARACTER}" * len(text)

    def changes(self, text: str) -> bool:
        """Whether the text is transliterated."""
        return bool(self._missing & set(printable(text)))

    def pieces(self, label: str) -> list[tuple[str, Path]]:
        """The label split into parts, each with the file of its font."""
        files = [
            next((font.file for font in self._fallbacks if char in font.supplies), own_font_file()) for char in label
        ]
        runs = itertools.groupby(zip(label, files, strict=True), key=lambda pair: pair[1])
        return [("".join(char for char, _ in run), file) for file, run in runs]

    def labels(self, names: Sequence[str]) -> list[str]:
        """All names as labels. Equal ones get a number."""
        labels = [self(name) for name in names]
        counts = Counter(labels)
        return [f"{label} ({number})" if counts[label] > 1 else label for number, label in enumerate(labels, 1)]


@cache
def own_font_file() -> Path:
    """The file of ``FONT``, found without loading matplotlib, which takes most of a second."""
    package = find_spec("matplotlib")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("No module named 'matplotlib'", name="matplotlib")
    return Path(package.origin).parent / "mpl-data" / "fonts" / "ttf" / f"{FONT.replace(' ', '')}.ttf"


@dataclass(frozen=True)
class _Fallback:
    """An installed font."""

    family: str
    file: Path
    supplies: frozenset[str]
    """The characters that fonts before it lack."""


@cache
def _fallback_fonts(text: frozenset[str]) -> tuple[tuple[_Fallback, ...], frozenset[str]]:
    """Installed fonts for the characters that matplotlib's own lacks, and the characters that none has."""
    if all(char < _BEYOND_LATIN for char in text):
        return (), frozenset()
    from matplotlib import font_manager

    own = font_manager.get_font(font_manager.findfont(FONT))
    missing = _lacking(text, own.get_charmap())
    fonts: list[_Fallback] = []
    for entry in font_manager.fontManager.ttflist:
        if not missing:
            break
        if entry.style != "normal" or entry.name in (FONT, *(font.family for font in fonts)) or "Last" in entry.name:
            continue  # the Last Resort font has a box for every character
        try:
            left = _lacking(missing, font_manager.get_font(entry.fname).get_charmap())
        except (OSError, RuntimeError, ValueError):  # removed since matplotlib listed it, or not a font
            continue
        if left != missing:
            fonts.append(_Fallback(entry.name, Path(entry.fname), missing - left))
            missing = left
    return tuple(fonts), missing


def _lacking(text: Iterable[str], charmap: dict[int, Any]) -> frozenset[str]:
    return frozenset(char for char in text if not char.isspace() and ord(char) not in charmap)
