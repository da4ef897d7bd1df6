"""Explains what pydantic found invalid, in plain words and with the location in the file.

Pydantic's own messages are for programmers. The path that it gives mixes keys with the union members that it tried.
What is allowed at a location is read from the JSON Schema.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from functools import reduce
from operator import attrgetter
from typing import Any, NamedTuple, TypeAlias

from pydantic import ValidationError

from facecnn.config.model import VERSION, json_schema
from facecnn.config.tree import Faults, Keys, Location, Tree, clipped, did_you_mean, spacing_hint
from facecnn.settings import UNFIT

Schema: TypeAlias = Mapping[str, Any]

_TYPES = {
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "string": "text",
    "array": "a list of layers (lines that begin with -)",
    "pair": "a list of 2 such numbers",
    "object": "a mapping (key: value)",
}
"""In the order of a message; the words to choose from follow, then null."""
_BOUNDS: dict[str, tuple[str, Callable[[Any, Any], bool]]] = {
    "minimum": ("at least", operator.ge),
    "exclusiveMinimum": ("greater than", operator.gt),
    "maximum": ("at most", operator.le),
    "exclusiveMaximum": ("less than", operator.lt),
}


class _Spot(NamedTuple):
    """A part of the settings, and the schema for it."""

    keys: Keys
    value: Any
    schema: Schema

    @property
    def path(self) -> str:
        """``network[2].conv.size``."""
        return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in self.keys).lstrip(".")

    @property
    def is_layer(self) -> bool:
        """Whether it is an entry of a list of layers."""
        within = self.keys[:1] == ("network",) and isinstance(self.keys[-1], int)
        return within and (len(self.keys) == 2 or self.keys[-2] == "layers")

    @property
    def layer(self) -> str | None:
        """The keyword of the layer whose settings these are; None if they are others."""
        keyword = self.keys[-1] if self.keys[:1] == ("network",) and len(self.keys) > 2 else None
        return keyword if isinstance(keyword, str) and self._replace(keys=self.keys[:-1]).is_layer else None

    def part(self, key: Any) -> _Spot:
        """Follow one step of pydantic's path; a union member leads to the same part."""
        if "discriminator" in self.schema:
            return self._replace(schema=_choices(self.schema)[key])
        value = self.value
        if (isinstance(value, dict) and key in value) or (isinstance(value, list) and key in range(len(value))):
            return _Spot((*self.keys, key), value[key], _part(self.schema, key))
        return self


def explain(error: ValidationError, tree: Tree) -> Faults:
    """Describe pydantic's errors, with their locations in ``tree``."""
    wrong: dict[Keys, tuple[Location, str]] = {}
    for found in error.errors(include_url=False, include_context=False, include_input=False):
        *within, key = found["loc"] or [""]
        above = reduce(_Spot.part, within, _Spot((), tree.data, json_schema()))
        spot = above.part(key)
        written = tree.at(spot.keys)
        if found["type"] == "json_invalid":
            wrong[()] = written.value, f"the settings aren't JSON: {found['msg']}"
        elif found["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
            wrong[spot.keys] = written.key, _unknown(above, str(key))
        elif found["type"] == "missing" and isinstance(key, str):
            description = _part(above.schema, key)["description"]
            wrong[*above.keys, key] = written.value, f"{above.path}.{key} is missing ({description})"
        elif found["type"] == UNFIT:
            wrong[spot.keys] = written.key, f"{spot.path} {found['msg']}"
        else:
            wrong[spot.keys] = _wrong(spot, tree)
    if ("version",) in wrong:  # all else may be valid in another version
        wrong = {(): wrong["version",]}
    # Pydantic reports every member of a union. The errors of the one that was meant lie deepest.
    return [
        fault
        for keys, fault in wrong.items()
        if not any(other[: len(keys)] == keys for other in wrong if len(other) > len(keys))
    ]


def _forms(schema: Schema) -> Iterator[Schema]:
    """The members of a union, or the schema itself; references are resolved."""
    if "$ref" in schema:
        yield from _forms(json_schema()["$defs"][schema["$ref"].rpartition("/")[2]])
    elif "anyOf" in schema or "oneOf" in schema:
        for form in schema.get("anyOf") or schema["oneOf"]:
            yield from _forms(form)
    else:
        yield schema


def _properties(schema: Schema) -> dict[str, Schema]:
    return {key: part for form in _forms(schema) for key, part in form.get("properties", {}).items()}


def _part(schema: Schema, key: Any) -> Schema:
    """The schema of a key, or of a position in a list; empty if there is none."""
    if isinstance(key, str):
        return _properties(schema).get(key, {})
    (form,) = (form for form in _forms(schema) if form.get("type") == "array")
    part: Schema = form["prefixItems"][key] if "prefixItems" in form else form["items"]
    return part


def _choices(schema: Schema) -> dict[str, Schema]:
    """The classes that ``name`` selects, by name."""
    return {_properties(choice)["name"]["const"]: choice for choice in schema["oneOf"]}


def _either(words: Sequence[str]) -> str:
    """``a, b or c``."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _wrong(spot: _Spot, tree: Tree) -> tuple[Location, str]:
    """The location and the message for an invalid value."""
    value, path, location = spot.value, spot.path, tree.at(spot.keys).key
    if spot.is_layer:
        return _no_layer(spot, tree)
    if "discriminator" in spot.schema and isinstance(value, dict):
        names = {"properties": {"name": {"enum": [*_choices(spot.schema)]}}}
        return _wrong(spot._replace(schema=names).part("name"), tree)
    forms = [*_forms(spot.schema)]
    words = [str(word) for form in forms for word in form.get("enum", [form.get("const")]) if word]
    types = {"pair" if "prefixItems" in form else form["type"] for form in forms if not form.keys() & {"enum", "const"}}
    phrases = [*(phrase for name, phrase in _TYPES.items() if name in types), *words]
    expected = _either([*phrases, "null"] if "null" in types else phrases)
    got, hint = tree.kind(spot.keys, value), ""
    match value:
        case None:
            remedy = "write what belongs to it below, indented, or {}"
            return location, f"{path} has no value: {remedy if types == {'object'} else f'it must be {expected}'}"
        case [] if "array" in types:
            return location, f"{path} has no layers: {'leave it out, or ' if path == 'network' else ''}list some"
        case list() if "pair" in types:
            got = f"a list of {len(value)}"
        case "" if "string" in types:
            return location, f"{path} is an empty text"
        case str():
            hint = _hint(value, types, words)
            if "object" in types and (spacing := spacing_hint(value)):
                location, hint = tree.at(spot.keys).value, spacing
        case int() | float() if not isinstance(value, bool):
            if path == "version" and value > VERSION:
                return location, f"written for version {got}, this is {VERSION}: update facecnn"
            if problem := _out_of_bounds(value, got, forms):
                return location, f"{path} {problem} (got {got})"
    if "discriminator" in spot.schema and not hint:
        hint = f": write {path}: {{name: {spot.schema['default']['name']}}}"
    return location, f"{path} must be {expected}, got {got}{hint}"


def _out_of_bounds(value: float, text: str, forms: Sequence[Schema]) -> str:
    """The message for a number out of bounds; empty for one of the wrong type."""
    numbers = [form for form in forms if form.get("type") in ("integer", "number")]
    meant = [form for form in numbers if form["type"] == "number" or isinstance(value, int)]
    bounds = [
        (f"{words} {form[bound]}", holds(value, form[bound]))
        for form in meant
        for bound, (words, holds) in _BOUNDS.items()
        if bound in form
    ]
    if value != value:
        return ""
    if not all(holds for _, holds in bounds):
        return f"must be {' and '.join(words for words, _ in bounds)}"
    # An integer with thousands of digits is read as infinity.
    return "is too large a number" if meant or (numbers and text[:20].lstrip("+-").isdecimal()) else ""


def _hint(text: str, types: Container[str], words: Sequence[str]) -> str:
    """A hint at what a text was meant to be; empty if nothing is likely."""
    if "boolean" in types and text.lower() in ("yes", "no", "on", "off", "y", "n", "true", "false"):
        return ": write true or false, without quotes"
    if ("integer" in types or "number" in types) and re.fullmatch(r"[-+]?[0-9.]+(e[-+]?[0-9]+)?", text, re.IGNORECASE):
        return ": write it without quotes"
    return did_you_mean(text, words)


def _no_layer(spot: _Spot, tree: Tree) -> tuple[Location, str]:
    location, got = tree.at(spot.keys).value, tree.kind(spot.keys, spot.value)
    if isinstance(spot.value, dict) and spot.value:
        # If the command line added a second layer here, point to that.
        location = max(location, *(tree.at((*spot.keys, key)).key for key in spot.value), key=attrgetter("rank"))
        first, *_ = keys = [clipped(key) for key in spot.value]
        got = f"{', '.join(keys)} side by side: indent what belongs to {first} below it, and begin a layer with -"
    return location, f"{spot.path} must be a layer, such as `conv: {{kernels: 8}}`, got {got}"


def _unknown(spot: _Spot, key: str) -> str:
    """The message for a key that isn't allowed here: where it belongs, or which one was meant."""
    word, known, sections = clipped(key), _properties(spot.schema), _properties(json_schema())
    layers = _properties(sections["network"]["items"])
    if spot.is_layer:
        hint = spacing_hint(key) or did_you_mean(key, layers)
        return f"{spot.path}: unknown layer {word}{hint} (known: {', '.join(layers)})"
    if hint := spacing_hint(key):
        return f"unknown key {word}{hint}"
    chosen, choices = known.get("name", {}).get("const"), layers
    if chosen:
        choices = _choices(sections[str(spot.keys[0])])
    elif spot.layer:
        chosen = spot.layer
    if chosen and (owners := [name for name, schema in choices.items() if key in _properties(schema)]):
        return f"{word} belongs to {_either(owners)}, not {chosen}"
    here = f"under {spot.path}" if spot.keys else ""
    homes = {"at the top level": sections, **_homes(sections)}
    homes |= {f"to a {keyword} layer": _properties(layer) for keyword, layer in layers.items()}
    if elsewhere := [home for home, keys in homes.items() if key in keys and key != "name"]:
        return f"{word} belongs {_either(elsewhere)}, not {here or 'at the top level'}"
    meant = did_you_mean(key, known) or did_you_mean(key, {key for keys in homes.values() for key in keys})
    return f"unknown key {word}{meant} (known {here or 'here'}: {', '.join(known)})"


def _homes(sections: Mapping[str, Schema], above: str = "under ") -> dict[str, dict[str, Schema]]:
    """The keys of each section and subsection, by where they belong: ``under train``."""
    homes: dict[str, dict[str, Schema]] = {}
    for name, schema in sections.items():
        if keys := _properties(schema):
            homes |= {f"{above}{name}": keys, **_homes(keys, f"{above}{name}.")}
    return homes
