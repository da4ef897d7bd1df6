"""The section ``sweep`` of a settings file: the ranges in which ``facecnn sweep`` searches.

::

    sweep:
      optimizer.learning_rate: {low: 0.0005, high: 0.01, log: true}
      network.0.conv.kernels: {low: 8, high: 32, step: 8}
      train.batch_size: {choices: [16, 32]}
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from facecnn.config import Loaded, with_values
from facecnn.config.tree import Faults, Keys, Location, SettingsError, Tree, did_you_mean
from facecnn.errors import UsageError

_PLAIN_NUMBER = {"type": "number"}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "ranges in which facecnn sweep searches, by setting",
    "minProperties": 1,
    "additionalProperties": {
        "anyOf": [
            {
                "type": "object",
                "properties": {
                    "low": _PLAIN_NUMBER,
                    "high": _PLAIN_NUMBER,
                    "log": {"type": "boolean"},
                    "step": {"type": "number", "exclusiveMinimum": 0},
                },
                "required": ["low", "high"],
                "additionalProperties": False,
            },
            {
                "type": "object",
                "properties": {"choices": {"type": "array", "minItems": 2, "uniqueItems": True}},
                "required": ["choices"],
                "additionalProperties": False,
            },
        ]
    },
}
"""JSON Schema of the section, for editors."""

_KEYS = ("low", "high", "log", "step", "choices")
_FORM = "{low: 0.001, high: 0.01, log: true} or {choices: [16, 32]}"
_WITHOUT_EFFECT = {
    "version": "it is the file's format",
    "photos.folder": "it is the same in all trials",
    "photos.validation": "trials hold folds out instead",
    "calibration": "trials are judged without a threshold",
    "train.stop_after_epochs_without_gain": "trials hold out no photos to decide when to stop",
    "train.seed": "the luckiest seed isn't better on other photos",
}
"""Settings that don't change a trial's score, or mustn't be chosen by it, and why."""


@dataclass(frozen=True)
class Range:
    """The values that a setting may take in a sweep: numbers from ``low`` to ``high``, or ``choices``."""

    path: str
    """``optimizer.learning_rate``"""
    location: Location
    """Where its key was written."""
    low: float = 0
    high: float = 0
    log: bool = False
    """Whether equal ratios are equally likely, not equal differences."""
    step: float | None = None
    whole: bool = False
    """Whether the setting takes whole numbers only."""
    choices: tuple[str, ...] = ()
    """As JSON texts."""

    def record(self) -> dict[str, Any]:
        """The range as plain data for JSON."""
        if self.choices:
            return {"choices": [json.loads(text) for text in self.choices]}
        return {"low": self.low, "high": self.high, "log": self.log, "step": self.step}

    def value(self, drawn: Any) -> Any:
        """The setting's value for a drawn one, which is a number or the text of a choice."""
        return json.loads(drawn) if self.choices else drawn


def settings_with(loaded: Loaded, ranges: tuple[Range, ...], drawn: Mapping[str, Any]) -> Loaded:
    """The settings with a value of each range; ``drawn`` are the values by path. Raises UsageError if they don't fit.

    A section is set before what is in it.
    """
    ordered = sorted(ranges, key=lambda one: one.path.count("."))
    return with_values(loaded, [(one.path, one.value(drawn[one.path]), one.location) for one in ordered])


def ranges_in(loaded: Loaded) -> tuple[Range, ...]:
    """The ranges of a settings file, in its order.

    Raises UsageError if there are none, or with everything that is wrong with them: ``mine.yaml:31:3: sweep: …``.
    """
    section = loaded.sweep
    if section is None:
        raise UsageError(
            f"{loaded.tree.at(()).value.label}: no section sweep in it: write one, such as\n"
            "sweep:\n  optimizer.learning_rate: {low: 0.0005, high: 0.01, log: true}"
        )
    if not isinstance(section.data, dict) or not section.data:
        got = "nothing" if section.data in (None, {}) else section.kind((), section.data)
        raise SettingsError([(section.at(()).key, f"sweep must have a line for each setting, got {got}")])
    faults: Faults = []
    found = []
    for path in section.data:
        own = [*_faults_in(section, path)]
        if not own:
            try:
                found.append(_checked(loaded, section, path))
            except SettingsError as error:
                own = error.faults
        faults += own
    if faults:
        raise SettingsError(faults)
    return tuple(found)


def _faults_in(section: Tree, path: str) -> Iterator[tuple[Location, str]]:
    """What is wrong with the form of an entry."""
    entry, what = section.data[path], f"sweep: {path}"

    def at(*keys: str) -> Location:
        return section.at((path, *keys)).key

    for fixed, why in _WITHOUT_EFFECT.items():
        if path == fixed or path.startswith(f"{fixed}."):
            yield at(), f"{what} can't be searched: {why}"
            return
    if not isinstance(entry, dict):
        yield at(), f"{what} must be {_FORM}, got {section.kind((path,), entry)}"
        return
    for key in entry:
        if key not in _KEYS:
            yield at(key), f"{what}: unknown key {key}{did_you_mean(key, _KEYS)} (known: {', '.join(_KEYS)})"
    if "choices" in entry:
        if len(entry) > 1:
            yield at(), f"{what} has choices, so it can have nothing else"
        yield from _faults_in_choices(section, path)
    elif entry.keys() <= {*_KEYS}:
        yield from _faults_in_numbers(section, path)


def _faults_in_choices(section: Tree, path: str) -> Iterator[tuple[Location, str]]:
    keys: Keys = (path, "choices")
    choices = section.data[path]["choices"]
    if not isinstance(choices, list) or len(choices) < 2:
        got = "only one" if isinstance(choices, list) and choices else section.kind(keys, choices)
        yield section.at(keys).key, f"sweep: {path}.choices must be a list of two values or more, got {got}"
        return
    texts = [json.dumps(choice) for choice in choices]
    for number, text in enumerate(texts):
        if text in texts[:number]:
            yield section.at((*keys, number)).value, f"sweep: {path}.choices has {text} twice"


def _faults_in_numbers(section: Tree, path: str) -> Iterator[tuple[Location, str]]:
    entry, what = section.data[path], f"sweep: {path}"
    missing = [key for key in ("low", "high") if key not in entry]
    if missing:
        yield section.at((path,)).key, f"{what} has no {' and no '.join(missing)}: it must be {_FORM}"
        return
    wrong = False
    for key in ("low", "high", "step"):
        value = entry.get(key)
        if (key in entry and not _is_number(value)) or (key == "step" and _is_number(value) and value <= 0):
            wrong = True
            expected = "a number above 0" if key == "step" else "a number"
            yield (
                section.at((path, key)).key,
                f"{what}.{key} must be {expected}, got {section.kind((path, key), value)}",
            )
    if not isinstance(entry.get("log", False), bool):
        wrong = True
        got = section.kind((path, "log"), entry["log"])
        yield section.at((path, "log")).key, f"{what}.log must be true or false, got {got}"
    if wrong:
        return
    if entry["low"] >= entry["high"]:
        yield section.at((path, "low")).key, f"{what}.low must be less than high (got {entry['low']}, {entry['high']})"
    if entry.get("log") and entry["low"] <= 0:
        yield section.at((path, "low")).key, f"{what}.low must be greater than 0 with log: true (got {entry['low']})"
    if entry.get("log") and "step" in entry:
        yield section.at((path, "step")).key, f"{what} can have log: true or a step, not both"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _checked(loaded: Loaded, section: Tree, path: str) -> Range:
    """An entry whose form is right, as a range. Raises SettingsError if its ends, or a choice, aren't valid."""
    entry, location = section.data[path], section.at((path,)).key
    places: list[tuple[Any, Keys]]
    if "choices" in entry:
        places = [(choice, (path, "choices", number)) for number, choice in enumerate(entry["choices"])]
    else:
        places = [(entry[key], (path, key)) for key in ("low", "high")]
    faults: Faults = []
    for value, keys in places:
        try:
            with_values(loaded, [(path, value, section.at(keys).value)])
        except SettingsError as error:
            faults += error.faults
    if faults:
        raise SettingsError(list(dict.fromkeys(faults)))
    if "choices" in entry:
        return Range(path, location, choices=tuple(json.dumps(choice) for choice in entry["choices"]))
    numbers = [entry[key] for key in ("low", "high", "step") if key in entry]
    takes_halves = _takes(loaded, path, entry["low"] + 0.5, location)
    whole = all(isinstance(number, int) for number in numbers) and not takes_halves
    return Range(path, location, entry["low"], entry["high"], entry.get("log", False), entry.get("step"), whole)


def _takes(loaded: Loaded, path: str, value: Any, location: Location) -> bool:
    try:
        with_values(loaded, [(path, value, location)])
    except UsageError:
        return False
    return True
