"""How good is the learning rate that ``facecnn lr-find`` suggests? Train with it, and with nine others, and compare.

Each rate is used as it is, as the optimizer's ``learning_rate`` of the config with its own schedule, and judged by the
photos that a fold leaves out. Prints a table and draws it. All of it takes hours; ``--folds``, ``--seeds`` and
``--epochs`` make it shorter, and ``--keep FILE`` goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from facecnn.cli.console import StderrConsole
from facecnn.config import Loaded, apply_overrides, load
from facecnn.errors import DivergedError, FacecnnError
from facecnn.jobs.people import photo_set, read_people
from facecnn.jobs.training_setup import make_trainer
from facecnn.kernels import Device, open_device
from facecnn.photos.dataset import Dataset

FOLDS = 5
RATES = tuple(10 ** (exponent / 2) for exponent in range(-8, 1))
"""Nine, from 0.0001 to 1."""


class Losses:
    """A recorder that keeps the validation losses."""

    def __init__(self) -> None:
        self.held_out: list[float] = []

    def step(self, step: Any) -> None:
        pass

    def epoch(self, metrics: Mapping[str, Any]) -> None:
        self.held_out.append(metrics["validation_loss"])

    def save_best(self, arrays: Any, state: Any) -> None:
        pass

    def save_last(self, arrays: Any, state: Any, *, interrupted: bool) -> None:
        pass


def held_out_losses(loaded: Loaded, dataset: Dataset, fold: Any, device: Device) -> tuple[float, float]:
    """The lowest validation loss of a training's epochs, and that of the last; infinite where it diverged."""
    chosen = np.setdiff1d(np.arange(len(dataset.labels)), fold)
    recorder = Losses()
    try:
        make_trainer(loaded, dataset, chosen, photo_set(dataset, fold), device).run(recorder)
    except DivergedError:
        return min(recorder.held_out, default=math.inf), math.inf
    return min(recorder.held_out), recorder.held_out[-1]


def with_rate(loaded: Loaded, rate: float, seed: int, epochs: int | None) -> Loaded:
    settings = loaded.settings
    train = replace(settings.train, seed=seed, stop_after_epochs_without_gain=None)
    if epochs is not None:
        train = replace(train, epochs=epochs, least_steps=0)
    return replace(
        loaded,
        settings=replace(settings, optimizer=replace(settings.optimizer, learning_rate=rate), train=train),
    )


def sweep(arguments: argparse.Namespace, rates: list[float]) -> dict[float, list[tuple[float, float]]]:
    """(lowest, last) validation loss of every training, by rate."""
    loaded = apply_overrides(load(arguments.config), arguments.set)
    device = open_device(arguments.device, arguments.threads)
    console = StderrConsole(quiet=True, verbose=False)
    dataset = read_people(arguments.photos, loaded.settings.photos, console, strict=False, for_training=True)
    folds = dataset.folds(FOLDS)[: arguments.folds]
    known = _kept(arguments.keep)
    losses: dict[float, list[tuple[float, float]]] = {rate: [] for rate in rates}
    for seed in range(arguments.seeds):
        for number, fold in enumerate(folds):
            for rate in rates:
                key = (f"{rate:.6g}", number, seed, arguments.epochs)
                if key not in known:
                    found = held_out_losses(with_rate(loaded, rate, seed, arguments.epochs), dataset, fold, device)
                    known[key] = found
                    if arguments.keep is not None:
                        with arguments.keep.open("a", encoding="utf-8") as stream:
                            stream.write(json.dumps([*key, *found]) + "\n")
                losses[rate].append(known[key])
                best, last = known[key]
                print(f"seed {seed} fold {number + 1} rate {rate:.3g}: {best:.4f} {last:.4f}", file=sys.stderr)
    return losses


def _kept(path: Path | None) -> dict[tuple[Any, ...], tuple[float, float]]:
    if path is None or not path.exists():
        return {}
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {tuple(row[:-2]): (row[-2], row[-1]) for row in rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("photos", type=Path, help="a folder with one folder of photos per person")
    parser.add_argument("-c", "--config", default="default")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--epochs", type=int, help="as of train, for shorter trainings")
    parser.add_argument("--folds", type=int, default=FOLDS, help=f"so many of the {FOLDS} folds")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="a file for the results so far, to go on from")
    arguments = parser.parse_args()
    sweep(arguments, list(RATES))


if __name__ == "__main__":
    try:
        main()
    except FacecnnError as error:
        sys.exit(f"error: {error}")
