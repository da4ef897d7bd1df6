"""YAML text to plain data, with the place where each part of it was written.

The data is built from ruamel.yaml's events (YAML 1.2, safe, pure), so that every fault can be reported with its line
and column, several at once. What YAML offers beyond plain data (anchors, aliases, tags, several documents) is refused:
no settings need it, and it is where the traps are.
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
"""From the top down: ``("network", 2, "conv", "size")``."""

LARGEST_FILE = 64 * 1024
DEEPEST = 16
"""Mappings and lists within each other; a conv layer's pool with its size is five deep."""
MOST_FAULTS = 20
"""So many faults are listed; those after them are counted."""

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
class Place:
    """Where something was written; places sort as they are to be listed: by source, line, column."""

    rank: int
    line: int
    """From 1 on; 0 where lines mean nothing, as on the command line."""
    column: int
    label: str

    def __str__(self) -> str:
        return f"{self.label}:{self.line}:{self.column}" if self.line else self.label


@dataclass(frozen=True)
class Written:
    """How a part of the data was written."""

    key: Place
    """Of its key; of itself, in a list."""
    value: Place
    text: str | None = None
    """Of a single value."""


@dataclass
class Tree:
    """Plain data, and how its parts were written."""

    data: Any
    written: dict[Keys, Written]
    """For the whole, ``()``, at least."""

    @classmethod
    def at_one_place(cls, data: Any, place: Place) -> Tree:
        return cls(data, {(): Written(place, place)})

    def at(self, keys: Keys) -> Written:
        """How the part with these keys was written, or what encloses it."""
        while keys not in self.written:
            keys = keys[:-1]
        return self.written[keys]

    def kind(self, keys: Keys, value: Any) -> str:
        """What the value with these keys is, in words: ``the text 'ten'``, ``3.5``, ``a list``."""
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
        """Set the part with these keys, of which all but the last exist."""
        parent = self.data
        for key in keys[:-1]:
            parent = parent[key]
        parent[keys[-1]] = part.data
        for old in [old for old in self.written if old[: len(keys)] == keys]:
            del self.written[old]
        self.written |= {(*keys, *inner): written for inner, written in part.written.items()}


Faults: TypeAlias = list[tuple[Place, str]]


class SettingsError(UsageError):
    """All that is wrong with settings, a line each, in the order of the places."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        lines = [
            f"{place}: {message}" if place.label else message for place, message in sorted(faults, key=itemgetter(0))
        ]
        if len(lines) > MOST_FAULTS:
            lines[MOST_FAULTS:] = [f"and {len(lines) - MOST_FAULTS} more"]
        super().__init__("\n".join(lines))


def read(path: str | os.PathLike[str], suggestions: Iterable[str] = ()) -> str:
    """The text of a settings file: a regular file of at most 64 KiB in UTF-8, with or without a byte-order mark.

    Raises UsageError, with the reason, for anything else; ``suggestions`` are names that may be meant by a wrong one.
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
    """The data of a YAML text, None for one without any value. Without ``lines`` (a value on the command line) places
    are the label alone. Raises SettingsError."""
    return _Parser(text, label, rank, lines).tree()


class _Parser:
    def __init__(self, text: str, label: str, rank: int, lines: bool) -> None:
        self.text = text
        self.label = label
        self.rank = rank
        self.lines = lines
        self.faults: Faults = []
        self.yaml = YAML(typ="safe", pure=True)
        self.last = self.place(0, 0)
        """Where the event at hand begins."""
        self.written: dict[Keys, Written] = {(): Written(self.last, self.last)}

    def place(self, line: int, column: int) -> Place:
        """A place from a line and a column counted from 0."""
        return Place(self.rank, line + 1, column + 1, self.label) if self.lines else Place(self.rank, 0, 0, self.label)

    def fault(self, place: Place, message: str) -> None:
        self.faults.append((place, message))

    def tree(self) -> Tree:
        self._refuse_characters()
        if self.faults:
            raise SettingsError(self.faults)
        data, documents = None, 0
        with closing(self._events()) as events:  # ruamel.yaml's parser clears up at its end
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
                self.fault(self.place(number, tab.start(1)), "tab character: indent with spaces")
            if unwanted := _UNWANTED.search(line):  # one a line is enough: a binary file is full of them
                character, name = unwanted[0], _UNWANTED_NAMES.get(unwanted[0], "control character")
                remedy = ", or save the file as UTF-8" if character == "\0" else ""  # it's mostly UTF-16
                self.fault(self.place(number, unwanted.start()), f"{name} U+{ord(character):04X}: delete it{remedy}")

    def _events(self) -> Generator[Any, None, None]:
        try:
            for event in self.yaml.parse(self.text):
                mark = event.start_mark
                self.last = self.place(mark.line, mark.column)
                yield event
        except MarkedYAMLError as error:
            self.fault(*self._syntax(error))
            raise SettingsError(self.faults) from None
        except (YAMLError, IndexError, ValueError, TypeError, AttributeError, AssertionError, RecursionError):
            # ruamel.yaml's parser stumbles over some broken texts in these ways.
            self.fault(self.last, "not valid YAML from here on")
            raise SettingsError(self.faults) from None

    def _syntax(self, error: MarkedYAMLError) -> tuple[Place, str]:
        problem = clipped(" ".join(filter(None, (error.context, error.problem))), 200)
        mark = error.problem_mark or error.context_mark
        place, hint = self.last, ""
        if mark is not None:
            place = self.place(mark.line, mark.column)
            first = error.context_mark.line if error.context_mark is not None else mark.line
            lines = _LINE_END.split(self.text)
            # "epochs:3" is text to YAML, so it is only the line after it that makes no sense.
            for number in range(mark.line, max(0, first - 1) - 1, -1):
                line = lines[number].partition("#")[0] if number < len(lines) else ""
                if hint := spacing_hint(line):
                    place = self.place(number, len(line) - len(line.lstrip()))
                    break
        return place, f"not valid YAML ({problem}){hint}"

    def _node(self, event: Any, events: Iterator[Any], keys: Keys, key: Place | None = None) -> Any:
        """The value that begins with ``event``, and goes on in ``events``."""
        place = self.last
        self.written[keys] = Written(key or place, place, getattr(event, "value", None))
        if isinstance(event, AliasEvent):
            self.fault(place, f"alias *{clipped(event.anchor)}: write the value out")
            return None
        if event.anchor is not None:
            self.fault(place, f"anchor &{clipped(event.anchor)}: delete it, and write values out")
        if event.tag is not None:
            tag = str(event.tag).replace("tag:yaml.org,2002:", "!!")
            self.fault(place, f"tag {clipped(tag)}: delete it, values need none")
        if len(keys) == DEEPEST:
            self.fault(place, f"nested more than {DEEPEST} deep")
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
            place, at = self.last, (*keys, "")
            key = self._node(event, events, at)
            if not isinstance(key, str) or not key:
                if not isinstance(event, AliasEvent):
                    got = "an empty text" if key == "" else Tree(key, self.written).kind(at, key)
                    self.fault(place, f"a key must be text, got {got}")
                key = ""
            elif key in data:
                first = self.written[*keys, key].key.line
                since = f"first on line {first}" if first else "it may be given once"
                self.fault(place, f"{clipped(key)} is given twice ({since})")
            self.written.pop(at)
            data[key] = self._node(next(events), events, (*keys, key), place)
        return data

    def _scalar(self, event: ScalarEvent) -> bool | int | float | str | None:
        text: str = event.value
        if not event.implicit[0]:  # in quotes, or with a tag
            # Half a character isn't text to JSON, and NaN isn't the value of any setting.
            return float("nan") if _HALF_CHARACTER.search(text) else text
        tag = self.yaml.resolver.resolve(ScalarNode, text, event.implicit)
        if str(tag).rpartition(":")[2] not in ("null", "bool", "int", "float"):
            return text  # dates stay text
        try:
            value: bool | float | None = self.yaml.constructor.construct_object(ScalarNode(tag, text))
        except ValueError:
            # Python refuses to read whole numbers of thousands of digits; others here are no numbers, such as "-_".
            return float("inf") if len(text) > 1000 else text
        return value


def clipped(text: str, longest: int = 60) -> str:
    """Text as it can be printed in a line, cut where it is long."""
    return shown(text if len(text) <= longest else text[:longest] + "…")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``: did you mean WORD?`` if one of the known words is close, else nothing."""
    close = difflib.get_close_matches(word[:100], list(known), n=1)
    return f": did you mean {shown(close[0])}?" if close else ""


def spacing_hint(text: str) -> str:
    """What to do about text that only looks like ``key: value``; nothing for other text."""
    for character in text:
        if character != " " and unicodedata.category(character) == "Zs":
            code = f"U+{ord(character):04X} ({unicodedata.name(character).lower()})"
            return f": {code} is not a space to YAML: type a plain one"
    return ": a space is missing after the colon" if _NO_SPACE.search(text) else ""
