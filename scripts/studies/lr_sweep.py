"""How good is the learning rate that ``facecnn lr-find`` suggests? Train with it, and with nine others, and compare.

Each rate is used as it is, as the optimizer's ``learning_rate`` of the config with its own schedule, and judged by the
photos that a fold leaves out: by the loss of the last weights, as ``facecnn cross-validate`` does, and by the lowest
loss after any epoch. Prints a table and draws it. All of it takes hours; ``--folds``, ``--seeds`` and ``--epochs`` make
it shorter, and ``--keep FILE`` goes on where it was stopped. A rate whose means, over two trainings or more, both
lie ``--hopeless`` above the best ones is trained no more, unless it is the suggested one: the table says how many
trainings its means are of.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from common.experiment import new_file
from facecnn.cli.console import StderrConsole
from facecnn.config import Loaded, apply_overrides, load
from facecnn.errors import DivergedError, FacecnnError, OutputError
from facecnn.jobs.faces import installed_finder
from facecnn.jobs.lr_find import lr_find
from facecnn.jobs.people import photo_set, read_people
from facecnn.jobs.training.options import TrainOptions
from facecnn.jobs.training.setup import make_trainer
from facecnn.kernels import Device, open_device
from facecnn.learning.full_batch_optimizers import FullBatchOptimizer
from facecnn.learning.progress import Recorder
from facecnn.photos.dataset import Dataset
from facecnn.photos.folder_faces import folder_faces

FOLDS = 5
STEPS = 150
"""Of lr-find's range tests; its own default."""
RATES = tuple(10 ** (exponent / 2) for exponent in range(-8, 1))
"""Nine, from 0.0001 to 1."""


class Losses(Recorder):
    """A recorder that keeps the validation losses."""

    def __init__(self) -> None:
        self.held_out: list[float] = []

    def epoch(self, metrics: Mapping[str, Any]) -> None:
        self.held_out.append(metrics["validation_loss"])


def held_out_losses(loaded: Loaded, dataset: Dataset, fold: Any, device: Device) -> tuple[float, float]:
    """The lowest validation loss of a training's epochs, and that of the last; infinite where it diverged."""
    chosen = np.setdiff1d(np.arange(len(dataset.labels)), fold)
    recorder = Losses()
    gc.collect()  # the trainer before, which refers to itself
    try:
        training, validation = folder_faces(dataset, chosen), photo_set(dataset, fold)
        make_trainer(loaded, dataset, training, device, validation=validation).run(recorder)
    except DivergedError:
        return min(recorder.held_out, default=math.inf), math.inf
    return min(recorder.held_out), recorder.held_out[-1]


def with_rate(loaded: Loaded, rate: float, seed: int, epochs: int | None) -> Loaded:
    settings = loaded.settings
    assert not isinstance(settings.optimizer, FullBatchOptimizer)
    train = replace(settings.train, seed=seed, stop_after_epochs_without_gain=None)
    if epochs is not None:
        train = replace(train, epochs=epochs, least_steps=0)
    return replace(
        loaded,
        settings=replace(settings, optimizer=replace(settings.optimizer, learning_rate=rate), train=train),
    )


def suggestion(arguments: argparse.Namespace, loaded: Loaded) -> float:
    """What ``facecnn lr-find`` says, with a picture of its own beside that of the sweep."""
    picture = arguments.output.with_name(f"{arguments.output.stem}-range-test.png")
    found = lr_find(
        loaded,
        TrainOptions(photos=arguments.photos, device=arguments.device, threads=arguments.threads),
        steps=STEPS,
        model=None,
        plot=picture,
        config=arguments.config,
        write=None,
        console=StderrConsole(quiet=True, verbose=False),
    )
    if found["suggestion"] is None:
        raise OutputError(f"lr-find suggests no rate: see {picture}")
    return float(found["suggestion"])


def sweep(arguments: argparse.Namespace, loaded: Loaded, suggested: float) -> dict[float, list[tuple[float, float]]]:
    """(lowest, last) validation loss of every training, by rate."""
    device = open_device(arguments.device, arguments.threads)
    console = StderrConsole(quiet=True, verbose=False)
    photos = loaded.settings.photos
    finder = installed_finder(photos, console)
    dataset = read_people(arguments.photos, photos, finder, console, strict=False, for_training=True)
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
                print(f"seed {seed} fold {number + 1} rate {rate:.3g}: {best:.4f} {last:.4f}", file=sys.stderr)
    return losses


def still_hopeful(losses: Mapping[float, list[tuple[float, float]]], share: float) -> list[float]:
    """The rates of which one mean loss or the other lies at most ``share`` above the best."""
    means = {rate: np.mean(found, axis=0) for rate, found in losses.items()}
    best = np.min(list(means.values()), axis=0)
    return [rate for rate, mean in means.items() if (mean <= (1 + share) * best).any()]


def _kept(path: Path | None) -> dict[tuple[Any, ...], tuple[float, float]]:
    if path is None or not path.exists():
        return {}
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {tuple(row[:-2]): (row[-2], row[-1]) for row in rows}


def table(losses: Mapping[float, list[tuple[float, float]]], suggested: float) -> str:
    """Means of the rates' losses, and how far each lies above the best of the nine."""
    means = {rate: np.mean(found, axis=0) for rate, found in losses.items()}
    best = np.min([mean for rate, mean in means.items() if rate != suggested], axis=0)
    lines = [
        "| rate | trainings | last loss | above best | lowest loss | above best of these |",
        "|---|---|---|---|---|---|",
    ]
    for rate, (lowest, last) in sorted(means.items()):
        cells = [f"{rate:.3g}" + (" (lr-find)" if rate == suggested else ""), str(len(losses[rate]))]
        for value, of in ((last, best[1]), (lowest, best[0])):
            above = f"{100 * (value / of - 1):+.0f} %" if math.isfinite(value) and of > 0 else ""
            cells += [f"{value:.4f}" if math.isfinite(value) else "diverged", above]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(path: Path, losses: Mapping[float, list[tuple[float, float]]], suggested: float, title: str) -> None:
    """Mean and spread of the last loss against the rate."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullFormatter

    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    panel = figure.subplots()
    swept = {rate: found for rate, found in sorted(losses.items()) if rate != suggested}
    for column, label, colour in ((1, "last weights", "#1f6fb4"), (0, "best epoch", "#8a8a8a")):
        means = [(rate, float(np.mean([pair[column] for pair in found]))) for rate, found in swept.items()]
        finite = [(rate, mean) for rate, mean in means if math.isfinite(mean)]
        panel.plot(*zip(*finite, strict=True), "o-", color=colour, label=f"{label}, mean")
        for rate, found in losses.items():
            panel.plot([rate] * len(found), [pair[column] for pair in found], ".", color=colour, alpha=0.35)
        own = float(np.mean([pair[column] for pair in losses[suggested]]))
        panel.plot([suggested], [own], "D", color="#d9641e", markeredgecolor=colour, markersize=9, zorder=3)
    best = min(float(np.mean([last for _, last in found])) for found in swept.values())
    panel.axhspan(best, 1.1 * best, color="#dfeadf", label="up to 10 % above the best of the nine")
    panel.axvline(suggested, color="#d9641e", linewidth=1, label=f"lr-find: {suggested:g}")
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_ylim(0.1 * best, 40 * best)  # what diverges goes beyond
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.set_xlabel("learning rate")
    panel.set_ylabel("validation loss")
    panel.set_title(title, fontsize=10, loc="left")
    panel.grid(color="#e4e4e4")
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(fontsize=9)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Read the arguments, sweep, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, help="a folder with one folder of photos per person")
    parser.add_argument("-c", "--config", default="default")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--epochs", type=int, help="as of train, for shorter trainings")
    parser.add_argument("--folds", type=int, default=FOLDS, help=f"so many of the {FOLDS} folds")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--hopeless", type=float, default=0.5, metavar="SHARE", help="(default: 0.5)")
    parser.add_argument("--keep", type=Path, help="a file for the results so far, to go on from")
    parser.add_argument("--output", type=new_file, default="lr_sweep.png", help="the picture")
    arguments = parser.parse_args()
    loaded = apply_overrides(load(arguments.config), arguments.set)
    suggested = suggestion(arguments, loaded)
    losses = sweep(arguments, loaded, suggested)
    epochs = "" if arguments.epochs is None else f", {arguments.epochs} epochs"
    title = f"{arguments.config}: mean of {arguments.folds} folds x {arguments.seeds} seeds{epochs}"
    print(title)
    print(table(losses, suggested))
    draw(arguments.output, losses, suggested, title)


if __name__ == "__main__":
    try:
        main()
    except FacecnnError as error:
        sys.exit(f"error: {error}")
