"""Text to a tree of plain values, each of which knows the place where it was written.

The tree is built from ruamel.yaml's events (YAML 1.2, safe, pure), so that every fault can be reported with its line
and column, several at once. What YAML offers beyond plain data (anchors, aliases, tags, several documents) is refused:
no settings need it, and it is where the traps are.
"""

from __future__ import annotations

import codecs
import difflib
import os
import re
import stat
import unicodedata
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
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
_INVISIBLE = {"\ufeff": "byte-order mark", "\u2028": "line separator", "\u2029": "paragraph separator"}
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
class Scalar:
    """A single value, and the text that it was written as."""

    place: Place
    value: bool | int | float | str | None
    text: str


@dataclass(frozen=True)
class Items:
    """A list."""

    place: Place
    nodes: list[Node]


@dataclass(frozen=True)
class Entry:
    """A value in a mapping; ``place`` is its key's."""

    place: Place
    node: Node


@dataclass(frozen=True)
class Entries:
    """A mapping, in the order written."""

    place: Place
    entries: dict[str, Entry]


@dataclass(frozen=True)
class Broken:
    """Stands where a fault has been reported already, so that nothing more is said about it."""

    place: Place


Node: TypeAlias = Scalar | Items | Entries | Broken


@dataclass
class Faults:
    """What is wrong, gathered so that all of it is told at once."""

    found: list[tuple[Place, str]] = field(default_factory=list)

    def add(self, place: Place, message: str) -> None:
        self.found.append((place, message))

    def raise_any(self) -> None:
        """Raise UsageError with all faults, a line each, in the order of their places."""
        if not self.found:
            return
        listed = [
            f"{place}: {message}" if place.label else message
            for place, message in sorted(self.found, key=lambda f: f[0])
        ]
        if len(listed) > MOST_FAULTS:
            listed[MOST_FAULTS:] = [f"and {len(listed) - MOST_FAULTS} more"]
        raise UsageError("\n".join(listed))


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


def parse(text: str, label: str, faults: Faults, *, rank: int = 0, lines: bool = True) -> Node | None:
    """The tree of a YAML text, None for one without any value. Adds what is wrong to ``faults``, and raises UsageError
    where the text can't be followed further.

    Without ``lines`` (a value on the command line) places are the label alone.
    """
    source = _Source(text, label, faults, rank, lines)
    source.refuse_characters()
    faults.raise_any()
    return source.tree()


def from_plain(value: Any, place: Place, faults: Faults, depth: int = 0) -> Node:
    """The tree of data as JSON has it, all at one place."""
    if depth > DEEPEST:
        faults.add(place, f"nested more than {DEEPEST} deep")
        return Broken(place)
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                faults.add(place, f"a key must be text, got {clipped(repr(key))}")
        return Entries(
            place,
            {
                key: Entry(place, from_plain(part, place, faults, depth + 1))
                for key, part in value.items()
                if isinstance(key, str)
            },
        )
    if isinstance(value, list | tuple):
        return Items(place, [from_plain(part, place, faults, depth + 1) for part in value])
    if value is None or isinstance(value, bool):
        return Scalar(place, value, {None: "null", True: "true", False: "false"}[value])
    if isinstance(value, int | float | str):
        return Scalar(place, value, value if isinstance(value, str) else repr(value))
    faults.add(place, f"{clipped(repr(value))} is no text, number, list or mapping")
    return Broken(place)


def to_plain(node: Node) -> Any:
    """The data of a tree without the places."""
    if isinstance(node, Entries):
        return {key: to_plain(entry.node) for key, entry in node.entries.items()}
    if isinstance(node, Items):
        return [to_plain(part) for part in node.nodes]
    return node.value if isinstance(node, Scalar) else None


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


class _Source:
    def __init__(self, text: str, label: str, faults: Faults, rank: int, lines: bool) -> None:
        self.text = text
        self.label = label
        self.faults = faults
        self.rank = rank
        self.lines = lines
        self.yaml = YAML(typ="safe", pure=True)
        self.last = self.place(0, 0)

    def place(self, line: int, column: int) -> Place:
        """A place from a line and a column counted from 0."""
        return Place(self.rank, line + 1, column + 1, self.label) if self.lines else Place(self.rank, 0, 0, self.label)

    def refuse_characters(self) -> None:
        for number, line in enumerate(_LINE_END.split(self.text)):
            indent = line[: len(line) - len(line.lstrip(" \t"))]
            if "\t" in indent and len(indent) < len(line) and line[len(indent)] != "#":
                self.faults.add(self.place(number, indent.index("\t")), "tab character: indent with spaces")
            for column, character in enumerate(line):
                if character == "\t":
                    continue
                if (
                    unicodedata.category(character) in ("Cc", "Cs")
                    or character in _INVISIBLE
                    or ord(character) == 0xFFFE
                ):
                    name = _INVISIBLE.get(character, "NUL character" if character == "\0" else "control character")
                    remedy = (
                        "delete it, or save the file as UTF-8" if character == "\0" else "delete it"
                    )  # mostly it is UTF-16
                    self.faults.add(self.place(number, column), f"{name} U+{ord(character):04X}: {remedy}")
                    break  # one a line is enough: a binary file is full of them

    def tree(self) -> Node | None:
        root: Node | None = None
        documents = 0
        # A generator that has to be closed here: ruamel.yaml's parser clears up at its end.
        events = self._events()
        try:
            for event in events:
                if isinstance(event, DocumentStartEvent):
                    documents += 1
                    if documents > 1:
                        self.faults.add(self.last, "a second document begins here (---): one file holds one")
                        break
                    if event.version not in (None, (1, 2)):
                        self.faults.add(self.last, "only YAML 1.2 is read: delete the %YAML line")
                        break
                elif isinstance(event, NodeEvent):
                    root = self._node(event, events, 0)
        finally:
            events.close()
        if isinstance(root, Scalar) and root.text == "":
            return None
        return root

    def _events(self) -> Generator[Any, None, None]:
        try:
            for event in self.yaml.parse(self.text):
                mark = event.start_mark
                self.last = self.place(mark.line, mark.column)
                yield event
        except MarkedYAMLError as error:
            self._syntax(error)
        except (YAMLError, IndexError, ValueError, TypeError, AttributeError, AssertionError, RecursionError):
            # ruamel.yaml's parser stumbles over some broken texts in these ways.
            self.faults.add(self.last, "not valid YAML from here on")
            self.faults.raise_any()

    def _syntax(self, error: MarkedYAMLError) -> None:
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
        self.faults.add(place, f"not valid YAML ({problem}){hint}")
        self.faults.raise_any()

    def _node(self, event: Any, events: Iterator[Any], depth: int) -> Node:
        place = self.last
        if isinstance(event, AliasEvent):
            self.faults.add(place, f"alias *{clipped(event.anchor)}: write the value out")
            return Broken(place)
        if event.anchor is not None:
            self.faults.add(place, f"anchor &{clipped(event.anchor)}: delete it, and write values out")
        if event.tag is not None:
            tag = str(event.tag).replace("tag:yaml.org,2002:", "!!")
            self.faults.add(place, f"tag {clipped(tag)}: delete it, values need none")
        if depth == DEEPEST:
            self.faults.add(place, f"nested more than {DEEPEST} deep")
            self.faults.raise_any()
        if isinstance(event, SequenceStartEvent):
            items: list[Node] = []
            for part in events:
                if isinstance(part, SequenceEndEvent):
                    break
                items.append(self._node(part, events, depth + 1))
            return Items(place, items)
        if isinstance(event, MappingStartEvent):
            return self._entries(place, events, depth)
        return self._scalar(event, place)

    def _entries(self, place: Place, events: Iterator[Any], depth: int) -> Entries:
        entries: dict[str, Entry] = {}
        for event in events:
            if isinstance(event, MappingEndEvent):
                break
            key = self._node(event, events, depth + 1)
            value = self._node(next(events), events, depth + 1)
            if isinstance(key, Scalar) and isinstance(key.value, str) and key.value:
                if key.value in entries:
                    first = entries[key.value].place
                    since = f"first on line {first.line}" if first.line else "it may be given once"
                    self.faults.add(key.place, f"{clipped(key.value)} is given twice ({since})")
                else:
                    entries[key.value] = Entry(key.place, value)
            elif not isinstance(key, Broken):
                got = kind(key) if not isinstance(key, Scalar) or key.value != "" else "an empty text"
                self.faults.add(key.place, f"a key must be text, got {got}")
        return Entries(place, entries)

    def _scalar(self, event: ScalarEvent, place: Place) -> Scalar:
        text: str = event.value
        if not event.implicit[0]:  # in quotes, or with a tag
            return Scalar(place, text, text)
        tag = str(self.yaml.resolver.resolve(ScalarNode, text, event.implicit)).rpartition(":")[2]
        constructor = self.yaml.constructor
        node = ScalarNode(tag, text)
        if tag == "null":
            return Scalar(place, None, text)
        if tag == "bool":
            return Scalar(place, bool(constructor.construct_yaml_bool(node)), text)
        try:
            if tag == "int":
                return Scalar(place, int(constructor.construct_yaml_int(node)), text)
            if tag == "float":
                return Scalar(place, float(constructor.construct_yaml_float(node)), text)
        except ValueError:
            # Python refuses to read whole numbers of thousands of digits; others here are no numbers, such as "-_".
            return Scalar(place, float("inf") if len(text) > 1000 else text, text)
        return Scalar(place, text, text)  # dates stay text


def kind(node: Node) -> str:
    """What a node is, in words: ``the text 'ten'``, ``3.5``, ``a list``."""
    if isinstance(node, Entries):
        return "a mapping (key: value)"
    if isinstance(node, Items):
        return "a list"
    if isinstance(node, Broken) or node.value is None:
        return "nothing"
    if isinstance(node.value, str):
        return f"the text '{clipped(node.value)}'"
    return clipped(node.text)
