"""YAML text to plain data, with the location of every part.

The data is built from ruamel.yaml's events (YAML 1.2, safe, pure Python), so that several errors can be reported at
once, each with its line and column. Anchors, aliases, tags and further documents are refused: no settings need them,
and they hold surprises.
"""

import codecs
import os
import re
import stat
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

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

from facecnn.config.tree import (
    Faults,
    Keys,
    Location,
    SettingsError,
    Tree,
    Written,
    clipped,
    did_you_mean,
    spacing_hint,
)
from facecnn.errors import UsageError, shown

LARGEST_FILE = 64 * 1024
DEEPEST = 16
"""Levels of mappings and lists; a conv layer's pool with its size takes five."""

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


def read(path: str | os.PathLike[str], suggestions: Iterable[str] = ()) -> str:
    """Read a settings file: a regular file of at most 64 KiB in UTF-8, with or without a byte-order mark.

    ``suggestions``: names that a misspelt path may have meant. Raises UsageError, with the reason, where it can't be
    read.
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
