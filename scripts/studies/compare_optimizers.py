"""How many epochs and seconds does each optimizer need to reach a validation loss, on the same photos and from the same
initial weights?

For an optimizer with a learning rate, ``facecnn lr-find`` suggests it (once, with the first seed); then ``facecnn
train`` trains with each seed, otherwise as the config says. Full-batch optimizers have no rate, and step once per
epoch. Seconds are those of the training steps, without validation and start-up. A seed that never reaches the loss
counts as infinite, so the median is "never" if half of them don't. ``--keep FOLDER`` keeps rates and runs, and goes on
from them.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from common.command import at_least, exit_on_error, parser, say
from common.figures import new_figure, save
from common.tables import percent, table
from facecnn.errors import DivergedError
from facecnn.learning.full_batch_optimizers import FULL_BATCH_OPTIMIZERS
from facecnn.learning.optimizers import OPTIMIZERS

NEVER = float("inf")
COLUMNS = ("optimizer", "rate", "epochs to it", "seconds to it", "best loss", "accuracy")


@dataclass(frozen=True)
class Run:
    """One training run, epoch by epoch."""

    seconds: list[float]
    """Seconds since the start of the first epoch."""
    losses: list[float]
    """Losses on held-out photos."""
    accuracies: list[float]

    def reached(self, target: float) -> int | None:
        """The first epoch, from 1, with at most this loss."""
        return next((epoch for epoch, loss in enumerate(self.losses, 1) if loss <= target), None)


@exit_on_error()
def main() -> None:
    arguments = parser(__doc__, "optimizers.png")
    arguments.add_argument("photos", nargs="?", help="a folder with one folder per person (default: the sample people)")
    arguments.add_argument("--config", default="default", help="(default: default)")
    arguments.add_argument("--seeds", type=at_least(1), default=3, help="training runs of each optimizer (default: 3)")
    arguments.add_argument("--epochs", type=at_least(1), help="passes over the photos (default: the config's)")
    arguments.add_argument("--target", type=float, default=0.2, help="the validation loss to reach (default: 0.2)")
    arguments.add_argument(
        "--optimizers", nargs="+", choices=[*OPTIMIZERS, *FULL_BATCH_OPTIMIZERS], metavar="NAME", help="only these"
    )
    arguments.add_argument("--steps", type=at_least(10), help="steps of lr-find (default: its own)")
    arguments.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="for rates and runs, of one config and one set of photos"
    )
    options = arguments.parse_args()
    names = options.optimizers or [*OPTIMIZERS, *FULL_BATCH_OPTIMIZERS]
    runs: dict[str, list[Run]] = {}
    rates: dict[str, float | None] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            rates[name] = None if name in FULL_BATCH_OPTIMIZERS else suggested_rate(name, options, folder)
            runs[name] = [train(name, rates[name], seed, options, folder) for seed in range(options.seeds)]
            say(f"{name}: {len(runs[name])} training runs")
    print(table([row(name, rates[name], runs[name], options.target) for name in names], COLUMNS))
    draw(runs, options)


def facecnn(*arguments: object, may_diverge: bool = False) -> Any:
    """Run a command. Returns its JSON, None where training diverged; ends the script if it fails otherwise."""
    command = [sys.executable, "-m", "facecnn", *map(str, arguments), "--quiet", "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True)
    if may_diverge and done.returncode == DivergedError.exit_code:
        return None
    if done.returncode:
        print(done.stderr, file=sys.stderr, end="")
        raise SystemExit(done.returncode)
    return json.loads(done.stdout)


def common(name: str, seed: int, options: Any) -> list[object]:
    photos = [] if options.photos is None else [options.photos]
    return [*photos, "-c", options.config, "--set", f"optimizer.name={name}", "--seed", seed]


def suggested_rate(name: str, options: Any, folder: Path) -> float:
    kept = folder / f"{name}-rate.json"
    if not kept.exists():
        steps = [] if options.steps is None else ["--steps", options.steps]
        plot = ["--plot", folder / f"{name}-rate.png"]
        found = facecnn("lr-find", *common(name, 0, options), *steps, *plot)
        kept.write_text(json.dumps(found))
    return float(json.loads(kept.read_text())["suggestion"])


def train(name: str, rate: float | None, seed: int, options: Any, folder: Path) -> Run:
    # A patience that never ends, since only with one are the held-out photos judged after each epoch.
    settings: list[object] = ["--set", "train.stop_after_epochs_without_gain=1000000"]
    settings += [] if rate is None else ["--set", f"optimizer.learning_rate={rate!r}"]
    if options.epochs is not None:
        settings += ["--epochs", options.epochs]
    run = folder / f"{name}-{seed}"
    done = run / "compared"  # without it the training was interrupted, and is repeated
    if not done.exists():
        place = ["--out", folder, "--name", run.name, "--overwrite"]
        facecnn("train", *common(name, seed, options), *settings, *place, may_diverge=True)
        done.touch()
    metrics = run / "metrics.jsonl"
    rows = [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.exists() else []
    seconds, total = [], 0.0
    for line in rows:
        total += line["seconds"]
        seconds.append(total)
    return Run(seconds, [line["validation_loss"] for line in rows], [line["validation_accuracy"] for line in rows])


def row(name: str, rate: float | None, runs: list[Run], target: float) -> list[object]:
    epochs = [run.reached(target) for run in runs]
    seconds = [NEVER if epoch is None else run.seconds[epoch - 1] for run, epoch in zip(runs, epochs, strict=True)]
    best = [min(run.losses, default=NEVER) for run in runs]
    accuracy = [run.accuracies[run.losses.index(min(run.losses))] if run.losses else 0.0 for run in runs]
    middle = statistics.median(NEVER if epoch is None else epoch for epoch in epochs)
    time = statistics.median(seconds)
    return [
        name,
        "" if rate is None else f"{rate:.2g}",
        "never" if middle == NEVER else f"{middle:g}",
        "never" if time == NEVER else f"{time:.2f}",
        f"{statistics.mean(best):.3f}",
        percent(statistics.mean(accuracy)),
    ]


def draw(runs: dict[str, list[Run]], options: Any) -> None:
    """Draw the median loss of the seeds, over epochs and over seconds."""
    import matplotlib

    figure = new_figure(11, 5)
    by_epoch, by_time = figure.subplots(1, 2, sharey=True)
    colours = matplotlib.colormaps["tab20"].colors  # type: ignore[attr-defined]
    for (name, of_seeds), colour in zip(runs.items(), colours, strict=False):
        length = min(len(run.losses) for run in of_seeds)
        if not length:
            continue
        losses = [statistics.median(run.losses[epoch] for run in of_seeds) for epoch in range(length)]
        seconds = [statistics.median(run.seconds[epoch] for run in of_seeds) for epoch in range(length)]
        dashes = "--" if name in FULL_BATCH_OPTIMIZERS else "-"
        by_epoch.plot(range(1, length + 1), losses, dashes, color=colour, label=name)
        by_time.plot(seconds, losses, dashes, color=colour)
    for axes, label in ((by_epoch, "epoch"), (by_time, "seconds of training steps")):
        axes.axhline(options.target, color="black", linewidth=0.8, linestyle=":")
        axes.set(xlabel=label, xscale="log", yscale="log")
    by_epoch.set(ylabel="validation loss (median of the seeds)")
    people = "the sample people" if options.photos is None else Path(options.photos).name
    by_epoch.set_title(f"config {Path(options.config).stem}, {people}")
    figure.legend(loc="outside right center", frameon=False)
    save(figure, options.output)


if __name__ == "__main__":
    main()
