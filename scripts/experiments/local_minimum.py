"""Why does training behind a max-pool find another kernel? The winner in the pool gets all of the error.

A target is made from the picture [10, 3, 5, -4] with the kernel [1, 1, 1] and a max-pool of 2; then a kernel is trained
from [0, 3, 0] by gradient descent on half the squared error. At the start another position wins in the pool than in the
target. Only that winner's three pixels get any error, so the kernel learns to give the right number there (two weights
grow, the third, whose pixel is negative, falls): the error reaches zero with another kernel. With a longer picture,
which has four pooled numbers for three weights, the error stays above zero from the same start, in a true local
minimum. Without the pool the kernel comes back from everywhere.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).parents[1]))

from common.command import at_least, exit_on_error, parser
from common.figures import BLUE, GREEN, GREY, ORANGE, RED, new_figure, save
from common.tables import table
from facecnn.kernels import reference

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = npt.NDArray[np.float64]

SHORT = np.array([10.0, 3, 5, -4])
LONG = np.array([10.0, 3, 5, -4, 2, -2, 2, 7, 5, 5])
TRUE = np.array([1.0, 1, 1])
START = np.array([0.0, 3, 0])
COLOURS = "viridis"
AROUND = 0.1
"""Distance from a minimum at which the error is compared with that there."""


@dataclass(frozen=True)
class Result:
    """The results of K kernels on a picture, each on its own."""

    errors: Array
    """(K,)"""
    gradients: Array
    """(K, 3)"""
    sums: Array
    """(K, positions), before the pool."""
    winners: npt.NDArray[np.int32]
    """(K, windows): the position of the largest sum in each window."""


class Task:
    """A row of pixels, convolved (valid) and max-pooled; the target is the result of the kernel [1, 1, 1]."""

    def __init__(self, picture: Array, pool: int) -> None:
        self.picture, self.pool = picture, pool
        self._x = picture.reshape(1, 1, -1, 1)
        self._sums = len(picture) - len(TRUE) + 1
        self._target: Array | float = 0.0
        _, self._target, _ = self._forward(TRUE[None])
        self.target: list[float] = self._target.ravel().tolist()

    def _forward(self, kernels: Array) -> tuple[Array, Array, npt.NDArray[np.int32]]:
        count, workspace = len(kernels), reference.Workspace()
        sums = np.empty((1, 1, self._sums, count))
        pooled = np.empty((1, 1, self._sums // self.pool, count))
        argmax = np.empty(pooled.shape, np.int32)
        weight, no_bias = kernels.reshape(count, 1, -1, 1), np.zeros(count)
        reference.conv_forward(sums, argmax, self._x, weight, no_bias, (0, 0), "identity", 0.0, 1, workspace)
        reference.pool_forward(pooled, argmax, sums, "max", (1, self.pool), (1, self.pool), workspace)
        return sums, pooled, argmax

    def __call__(self, kernels: Array) -> Result:
        """Run a layer of K kernels (K, 3), each of which has an error of its own."""
        sums, pooled, argmax = self._forward(kernels)
        workspace, window = reference.Workspace(), (1, self.pool)
        error = pooled - self._target
        delta, gradient, dbias = np.empty_like(sums), np.empty((len(kernels), 1, 3, 1)), np.empty(len(kernels))
        reference.pool_backward(delta, error, argmax, "max", window, window, workspace)
        block: Any = ((0, 0), "identity", 0.0, 1, workspace)
        reference.conv_backward_weight(gradient, dbias, delta, sums, argmax, self._x, *block)
        return Result(
            0.5 * (error**2).sum(axis=(0, 1, 2)), gradient.reshape(-1, 3), sums[0, 0].T.copy(), argmax[0, 0].T.copy()
        )

    def descend(self, kernels: Array, steps: int) -> list[Array]:
        """List the kernels (K, 3) at the start and after each step, at a rate that is safe whichever positions win."""
        pixels = np.lib.stride_tricks.sliding_window_view(self.picture, len(TRUE))
        norms = (pixels**2).sum(axis=1)[: self._sums // self.pool * self.pool].reshape(-1, self.pool)
        rate = 1 / norms.max(axis=1).sum()
        weight = kernels.copy()
        path = [kernels]
        for _ in range(steps):
            weight -= rate * self(weight).gradients
            path.append(weight.copy())
        return path


def texts(numbers: Any) -> str:
    """Format numbers for one cell."""
    return " ".join(f"{number:.3g}" for number in np.asarray(numbers, float) + 0.0)


def kind_of(error: float, gradient: Array, kernel: Array) -> str:
    """Say where a descent has ended."""
    if np.abs(gradient).max() > 1e-3:
        return "still moving"  # on a kink it never stops
    if error > 1e-6:
        return "local minimum"
    return "the true kernel" if np.abs(kernel - TRUE).max() < 1e-3 else "zero error, another kernel"


KINDS = ("the true kernel", "zero error, another kernel", "local minimum", "still moving")
TASKS = {"4 pixels, pool 2": (SHORT, 2), "10 pixels, pool 2": (LONG, 2), "10 pixels, no pool": (LONG, 1)}


def least_rise(task: Task, kernel: Array, distance: float, seed: int) -> float:
    """How much higher the error is at the lowest of 2000 random places at a distance."""
    directions = np.random.default_rng(seed).normal(size=(2000, 3))
    around = kernel + distance * directions / np.linalg.norm(directions, axis=1, keepdims=True)
    return float(task(around).errors.min() - task(kernel[None]).errors[0])


@exit_on_error()
def main() -> None:
    arguments = parser(__doc__, "local_minimum.png")
    arguments.add_argument("--steps", type=at_least(1), default=3000, help="steps of each descent (default: 3000)")
    arguments.add_argument("--starts", type=at_least(1), default=500, help="random starts (default: 500)")
    arguments.add_argument("--seed", type=at_least(0), default=0, help="of the random starts (default: 0)")
    options = arguments.parse_args()
    tasks = {name: Task(picture, pool) for name, (picture, pool) in TASKS.items()}
    random = np.random.default_rng(options.seed).normal(0, 1, (options.starts, 3))
    paths = {name: task.descend(np.vstack([START, random]), options.steps) for name, task in tasks.items()}

    rows = []
    for name, task in tasks.items():
        for place, kernel in (("target", TRUE), ("start", START), ("end", paths[name][-1][0])):
            result = task(kernel[None])
            sums, winners = texts(result.sums[0]), texts(result.winners[0])
            rows.append([name, place, texts(kernel), sums, winners, f"{result.errors[0]:.3g}"])
    print("From the start 0 3 0. Winners: the positions (from 0) whose sums pass the pool.\n")
    print(table(rows, ["task", "place", "kernel", "sums", "winners", "error"]))

    rows = []
    for name, task in tasks.items():
        result = task(paths[name][-1])
        kinds = [kind_of(*one) for one in zip(result.errors, result.gradients, paths[name][-1], strict=True)][1:]
        rows.append([name, *(f"{kinds.count(kind) / len(kinds):.0%}" for kind in KINDS)])
    print(f"\nFrom {options.starts} random starts, where {options.steps} steps end:\n")
    print(table(rows, ["task", *KINDS]))

    minima = rows_of_minima(tasks["10 pixels, pool 2"], paths["10 pixels, pool 2"][-1], options.seed)
    print("\nThe local minima with 10 pixels and the pool; the error", end=" ")
    print(f"{AROUND:g} away from each is higher by at least:\n")
    print(table(minima, ["kernel", "winners", "error", "higher by", "random starts"]))
    draw(tasks, {name: np.array([kernels[0] for kernels in path]) for name, path in paths.items()}, options.output)


def rows_of_minima(task: Task, ends: Array, seed: int) -> list[list[object]]:
    """A row for each local minimum with an error in which descents (K, 3) end, the first of which isn't random."""
    result, random = task(ends), len(ends) - 1
    kinds = [kind_of(*one) for one in zip(result.errors, result.gradients, ends, strict=True)]
    stuck = [number for number, kind in enumerate(kinds) if kind == "local minimum"]
    # Each has winners of its own: for these the error is a bowl with one bottom.
    by_winners: dict[str, list[int]] = {}
    for number in stuck:
        by_winners.setdefault(texts(result.winners[number]), []).append(number)
    rows: list[list[object]] = []
    for winners, members in by_winners.items():
        kernel, share = ends[members[0]], sum(number > 0 for number in members) / random
        rise = least_rise(task, kernel, AROUND, seed)
        rows.append([texts(kernel), winners, f"{result.errors[members[0]]:.3g}", f"{rise:.3g}", f"{share:.0%}"])
    return rows


def draw(tasks: dict[str, Task], paths: dict[str, Array], path: Path) -> None:
    """Draw the short task's error over the only two numbers that it depends on, flat and in relief; the long one's in
    the plane through start, end and true kernel; and both on the straight line from the end to the true kernel."""
    from matplotlib.colors import LogNorm

    figure = new_figure(11.0, 9.4)
    grid = figure.add_gridspec(2, 2)
    scale = LogNorm(0.1, 300)
    short, long = "4 pixels, pool 2", "10 pixels, pool 2"
    _draw_two_sums(figure.add_subplot(grid[0, 0]), tasks[short], paths[short], scale)
    _draw_relief(figure.add_subplot(grid[0, 1], projection="3d"), tasks[short], paths[short], scale)
    drawn = _draw_plane(figure.add_subplot(grid[1, 0]), tasks[long], paths[long], scale)
    # Above the bar, not beside it: there the next panel's axis says the same.
    bar = figure.colorbar(drawn, ax=figure.axes[-1], shrink=0.9)
    bar.ax.set_title("error\n(all three)", loc="center", fontsize=9)
    _draw_line(figure.add_subplot(grid[1, 1]), tasks, paths)
    save(figure, path)


def _two_sums(task: Task, first: Array, second: Array) -> tuple[Array, Array]:
    """Find the smallest kernels (K, 3) with these two sums; and their errors (K,)."""
    pixels = np.lib.stride_tricks.sliding_window_view(task.picture, len(TRUE))
    kernels = np.stack([first.ravel(), second.ravel()], axis=1) @ np.linalg.pinv(pixels).T
    return kernels, task(kernels).errors


def _mark(panel: Axes, place: Any, text: str, colour: str, marker: str, offset: tuple[int, int]) -> None:
    panel.plot(*place, marker, color=colour, markeredgecolor="white", markersize=13 if marker == "*" else 9, zorder=5)
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1.5}
    panel.annotate(text, place, xytext=offset, textcoords="offset points", fontsize=9, color=colour, bbox=box, zorder=6)


def _draw_two_sums(panel: Axes, task: Task, path: Array, scale: Any) -> None:
    first, second = np.meshgrid(np.linspace(0, 26, 261), np.linspace(0, 26, 261))
    errors = _two_sums(task, first, second)[1].reshape(first.shape)
    panel.pcolormesh(first, second, np.maximum(errors, scale.vmin), cmap=COLOURS, norm=scale, rasterized=True)
    panel.plot([0, 26], [0, 26], color="white", linestyle="--", linewidth=1.2)
    panel.text(20.3, 8, "10, 3, 5 win", color="white", ha="center", rotation=90, fontsize=9)
    panel.text(4, 15, "3, 5, -4 win", color="white", ha="center", fontsize=9)
    sums = task(path).sums
    panel.plot(sums[:, 0], sums[:, 1], color=ORANGE, linewidth=2)
    _mark(panel, sums[0], "start 0 3 0", ORANGE, "o", (-2, -17))
    _mark(panel, sums[-1], f"end {texts(path[-1])}", RED, "o", (-72, 12))
    _mark(panel, task(TRUE[None]).sums[0], "true 1 1 1", GREEN, "*", (-70, -4))
    panel.set_xlabel("sum over 10, 3, 5")
    panel.set_ylabel("sum over 3, 5, -4")
    panel.set_title("4 pixels: the error is 0 all along the dark L")
    panel.set_aspect("equal")
    panel.grid(False)


def _draw_relief(panel: Any, task: Task, path: Array, scale: Any) -> None:
    from matplotlib import colormaps

    first, second = np.meshgrid(np.linspace(2, 24, 89), np.linspace(2, 24, 89))
    errors = _two_sums(task, first, second)[1].reshape(first.shape)
    colours = colormaps[COLOURS](scale(np.maximum(errors, scale.vmin)))
    panel.plot_surface(
        first, second, errors, facecolors=colours, rcount=80, ccount=80, linewidth=0, alpha=0.85, shade=False
    )
    sums, errors = task(path).sums, task(path).errors
    panel.plot(sums[:, 0], sums[:, 1], errors + 1, color=ORANGE, linewidth=2.5, zorder=10)
    for place, colour, marker in ((sums[0], ORANGE, "o"), (sums[-1], RED, "o"), ((18, 4), GREEN, "*")):
        height = 1 + 0.5 * (max(place) - 18) ** 2
        size, edge = (15, "white") if marker == "*" else (10, colour)
        where = [[number] for number in (*place, height)]
        panel.plot(*where, marker, color=colour, markeredgecolor=edge, markersize=size, zorder=11)
    panel.view_init(elev=42, azim=33)
    panel.set_box_aspect((1, 1, 0.6), zoom=1.0)
    panel.set_xlabel("sum over 10, 3, 5")
    panel.set_ylabel("sum over 3, 5, -4")
    panel.set_zlabel("error")
    panel.set_xticks([5, 10, 15, 20])
    panel.set_yticks([5, 10, 15, 20])
    panel.set_title("The same in relief: one valley floor with a bend")


def _draw_plane(panel: Axes, task: Task, path: Array, scale: Any) -> Any:
    end = path[-1]
    along = (TRUE - end) / np.linalg.norm(TRUE - end)
    across = START - end - ((START - end) @ along) * along
    across /= np.linalg.norm(across)
    axes = np.stack([along, across])
    s, t = np.meshgrid(np.linspace(-1.6, 3.6, 281), np.linspace(-1.7, 1.7, 201))
    errors = task(end + np.stack([s.ravel(), t.ravel()], axis=1) @ axes).errors.reshape(s.shape)
    drawn = panel.pcolormesh(s, t, np.maximum(errors, scale.vmin), cmap=COLOURS, norm=scale, rasterized=True)
    levels = [1, 5, 9, 12.5, 15, 18, 25, 50, 100, 200]
    panel.contour(s, t, errors, levels=levels, colors="white", linewidths=0.7, alpha=0.7)
    places = (path - end) @ axes.T
    panel.plot(places[:, 0], places[:, 1], color=ORANGE, linewidth=2)
    _mark(panel, places[0], "start", ORANGE, "o", (-12, 9))
    _mark(panel, (0.0, 0.0), f"end: error {task(end[None]).errors[0]:.1f}", RED, "o", (-40, -18))
    _mark(panel, (TRUE - end) @ axes.T, "true: error 0", GREEN, "*", (-30, 12))
    panel.set_xlabel("along the line from the end to the true kernel")
    panel.set_ylabel("across, towards the start")
    panel.set_title("10 pixels: basins side by side (plane through the three)")
    panel.set_aspect("equal")
    panel.grid(False)
    return drawn


def _draw_line(panel: Axes, tasks: dict[str, Task], paths: dict[str, Array]) -> None:
    share = np.linspace(-0.4, 1.4, 721)
    for name, colour in zip(tasks, (BLUE, RED, GREY), strict=True):
        end = paths["10 pixels, pool 2" if name == "10 pixels, no pool" else name][-1]
        errors = tasks[name](end + share[:, None] * (TRUE - end)).errors
        panel.plot(share, errors, color=colour, label=name)
    panel.set_ylim(0, 40)
    panel.set_xlim(share[0], share[-1])
    panel.set_xticks([0, 0.5, 1], ["the end\n(with the pool)", "half-way", "true kernel"])
    panel.set_ylabel("error")
    panel.set_title("On the straight way from the end to the true kernel")
    panel.legend(loc="upper left")


if __name__ == "__main__":
    main()
