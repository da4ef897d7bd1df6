"""The settings file: gathers the settings classes, which lie next to the code that they set, and reads YAML into them.

The format is described in ``configs/default.yaml`` and by ``facecnn config show`` and ``facecnn config schema``.
Sections that are left out take the defaults of their classes; a file without ``network`` gets that of ``default.yaml``.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any, cast

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from facecnn.config.source import (
    Broken,
    Entries,
    Entry,
    Faults,
    Items,
    Node,
    Place,
    Scalar,
    clipped,
    did_you_mean,
    from_plain,
    kind,
    parse,
    read,
    spacing_hint,
    to_plain,
)
from facecnn.config.words import Words, branches, either
from facecnn.errors import UsageError, shown
from facecnn.learning.calibration import CalibrationSettings
from facecnn.learning.minimisers import MINIMISERS, Minimisers
from facecnn.learning.schedules import SCHEDULES, Schedule
from facecnn.learning.settings import TrainSettings
from facecnn.learning.step_rules import OPTIMIZERS, Optimizer
from facecnn.network.layers import LAYERS, Layer, LayerError, shape_text, with_outputs
from facecnn.network.loss import LOSSES, Loss
from facecnn.network.network import Stage, plan
from facecnn.photos.preparation import AugmentSettings, PhotoSettings, SmallestFaceSettings

VERSION = 1
"""Of the file's format."""

_PLAIN_SECTIONS: dict[str, type[Any]] = {
    "photos": PhotoSettings,
    "train": TrainSettings,
    "calibration": CalibrationSettings,
}
_NAMED_SECTIONS: dict[str, tuple[Mapping[str, type[Any]], str]] = {
    "loss": (LOSSES, "cross_entropy"),
    "optimizer": (OPTIMIZERS | MINIMISERS, "adamw"),
    "schedule": (SCHEDULES, "constant"),
}
"""Sections whose ``name`` chooses a class, and the choice where no name is given."""
_SECTIONS = ("version", "photos", "network", "loss", "optimizer", "schedule", "train", "calibration")
_DESCRIPTIONS = {
    "version": "of this file's format",
    "photos": "where the photos are and how one becomes the network's input",
    "network": "the layers, from the picture to the people",
    "loss": "what training lowers",
    "optimizer": "how a gradient becomes a change of the weights",
    "schedule": "the learning rate's course",
    "train": "how long and in which portions to train",
    "calibration": "how the threshold for strangers is set, by held-out photos",
}
_YAML_WORDS = frozenset(("true", "false", "null", "yes", "no", "on", "off", "y", "n"))
"""Plain words that YAML, or a reader of older YAML, doesn't take for text."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All that a training is set by."""

    version: int = VERSION
    photos: PhotoSettings
    network: tuple[Layer, ...]
    loss: Loss
    optimizer: Optimizer | Minimisers
    schedule: Schedule
    train: TrainSettings
    calibration: CalibrationSettings


@dataclass(frozen=True)
class Loaded:
    """Settings with the place of each."""

    settings: Settings
    tree: Entries
    """What was written, by file and command line, with places."""

    def where(self, keys: Sequence[str | int]) -> str:
        """``config.yaml:12:5`` for keys such as ``("network", 2, "size")``; of what encloses it if it isn't written."""
        place, node = self.tree.place, cast(Node, self.tree)
        for key in keys:
            if isinstance(node, Entries) and key not in node.entries and len(node.entries) == 1:
                (node,) = (entry.node for entry in node.entries.values())  # from a layer to what is set of it
            if isinstance(node, Entries) and key in node.entries:
                entry = node.entries[key]
                place, node = entry.place, entry.node
            elif isinstance(node, Items) and isinstance(key, int) and 0 <= key < len(node.nodes):
                node = node.nodes[key]
                place = node.place
            else:
                break
        return str(place)

    def located(self, error: LayerError) -> UsageError:
        """The same error with the layer's place in front of the message."""
        keys: tuple[str | int, ...] = ("network",) if error.index is None else ("network", error.index)
        return UsageError(f"{self.where(keys)}: {error}")

    def plan(self, outputs: int) -> tuple[Stage, ...]:
        """The network's layers with their shapes, for data that needs ``outputs`` of them.

        Raises UsageError, with the place in the file, for a layer that doesn't fit and a last one that doesn't give as
        many numbers.
        """
        layers = with_outputs(self.settings.network, outputs)
        try:
            stages = plan(layers, self.settings.photos.shape)
        except LayerError as error:
            raise self.located(error) from None
        given = stages[-1].out_shape
        if given != (outputs,):
            number = len(layers) - 1
            what = f"{given[0]} outputs" if len(given) == 1 else shape_text(given)
            raise UsageError(
                f"{self.where(('network', number))}: the last layer gives {what}, the data needs {outputs} (one for "
                "each person, and one more with an unknown/ folder): end the network with `- dense: {units: people}`"
            )
        return stages


def shipped() -> dict[str, Path]:
    """The configs that come with facecnn, by name. Raises UsageError where they don't."""
    package = Path(__file__).parent.parent
    for folder in (package / "configs", package.parent / "configs"):
        if folder.is_dir():
            return {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    raise UsageError(f"{shown(package)}: facecnn can't be used from here without its configs/: unpack or install it")


def load(path_or_name: str | os.PathLike[str]) -> Loaded:
    """Read a settings file: a path, or the name of a shipped one (a file of such a name is ``./default``).

    Raises UsageError with all that is wrong in it, a line each: ``config.yaml:7:3: train.epochs must be …``.
    """
    known = shipped()
    path = known.get(os.fspath(path_or_name), path_or_name)
    text = read(path, list(known))
    faults = Faults()
    label = shown(path)
    root = parse(text, label, faults)
    faults.raise_any()
    if root is None or (isinstance(root, Scalar) and root.value is None):
        raise UsageError(f"{label}: empty: there are no settings in it")
    if not isinstance(root, Entries):
        hint = spacing_hint(root.text) if isinstance(root, Scalar) else ""
        raise UsageError(f"{root.place}: expected key: value lines, got {kind(root)}{hint}")
    if "network" not in root.entries:
        root.entries["network"] = _default_network()
    return Loaded(_check(root), root)


def apply_overrides(
    loaded: Loaded, overrides: Sequence[str], options: Mapping[str, tuple[str, object]] | None = None
) -> Loaded:
    """The settings with some of them replaced, checked like the file.

    ``overrides`` are ``--set``'s: ``train.epochs=3``, ``photos.augment=null``, ``network.0.conv.kernels=8``,
    ``optimizer={name: momentum}``. ``options`` are those of the command line with a name of their own, which win:
    ``{"--epochs": ("train.epochs", 3)}``. Another ``optimizer.name`` (``loss``, ``schedule``) drops the
    file's options for the old one.

    Raises UsageError: ``--set train.epochs=abc: train.epochs must be …``.
    """
    tree = deepcopy(loaded.tree)
    faults = Faults()
    for rank, override in enumerate(overrides, start=1):
        label = f"--set {clipped(override)}"
        keys, equals, text = override.partition("=")
        if not equals:
            faults.add(Place(rank, 0, 0, label), f"a value is missing: --set {clipped(keys)}=VALUE")
            continue
        in_value = Faults()
        with suppress(UsageError):  # it holds the faults that are passed on here
            value = parse(text, label, in_value, rank=rank, lines=False)
        faults.found += in_value.found
        if not in_value.found:
            _override(tree, keys, value, Place(rank, 0, 0, label), faults)
    for rank, (option, (keys, plain)) in enumerate((options or {}).items(), start=1 + len(overrides)):
        place = Place(rank, 0, 0, f"{option} {clipped(str(plain))}")
        _override(tree, keys, from_plain(plain, place, faults), place, faults)
    return Loaded(_check(tree, faults), tree)


def to_dict(settings: Settings) -> dict[str, Any]:
    """Settings as JSON has them; ``from_dict`` gives equal ones back."""
    return {
        "version": settings.version,
        "photos": _plain(settings.photos),
        "network": [{layer.keyword: _plain(layer)} for layer in settings.network],
        "loss": _plain(settings.loss),
        "optimizer": _plain(settings.optimizer),
        "schedule": _plain(settings.schedule),
        "train": _plain(settings.train),
        "calibration": _plain(settings.calibration),
    }


def from_dict(data: Mapping[str, Any]) -> Settings:
    """The settings that ``to_dict`` gave; raises UsageError for what isn't such."""
    faults = Faults()
    tree = from_plain(data, Place(0, 0, 0, ""), faults)
    if not isinstance(tree, Entries):
        raise UsageError(f"settings must be a mapping, got {kind(tree)}")
    if "network" not in tree.entries:
        tree.entries["network"] = _default_network()
    return _check(tree, faults)


def differences(before: Settings, now: Settings) -> list[str]:
    """What differs: ``optimizer.learning_rate is 0.02, was 0.01``; a network of more or fewer layers as a whole."""

    def compare(one: Any, other: Any, path: str) -> list[str]:
        found: list[str] = []
        if isinstance(one, dict) and isinstance(other, dict):  # another choice has options of its own, and a name
            found = [text for key in one if key in other for text in compare(one[key], other[key], f"{path}.{key}")]
        elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
            for number, parts in enumerate(zip(one, other, strict=True)):
                found += compare(*parts, f"{path}[{number}]")
        if found or one == other:
            return found
        return [f"{path.lstrip('.')} is {clipped(json.dumps(other))}, was {clipped(json.dumps(one))}"]

    return compare(to_dict(before), to_dict(now), "")


def to_yaml(settings: Settings, comments: bool = True) -> str:
    """A settings file with every option; reading it gives equal settings. With ``comments`` each option's description
    stands beside it, those of a layer where its kind comes first."""
    lines: list[tuple[str, str]] = []
    for section in _SECTIONS:
        value = getattr(settings, section)
        if section == "network":
            lines.append(("network:", _DESCRIPTIONS[section]))
            seen: set[str] = set()
            for layer in settings.network:
                lines.append((f"  - {layer.keyword}:", ""))
                new = layer.keyword not in seen
                lines.extend((text, description if new else "") for text, description in _lines(layer, "      "))
                seen.add(layer.keyword)
        elif is_dataclass(value):
            lines.append((f"{section}:", _DESCRIPTIONS[section]))
            lines.extend(_lines(value, "  "))
        else:
            lines.append((f"{section}: {_yaml_text(value)}", _DESCRIPTIONS[section]))
    if not comments:
        return "".join(f"{text}\n" for text, _ in lines)
    return "".join(f"{text:34}  # {description}\n" if description else f"{text}\n" for text, description in lines)


def _lines(settings: Any, indent: str) -> Iterator[tuple[str, str]]:
    """Lines of a settings object, each with what it means; ``name`` comes first, as it says what the others mean."""
    known = _fields(type(settings))
    for key in sorted(known, key=lambda key: key != "name"):
        value, description = getattr(settings, key), known[key].description or ""
        if is_dataclass(value):
            yield f"{indent}{key}:", description
            yield from _lines(value, indent + "  ")
        else:
            yield f"{indent}{key}: {_yaml_text(value)}", description


def _yaml_text(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_yaml_text, value))}]"
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z_]\w*", value, re.ASCII) and value.lower() not in _YAML_WORDS:
        return value
    # JSON is YAML but for characters that YAML wants escaped, all of them in the basic plane.
    text = json.dumps(value, ensure_ascii=False)
    return "".join(c if c.isprintable() or ord(c) > 0xFFFF else f"\\u{ord(c):04x}" for c in text)


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of the settings file, for editors."""
    named = {cls for choices, _ in _NAMED_SECTIONS.values() for cls in choices.values()}
    classes = [*_PLAIN_SECTIONS.values(), *sorted(named, key=lambda cls: cls.__name__), *LAYERS.values()]
    adapters = [(cls, "validation", TypeAdapter(cls)) for cls in classes]
    schemas, shared = TypeAdapter.json_schemas(cast(Any, adapters), ref_template="#/$defs/{model}")
    of_class = {cls: schemas[cls, "validation"] for cls in classes}
    definitions = shared["$defs"]

    properties: dict[str, Any] = {"version": {"const": VERSION}}
    for section, settings_class in _PLAIN_SECTIONS.items():
        properties[section] = {**of_class[settings_class]}
    for section, (choices, default) in _NAMED_SECTIONS.items():
        options = [
            of_class[cls] if name == default else {**of_class[cls], "required": ["name"]}
            for name, cls in choices.items()
        ]
        properties[section] = {"anyOf": options}
    layers: list[dict[str, Any]] = []
    for keyword, layer_class in LAYERS.items():
        forms = [of_class[layer_class]]
        if layer_class.shorthand is not None:
            forms.append(definitions[layer_class.__name__]["properties"][layer_class.shorthand])
        layer = {"properties": {keyword: {"anyOf": forms}}, "required": [keyword], "additionalProperties": False}
        layers.append({"type": "object", **layer})
    bare = [word for word, cls in LAYERS.items() if not any(field.is_required() for field in _fields(cls).values())]
    properties["network"] = {"type": "array", "minItems": 1, "items": {"anyOf": [*layers, {"enum": bare}]}}
    for section in _SECTIONS:
        properties[section]["description"] = _DESCRIPTIONS[section]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "facecnn's settings file",
        "type": "object",
        "properties": {section: properties[section] for section in _SECTIONS},
        "additionalProperties": False,
        "$defs": definitions,
    }


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        plain = {key: _plain(getattr(value, key)) for key in _fields(type(value))}
        for key, field in _fields(type(value)).items():
            # A default of 8 where a fraction is meant: equal settings shall give equal text.
            if isinstance(plain[key], int) and float in branches(field.annotation):
                plain[key] = float(plain[key])
        return plain
    return [_plain(part) for part in value] if isinstance(value, tuple) else value


def _default_network() -> Entry:
    path = shipped()["default"]
    tree = parse(read(path), shown(path), Faults())
    assert isinstance(tree, Entries)
    return tree.entries["network"]


def _override(tree: Entries, keys: str, value: Node | None, place: Place, faults: Faults) -> None:
    """Put ``value`` into the tree; ``keys`` are ``train.epochs``, ``network.0.conv.kernels`` or, as messages write it,
    ``network[0].conv.kernels``."""
    parts = re.sub(r"\[(\d+)\]", r".\1", keys).split(".")
    if "" in parts:
        faults.add(place, "the key has an empty part: it is written like train.epochs")
        return
    value = Scalar(place, None, "") if value is None else value
    node: Node = tree
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        path = ".".join(parts[:number]) or "the file"
        if isinstance(node, Items):
            if not re.fullmatch(r"[0-9]{1,4}", part) or int(part) >= len(node.nodes):
                faults.add(place, f"{path} has the places 0 to {len(node.nodes) - 1}, not {clipped(part)}")
                return
            if last:
                node.nodes[int(part)] = value
                return
            if path == "network":
                node.nodes[int(part)] = _expanded(node.nodes[int(part)])
            node = node.nodes[int(part)]
        elif isinstance(node, Entries):
            if last:
                if part == "name":
                    _drop_options_of_other_choices(parts[0], node, value)
                node.entries[part] = Entry(place, value)
                return
            node = node.entries.setdefault(part, Entry(place, Entries(place, {}))).node
        else:
            hint = f": set {path}={{{part}: …}}" if number else ""
            faults.add(place, f"{path} is {kind(node)} ({node.place}), so it has no {clipped(part)}{hint}")
            return


def _expanded(layer: Node) -> Node:
    """A layer that was written in short with its settings as a mapping, so that one of them can be set."""
    if isinstance(layer, Scalar) and layer.value in LAYERS:
        return Entries(layer.place, {layer.text: Entry(layer.place, Entries(layer.place, {}))})
    if isinstance(layer, Entries):
        for keyword, entry in layer.entries.items():
            shorthand = LAYERS[keyword].shorthand if keyword in LAYERS else None
            if shorthand is not None and isinstance(entry.node, Scalar):
                entries = {shorthand: Entry(entry.place, entry.node)}
                return Entries(layer.place, {keyword: Entry(entry.place, Entries(entry.place, entries))})
    return layer


def _drop_options_of_other_choices(section: str, node: Entries, name: Node) -> None:
    """Another optimizer starts from its own settings: the same word (a rate, a decay) means another size there."""
    choices = _NAMED_SECTIONS.get(section, ({}, ""))[0]
    if not isinstance(name, Scalar) or name.value not in choices:
        return
    before = node.entries["name"].node if "name" in node.entries else None
    if isinstance(before, Scalar) and before.value == name.value:
        return
    for key in list(node.entries):
        if node.entries[key].place.rank == 0:
            del node.entries[key]


def _check(root: Entries, faults: Faults | None = None) -> Settings:
    checker = _Checker(faults if faults is not None else Faults())
    settings = checker.settings(root)
    checker.faults.raise_any()
    assert settings is not None, "whatever is wrong has been reported"
    return settings


class _Checker:
    """From the tree to the settings classes. pydantic decides what is right; the words for what isn't are made here."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults

    def settings(self, root: Entries) -> Settings | None:
        if not self._version(root):
            return None
        for key, entry in root.entries.items():
            if key not in _SECTIONS:
                self._unknown(key, entry.place, "", _SECTIONS)
        parts: dict[str, Any] = {}
        for name, settings_class in _PLAIN_SECTIONS.items():
            parts[name] = self._section(root, name, settings_class)
        for name, (choices, default) in _NAMED_SECTIONS.items():
            parts[name] = self._named(root, name, choices, default)
        parts["network"] = self._network(root.entries["network"])
        return None if None in parts.values() else Settings(**parts)

    def _version(self, root: Entries) -> bool:
        entry = root.entries.get("version")
        if entry is None or isinstance(entry.node, Broken):
            return entry is None
        value = entry.node.value if isinstance(entry.node, Scalar) else None
        if isinstance(value, int) and not isinstance(value, bool) and value == VERSION:
            return True
        if isinstance(value, int | float) and not isinstance(value, bool) and value > VERSION:
            # Whatever else looks wrong may be right in that version.
            number = clipped(cast(Scalar, entry.node).text, 20)
            self.faults.add(entry.place, f"written for version {number}, this is {VERSION}: update facecnn")
        else:
            self.faults.add(entry.place, f"version must be {VERSION}, got {kind(entry.node)}")
        return False

    def _section(self, root: Entries, name: str, settings_class: type[Any]) -> Any:
        entries = self._section_entries(root, name, "")
        return None if entries is None else self._instance(settings_class, entries, name)

    def _named(self, root: Entries, section: str, choices: Mapping[str, type[Any]], default: str) -> Any:
        entries = self._section_entries(root, section, f": write {section}: {{name: {default}}}")
        if entries is None:
            return None
        choice = default
        if "name" in entries.entries:
            entry = entries.entries["name"]
            value = entry.node.value if isinstance(entry.node, Scalar) else None
            if not isinstance(value, str) or value not in choices:
                if not isinstance(entry.node, Broken):
                    meant = did_you_mean(value, choices) if isinstance(value, str) else ""
                    message = f"{section}.name must be {either(list(choices))}, got {kind(entry.node)}{meant}"
                    self.faults.add(entry.place, message)
                return None
            choice = value
        return self._instance(choices[choice], entries, section, choices)

    def _section_entries(self, root: Entries, name: str, hint: str) -> Entries | None:
        if name not in root.entries:
            return Entries(root.place, {})
        entry = root.entries[name]
        if isinstance(entry.node, Entries):
            return entry.node
        if isinstance(entry.node, Scalar) and entry.node.value is None:
            self.faults.add(
                entry.place, f"{name} has no value: leave it out, or write what belongs to it below, indented"
            )
        elif not isinstance(entry.node, Broken):
            spacing = spacing_hint(entry.node.text) if isinstance(entry.node, Scalar) else ""
            place = entry.node.place if spacing else entry.place
            self.faults.add(place, f"{name} must be a mapping (key: value), got {kind(entry.node)}{spacing or hint}")
        return None

    def _network(self, entry: Entry) -> tuple[Layer, ...] | None:
        if isinstance(entry.node, Broken):
            return None
        if not isinstance(entry.node, Items):
            self.faults.add(
                entry.place, f"network must be a list of layers (lines that begin with -), got {kind(entry.node)}"
            )
            return None
        if not entry.node.nodes:
            self.faults.add(entry.place, "network has no layers: leave it out, or list some")
            return None
        layers = [self._layer(node, f"network[{number}]") for number, node in enumerate(entry.node.nodes)]
        return tuple(layer for layer in layers if layer is not None) if None not in layers else None

    def _layer(self, node: Node, path: str) -> Layer | None:
        if isinstance(node, Broken):
            return None
        if isinstance(node, Scalar) and isinstance(node.value, str):
            keyword, place, value = node.value, node.place, cast(Node, Entries(node.place, {}))
        elif isinstance(node, Entries) and len(node.entries) == 1:
            ((keyword, entry),) = node.entries.items()
            place, value = entry.place, entry.node
        else:
            got = kind(node)
            if isinstance(node, Entries) and node.entries:
                keys = [clipped(key) for key in node.entries]
                first = keys[0]
                got = (
                    f"{', '.join(keys)} side by side: indent what belongs to {first} below it, and begin a layer with -"
                )
            place = node.place
            if isinstance(node, Entries):
                place = max((entry.place for entry in node.entries.values() if entry.place.rank), default=place)
            self.faults.add(place, f"{path} must be a layer, such as `conv: {{kernels: 8}}`, got {got}")
            return None
        if keyword not in LAYERS:
            hint = spacing_hint(keyword) or did_you_mean(keyword, LAYERS)
            self.faults.add(place, f"{path}: unknown layer {clipped(keyword)}{hint} (known: {', '.join(LAYERS)})")
            return None
        layer_class, path = LAYERS[keyword], f"{path}.{keyword}"
        if isinstance(value, Entries):
            return cast("Layer | None", self._instance(layer_class, value, path, LAYERS))
        if isinstance(value, Broken):
            return None
        if isinstance(value, Scalar) and value.value is None:
            self.faults.add(place, f"{path} has no value: write what is set of it below, indented, or {{}}")
            return None
        if layer_class.shorthand is None:
            self.faults.add(place, f"{path} must be a mapping (key: value) or {{}}, got {kind(value)}")
            return None
        short = Entries(value.place, {layer_class.shorthand: Entry(place, value)})
        return cast("Layer | None", self._instance(layer_class, short, path, LAYERS))

    def _instance(
        self, settings_class: type[Any], node: Entries, path: str, choices: Mapping[str, type[Any]] | None = None
    ) -> Any:
        """An object of the class, or None after reporting. ``choices`` are the classes that could stand here."""
        known = _fields(settings_class)
        given: dict[str, Any] = {}
        sound = True
        for key, entry in node.entries.items():
            if key not in known:
                self._unknown(key, entry.place, path, known, settings_class, choices)
                sound = False
                continue
            nested = next(filter(is_dataclass, branches(known[key].annotation)), None)
            if isinstance(entry.node, Entries) and nested is not None:
                given[key] = self._instance(nested, entry.node, f"{path}.{key}")
                if given[key] is None:
                    sound = False
                    del given[key]
            elif isinstance(entry.node, Broken):
                sound = False
            else:
                given[key] = to_plain(entry.node)
        for key, field in known.items():
            if field.is_required() and key not in node.entries:
                self.faults.add(node.place, f"{path}.{key} is missing ({field.description})")
                sound = False
        # Defaults are passed on too, so that they are checked: a whole number given as one becomes a fraction.
        defaults = {
            key: field.get_default(call_default_factory=True) for key, field in known.items() if not field.is_required()
        }
        try:
            instance = settings_class(**{**defaults, **given})
        except ValidationError as error:
            for key in dict.fromkeys(cast(str, fault["loc"][0]) for fault in error.errors(include_input=False)):
                if key in given:
                    entry = node.entries[key]
                    words = Words(known[key])
                    at, message = words.fault(entry.node, f"{path}.{key}")
                    self.faults.add(entry.place if at is entry.node else at.place, message)
            return None
        return instance if sound else None

    def _unknown(
        self,
        key: str,
        place: Place,
        path: str,
        known: Sequence[str] | Mapping[str, Any],
        settings_class: type[Any] | None = None,
        choices: Mapping[str, type[Any]] | None = None,
    ) -> None:
        word = clipped(key)
        owners = [name for name, choice in (choices or {}).items() if key in _fields(choice)]
        homes = [home for home, keys in _homes() if key in keys and key != "name"]
        if hint := spacing_hint(key):
            message = f"unknown key {word}{hint}"
        elif owners:
            mine = next(name for name, choice in (choices or {}).items() if choice is settings_class)
            message = f"{word} belongs to {either(owners)}, not {mine}"
        elif homes:
            message = f"{word} belongs {either(homes)}, not {f'under {path}' if path else 'at the top level'}"
        else:
            meant = did_you_mean(key, known)
            if not meant:
                elsewhere = {other: home for home, keys in reversed(_homes()) for other in keys}
                meant = did_you_mean(key, elsewhere)
            message = f"unknown key {word}{meant} (known {f'under {path}' if path else 'here'}: {', '.join(known)})"
        self.faults.add(place, message)


def _fields(settings_class: type[Any]) -> dict[str, FieldInfo]:
    return cast("dict[str, FieldInfo]", settings_class.__pydantic_fields__)


def _homes() -> list[tuple[str, Sequence[str]]]:
    """Where keys belong: a phrase for the place, and its keys."""
    homes: list[tuple[str, Sequence[str]]] = [("at the top level", _SECTIONS)]
    within_photos = {"photos.smallest_face": SmallestFaceSettings, "photos.augment": AugmentSettings}
    for name, settings_class in {**_PLAIN_SECTIONS, **within_photos}.items():
        homes.append((f"under {name}", list(_fields(settings_class))))
    for section, (choices, _) in _NAMED_SECTIONS.items():
        homes.append((f"under {section}", sorted({key for choice in choices.values() for key in _fields(choice)})))
    homes.extend((f"to a {keyword} layer", list(_fields(layer_class))) for keyword, layer_class in LAYERS.items())
    return homes
