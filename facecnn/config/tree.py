"""Plain data with the location of every part, and what is wrong with it."""

from __future__ import annotations

import difflib
import json
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, TypeAlias

from facecnn.errors import UsageError, shown

Keys: TypeAlias = tuple[str | int, ...]
"""A path from the top down: ``("network", 2, "conv", "size")``."""

MOST_FAULTS = 20
"""Errors that are listed; the others are only counted."""

_NO_SPACE = re.compile(r"(?:^|[\s{,-])[^\W\d]\w*:[^\s:/\\]")


@dataclass(frozen=True, order=True)
class Location:
    """Where something was written; sorts by source, line and column."""

    rank: int
    """0 for the file, then the command line's options in order."""
    line: int
    """From 1; 0 on the command line."""
    column: int
    label: str

    def __str__(self) -> str:
        return f"{self.label}:{self.line}:{self.column}" if self.line else self.label


@dataclass(frozen=True)
class Written:
    """Where a part of the data was written."""

    key: Location
    """Location of the key; of the value itself in a list."""
    value: Location
    text: str | None = None
    """Source text of a scalar."""


@dataclass
class Tree:
    """Plain data with locations."""

    data: Any
    written: dict[Keys, Written]
    """Has at least the whole, ``()``."""

    @classmethod
    def at_one_location(cls, data: Any, location: Location) -> Tree:
        """Data all of which was written at one location, such as an option."""
        return cls(data, {(): Written(location, location)})

    def at(self, keys: Keys) -> Written:
        """Where the part with these keys was written, or the innermost part around it that is known."""
        while keys not in self.written:
            keys = keys[:-1]
        return self.written[keys]

    def kind(self, keys: Keys, value: Any) -> str:
        """Describe a value for a message: ``the text 'ten'``, ``3.5``, ``a list``."""
        if isinstance(value, dict):
            return "a mapping (key: value)"
        if isinstance(value, list):
            return "a list"
        if value is None:
            return "nothing"
        if isinstance(value, str):
            return f"the text '{clipped(value)}'"
        return clipped(self.at(keys).text or json.dumps(value))

    def take(self, key: str) -> Tree | None:
        """Take a section out, if it is there."""
        if not isinstance(self.data, dict) or key not in self.data:
            return None
        data = self.data.pop(key)
        own = {keys: written for keys, written in self.written.items() if keys[:1] == (key,)}
        self.written = {keys: written for keys, written in self.written.items() if keys not in own}
        return Tree(data, {keys[1:]: written for keys, written in own.items()})

    def put(self, keys: Keys, part: Tree) -> None:
        """Set the part with these keys; all but the last must exist."""
        parent = self.data
        for key in keys[:-1]:
            parent = parent[key]
        parent[keys[-1]] = part.data
        for old in [old for old in self.written if old[: len(keys)] == keys]:
            del self.written[old]
        self.written |= {(*keys, *inner): written for inner, written in part.written.items()}


Faults: TypeAlias = list[tuple[Location, str]]


class SettingsError(UsageError):
    """Everything that is wrong with the settings, one error per line, sorted by location."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        ordered = sorted(faults, key=itemgetter(0))
        lines = [f"{location}: {message}" if location.label else message for location, message in ordered]
        if len(lines) > MOST_FAULTS:
            lines[MOST_FAULTS:] = [f"and {len(lines) - MOST_FAULTS} more"]
        super().__init__("\n".join(lines))


def clipped(text: str, longest: int = 60) -> str:
    """Text for one line of a message, cut if it is long."""
    return shown(text if len(text) <= longest else text[:longest] + "…")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``: did you mean WORD?`` if a known word is close, else empty."""
    close = difflib.get_close_matches(word[:100], list(known), n=1)
    return f": did you mean {shown(close[0])}?" if close else ""


def spacing_hint(text: str) -> str:
    """What to do about text that only looks like ``key: value``; empty for other text."""
    for character in text:
        if character != " " and unicodedata.category(character) == "Zs":
            code = f"U+{ord(character):04X} ({unicodedata.name(character).lower()})"
            return f": {code} is not a space to YAML: type a plain one"
    return ": a space is missing after the colon" if _NO_SPACE.search(text) else ""
