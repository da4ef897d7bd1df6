"""Above which learning rate does one linear neuron fly off to infinity?

Inputs 1, 2, 3, weights 3, 2, 1, target 0, half the squared error, no bias. A step of gradient descent multiplies the
output by 1 - rate * 14, where 14 = 1 + 4 + 9 is the error surface's curvature along the gradient. So the neuron learns
at rates below 2/14, lands in one step at 1/14, and diverges above 2/14, at 0.25 as at 1. Newton's method divides the
gradient by the curvature; its rate of 1 is the 1/14 of gradient descent. Small weights of mixed signs seem to tolerate
a rate of 0.25, but only start from a smaller output, which is multiplied by the same -2.5.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).parents[1]))

from common.command import at_least, exit_on_error, parser
from common.figures import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, new_figure, save
from common.tables import table
from facecnn.kernels import reference
from facecnn.learning.full_batch_optimizers import Memory, NewtonCg, Point

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Vector = npt.NDArray[np.float64]

INPUTS = np.array([[1.0, 2.0, 3.0]])
START = np.array([3.0, 2.0, 1.0])
TARGET = 0.0
CURVATURE = float((INPUTS**2).sum())
"""The error's second derivative along the gradient: 14. At right angles to it the error doesn't change at all."""

RATES: dict[str, float] = {
    "0.01": 0.01,
    "1/14": 1 / CURVATURE,
    "0.1": 0.1,
    "0.99 · 2/14": 0.99 * 2 / CURVATURE,
    "2/14": 2 / CURVATURE,
    "1.01 · 2/14": 1.01 * 2 / CURVATURE,
    "0.25": 0.25,
    "1": 1.0,
}
NEWTON = "Newton, rate 1"
SMALL = np.array([0.02, -0.03, 0.01])
"""Weights whose terms nearly cancel."""
FROM_SMALL = "0.25, small weights"


def evaluate(weight: Vector) -> tuple[float, Vector]:
    """Compute half the squared error of the neuron's output, and its gradient by the weights (3,)."""
    out, bias = np.empty((1, 1)), np.zeros(1)
    dweight, dbias = np.empty((1, 3)), np.empty(1)
    workspace = reference.Workspace()
    reference.dense_forward(out, INPUTS, weight[None], bias, workspace)
    error = out - TARGET
    reference.dense_backward_weight(dweight, dbias, error, INPUTS, workspace)
    return float(0.5 * (error**2).sum()), dweight[0]


def descend(rate: float, steps: int, start: Vector = START) -> list[Point]:
    """List the start and the point after each step of gradient descent."""
    weight = start.copy()
    points = [Point(weight.copy(), *evaluate(weight))]
    for _ in range(steps):
        weight -= rate * points[-1].gradient
        points.append(Point(weight.copy(), *evaluate(weight)))
    return points


def newton(steps: int) -> list[Point]:
    """List the same for Newton's method, which measures the curvature by differences of gradients."""
    optimizer, memory = NewtonCg(radius=100.0), Memory()
    points = [Point(START, *evaluate(START))]
    for _ in range(steps):
        points.append(optimizer.iterate(evaluate, points[-1], memory))
    return points


def verdict(points: Sequence[Point]) -> str:
    """Say in a few words what became of the error."""
    first, last = points[0].loss, points[-1].loss
    if points[1].loss < 1e-12 * first:
        return "lands in one step"
    if last > 1.001 * first:
        return "diverges"
    return "learns" if last < 0.999 * first else "swings for ever"


def output(point: Point) -> float:
    """Compute the neuron's output."""
    return float(INPUTS[0] @ point.w)


@exit_on_error()
def main() -> None:
    arguments = parser(__doc__, "linear_neuron.png")
    arguments.add_argument("--steps", type=at_least(6), default=20, help="steps of each rate (default: 20)")
    options = arguments.parse_args()
    found = {name: descend(rate, options.steps) for name, rate in RATES.items()}
    found |= {FROM_SMALL: descend(0.25, options.steps, SMALL), NEWTON: newton(options.steps)}
    shown = (1, 2, 5, options.steps)
    rows = [
        [
            name,
            round(output(points[1]) / output(points[0]), 6) + 0.0,
            *(f"{points[step].loss:.3g}" for step in shown),
            verdict(points),
        ]
        for name, points in found.items()
    ]
    start = found["1"][0]
    gradient = ", ".join(f"{value:g}" for value in start.gradient)
    print(f"Inputs 1, 2, 3; weights 3, 2, 1; target 0: output {output(start):g}, error {start.loss:g}.")
    print(f"Gradient {gradient}; curvature along it {CURVATURE:g}; the limit is 2/14 = {2 / CURVATURE:.4f}.\n")
    print(table(rows, ["rate", "output times", *(f"error after {step}" for step in shown), "verdict"]))
    small = found[FROM_SMALL]
    beyond = next((step for step, point in enumerate(small) if point.loss > start.loss), None)
    print(f"\nSmall weights: {', '.join(f'{value:g}' for value in SMALL)}; output {output(small[0]):g}, error", end=" ")
    print(f"{small[0].loss:g}; more than {start.loss:g} after {beyond or f'more than {options.steps}'} steps.")
    for name in ("1/14", NEWTON):
        weights = ", ".join(f"{value:.4f}" for value in found[name][1].w)
        print(f"\n{name}: weights after one step {weights}.", end="")
    print("\nOf all weights that give 0 these lie nearest to the start; what is left of the error is rounding.")
    draw(found, options.output)


COLOURS = {
    "0.01": GREY,
    "1/14": GREEN,
    "0.1": BLUE,
    "0.99 · 2/14": PURPLE,
    "2/14": "#444444",
    "1.01 · 2/14": "#c98a1b",
    "0.25": ORANGE,
    "1": RED,
}


def draw(found: dict[str, list[Point]], path: Path) -> None:
    """Draw the first steps at four rates on the error's parabola, the error over the steps, and one step's effect over
    the rate."""
    figure = new_figure(11.0, 7.4)
    grid = figure.add_gridspec(2, 4, height_ratios=[1, 1.25])
    drawn = (
        ("0.01", 6, "rate 0.01: creeps"),
        ("1/14", 1, "1/14: lands in one step"),
        ("2/14", 5, "2/14: swings for ever"),
        ("0.25", 3, "0.25: flies off"),
    )
    for column, (name, count, text) in enumerate(drawn):
        panel = figure.add_subplot(grid[0, column], title=text, ylabel="" if column else "error")
        _draw_parabola(panel, found[name][: count + 1], COLOURS[name])
    _draw_steps(figure.add_subplot(grid[1, :2]), found)
    _draw_factor(figure.add_subplot(grid[1, 2:]))
    save(figure, path)


def _draw_parabola(panel: Axes, points: Sequence[Point], colour: str) -> None:
    places = [(output(point), point.loss) for point in points]
    far = 1.25 * max(abs(out) for out, _ in places)
    out = np.linspace(-far, far, 200)
    panel.plot(out, 0.5 * out**2, color="#c4c4c4", linewidth=3.5)
    for start, end in pairwise(places):
        arrow = {"arrowstyle": "-|>", "color": colour, "linewidth": 1.5, "shrinkA": 0, "shrinkB": 0}
        panel.annotate("", xy=end, xytext=start, arrowprops=arrow)
    panel.plot(*zip(*places[1:], strict=True), "o", color=colour, markersize=4.5)
    panel.plot(*places[0], "o", color="black", markersize=6)
    panel.annotate("start", places[0], xytext=(8, -4), textcoords="offset points", fontsize=9)
    panel.set_xlabel("output = inputs · weights")


def _draw_steps(panel: Axes, found: dict[str, list[Point]]) -> None:
    from matplotlib.ticker import MaxNLocator

    floor, ceiling = 1e-4, 1e6
    for name, colour in COLOURS.items():
        losses = np.array([point.loss for point in found[name]])
        panel.plot(np.clip(losses, floor / 100, ceiling * 100), color=colour, marker="o", markersize=3.5, label=name)
    newton = np.array([point.loss for point in found[NEWTON]])
    panel.plot(np.clip(newton, floor / 100, None), color="black", linestyle=":", linewidth=2.2, label=NEWTON)
    panel.set_yscale("log")
    panel.set_ylim(floor, ceiling)
    panel.set_xlim(-0.3, len(newton) - 1)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.set_xlabel("step")
    panel.set_ylabel("error")
    panel.set_title("Error after each step (green and dotted: to 0 at once)")
    panel.legend(title="rate", fontsize=8, title_fontsize=8, ncols=2, loc="upper right")


def _draw_factor(panel: Axes) -> None:
    def factor(rate: float) -> float:
        start, after = descend(rate, 1)
        return abs(output(after) / output(start))

    rates = np.linspace(0.0, 0.3, 301)
    panel.axvspan(0, 2 / CURVATURE, color=GREEN, alpha=0.1, linewidth=0)
    panel.axvspan(2 / CURVATURE, 0.3, color=RED, alpha=0.08, linewidth=0)
    panel.axhline(1, color="#444444", linewidth=1, linestyle="--")
    panel.plot(rates, [factor(rate) for rate in rates], color="#555555")
    for name, rate in RATES.items():
        if rate <= rates[-1]:
            panel.plot(rate, factor(rate), "o", color=COLOURS[name], markersize=7)
    # On top of its two neighbours, and smaller, so that all three are seen.
    panel.plot(2 / CURVATURE, factor(2 / CURVATURE), "o", color=COLOURS["2/14"], markeredgecolor="white", markersize=5)
    panel.text(0.071, 1.6, "learns", color=GREEN, ha="center", fontsize=12)
    panel.text(0.2, 2.5, "diverges", color=RED, ha="center", fontsize=12)
    for rate, text in ((1 / CURVATURE, "1/14"), (2 / CURVATURE, "2/14 = 0.1429"), (0.25, "0.25")):
        panel.annotate(text, (rate, factor(rate)), xytext=(12, -12), textcoords="offset points", fontsize=9)
    panel.set_xlim(0, 0.3)
    panel.set_ylim(-0.2, 3.3)
    panel.set_xlabel("rate (1 lies far to the right: × 13)")
    panel.set_ylabel("|output| is multiplied by")
    panel.set_title("What one step does, measured")


if __name__ == "__main__":
    main()
