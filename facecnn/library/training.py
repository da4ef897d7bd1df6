"""Train a model from Python."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from facecnn.config import Loaded, apply_overrides, load
from facecnn.errors import UsageError
from facecnn.jobs.models import read_model
from facecnn.jobs.training.options import TrainOptions
from facecnn.jobs.training.train import train as job
from facecnn.library.computing import computing
from facecnn.library.console import console
from facecnn.library.model import Model
from facecnn.library.photos import as_path
from facecnn.runs.folder import RunFolder

_Path = str | os.PathLike[str]


def train(
    folder: _Path | None = None,
    /,
    config: _Path = "default",
    *,
    out: _Path = "runs",
    name: str | None = None,
    overwrite: bool = False,
    epochs: int | None = None,
    seed: int | None = None,
    device: str = "auto",
    threads: int | None = None,
    progress: bool = False,
    **settings: object,
) -> Model:
    """Train a network on a folder of photos.

    An interrupt (Ctrl-C) ends it with KeyboardInterrupt; ``facecnn train --resume`` goes on with what was saved.

    Args:
        folder: with one folder of photos for each person, also as ``photos=``; None: that of the config, else
            data/photos where it exists, else two sample people.
        config: a settings file, or the name of a shipped one: default, many, pretrained, finetune, seed, deep, smoke.
        out: the folder in which the run's folder is made.
        name: the run's; None: made of date and config.
        overwrite: whether a run of that name is replaced.
        epochs: passes over the photos (``train.epochs``, without ``train.least_steps``).
        seed: ``train.seed``; equal seeds give equal models.
        device: "auto", "cpu", "cuda", "cuda:N" or "reference".
        threads: of the processor; None: all. The result doesn't depend on it.
        progress: show progress and messages on stderr. Messages go to the logger ``facecnn`` otherwise.
        **settings: changes to the config, section by section: ``optimizer={"learning_rate": 0.01}``. A mapping changes
            the settings that it names; anything else replaces what is there. ``**{"photos.size": 64}`` does the same.

    Returns:
        The model, in its run's folder.

    Raises:
        UsageError: a setting or an argument is wrong.
        PhotoError: the photos can't be trained on.
        DeviceError: the device can't be used.
        OutputError: the run can't be written.
        DivergedError: the loss is no longer finite.
    """
    if isinstance(settings.get("photos"), (str, os.PathLike)):
        if folder is not None:
            raise UsageError("photos: a second folder of photos; as a mapping it changes settings of that section")
        folder = settings.pop("photos")  # type: ignore[assignment]  # it was just looked at
    loaded = read_settings(config, settings, epochs=epochs, seed=seed)
    options = TrainOptions(
        photos=None if folder is None else as_path(folder, "the folder of photos"),
        label=Path(config).stem,
        out=Path(out),
        name=name,
        overwrite=overwrite,
        device=device,
        threads=threads,
    )
    return run_training(loaded, options, progress=progress)


def run_training(loaded: Loaded, options: TrainOptions, *, progress: bool = False) -> Model:
    """Train with checked settings; see ``train``. Signals are left to the caller."""
    with console(progress) as told, computing():
        figures = job(loaded, replace(options, heeds_signals=False), told)
    path = RunFolder(Path(figures["run"]).absolute()).best_path
    return Model(read_model(path), device=options.device, threads=options.threads, figures=figures)


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
