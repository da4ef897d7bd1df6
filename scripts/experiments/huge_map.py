"""How much of the error reaches kernels whose neuron looks at a huge map?

The seed network: convolution 5x5, pooling 2x2, then one neuron per kernel with a weight for each of the map's n places
(110x110 = 12,100 at 224x224 pixels). Each place gets the neuron's error times its weight, about 1/sqrt(n) of it, which
looks like nothing; but a kernel adds that up over n places, and a sum of n numbers of random sign is sqrt(n) times one
of them. So with weights ~ 1/sqrt(n) a kernel's gradient doesn't depend on the map's size. What grows with the map, as
sqrt(n), is the neuron's gradient: it learns so much faster that little is left for the kernels to do.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from common.command import at_least, exit_on_error, parser
from common.figures import BLUE, ORANGE, new_figure, save
from common.recording import EpochMetrics
from common.seed_gradients import (
    BATCH,
    INITIALISATIONS,
    RATE,
    SEED,
    SHIPPED,
    Measured,
    apply,
    growth,
    measure,
    noise_like,
    read_photos,
)
from common.tables import table
from facecnn.arrays import Array
from facecnn.errors import DivergedError
from facecnn.kernels import open_device
from facecnn.kernels.backend import Backend
from facecnn.learning.data import PhotoSet, TrainingData
from facecnn.learning.loop import Trainer
from facecnn.learning.optimizers import Adam, AnyOptimizer, Sgd
from facecnn.photos.dataset import Dataset
from facecnn.photos.sample import sample_folder

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

SIZES = (28, 56, 112, 224)
PICTURES = ("photos", "noise")
Found = Mapping[str, Mapping[int, Mapping[str, Measured]]]
"""What was measured, by pictures, size and initialisation."""

# ---------------------------------------------------------------------------------------------------------- training


@dataclass(frozen=True)
class Training:
    """A way to train the seed network."""

    size: int
    initialisation: str = "he"
    rule: AnyOptimizer = SHIPPED
    note: str = "as shipped"
    times: int = 1
    """How many times as many steps as the others."""


@dataclass
class Trained:
    """The result of a training run."""

    losses: list[float]
    """Loss of each step's photos, before the step."""
    before: dict[str, Array]
    after: dict[str, Array]
    diverged: bool = False

    def moved(self, name: str) -> float:
        """How far an array moved, in norms of its start."""
        return float(np.linalg.norm(self.after[name] - self.before[name]) / np.linalg.norm(self.before[name]))


MOVED = ("conv1.weight", "neuron1.weight")


def train(training: Training, photos: Dataset, backend: Backend, steps: int, seed: int) -> Trained:
    """Train with the seed network's settings, except for those of ``training``."""
    chosen = photos.split(seed).training
    epochs = max(1, round(steps * min(BATCH, len(chosen)) / len(chosen)))
    data = TrainingData(
        photos=PhotoSet(photos.pixels, photos.rows, photos.labels),
        train_indices=chosen,
        validation=PhotoSet(photos.pixels, photos.rows[:0], photos.labels[:0]),
        outputs=len(photos.classes),
    )
    settings = replace(
        SEED,
        photos=photos.settings,
        optimizer=training.rule,
        train=replace(SEED.train, epochs=epochs, least_steps=1, batch_size=BATCH, seed=seed),
    )
    trainer = Trainer(settings, data, backend)
    apply(training.initialisation, trainer.network.weights, seed)
    before, recorder = trainer.network.weights.to_host(), EpochMetrics()
    diverged = False
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            trainer.run(recorder)
    except DivergedError:
        diverged = True
    return Trained(recorder.of("train_loss"), before, trainer.network.weights.to_host(), diverged)


def trainings(sizes: Sequence[int]) -> list[Training]:
    """List the shipped settings at every size, with more steps and a higher rate at the smallest one, and what people
    try at the largest one."""
    small, huge = sizes[0], sizes[-1]
    fast = replace(SHIPPED, learning_rate=10 * RATE)
    pixels = huge**2
    return [
        *(Training(size) for size in sizes),
        *(Training(size, note="steps x 8", times=8) for size in (small, huge)),
        Training(small, rule=fast, note="rate x 10"),
        *(Training(huge, name, note=f"neuron: {name}") for name in INITIALISATIONS if name != "he"),
        Training(huge, "uniform", fast, "uniform, rate x 10"),
        Training(huge, rule=Sgd(learning_rate=RATE), note="sgd"),
        Training(huge, rule=Sgd(learning_rate=RATE * BATCH), note="sgd, loss summed"),
        Training(huge, rule=Sgd(learning_rate=10 * RATE * BATCH), note="summed, rate x 10"),
        Training(huge, rule=Sgd(learning_rate=RATE / pixels), note="sgd, loss per pixel"),
        Training(huge, rule=Adam(learning_rate=0.001), note="adam"),
    ]


# ------------------------------------------------------------------------------------------------------------ tables

GRADIENT_HEADERS = (
    "neuron's weights",
    "picture",
    "map",
    "a place gets",
    "loss",
    "kernel's gradient",
    "neuron's gradient",
    "kernel's step %",
    "neuron's step %",
    "kernels' share %",
)
GROWTH_HEADERS = (
    "neuron's weights",
    "pictures",
    "kernel's gradient ~ n^",
    "expected",
    "with x",
    "neuron's gradient ~ n^",
    "expected n^",
    "with y",
)
SIZE_HEADERS = ("picture", "map", *(f"{name}, {of}" for name in ("mean of y", "x sent", "y sent") for of in PICTURES))
LOSS_HEADERS = ("loss", "kernel's gradient", "kernel's step %", "neuron's step %", "neuron's / kernel's gradient")
TRAINING_HEADERS = (
    "training",
    "picture",
    "optimizer",
    "rate",
    "kernels moved %",
    "neurons moved %",
    "loss at first",
    "at last",
)


def rows_of_gradients(found: Mapping[int, Mapping[str, Measured]]) -> list[list[object]]:
    """A row for each initialisation and size."""
    return [
        [
            name,
            size,
            f"{round(sqrt(of[name].places))}x{round(sqrt(of[name].places))}",
            *(f"{value:.2g}" for value in (of[name].weight, of[name].loss, of[name].kernel, of[name].neuron)),
            *(f"{100 * value:.2g}" for value in (of[name].kernel_step, of[name].neuron_step, of[name].share)),
        ]
        for name in INITIALISATIONS
        for size, of in found.items()
    ]


def rows_of_growth(found: Found) -> list[list[object]]:
    """How gradients grow with the map, beside what is expected: if what a place contributes has the same size in every
    map, and with the size that it has."""
    rows: list[list[object]] = []
    for name, initialisation in INITIALISATIONS.items():
        for pictures, by_size in found.items():
            measured = [of[name] for of in by_size.values()]
            # Equal weights add up what places send alike; random ones everything.
            x = growth(measured, lambda one: one.common_x if name == "average" else one.sent_x)  # noqa: B023
            y = growth(measured, lambda one: one.sent_y)
            kernel, neuron = growth(measured, lambda one: one.kernel), growth(measured, lambda one: one.neuron)
            expected = initialisation.growth
            exponents = (kernel, expected, expected + x, neuron, 0.5, 0.5 + y)
            rows.append([name, pictures, *(f"{value:+.2f}" for value in exponents)])
    return rows


def rows_of_sizes(found: Found) -> list[list[object]]:
    """What a place contributes, by the map's size, with weights of 1/n: there all errors are about a half."""
    values: list[Callable[[Measured], float]] = [lambda m: m.map_mean, lambda m: m.sent_x, lambda m: m.sent_y]
    rows: list[list[object]] = []
    for size in next(iter(found.values())):
        measured = [by_size[size]["1/n"] for by_size in found.values()]
        side = round(sqrt(measured[0].places))
        rows.append([size, f"{side}x{side}", *(f"{value(one):.3g}" for value in values for one in measured)])
    return rows


def rows_of_losses(measured: Measured, size: int) -> list[list[object]]:
    """The same gradients for a loss that is summed over the batch, or also divided by the picture's pixels."""
    factors = {"mean over the batch": 1.0, "sum over the batch": float(BATCH), "mean, per pixel": 1 / size**2}
    return [
        [
            name,
            f"{factor * measured.kernel:.2g}",
            f"{100 * factor * measured.kernel_step:.2g}",
            f"{100 * factor * measured.neuron_step:.2g}",
            f"{measured.neuron / measured.kernel:.2g}",
        ]
        for name, factor in factors.items()
    ]


def row_of_training(training: Training, trained: Trained) -> list[object]:
    """How far kernels and neurons moved, and what that did to the loss."""
    moved, last = ["-", "-"], "diverged"
    if not trained.diverged:
        moved = [f"{100 * trained.moved(name):.3g}" for name in MOVED]
        last = f"{trained.losses[-1]:.2g}"
    rate = f"{training.rule.learning_rate:.2g}"
    return [training.note, training.size, training.rule.name, rate, *moved, f"{trained.losses[0]:.3g}", last]


# ----------------------------------------------------------------------------------------------------------- picture


def draw_gradients(part: SubFigure, found: Mapping[int, Mapping[str, Measured]]) -> None:
    """Draw gradients of kernels and neurons, and the kernels' share, over the map's size."""
    panels = part.subplots(1, 3)
    values: list[tuple[str, Callable[[Measured], float]]] = [
        ("gradient of a kernel", lambda one: one.kernel),
        ("gradient of a neuron", lambda one: one.neuron),
        ("kernels' share in what a step learns, %", lambda one: 100 * one.share),
    ]
    for panel, (title, value) in zip(panels, values, strict=True):
        for name, initialisation in INITIALISATIONS.items():
            places = [of[name].places for of in found.values()]
            line = [value(of[name]) for of in found.values()]
            width = 2.6 if name == "he" else 1.6
            panel.plot(places, line, "o-", color=initialisation.colour, markersize=4, linewidth=width, label=name)
        panel.set(xscale="log", yscale="log", xlabel="places in the map")
        panel.set_xticks(places, [f"{round(sqrt(n))}²" for n in places])
        low, high = panel.get_ylim()
        if high < 100 * low:  # a power of ten or two are too few ticks
            ticks = [tick for tick in (0.2, 0.5, 1, 2, 5, 10, 20) if low < tick < high]
            panel.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        panel.tick_params(which="minor", bottom=False, labelleft=False)
        panel.set_title(title)
    panels[0].legend(title="neuron's weights", fontsize=8, title_fontsize=8, ncols=2, loc="upper left")
    low, high = panels[0].get_ylim()
    panels[0].set_ylim(low, high * 12)


def draw_kernels(part: SubFigure, training: Training, trained: Trained) -> None:
    """Draw every kernel before and after, and the difference, scaled to be visible."""
    before, after = trained.before["conv1.weight"], trained.after["conv1.weight"]
    change = after - before
    largest = np.abs(before).max()
    panels = part.subplots(3, len(before), squeeze=False, gridspec_kw={"hspace": 0.02, "wspace": 0.02})
    for row, (array, label) in enumerate(((before, "start"), (after, "end"), (change, "change"))):
        for number, panel in enumerate(panels[row]):
            limit = np.abs(change[number]).max() if row == 2 else largest
            panel.imshow(np.clip(0.5 + 0.5 * array[number] / limit, 0, 1))
            panel.set(xticks=[], yticks=[])
            panel.grid(False)
            for edge in panel.spines.values():
                edge.set_visible(False)
        panels[row, 0].set_ylabel(label)
    for number, panel in enumerate(panels[2]):
        moved = float(np.linalg.norm(change[number]) / np.linalg.norm(before[number]))
        panel.set_xlabel(f"{100 * moved:.1f} %", fontsize=8.5)
    moved = 100 * trained.moved("conv1.weight")
    part.suptitle(
        f"{training.size}x{training.size}, {training.note}: the kernels moved by {moved:.0f} %", fontsize=10.5
    )


def draw_movement(panel: Axes, found: Sequence[tuple[Training, Trained]]) -> None:
    """Draw how far kernels and neurons moved in every training run."""
    places = np.arange(len(found))
    for offset, name, colour, label in zip((-0.19, 0.19), MOVED, (BLUE, ORANGE), ("kernels", "neurons"), strict=True):
        moved = [0.0 if trained.diverged else 100 * trained.moved(name) for _, trained in found]
        panel.barh(places + offset, moved, 0.36, color=colour, label=label)
    for place, (_, trained) in enumerate(found):
        if trained.diverged:
            panel.text(2e-5, place, "diverged", va="center", fontsize=8)
    names = [f"{training.note}, {training.size}" for training, _ in found]
    panel.set(yticks=places, yticklabels=names, xscale="log", xlim=(1e-5, 1e5), xlabel="moved by, % of the start")
    panel.invert_yaxis()
    panel.grid(axis="y", visible=False)
    panel.legend(loc="upper right")


def draw(
    gradients: Mapping[int, Mapping[str, Measured]], trained: Sequence[tuple[Training, Trained]], path: Path
) -> None:
    heights = [3.8, 4.4] if trained else [3.8]
    figure = new_figure(12.5, sum(heights))
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    draw_gradients(parts[0], gradients)
    if trained:
        left, right = parts[1].subfigures(1, 2, width_ratios=[1.25, 1])
        sizes = list(gradients)
        draw_kernels(left, *trained[len(sizes) - 1])
        draw_movement(right.subplots(), trained)
    save(figure, path)


# -------------------------------------------------------------------------------------------------------------- main


@exit_on_error()
def main() -> None:
    arguments = parser(__doc__, "huge_map.png")
    arguments.add_argument("--photos", type=Path, help="a folder of photos per person (default: two sample people)")
    arguments.add_argument(
        "--size", type=at_least(14), action="append", help="pixels a side; repeat it (default: 28, 56, 112 and 224)"
    )
    arguments.add_argument("--seeds", type=at_least(1), default=20, help="networks to measure (default: 20)")
    arguments.add_argument("--steps", type=at_least(0), default=100, help="of each run (default: 100; 0: none)")
    arguments.add_argument("--seed", type=at_least(0), default=0, help="of the runs (default: 0)")
    arguments.add_argument("--device", default="auto", help="auto | cpu | cuda | cuda:N | reference (default: auto)")
    options = arguments.parse_args()
    sizes = sorted(set(options.size or SIZES))
    if len(sizes) < 2:
        arguments.error("--size: give at least two sizes to compare")
    backend = open_device(options.device).backend
    folder = options.photos or sample_folder()
    photos = {size: read_photos(folder, size) for size in sizes}
    found = {
        name: {
            size: measure(noise_like(of) if name == "noise" else of, backend, options.seeds)
            for size, of in photos.items()
        }
        for name in PICTURES
    }
    show_gradients(found)
    trained = show_trainings(photos, backend, options.steps, options.seed) if options.steps else []
    draw(found["photos"], trained, options.output)


def show_gradients(found: Found) -> None:
    size, largest = list(found["photos"].items())[-1]
    print(f"The seed network before training; steps of gradient descent with rate {RATE}\n")
    print(table(rows_of_gradients(found["photos"]), GRADIENT_HEADERS))
    print("\nHow gradients grow with n, the map's places: measured, and expected\n")
    print(table(rows_of_growth(found), GROWTH_HEADERS))
    print("\nWhat a place contributes, with weights of 1/n\n")
    print(table(rows_of_sizes(found), SIZE_HEADERS))
    print(f"\nAt {size}x{size}, shipped weights, with other losses\n")
    print(table(rows_of_losses(largest["he"], size), LOSS_HEADERS), flush=True)


def show_trainings(
    photos: Mapping[int, Dataset], backend: Backend, steps: int, seed: int
) -> list[tuple[Training, Trained]]:
    found = [
        (training, train(training, photos[training.size], backend, steps * training.times, seed))
        for training in trainings(list(photos))
    ]
    print(f"\nAfter about {steps} steps of training: how far the weights moved, in % of their start's norm\n")
    print(table([row_of_training(*one) for one in found], TRAINING_HEADERS), flush=True)
    return found


if __name__ == "__main__":
    main()
