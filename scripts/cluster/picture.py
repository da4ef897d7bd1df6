"""The picture of scaling.py: time, speed-up and efficiency against ranks, of a fixed batch and of one that grows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.model import Point
from common.figures import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, new_figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = (BLUE, ORANGE, GREEN, PURPLE, RED)
MARKERS = "osD^v"
Curves = Mapping[str, Sequence[Point]]
"""A curve for each network between the ranks."""


def draw(title: str, rows: Sequence[tuple[str, Curves]], output: Path) -> None:
    """Draw a row of three axes for each title and its curves, and save them. Raises OutputError."""
    figure = new_figure(11, 3.4 * len(rows) + 0.5)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    grid = figure.subplots(len(rows), 3, squeeze=False)
    for (name, curves), (time, speed_up, efficiency) in zip(rows, grid, strict=True):
        ranks = [point.ranks for point in max(curves.values(), key=len)]
        [linear] = speed_up.plot(ranks, ranks, color=GREY, linewidth=1, linestyle="--")
        speed_up.legend([linear], ["as many times as ranks"], fontsize=8, loc="upper left")
        for (link, points), colour, marker in zip(curves.items(), COLOURS, MARKERS, strict=False):
            counts = [point.ranks for point in points]
            look = {"color": colour, "marker": marker, "markersize": 3.5, "label": link}
            time.plot(counts, [1000 * point.step.seconds for point in points], **look)
            computing = [1000 * point.step.compute for point in points]
            speed_up.plot(counts, [point.speed_up for point in points], **look)
            efficiency.plot(counts, [100 * point.efficiency for point in points], **look)
        time.plot(counts, computing, color=GREY, linewidth=1, linestyle="--", label="arithmetic alone")
        time.set(title=f"{name}, ms a step", yscale="log")
        speed_up.set(title="speed-up: photos a second, of one rank's", yscale="log")
        efficiency.set(title="efficiency: speed-up / ranks", ylabel="%", ylim=(0, 105))
        for axes in (time, speed_up, efficiency):
            _by_ranks(axes, ranks)
    grid[0][0].legend(fontsize=8)
    save(figure, output)


def _by_ranks(axes: Axes, ranks: Sequence[int]) -> None:
    axes.set_xscale("log", base=2)
    shown = ranks[:: max(1, len(ranks) // 5)]
    axes.set_xticks(shown, [f"{count:,}" for count in shown])
    axes.set_xlabel("ranks")
