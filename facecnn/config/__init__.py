"""The settings file: reads YAML into the settings classes, each of which stands beside the code that it sets.

``configs/default.yaml``, ``facecnn config show`` and ``facecnn config schema`` describe the format. A missing section
takes the defaults of its class; a file without ``network`` takes the network of ``default.yaml``.

YAML's parser is only imported where there is YAML: a model's settings are JSON.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from facecnn.config.explain import explain
from facecnn.config.model import ADAPTER, expand_layer
from facecnn.config.model import Settings as Settings
from facecnn.config.model import json_schema as json_schema
from facecnn.config.tree import Faults, Keys, Location, SettingsError, Tree, clipped, spacing_hint
from facecnn.errors import UsageError, shown
from facecnn.network.layers import Layer, LayerError, shape_text, with_outputs
from facecnn.network.stages import Stage, plan

_YAML_WORDS = frozenset(("true", "false", "null", "yes", "no", "on", "off", "y", "n"))
"""Plain words that some version of YAML doesn't read as text."""


@dataclass(frozen=True)
class Loaded:
    """Checked settings, and where each of them was written."""

    settings: Settings
    tree: Tree
    """The data of the file and the command line, with locations."""
    sweep: Tree | None = None
    """The file's section ``sweep``, unchecked: see ``facecnn.config.sweep``."""

    def where(self, keys: Keys) -> str:
        """Where keys such as ``("network", 2, "size")`` were written, ``config.yaml:12:5``, or else their section."""
        if keys[:1] == ("network",) and len(keys) > 2:
            number, *inner = keys[1:]
            keyword = self.settings.network[int(number)].keyword
            keys = ("network", number, keyword, *(inner[1:] if inner[0] == keyword else inner))
        return str(self.tree.at(keys).key)

    def located(self, error: LayerError) -> UsageError:
        """The same error, its message preceded by the layer's location."""
        keys: Keys = ("network",) if error.index is None else ("network", error.index, *error.within)
        return UsageError(f"{self.where(keys)}: {error}")

    def stages(self, people: int) -> tuple[Stage, ...]:
        """Plan the layers and their shapes, with ``people`` units where the file says ``units: people``.

        Raises UsageError if a layer doesn't fit; the message says where it is in the file.
        """
        try:
            return plan(with_outputs(self.settings.network, people), self.settings.photos.shape)
        except LayerError as error:
            raise self.located(error) from None

    def plan(self, outputs: int) -> tuple[Stage, ...]:
        """Plan the network for ``outputs`` classes.

        Raises UsageError if a layer doesn't fit, or the last one has another number of outputs.
        """
        stages = self.stages(outputs)
        given = stages[-1].out_shape
        if given != (outputs,):
            number = len(self.settings.network) - 1
            what = f"{given[0]} outputs" if len(given) == 1 else shape_text(given)
            raise UsageError(
                f"{self.where(('network', number))}: the last layer gives {what}, the data needs {outputs} (one for "
                "each person, and one more with an unknown/ folder): end the network with `- dense: {units: people}`"
            )
        return stages


def shipped() -> dict[str, Path]:
    """The configs that come with facecnn, by name. Raises UsageError if they are missing."""
    package = Path(__file__).parent.parent
    for folder in (package / "configs", package.parent / "configs"):
        if folder.is_dir():
            return {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    raise UsageError(f"{shown(package)}: facecnn can't be used from here without its configs/: unpack or install it")


def load(path_or_name: str | os.PathLike[str]) -> Loaded:
    """Read a settings file.

    ``path_or_name``: a path, or the name of a shipped config (a file of the same name is ``./default``). Raises
    UsageError with everything that is wrong in it, one error per line: ``config.yaml:7:3: train.epochs must be …``.
    """
    from facecnn.config.source import parse, read

    known = shipped()
    path = known.get(os.fspath(path_or_name), path_or_name)
    tree = parse(read(path, list(known)), shown(path))
    if tree.data is None or tree.data == "":
        raise UsageError(f"{shown(path)}: empty: there are no settings in it")
    if not isinstance(tree.data, dict):
        hint = spacing_hint(tree.data) if isinstance(tree.data, str) else ""
        raise UsageError(f"{tree.at(()).value}: expected key: value lines, got {tree.kind((), tree.data)}{hint}")
    sweep = tree.take("sweep")
    return Loaded(_check(tree), tree, sweep)


def apply_overrides(
    loaded: Loaded, overrides: Sequence[str], options: Mapping[str, tuple[str, object]] | None = None
) -> Loaded:
    """Replace some settings, and check the result like a file.

    Args:
        loaded: the settings to start from; they aren't changed.
        overrides: the values of ``--set``: ``train.epochs=3``, ``photos.augment=null``, ``network.0.conv.kernels=8``,
            ``optimizer={name: momentum}``. Another name of an optimizer, loss or schedule drops the options that the
            file sets for the old one.
        options: other options of the command line, which win: ``{"--epochs": ("train.epochs", 3)}``.

    Raises:
        UsageError: ``--set train.epochs=abc: train.epochs must be …``.
    """
    from facecnn.config.source import parse

    tree = deepcopy(loaded.tree)
    faults: Faults = []
    for rank, override in enumerate(overrides, start=1):
        label = f"--set {clipped(override)}"
        keys, equals, text = override.partition("=")
        try:
            if not equals:
                raise SettingsError([(Location(rank, 0, 0, label), f"a value is missing: --set {clipped(keys)}=VALUE")])
            _override(tree, keys, parse(text, label, rank=rank, lines=False))
        except SettingsError as error:
            faults += error.faults
    for rank, (option, (keys, plain)) in enumerate((options or {}).items(), start=1 + len(overrides)):
        _override(tree, keys, Tree.at_one_location(plain, Location(rank, 0, 0, f"{option} {clipped(str(plain))}")))
    return Loaded(_check(tree, faults), tree, loaded.sweep)


def with_values(loaded: Loaded, values: Sequence[tuple[str, Any, Location]]) -> Loaded:
    """Replace some settings; each value has its key, such as ``train.epochs``, and the location for messages.

    Raises UsageError, as from ``apply_overrides``.
    """
    changed = deepcopy(loaded.tree)
    for keys, plain, location in values:
        _override(changed, keys, Tree.at_one_location(plain, location))
    return Loaded(_check(changed), changed, loaded.sweep)


def to_dict(settings: Settings) -> dict[str, Any]:
    """The settings as plain data for JSON; ``from_dict`` reads it."""
    plain: dict[str, Any] = ADAPTER.dump_python(settings, mode="json")
    return plain


def from_dict(data: Mapping[str, Any]) -> Settings:
    """The settings that ``to_dict`` wrote. Raises UsageError if they are invalid."""
    try:
        plain = json.loads(json.dumps(data))
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"the settings aren't JSON: {error}") from None
    if not isinstance(plain, dict):
        raise UsageError("the settings must be a mapping")
    return _check(Tree.at_one_location(plain, Location(0, 0, 0, "")))


def differences(before: Settings, now: Settings) -> list[str]:
    """List the changes: ``optimizer.learning_rate is 0.02, was 0.01``; networks of unequal length are one change."""

    def compare(one: Any, other: Any, path: str) -> list[str]:
        found: list[str] = []
        if isinstance(one, dict) and isinstance(other, dict):  # another name has other options
            found = [text for key in one if key in other for text in compare(one[key], other[key], f"{path}.{key}")]
        elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
            for number, parts in enumerate(zip(one, other, strict=True)):
                found += compare(*parts, f"{path}[{number}]")
        if found or one == other:
            return found
        return [f"{path.lstrip('.')} is {clipped(json.dumps(other))}, was {clipped(json.dumps(one))}"]

    return compare(to_dict(before), to_dict(now), "")


def to_yaml(settings: Settings, comments: bool = True) -> str:
    """Write a settings file with every option; reading it gives equal settings.

    ``comments``: whether each option's description follows it; layers of a kind are described once.
    """
    lines = [
        f"{text:34}  # {description}\n" if comments and description else f"{text}\n"
        for text, description in _lines(settings, "", set())
    ]
    return "".join(lines)


def _lines(settings: Any, indent: str, seen: set[str]) -> Iterator[tuple[str, str]]:
    """Lines of a settings object with their descriptions; ``name`` comes first, because the others depend on it."""
    known: dict[str, FieldInfo] = type(settings).__pydantic_fields__
    for key in sorted(known, key=lambda key: key != "name"):
        value, description = getattr(settings, key), known[key].description or ""
        if is_dataclass(value):
            yield f"{indent}{key}:", description
            yield from _lines(value, indent + "  ", seen)
        elif isinstance(value, tuple) and any(isinstance(part, Layer) for part in value):
            yield f"{indent}{key}:", description
            for layer in value:
                new = layer.keyword not in seen
                seen.add(layer.keyword)
                lines = [*_lines(layer, f"{indent}      ", seen)]
                yield f"{indent}  - {layer.keyword}:{'' if lines else ' {}'}", ""
                yield from ((text, meaning if new else "") for text, meaning in lines)
        else:  # a default of 8 is written as 8, though pydantic made 8.0 of it
            text = _yaml_text(known[key].default if value == known[key].default else value)
            yield f"{indent}{key}: {text}", description


def _yaml_text(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_yaml_text, value))}]"
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z_]\w*", value, re.ASCII) and value.lower() not in _YAML_WORDS:
        return value
    # JSON is YAML, except that YAML wants some characters escaped, all of them in the basic multilingual plane.
    text = json.dumps(value, ensure_ascii=False)
    return "".join(c if c.isprintable() or ord(c) > 0xFFFF else f"\\u{ord(c):04x}" for c in text)


def _override(tree: Tree, keys: str, value: Tree) -> None:
    """Set a value in the tree. Raises SettingsError.

    ``keys``: ``train.epochs``, ``network.0.conv.kernels`` or, as in messages, ``network[0].conv.kernels``.
    """
    location, names = value.at(()).key, re.sub(r"\[(\d+)\]", r".\1", keys).split(".")
    if "" in names:
        raise SettingsError([(location, "the key has an empty part: write it like train.epochs")])
    data, at = tree.data, Keys()
    for number, name in enumerate(names, start=1):
        path = ".".join(names[: number - 1]) or "the file"
        key: str | int = name
        if isinstance(data, list):
            if not re.fullmatch(r"[0-9]{1,4}", name) or int(name) >= len(data):
                raise SettingsError([(location, f"{path} has the places 0 to {len(data) - 1}, not {clipped(name)}")])
            key = int(name)
        elif not isinstance(data, dict):
            now = f"{tree.kind(at, data)} ({tree.at(at).value})"
            hint = f": set {path}={{{name}: …}}" if at else ""
            raise SettingsError([(location, f"{path} is {now}, so it has no {clipped(name)}{hint}")])
        elif number == len(names) and name == "name" and names[0] != "network" and data.get(name) != value.data:
            _drop_file_options(tree, at, data)
        elif name not in data:
            tree.put((*at, name), Tree.at_one_location({}, location))
        at = (*at, key)
        data = data[key] if number < len(names) else data
    tree.put(at, value)
    _expand_layers(tree)


def _drop_file_options(tree: Tree, at: Keys, section: dict[str, Any]) -> None:
    """Drop what the file sets for the old optimizer: a learning rate that suits one doesn't suit another."""
    for key in list(section):
        if tree.at((*at, key)).key.rank == 0:
            del section[key]


def _expand_layers(tree: Tree) -> None:
    network = tree.data.get("network")
    if isinstance(network, list):
        network[:] = map(expand_layer, network)


def _check(tree: Tree, faults: Faults | None = None) -> Settings:
    """Validate a tree, which gets the network of ``default.yaml`` if it has none.

    Raises SettingsError with what is invalid, and ``faults`` that were found before.
    """
    if "network" not in tree.data:
        from facecnn.config.source import parse, read

        path = shipped()["default"]
        default = parse(read(path), shown(path))
        written = {keys[1:]: written for keys, written in default.written.items() if keys[:1] == ("network",)}
        tree.put(("network",), Tree(default.data["network"], written))
    _expand_layers(tree)
    try:
        # As JSON: in strict mode pydantic takes a JSON list for a tuple, but not a Python list.
        settings = ADAPTER.validate_json(json.dumps(tree.data))
    except ValidationError as error:
        raise SettingsError([*(faults or ()), *explain(error, tree)]) from None
    if faults:
        raise SettingsError(faults)
    return settings
