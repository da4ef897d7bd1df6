"""YAML text to plain data, with the location of every part.

The data is built from ruamel.yaml's events (YAML 1.2, safe, pure Python), so that several errors can be reported at
once, each with its line and column. Anchors, aliases, tags and further documents are refused: no settings need them,
and they hold surprises.
"""

from __future__ import annotations

import codecs
import difflib
import json
import os
import re
import stat
import unicodedata
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeAlias

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from ruamel.yaml.nodes import ScalarNode

from facecnn.errors import UsageError, shown

Keys: TypeAlias = tuple[str | int, ...]
"""A path from the top down: ``("network", 2, "conv", "size")``."""

LARGEST_FILE = 64 * 1024
DEEPEST = 16
"""Levels of mappings and lists; a conv layer's pool with its size takes five."""
MOST_FAULTS = 20
"""Errors that are listed; the others are only counted."""

_ENCODINGS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
_UNWANTED = re.compile("[\0-\x08\x0a-\x1f\x7f-\x9f\ud800-\udfff\ufffe\ufeff\u2028\u2029]")
_UNWANTED_NAMES = {
    "\0": "NUL character",
    "\ufeff": "byte-order mark",
    "\u2028": "line separator",
    "\u2029": "paragraph separator",
}
_TAB_IN_INDENT = re.compile(r" *(\t)[ \t]*[^ \t#]")
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")
_LINE_END = re.compile(r"\r\n|\r|\n")
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
    """Everything that is wrong with the settings, one error a line, sorted by location."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        ordered = sorted(faults, key=itemgetter(0))
        lines = [f"{location}: {message}" if location.label else message for location, message in ordered]
        if len(lines) > MOST_FAULTS:
            lines[MOST_FAULTS:] = [f"and {len(lines) - MOST_FAULTS} more"]
        super().__init__("\n".join(lines))


def read(path: str | os.PathLike[str], suggestions: Iterable[str] = ()) -> str:
    """Read a settings file: a regular file of at most 64 KiB in UTF-8, with or without a byte-order mark.

    Args:
        path: the file.
        suggestions: names that a misspelt path may have meant.

    Raises:
        UsageError: it can't be read, and why.
    """
    name = shown(path)
    if not os.fspath(path):
        raise UsageError("the settings file's name is empty")
    try:
        status = Path(path).stat()
        if stat.S_ISDIR(status.st_mode):
            raise UsageError(f"{name}: a folder, not a settings file")
        if not stat.S_ISREG(status.st_mode):  # before opening: that would wait for a writer, or read without end
            raise UsageError(f"{name}: not a regular file")
        if status.st_size > LARGEST_FILE:
            raise UsageError(f"{name}: larger than 64 KiB, so it is no settings file")
        with Path(path).open("rb") as file:
            data = file.read(LARGEST_FILE + 1)
    except (FileNotFoundError, NotADirectoryError):
        meant = did_you_mean(os.fspath(path), [*suggestions, *_beside(Path(path))])
        raise UsageError(
            f"{name}: no such file{meant} (give a path, or the name of a shipped one: {', '.join(suggestions)})"
        ) from None
    except PermissionError:
        raise UsageError(f"{name}: no permission to read it") from None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        reason = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
        raise UsageError(f"{name}: can't be read: {reason}") from None
    return _decode(data, name)


def _beside(path: Path) -> list[str]:
    try:
        return [str(path.parent / other.name) for other in path.parent.iterdir() if other.suffix in (".yaml", ".yml")]
    except OSError:
        return []


def _decode(data: bytes, name: str) -> str:
    for mark, encoding in _ENCODINGS:
        if data.startswith(mark):
            raise UsageError(f"{name}: written in {encoding}: save it as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line = before.count(b"\n") + 1
        column = len(before[before.rfind(b"\n") + 1 :].decode("utf-8", "replace")) + 1
        byte = f"byte 0x{data[error.start]:02X} at position {error.start}"
        raise UsageError(f"{name}:{line}:{column}: not UTF-8 ({byte}): save it as UTF-8") from None


def parse(text: str, label: str, *, rank: int = 0, lines: bool = True) -> Tree:
    """Parse a YAML text; data is None if it has no value.

    Args:
        text: the YAML.
        label: the source's name in messages.
        rank: see ``Location``.
        lines: False for an option of the command line, whose location is its label alone.

    Raises:
        SettingsError: it isn't valid YAML, or has more than plain data.
    """
    return _Parser(text, label, rank, lines).tree()


class _Parser:
    def __init__(self, text: str, label: str, rank: int, lines: bool) -> None:
        self.text = text
        self.label = label
        self.rank = rank
        self.lines = lines
        self.faults: Faults = []
        self.yaml = YAML(typ="safe", pure=True)
        self.last = self.location(0, 0)
        """Location of the current event."""
        self.written: dict[Keys, Written] = {(): Written(self.last, self.last)}

    def location(self, line: int, column: int) -> Location:
        """A location from zero-based line and column."""
        position = (line + 1, column + 1) if self.lines else (0, 0)
        return Location(self.rank, *position, self.label)

    def fault(self, location: Location, message: str) -> None:
        self.faults.append((location, message))

    def tree(self) -> Tree:
        self._refuse_characters()
        if self.faults:
            raise SettingsError(self.faults)
        data, documents = None, 0
        with closing(self._events()) as events:  # ends ruamel.yaml's parser
            for event in events:
                if isinstance(event, DocumentStartEvent):
                    documents += 1
                    if documents > 1:
                        self.fault(self.last, "a second document begins here (---): one file holds one")
                        break
                    if event.version not in (None, (1, 2)):
                        self.fault(self.last, "only YAML 1.2 is read: delete the %YAML line")
                        break
                elif isinstance(event, NodeEvent):
                    data = self._node(event, events, ())
        if self.faults:
            raise SettingsError(self.faults)
        return Tree(data, self.written)

    def _refuse_characters(self) -> None:
        for number, line in enumerate(_LINE_END.split(self.text)):
            if tab := _TAB_IN_INDENT.match(line):
                self.fault(self.location(number, tab.start(1)), "tab character: indent with spaces")
            if unwanted := _UNWANTED.search(line):  # one a line: a binary file is full of them
                character, name = unwanted[0], _UNWANTED_NAMES.get(unwanted[0], "control character")
                remedy = ", or save the file as UTF-8" if character == "\0" else ""  # probably UTF-16
                self.fault(self.location(number, unwanted.start()), f"{name} U+{ord(character):04X}: delete it{remedy}")

    def _events(self) -> Generator[Any, None, None]:
        try:
            for event in self.yaml.parse(self.text):
                mark = event.start_mark
                self.last = self.location(mark.line, mark.column)
                yield event
        except MarkedYAMLError as error:
            self.fault(*self._syntax(error))
            raise SettingsError(self.faults) from None
        except (YAMLError, IndexError, ValueError, TypeError, AttributeError, AssertionError, RecursionError):
            # ruamel.yaml raises all of these for malformed texts.
            self.fault(self.last, "not valid YAML from here on")
            raise SettingsError(self.faults) from None

    def _syntax(self, error: MarkedYAMLError) -> tuple[Location, str]:
        problem = clipped(" ".join(filter(None, (error.context, error.problem))), 200)
        mark = error.problem_mark or error.context_mark
        location, hint = self.last, ""
        if mark is not None:
            location = self.location(mark.line, mark.column)
            first = error.context_mark.line if error.context_mark is not None else mark.line
            lines = _LINE_END.split(self.text)
            # "epochs:3" is text to YAML, so the error is only noticed on a later line.
            for number in range(mark.line, max(0, first - 1) - 1, -1):
                line = lines[number].partition("#")[0] if number < len(lines) else ""
                if hint := spacing_hint(line):
                    location = self.location(number, len(line) - len(line.lstrip()))
                    break
        return location, f"not valid YAML ({problem}){hint}"

    def _node(self, event: Any, events: Iterator[Any], keys: Keys, key: Location | None = None) -> Any:
        """The value that starts with ``event``; its parts are taken from ``events``."""
        location = self.last
        self.written[keys] = Written(key or location, location, getattr(event, "value", None))
        if isinstance(event, AliasEvent):
            self.fault(location, f"alias *{clipped(event.anchor)}: write the value out")
            return None
        if event.anchor is not None:
            self.fault(location, f"anchor &{clipped(event.anchor)}: delete it, and write values out")
        if event.tag is not None:
            tag = str(event.tag).replace("tag:yaml.org,2002:", "!!")
            self.fault(location, f"tag {clipped(tag)}: delete it, values need none")
        if len(keys) == DEEPEST:
            self.fault(location, f"nested more than {DEEPEST} deep")
            raise SettingsError(self.faults)
        if isinstance(event, SequenceStartEvent):
            items: list[Any] = []
            for part in events:
                if isinstance(part, SequenceEndEvent):
                    break
                items.append(self._node(part, events, (*keys, len(items))))
            return items
        return self._mapping(events, keys) if isinstance(event, MappingStartEvent) else self._scalar(event)

    def _mapping(self, events: Iterator[Any], keys: Keys) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for event in events:
            if isinstance(event, MappingEndEvent):
                break
            location, at = self.last, (*keys, "")
            key = self._node(event, events, at)
            if not isinstance(key, str) or not key:
                if not isinstance(event, AliasEvent):
                    got = "an empty text" if key == "" else Tree(key, self.written).kind(at, key)
                    self.fault(location, f"a key must be text, got {got}")
                key = ""
            elif key in data:
                first = self.written[*keys, key].key.line
                since = f"first on line {first}" if first else "it may be given once"
                self.fault(location, f"{clipped(key)} is given twice ({since})")
            self.written.pop(at)
            data[key] = self._node(next(events), events, (*keys, key), location)
        return data

    def _scalar(self, event: ScalarEvent) -> bool | int | float | str | None:
        text: str = event.value
        if not event.implicit[0]:  # in quotes, or with a tag
            # JSON can't hold half a surrogate pair. NaN is refused with a location, as no setting takes it.
            return float("nan") if _HALF_CHARACTER.search(text) else text
        tag = self.yaml.resolver.resolve(ScalarNode, text, event.implicit)
        if str(tag).rpartition(":")[2] not in ("null", "bool", "int", "float"):
            return text  # dates stay text
        try:
            value: bool | float | None = self.yaml.constructor.construct_object(ScalarNode(tag, text))
        except ValueError:
            # Python refuses integers with thousands of digits; other texts here, such as "-_", aren't numbers.
            return float("inf") if len(text) > 1000 else text
        return value


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
