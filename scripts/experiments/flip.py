"""Of the formulas that articles give for a kernel's gradient, which is right, and what is learned with the others?

Each formula takes the place of the right one in a small network: convolution, tanh and max-pool, twice, then a dense
layer. Its gradient is compared with central differences of the loss, weight by weight, and the network is trained with
it to tell arrows that point up, down, left and right. In the last row the kernels get no gradient at all: there the
dense layer learns alone, from kernels that stay random.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).parents[1]))

from common.command import at_least, exit_on_error, parser
from common.differences import central_differences
from common.figures import BLUE, GREEN, GREY, ORANGE, new_figure, save
from common.ready_batches import train as train_network
from common.tables import table
from facecnn.kernels import open_device, reference
from facecnn.learning.optimizers import Sgd
from facecnn.network.layers import Activate, Conv, Dense, Pool
from facecnn.network.network import Network

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int32]

SIDE = 12
CONVOLUTIONS = ("conv1", "conv2")
CHECKED = 16
"""Arrows in the batch that gradients are compared on."""
NEW_ARROWS = 1000
"""Arrows that a trained network is tested with."""
LAYERS = (
    Conv(kernels=4, size=3, activation="identity"),
    Activate(name="tanh"),
    Pool(size=2),
    Conv(kernels=8, size=3, activation="identity"),
    Activate(name="tanh"),
    Pool(size="global"),
    Dense(units=4),
)
"""The parts of a block as layers of their own, so that a formula between them can be exchanged."""


def _turned(maps: Array) -> Array:
    """Turn every map by 180 degrees: reverse rows and columns."""
    return np.ascontiguousarray(maps[:, ::-1, ::-1])


class Formula:
    """The reference backend with the right formulas; each subclass changes one."""

    text = "right: nothing flipped"

    def __getattr__(self, name: str) -> Any:
        return getattr(reference, name)


class InputFlipped(Formula):
    text = "input flipped"

    def conv_backward_weight(
        self, dweight: Array, dbias: Array, dout: Array, out: Array, argmax: Any, x: Array, *rest: Any
    ) -> None:
        reference.conv_backward_weight(dweight, dbias, dout, out, argmax, _turned(x), *rest)


class DeltaFlipped(Formula):
    text = "delta flipped"

    def conv_backward_weight(self, dweight: Array, dbias: Array, dout: Array, *rest: Any) -> None:
        reference.conv_backward_weight(dweight, dbias, _turned(dout), *rest)


class BothFlipped(Formula):
    text = "both flipped"

    def conv_backward_weight(
        self, dweight: Array, dbias: Array, dout: Array, out: Array, argmax: Any, x: Array, *rest: Any
    ) -> None:
        reference.conv_backward_weight(dweight, dbias, _turned(dout), out, argmax, _turned(x), *rest)


class DividedBySize(Formula):
    text = "divided by the map's size"

    def conv_backward_weight(self, dweight: Array, dbias: Array, dout: Array, *rest: Any) -> None:
        reference.conv_backward_weight(dweight, dbias, dout, *rest)
        dweight /= dout.shape[1] * dout.shape[2]
        dbias /= dout.shape[1] * dout.shape[2]


class Transposed(Formula):
    text = "rows and columns exchanged"

    def conv_backward_weight(self, dweight: Array, dbias: Array, dout: Array, *rest: Any) -> None:
        reference.conv_backward_weight(dweight, dbias, dout, *rest)
        dweight[...] = dweight.transpose(0, 2, 1, 3).copy()


class KernelNotFlipped(Formula):
    text = "kernel not flipped going down"

    def conv_backward_input(self, dx: Array, dout: Array, out: Array, argmax: Any, weight: Array, *rest: Any) -> None:
        reference.conv_backward_input(dx, dout, out, argmax, _turned(weight), *rest)


class DerivativeTwice(Formula):
    text = "derivative twice"

    def activation_backward(self, dx: Array, dout: Array, *rest: Any) -> None:
        reference.activation_backward(dx, dout, *rest)
        reference.activation_backward(dx, dx.copy(), *rest)


class DerivativeMissing(Formula):
    text = "derivative missing"

    def activation_backward(self, dx: Array, dout: Array, *rest: Any) -> None:
        dx[...] = dout


class DerivativeInUpdate(Formula):
    text = "derivative in the update only"

    def activation_backward(self, dx: Array, dout: Array, *rest: Any) -> None:
        reference.activation_backward(dx, dout, *rest)
        self._delta = dx.reshape(-1).copy()
        dx[...] = dout

    def conv_backward_weight(self, dweight: Array, dbias: Array, dout: Array, *rest: Any) -> None:
        reference.conv_backward_weight(dweight, dbias, self._delta.reshape(dout.shape), *rest)


class MeanPool(Formula):
    text = "mean pool's delta for max"

    def pool_backward(self, dx: Array, dout: Array, argmax: Any, kind: str, *rest: Any) -> None:
        reference.pool_backward(dx, dout, argmax, "average", *rest)


class Frozen(Formula):
    text = "none: the kernels stay random"

    def conv_backward_weight(self, dweight: Array, dbias: Array, *rest: Any) -> None:
        dweight[...] = 0
        dbias[...] = 0


FORMULAS: tuple[type[Formula], ...] = (
    Formula, InputFlipped, DeltaFlipped, BothFlipped, Transposed, KernelNotFlipped, DerivativeTwice, DerivativeMissing,
    DerivativeInUpdate, DividedBySize, MeanPool, Frozen,
)  # fmt: skip


# --------------------------------------------------------------------------------------------------------- gradients


def arrows(count: int, seed: int) -> tuple[Array, Labels]:
    """Draw arrows somewhere in noise, (count, SIDE, SIDE, 1), and label them by direction: up, left, down or right."""
    random = np.random.default_rng(seed)
    glyph = np.array([[0, 0, 1, 0, 0], [0, 1, 1, 1, 0], [1, 0, 1, 0, 1], [0, 0, 1, 0, 0], [0, 0, 1, 0, 0]])
    pictures = random.normal(0, 0.2, (count, SIDE, SIDE, 1))
    labels = random.integers(0, 4, count).astype(np.int32)
    for picture, label, (top, left) in zip(pictures, labels, random.integers(0, SIDE - 4, (count, 2)), strict=True):
        picture[top : top + 5, left : left + 5, 0] += np.rot90(glyph, label)
    return pictures, labels


def new_network(formula: type[Formula], batch_size: int, seed: int) -> Network:
    """Make a network with random weights that computes its gradients by a formula."""
    backend: Any = formula()
    network = Network(LAYERS, (SIDE, SIDE, 1), backend, batch_size, dtype=np.float64, seed=seed)
    network.initialise(seed)
    return network


def loss(network: Network, pictures: Array, labels: Labels) -> float:
    """Compute the mean cross-entropy; ``backward`` may follow."""
    count = len(labels)
    network.input[:count] = pictures
    network.forward(count, training=True)
    network.loss(count, labels, np.ones(4))
    return float(network.objectives[:count].sum())


def gradient(formula: type[Formula]) -> dict[str, Array]:
    """Compute the gradient of both layers' kernels by a formula."""
    network = new_network(formula, CHECKED, 0)
    loss(network, *arrows(CHECKED, 0))
    network.backward(CHECKED)
    assert network.gradient is not None
    return {name: network.gradient.named[f"{name}.weight"].copy() for name in CONVOLUTIONS}


def differences() -> dict[str, Array]:
    """Compute the same gradient by central differences."""
    network, batch = new_network(Formula, CHECKED, 0), arrows(CHECKED, 0)
    named = network.weights.parameters.named
    return {name: central_differences(lambda: loss(network, *batch), named[f"{name}.weight"]) for name in CONVOLUTIONS}


def relative_error(found: Array, true: Array) -> float:
    """|found - true| / |true|, over all weights."""
    return float(np.linalg.norm(found - true) / np.linalg.norm(true))


def cosine(found: Array, true: Array) -> float:
    """The cosine of the angle between two gradients; NaN if the first one is zero."""
    length = float(np.linalg.norm(found))
    return float((found * true).sum() / (length * np.linalg.norm(true))) if length else float("nan")


# ---------------------------------------------------------------------------------------------------------- training


@dataclass(frozen=True)
class Training:
    """The result of training with a formula."""

    losses: Array
    """Loss of each step's batch."""
    accuracy: float
    """On new arrows."""


def train(formula: type[Formula], seed: int, steps: int, rate: float) -> Training:
    """Train by plain gradient descent on batches of 32. A seed gives all formulas the same weights and batches."""
    network = new_network(formula, NEW_ARROWS, seed)
    losses = train_network(network, *arrows(32 * steps, 1000 + seed), Sgd(learning_rate=rate), 32)
    pictures, labels = arrows(NEW_ARROWS, 2000 + seed)
    loss(network, pictures, labels)
    return Training(losses, float((network.output.argmax(axis=1) == labels).mean()))


@exit_on_error()
def main() -> None:
    arguments = parser(__doc__, "flip.png")
    arguments.add_argument("--steps", type=at_least(1), default=1000, help="steps of each run (default: 1000)")
    arguments.add_argument("--seeds", type=at_least(1), default=3, help="training runs with each formula (default: 3)")
    arguments.add_argument("--rate", type=float, default=0.3, help="learning rate (default: 0.3)")
    options = arguments.parse_args()
    open_device("reference")  # one thread for BLAS: the matrices are small
    true = differences()
    gradients = {formula.text: gradient(formula) for formula in FORMULAS}
    rows, trainings = [], {}
    for formula in FORMULAS:
        trained = [train(formula, seed, options.steps, options.rate) for seed in range(options.seeds)]
        trainings[formula.text] = trained
        row: list[object] = [formula.text]
        for name in CONVOLUTIONS:
            found = gradients[formula.text][name]
            row += [f"{relative_error(found, true[name]):.2g}", f"{cosine(found, true[name]):.2f}"]
        last = np.mean([training.losses[-100:].mean() for training in trained])
        row += [f"{last:.2f}", f"{np.mean([training.accuracy for training in trained]):.0%}"]
        rows.append(row)
    print(
        "Gradients of the kernels against central differences (error: |formula - true| / |true|; cosine: of the angle"
    )
    print(f"between them), and {options.steps} steps of training (mean of {options.seeds} seeds; guessing is 25%):\n")
    headers = ["formula", *(f"{name} {figure}" for name in CONVOLUTIONS for figure in ("error", "cosine"))]
    print(table(rows, [*headers, "loss at the end", "right on new ones"]))
    draw(true, gradients, trainings, options.output)


def draw(
    true: dict[str, Array],
    gradients: dict[str, dict[str, Array]],
    trainings: dict[str, list[Training]],
    path: Path,
) -> None:
    """Draw one kernel's gradient by each formula, cosines and accuracies, and the loss over the steps."""
    figure = new_figure(11.0, 9.8)
    figure.suptitle("The gradient of conv1's first kernel by each formula (blue: less, red: more)", fontsize=10.5)
    grid = figure.add_gridspec(3, 1, height_ratios=[1.5, 2.6, 2])
    _draw_kernels(figure, grid[0].subgridspec(2, 6), true["conv1"], gradients)
    sides = grid[1].subgridspec(1, 2)
    cosines = figure.add_subplot(sides[0])
    accuracies = figure.add_subplot(sides[1], sharey=cosines)
    accuracies.tick_params(labelleft=False)
    places = -np.arange(len(gradients))
    for name, colour, marker in zip(CONVOLUTIONS, (BLUE, ORANGE), "os", strict=True):
        values = [cosine(found[name], true[name]) for found in gradients.values()]
        cosines.plot(values, places, marker, color=colour, markersize=7, alpha=0.85, label=name)
    cosines.axvline(0, color=GREY, linewidth=1)
    cosines.set_xlim(-0.35, 1.05)
    cosines.set_yticks(places, list(gradients))
    cosines.set_title("Cosine with the true gradient at the start")
    cosines.legend(loc="lower left")
    for place, trained in zip(places, trainings.values(), strict=True):
        accuracy = [training.accuracy for training in trained]
        accuracies.plot(accuracy, np.full(len(accuracy), place), "o", color=GREEN, alpha=0.5, markersize=7)
        accuracies.plot(np.mean(accuracy), place, "|", color="black", markersize=16, markeredgewidth=2)
    accuracies.axvline(0.25, color=GREY, linewidth=1, linestyle="--")
    accuracies.text(0.24, places[0], "guessing", color=GREY, fontsize=9, rotation=90, ha="right", va="top")
    accuracies.set_xlim(0.15, 1.02)
    accuracies.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    accuracies.set_title("Arrows named right after training (dot: a seed)")
    _draw_losses(figure.add_subplot(grid[2]), trainings)
    save(figure, path)


def _draw_kernels(figure: Figure, grid: Any, true: Array, gradients: dict[str, dict[str, Array]]) -> None:
    limit = 1.2 * float(np.abs(true[0]).max())
    shown = {"true: central differences": true} | {text: found["conv1"] for text, found in gradients.items()}
    del shown[Frozen.text]
    for number, (text, found) in enumerate(shown.items()):
        panel = figure.add_subplot(grid[divmod(number, 6)])
        panel.imshow(found[0, :, :, 0], cmap="RdBu_r", vmin=-limit, vmax=limit)
        panel.set_title(fill(text, 20), fontsize=8, loc="center")
        panel.set_axis_off()


def _draw_losses(panel: Axes, trainings: dict[str, list[Training]]) -> None:
    from matplotlib import colormaps

    window = 25
    for number, (text, trained) in enumerate(trainings.items()):
        mean = np.mean([training.losses for training in trained], axis=0)
        if len(mean) > 2 * window:
            mean = np.convolve(mean, np.ones(window) / window, mode="valid")
        colour: Any = colormaps["tab20"](number) if number else "black"
        # Dashes in alternation, for curves that lie on one another.
        style = ":" if text == Frozen.text else "--" if number and number % 2 == 0 else "-"
        panel.plot(mean, color=colour, linestyle=style, label=text)
    panel.axhline(np.log(4), color=GREY, linewidth=1, linestyle="--")
    panel.set_ylim(bottom=0)
    panel.set_xlabel("step")
    panel.set_ylabel("loss")
    panel.set_title("Loss in training (mean of the seeds, smoothed; thin grey line: guessing)")
    panel.legend(fontsize=7.5, bbox_to_anchor=(1.01, 1), loc="upper left", frameon=False)


if __name__ == "__main__":
    main()
