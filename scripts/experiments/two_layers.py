"""What does a kernel of the second layer look at: all maps of the first layer at once, or each map by itself?

Spanning: a kernel has weights of its own for every input map, and sums over the maps: one output map per kernel.
Separate: a kernel has one set of weights, with which every input map is convolved by itself: as many output maps as
maps times kernels, each of which depends on one input map only.

Both are trained, otherwise alike, on pictures with two red and two green dots: in half of the pictures a red dot and a
green dot are in the same place. Red alone and green alone look the same in both halves, so a network that never adds
the two maps, place by place, can't tell them apart.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic.dataclasses import dataclass as settings

sys.path.insert(0, str(Path(__file__).parents[1]))

from common.command import at_least, exit_on_error, parser
from common.differences import central_differences
from common.figures import BLUE, ORANGE, new_figure, save
from common.ready_batches import train as train_network
from common.tables import table
from facecnn.arrays import Array
from facecnn.kernels import open_device, reference
from facecnn.learning.optimizers import Adam
from facecnn.network.layers import Buffer, Conv, Dense, Layer, LayerContext, Parameter, Pool, Shape
from facecnn.network.network import Network
from facecnn.network.stages import plan
from facecnn.settings import SETTINGS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


SIDE = 9
NEW_PICTURES = 1000


def _fold(maps: Array, channels: int) -> Array:
    """Reorder (N, H, W, C * K) to (N * C, H, W, K): every input map becomes a photo of its own."""
    photos, height, width, all_maps = maps.shape
    parted = maps.reshape(photos, height, width, channels, all_maps // channels)
    return np.ascontiguousarray(parted.transpose(0, 3, 1, 2, 4)).reshape(-1, height, width, all_maps // channels)


def _unfold(folded: Array, channels: int) -> Array:
    """Undo ``_fold``."""
    _, height, width, maps = folded.shape
    return (
        folded.reshape(-1, channels, height, width, maps)
        .transpose(0, 2, 3, 1, 4)
        .reshape(-1, height, width, channels * maps)
    )


@settings(frozen=True, kw_only=True, config=SETTINGS)
class Separate(Conv):
    """Convolves each map with each kernel: the same convolution, of photos with a single map."""

    keyword: ClassVar[str] = "separate"

    def output_shape(self, shape: Shape) -> Shape:
        height, width, kernels = super().output_shape((*shape[:2], 1))
        return height, width, shape[2] * kernels

    def parameters(self, shape: Shape) -> dict[str, Parameter]:
        return super().parameters((*shape[:2], 1))

    def buffers(self, shape: Shape) -> dict[str, Buffer]:
        height, width, _ = self.output_shape(shape)
        return {"argmax": Buffer((shape[2], height, width, self.kernels) if self._pooled() > 1 else (0,), np.uint8)}

    def multiply_adds(self, shape: Shape) -> int:
        return shape[2] * super().multiply_adds((*shape[:2], 1))

    def _folded(self, context: LayerContext) -> LayerContext:
        maps = context.x.shape[3]
        out = _fold(context.out, maps)
        argmax = context.buffers["argmax"]
        if argmax.ndim > 1:
            argmax = argmax.reshape(out.shape)
        dx = None if context.dx is None else _fold(context.dx, maps)
        return replace(
            context,
            x=_fold(context.x, maps),
            out=out,
            buffers={"argmax": argmax},
            dout=_fold(context.dout, maps),
            dx=dx,
        )

    def forward(self, context: LayerContext) -> None:
        folded = self._folded(context)
        super().forward(folded)
        context.out[...] = _unfold(folded.out, context.x.shape[3])

    def backward(self, context: LayerContext) -> None:
        folded = self._folded(context)
        super().backward(folded)
        if context.dx is not None and folded.dx is not None:
            context.dx[...] = _unfold(folded.dx, context.x.shape[3])


SIZES = ("weights", "million multiply-adds")
KINDS: dict[str, type[Conv]] = {"spanning": Conv, "separate": Separate}


# ------------------------------------------------------------------------------------------------------------- sizes


def sizes(kind: str) -> list[list[object]]:
    """Table rows for three layers of 8, 16 and 24 kernels of 5x5 on 224x224 in colour, each with a pool of 2."""
    stages = plan([KINDS[kind](kernels=kernels, size=5, pool=2) for kernels in (8, 16, 24)], (224, 224, 3))
    rows: list[list[object]] = []
    for stage in stages:
        weights = sum(int(np.prod(parameter.shape)) for parameter in stage.parameters.values())
        millions = f"{stage.layer.multiply_adds(stage.shape) / 1e6:,.0f}"
        rows.append([kind, stage.name[-1], stage.shape[2], stage.out_shape[2], weights, millions])
    return rows


def gradient_error(kind: str) -> float:
    """Compare the gradient with central differences: the largest difference, over the gradient's largest element."""
    random = np.random.default_rng(0)
    layers = (
        KINDS[kind](kernels=3, activation="tanh", pool=2),
        KINDS[kind](kernels=2, activation="tanh"),
        Dense(units=2),
    )
    backend: Any = reference
    network = Network(layers, (9, 9, 2), backend, 3, dtype=np.float64)
    network.initialise(0)
    network.input[...] = random.standard_normal(network.input.shape)
    upstream = random.standard_normal((3, 2))

    def value() -> float:
        network.forward(3, training=True)
        return float((network.output * upstream).sum())

    value()
    network.backward(3, dout=upstream)
    assert network.gradient is not None
    differences = central_differences(value, network.weights.parameters.flat)
    return float(np.abs(network.gradient.flat - differences).max() / np.abs(differences).max())


# -------------------------------------------------------------------------------------------------------------- task


def dots(count: int, seed: int) -> tuple[Array, npt.NDArray[np.int32]]:
    """Draw two dots in each of two maps, (count, SIDE, SIDE, 2), in faint noise. Label 1: two dots share a place."""
    random = np.random.default_rng(seed)
    pictures = random.normal(0, 0.1, (count, SIDE * SIDE, 2))
    labels = np.arange(count, dtype=np.int32) % 2
    for picture, label in zip(pictures, labels, strict=True):
        places = random.permutation(SIDE * SIDE)
        picture[places[:2], 0] += 1
        picture[places[1:3] if label else places[2:4], 1] += 1
    return pictures.reshape(count, SIDE, SIDE, 2), labels


@dataclass(frozen=True)
class Plan:
    """A network for the task: two layers of kernels of a kind, and the layers that judge their maps."""

    kind: str
    kernels: int
    hidden: int | None = None
    """Units that see every place of every map, before the last layer; None: it gets the largest number of each map."""

    def layers(self) -> list[Layer]:
        """List two convolutions and the head."""
        layer = KINDS[self.kind](kernels=self.kernels, size=3)
        if self.hidden is None:
            return [layer, layer, Pool(size="global"), Dense(units=2)]
        return [layer, layer, Dense(units=self.hidden, activation="leaky_relu"), Dense(units=2)]


PLANS = (
    Plan("spanning", 1),
    Plan("spanning", 2),
    Plan("spanning", 4),
    Plan("separate", 1),
    Plan("separate", 4),
    Plan("separate", 8),
    Plan("spanning", 4, hidden=64),
    Plan("separate", 4, hidden=64),
)


class Remembering:
    """The reference backend, which keeps the input of the last pool: the second layer's maps."""

    pooled: Array

    def __getattr__(self, name: str) -> Any:
        return getattr(reference, name)

    def pool_forward(self, out: Array, argmax: Array, x: Array, *rest: Any) -> None:
        """See ``reference.pool_forward``."""
        self.pooled = x
        reference.pool_forward(out, argmax, x, *rest)


@dataclass(frozen=True)
class Training:
    """The result of training."""

    network: Network
    loss: float
    """Mean over the last 50 steps."""
    accuracy: float
    """On new pictures."""


def train(a_plan: Plan, seed: int, steps: int) -> Training:
    """Train with Adam, on 32 new pictures in each batch."""
    backend: Any = Remembering()
    network = Network(a_plan.layers(), (SIDE, SIDE, 2), backend, NEW_PICTURES, dtype=np.float64, seed=seed)
    network.initialise(seed)
    losses = train_network(network, *dots(32 * steps, 1000 + seed), Adam(learning_rate=0.01), 32)
    pictures, labels = dots(NEW_PICTURES, 2000 + seed)
    network.input[...] = pictures
    network.forward(NEW_PICTURES)
    accuracy = float((network.output.argmax(axis=1) == labels).mean())
    return Training(network, float(np.mean(losses[-50:])), accuracy)


@exit_on_error()
def main() -> None:
    arguments = parser(__doc__, "two_layers.png")
    arguments.add_argument("--steps", type=at_least(1), default=600, help="steps of each run (default: 600)")
    arguments.add_argument("--seeds", type=at_least(1), default=3, help="training runs of each network (default: 3)")
    options = arguments.parse_args()
    open_device("reference")  # one thread for BLAS: the matrices are small

    print("Layers of 8, 16 and 24 kernels of 5x5 on a colour picture of 224x224, each with a pool of 2:\n")
    print(table([row for kind in KINDS for row in sizes(kind)], ["kind", "layer", "maps in", "maps out", *SIZES]))
    print("\nTwo layers against central differences (largest difference / largest number):\n")
    print(table([[kind, f"{gradient_error(kind):.1e}"] for kind in KINDS], ["kind", "gradient error"]))

    rows, trainings = [], {}
    for a_plan in PLANS:
        trained = [train(a_plan, seed, options.steps) for seed in range(options.seeds)]
        trainings[a_plan] = trained
        network = trained[0].network
        rows.append(
            [
                a_plan.kind,
                a_plan.kernels,
                network.stages[1].out_shape[2],
                "largest of each map" if a_plan.hidden is None else f"{a_plan.hidden} units see all",
                sum(array.size for array in network.weights.parameters.named.values()),
                f"{np.mean([training.loss for training in trained]):.2f}",
                f"{np.mean([training.accuracy for training in trained]):.0%}",
            ]
        )
    print(f"\nDots together or apart, {options.steps} steps (mean of {options.seeds} seeds; guessing: 0.69, 50%):\n")
    headers = ["kind", "kernels", "maps", "head", "weights", "loss at the end", "right on new ones"]
    print(table(rows, headers))
    draw(trainings, options.output)


def draw(trainings: dict[Plan, list[Training]], path: Path) -> None:
    """Draw pictures of both classes with the maps of either kind of kernel, accuracies, and numbers of maps."""
    figure = new_figure(11.0, 5.9)
    halves = figure.add_gridspec(1, 2, width_ratios=[1.2, 1])
    _draw_maps(figure, halves[0].subgridspec(3, 4), {kind: trainings[Plan(kind, 4)][0].network for kind in KINDS})
    charts = halves[1].subgridspec(2, 1)
    _draw_accuracy(figure.add_subplot(charts[0]), trainings)
    _draw_counts(figure.add_subplot(charts[1]))
    save(figure, path)


def _draw_maps(figure: Figure, grid: Any, networks: dict[str, Network]) -> None:
    pictures, labels = dots(NEW_PICTURES, 2000)
    shown = [1, 3, 0, 2]
    panels = [[figure.add_subplot(grid[row, column]) for column in range(len(shown))] for row in range(3)]
    for panel, number in zip(panels[0], shown, strict=True):
        panel.imshow(np.clip(np.dstack([pictures[number], np.zeros((SIDE, SIDE))]), 0, 1))
        panel.set_title("together" if labels[number] else "apart", loc="center")
    for row, (kind, network) in zip(panels[1:], networks.items(), strict=True):
        network.input[...] = pictures
        network.forward(NEW_PICTURES)
        backend: Any = network.backend
        maps = backend.pooled
        # The map whose largest number separates the classes best.
        largest = maps.max(axis=(1, 2))
        gaps = largest[labels == 1].mean(axis=0) - largest[labels == 0].mean(axis=0)
        best = int(np.argmax(np.abs(gaps) / (largest.std(axis=0) + 1e-12)))
        chosen = maps[shown, :, :, best]
        for panel, one in zip(row, chosen, strict=True):
            panel.imshow(one, cmap="magma", vmin=chosen.min(), vmax=chosen.max())
        row[0].set_ylabel(kind, fontsize=10)
    panels[0][0].set_ylabel("picture", fontsize=10)
    for panel in (one for row in panels for one in row):
        panel.set_xticks([])
        panel.set_yticks([])


def _draw_accuracy(panel: Axes, trainings: dict[Plan, list[Training]]) -> None:
    places = -np.arange(len(trainings))
    names = []
    for place, (a_plan, trained) in zip(places, trainings.items(), strict=True):
        network = trained[0].network
        head = "" if a_plan.hidden is None else f" + {a_plan.hidden} units"
        maps = network.stages[1].out_shape[2]
        names.append(f"{a_plan.kind} {a_plan.kernels} ({maps} map{'s' if maps > 1 else ''}){head}")
        colour = BLUE if a_plan.kind == "spanning" else ORANGE
        accuracy = [training.accuracy for training in trained]
        panel.barh(place, np.mean(accuracy), color=colour, alpha=0.75)
        panel.plot(accuracy, [place] * len(accuracy), "o", color="black", markersize=3.5)
    panel.axvline(0.5, color="black", linewidth=1, linestyle="--")
    panel.set_yticks(places, names, fontsize=8.5)
    panel.set_xlim(0, 1)
    panel.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    panel.set_title("Right on new pictures")


def _draw_counts(panel: Axes) -> None:
    for shift, (kind, colour) in zip((-0.2, 0.2), (("spanning", BLUE), ("separate", ORANGE)), strict=True):
        counts = [int(str(row[3])) for row in sizes(kind)]
        bars = panel.bar(np.arange(3) + shift, counts, width=0.38, color=colour, alpha=0.75, label=kind)
        panel.bar_label(bars, [f"{count:,}" for count in counts], fontsize=9)
    panel.set_yscale("log")
    panel.set_ylim(1, 60000)
    panel.set_xticks(range(3), ["8 kernels", "16", "24"])
    panel.set_title("Maps out, layer by layer")
    panel.legend(loc="upper left")


if __name__ == "__main__":
    main()
