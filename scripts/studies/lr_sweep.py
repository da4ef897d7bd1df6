"""How good is the learning rate that ``facecnn lr-find`` suggests? Train with it, and with nine others, and compare.

Each rate becomes the optimizer's ``learning_rate``, with the config's schedule. It is judged by the photos that a fold
leaves out: by the loss of the last weights, as in ``facecnn cross-validate``, and by the lowest loss after any epoch.
All of it takes hours; ``--folds``, ``--seeds`` and ``--epochs`` shorten it, and ``--keep FILE`` goes on where it was
stopped. A rate whose means over two or more runs are both more than ``--hopeless`` above the best ones is dropped,
unless it is the suggested one: the table has each rate's number of runs.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from common.command import add_config, at_least, exit_on_error, parser, say
from common.figures import BLUE, GREY, ORANGE, new_figure, save
from common.recording import EpochMetrics
from common.tables import table
from facecnn.config import Loaded, apply_overrides, load
from facecnn.errors import DivergedError, OutputError
from facecnn.jobs.lr_find import lr_find
from facecnn.jobs.people import photo_set
from facecnn.jobs.training.options import TrainOptions
from facecnn.jobs.training.setup import make_trainer
from facecnn.kernels import Device, open_device
from facecnn.learning.full_batch_optimizers import FullBatchOptimizer
from facecnn.learning.optimizers import ClassMeans
from facecnn.photos.dataset import Dataset
from facecnn.photos.folder_faces import folder_faces
from studies.album import CONSOLE, read_album

COLUMNS = ("rate", "runs", "last loss", "above best", "lowest loss", "above best of these")
FOLDS = 5
STEPS = 150
"""Steps of lr-find's range tests: its default."""
ENDLESS = 1_000_000
"""Epochs of patience: only with some are the held-out photos judged after each epoch, however short it is."""
RATES = tuple(10 ** (exponent / 2) for exponent in range(-8, 1))
"""Nine, from 0.0001 to 1."""

Losses = Mapping[float, Sequence[tuple[float, float]]]
"""By rate, (lowest, last) validation loss of every run."""


def held_out_losses(loaded: Loaded, dataset: Dataset, fold: Any, device: Device) -> tuple[float, float]:
    """Train. Returns the lowest validation loss of an epoch, and the last one, which is infinite where it diverged."""
    chosen = np.setdiff1d(np.arange(len(dataset.labels)), fold)
    recorder = EpochMetrics()
    gc.collect()  # the last trainer, which refers to itself
    try:
        training, validation = folder_faces(dataset, chosen), photo_set(dataset, fold)
        make_trainer(loaded, dataset, training, device, validation=validation).run(recorder)
    except DivergedError:
        return min(recorder.of("validation_loss"), default=math.inf), math.inf
    losses = recorder.of("validation_loss")
    return min(losses), losses[-1]


def with_rate(loaded: Loaded, rate: float, seed: int, epochs: int | None) -> Loaded:
    settings = loaded.settings
    assert not isinstance(settings.optimizer, FullBatchOptimizer | ClassMeans)
    train = replace(settings.train, seed=seed)
    if epochs is not None:
        train = replace(train, epochs=epochs, least_steps=0)
    train = replace(train, stop_after_epochs_without_gain=ENDLESS)
    return replace(
        loaded,
        settings=replace(settings, optimizer=replace(settings.optimizer, learning_rate=rate), train=train),
    )


def suggestion(arguments: argparse.Namespace, loaded: Loaded) -> float:
    """Run ``facecnn lr-find``, with a picture beside that of the sweep. Raises OutputError if it suggests no rate."""
    picture = arguments.output.with_name(f"{arguments.output.stem}-range-test.png")
    found = lr_find(
        loaded,
        TrainOptions(photos=arguments.photos, device=arguments.device, threads=arguments.threads),
        steps=STEPS,
        model=None,
        plot=picture,
        config=arguments.config,
        write=None,
        console=CONSOLE,
    )
    if found["suggestion"] is None:
        raise OutputError(f"lr-find suggests no rate: see {picture}")
    return float(found["suggestion"])


def sweep(arguments: argparse.Namespace, loaded: Loaded, suggested: float) -> Losses:
    """Train with all rates."""
    device = open_device(arguments.device, arguments.threads)
    dataset, _ = read_album(arguments.photos, loaded.settings.photos)
    folds = dataset.folds(FOLDS)[: arguments.folds]
    known = _kept(arguments.keep)
    hopeful = sorted({*RATES, suggested})
    losses: dict[float, list[tuple[float, float]]] = {rate: [] for rate in hopeful}
    for seed in range(arguments.seeds):
        for number, fold in enumerate(folds):
            if seed > 0 or number > 1:
                still = still_hopeful({rate: losses[rate] for rate in hopeful}, arguments.hopeless)
                hopeful = sorted({*still, suggested})
            for rate in hopeful:
                key = (f"{rate:.6g}", number, seed, arguments.epochs)
                if key not in known:
                    found = held_out_losses(with_rate(loaded, rate, seed, arguments.epochs), dataset, fold, device)
                    known[key] = found
                    if arguments.keep is not None:
                        with arguments.keep.open("a", encoding="utf-8") as stream:
                            stream.write(json.dumps([*key, *found]) + "\n")
                losses[rate].append(known[key])
                best, last = known[key]
                say(f"seed {seed} fold {number + 1} rate {rate:.3g}: {best:.4f} {last:.4f}")
    return losses


def still_hopeful(losses: Losses, share: float) -> list[float]:
    """The rates with a mean loss, lowest or last, at most ``share`` above the best one."""
    means = {rate: np.mean(found, axis=0) for rate, found in losses.items()}
    best = np.min(list(means.values()), axis=0)
    return [rate for rate, mean in means.items() if (mean <= (1 + share) * best).any()]


def _kept(path: Path | None) -> dict[tuple[Any, ...], tuple[float, float]]:
    if path is None or not path.exists():
        return {}
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {tuple(row[:-2]): (row[-2], row[-1]) for row in rows}


def rows_of(losses: Losses, suggested: float) -> list[list[object]]:
    """Means of each rate's losses, and how far they are above the best of the nine."""
    means = {rate: np.mean(found, axis=0) for rate, found in losses.items()}
    best = np.min([mean for rate, mean in means.items() if rate != suggested], axis=0)
    rows: list[list[object]] = []
    for rate, (lowest, last) in sorted(means.items()):
        row: list[object] = [f"{rate:.3g}" + (" (lr-find)" if rate == suggested else ""), len(losses[rate])]
        for value, of in ((last, best[1]), (lowest, best[0])):
            above = f"{100 * (value / of - 1):+.0f} %" if math.isfinite(value) and of > 0 else ""
            row += [f"{value:.4f}" if math.isfinite(value) else "diverged", above]
        rows.append(row)
    return rows


def draw(path: Path, losses: Losses, suggested: float, title: str) -> None:
    """Draw mean and spread of the losses over the rate."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    figure = new_figure(7.5, 4.2)
    panel = figure.subplots()
    swept = {rate: found for rate, found in sorted(losses.items()) if rate != suggested}
    for column, label, colour in ((1, "last weights", BLUE), (0, "best epoch", GREY)):
        means = [(rate, float(np.mean([pair[column] for pair in found]))) for rate, found in swept.items()]
        finite = [(rate, mean) for rate, mean in means if math.isfinite(mean)]
        panel.plot(*zip(*finite, strict=True), "o-", color=colour, label=f"{label}, mean")
        for rate, found in losses.items():
            panel.plot([rate] * len(found), [pair[column] for pair in found], ".", color=colour, alpha=0.35)
        own = float(np.mean([pair[column] for pair in losses[suggested]]))
        panel.plot([suggested], [own], "D", color=ORANGE, markeredgecolor=colour, markersize=9, zorder=3)
    best = min(float(np.mean([last for _, last in found])) for found in swept.values())
    panel.axhspan(best, 1.1 * best, color="#dfeadf", label="up to 10 % above the best of the nine")
    panel.axvline(suggested, color=ORANGE, linewidth=1, label=f"lr-find: {suggested:g}")
    panel.set(title=title, xscale="log", yscale="log", xlabel="learning rate", ylabel="validation loss")
    panel.set_ylim(0.1 * best, 40 * best)  # what diverges goes beyond
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.legend(fontsize=9)
    save(figure, path)


@exit_on_error()
def main() -> None:
    arguments = parser(__doc__, "lr_sweep.png")
    arguments.add_argument("photos", type=Path, help="a folder with one folder of photos per person")
    add_config(arguments)
    arguments.add_argument("--device", default="cpu", help="(default: cpu)")
    arguments.add_argument("--threads", type=at_least(1), help="(default: all)")
    arguments.add_argument("--epochs", type=at_least(1), help="as for train, to shorten the runs")
    arguments.add_argument("--folds", type=at_least(1), default=FOLDS, help=f"this many of the {FOLDS} folds")
    arguments.add_argument("--seeds", type=at_least(1), default=3, help="training runs of each fold (default: 3)")
    arguments.add_argument("--hopeless", type=float, default=0.5, metavar="SHARE", help="(default: 0.5)")
    arguments.add_argument("--keep", type=Path, metavar="FILE", help="the results so far, to go on from")
    options = arguments.parse_args()
    loaded = apply_overrides(load(options.config), options.set)
    suggested = suggestion(options, loaded)
    losses = sweep(options, loaded, suggested)
    epochs = "" if options.epochs is None else f", {options.epochs} epochs"
    title = f"{options.config}: mean of {options.folds} folds x {options.seeds} seeds{epochs}"
    print(title)
    print(table(rows_of(losses, suggested), COLUMNS))
    draw(options.output, losses, suggested, title)


if __name__ == "__main__":
    main()
