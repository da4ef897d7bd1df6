"""The settings of a call: a config, changed by keyword arguments."""

import os
from collections.abc import Iterator, Mapping

import numpy as np

from facecnn.config import Loaded, apply_overrides, load
from facecnn.errors import UsageError


def read_settings(
    config: str | os.PathLike[str], settings: Mapping[str, object], *, epochs: int | None, seed: int | None
) -> Loaded:
    """Read a config and change settings in it.

    Args:
        config: a file, or the name of a shipped one.
        settings: by dotted key (``train.epochs``) or nested. A mapping changes the settings that it names; anything
            else replaces what is there.
        epochs: passes over the photos, however few steps they have.
        seed: ``train.seed``.

    Raises:
        UsageError: all that is wrong with them.
    """
    changed = {f"{keys} =": (keys, value) for keys, value in _flat(settings)}
    if epochs is not None:
        changed["epochs ="] = ("train.epochs", _plain("epochs", epochs))
        changed["epochs (least_steps) ="] = ("train.least_steps", 0)
    if seed is not None:
        changed["seed ="] = ("train.seed", _plain("seed", seed))
    loaded = load(config)
    return apply_overrides(loaded, [], changed) if changed else loaded


def _flat(settings: Mapping[str, object], before: str = "") -> Iterator[tuple[str, object]]:
    """Dotted keys and plain values."""
    for key, value in settings.items():
        if not isinstance(key, str):
            raise UsageError(f"{before}{key!r}: a setting's key is text, such as train.epochs")
        keys = f"{before}{key}"
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{keys}.")
        else:
            yield keys, _plain(keys, value)


def _plain(keys: str, value: object) -> object:
    """A value as YAML has it. Raises UsageError for what it has no word for."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(f"{keys}.{key}", part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(f"{keys}.{number}", part) for number, part in enumerate(value)]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise UsageError(
        f"{keys}: {type(value).__name__} is no setting: give text, a number, True or False, None or a list"
    )
