"""Compile in advance the kernels that training and answering would compile when first needed."""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from facecnn.body.embedder import BATCH_SIZE, CHIP_SETTINGS, Embedder
from facecnn.body.weights import body_arrays
from facecnn.config import Loaded, load
from facecnn.errors import DivergedError
from facecnn.jobs.console import Console
from facecnn.jobs.faces import run_installed_networks
from facecnn.jobs.models import make_recogniser
from facecnn.jobs.people import photo_set
from facecnn.jobs.training.setup import make_trainer
from facecnn.kernels import Device
from facecnn.kernels.cards import card_number
from facecnn.learning.calibration import Calibration
from facecnn.learning.optimizers import ClassMeans
from facecnn.learning.progress import Recorder
from facecnn.photos.dataset import Dataset
from facecnn.photos.folder_faces import main_faces
from facecnn.photos.preparation import PhotoSettings

_PEOPLE = 2
"""Number of people, where the config leaves it open; it makes no difference to the kernels."""

_MOST_PHOTOS, _HELD_OUT = 64, 2
"""Photos to train on, at most, and to judge by."""


@dataclass(frozen=True)
class Planned:
    """A config to compile the kernels for."""

    name: str
    loaded: Loaded
    outputs: int


def plan_ahead(config: str) -> Planned:
    """Read a config by its path or name. Raises UsageError if it, or its network, is wrong."""
    return plan_for(load(config), config)


def plan_for(loaded: Loaded, name: str = "") -> Planned:
    """Plan the network of settings. Raises UsageError if it is wrong."""
    outputs = loaded.stages(_PEOPLE)[-1].out_shape[-1]
    loaded.plan(outputs)
    return Planned(name, loaded, outputs)


def compiled_code(device: str) -> set[Path]:
    """The files of compiled functions for a device, and for the face finder, which works on the CPU."""
    from facecnn.kernels.code_cache import code_files

    return {file for folder in {code_folder(device), code_folder("cpu")} for file in code_files(folder)}


def code_folder(device: str) -> str | None:
    """The cache folder of a device's kernels; None if there is none, or for the reference, which isn't compiled."""
    if device == "cpu":
        from facecnn.kernels.cpu.jit import cache_folder

        return cache_folder()
    if card_number(device) is not None:
        from facecnn.kernels.cuda.driver import cache_folder

        return cache_folder()
    return None


def compile_ahead(planned: Sequence[Planned], device: Device, before: set[Path], console: Console) -> dict[str, Any]:
    """Train the network of each config for one step on noise and let it answer, and run the face finder if installed.

    ``before``: the ``compiled_code`` that counts as old. Returns ``warm`` of the ``doctor`` JSON. Raises UsageError or
    DeviceError where memory is too small.
    """
    started = time.perf_counter()
    with console.counting("Compiling ahead", "networks") as progress:
        progress(0, len(planned) + 1)
        for number, config in enumerate(planned, 1):
            train_and_answer(config, device)
            progress(number, len(planned) + 1)
        faces = run_installed_networks()
    return {
        "configs": [config.name for config in planned],
        "faces": faces,
        "functions": len(compiled_code(device.name) - before),
        "seconds": time.perf_counter() - started,
        "folder": code_folder(device.name),
    }


def train_and_answer(config: Planned, device: Device) -> None:
    """Run everything that the settings ask of training and of the model's answers, for one step."""
    loaded = config.loaded
    if isinstance(loaded.settings.optimizer, ClassMeans):
        _embed(device)
        return
    train = replace(loaded.settings.train, epochs=1, least_steps=0, restarts=1)
    settings = replace(loaded.settings, train=train)
    count = min(train.batch_size, _MOST_PHOTOS)
    dataset = _noise(settings.photos, config.outputs, count + _HELD_OUT)
    held_out = photo_set(dataset, np.arange(count, count + _HELD_OUT))
    trainer = make_trainer(
        replace(loaded, settings=settings),
        dataset,
        main_faces(np.arange(count)),
        device,
        validation=held_out,
        fresh=False,
    )
    with suppress(DivergedError):  # noise may be too much for the learning rate; the result isn't needed
        trainer.run(Recorder())
    recogniser = make_recogniser(settings, list(dataset.classes), trainer.arrays(), Calibration(), device.backend)
    recogniser.answers(held_out.pixels, held_out.rows, None)


def _embed(device: Device) -> None:
    """Run the body, if it is installed, on as many crops as it takes at a time, and on one."""
    body = body_arrays()
    if body is not None:
        noise = _noise(CHIP_SETTINGS, 1, BATCH_SIZE + 1)
        Embedder(device.backend, body).compute(noise.pixels, noise.rows)


def _noise(settings: PhotoSettings, people: int, count: int) -> Dataset:
    """A data set of noise, without files."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, *settings.margin_shape), np.uint8)
    return Dataset(
        folder=Path(),
        settings=settings,
        finder=None,
        classes=tuple(f"person {number}" for number in range(people)),
        paths=(),
        files=(),
        labels=np.arange(count) % people,
        pixels=pixels,
        rows=np.arange(count),
        faces=((),) * count,
        sha256=(),
        hashes=np.zeros(0, np.uint64),
        sizes=np.zeros((0, 2), np.int64),
        skipped=(),
        warnings=(),
        notes=(),
    )
