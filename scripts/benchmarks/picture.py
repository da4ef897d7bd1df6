"""The picture of benchmark.py: bars with ratios, and a roofline."""

from __future__ import annotations

from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.processes import FACECNN
from common.figures import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, new_figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Rows = list[dict[str, Any]]

COLUMNS = 2
COLOURS = {"compile": PURPLE, "bf16": GREEN, "TF32": GREEN, "NCHW": ORANGE, "channels_last": RED}
"""Colours of PyTorch's implementations, by the first of these words in their names."""


def draw(report: dict[str, Any], path: Path) -> None:
    """Write a PNG file with bars for each case of the largest batch and, if the roof was measured, the roofline. Raises
    OutputError."""
    cases: dict[tuple[Any, ...], Rows] = {}
    largest = max(row["batch"] for row in report["rows"])
    for row in report["rows"]:
        if row["batch"] == largest and row["median_ms"] is not None:
            cases.setdefault((row["network"], row["size"], row["batch"], row["work"]), []).append(row)
    bars = max((len(rows) for rows in cases.values()), default=1)
    lines = ceil(len(cases) / COLUMNS)
    heights = [0.6 + 0.21 * bars] * lines + [4.6] * (report["roof"] is not None)
    figure = new_figure(13, sum(heights) + 0.6)
    grid = figure.add_gridspec(len(heights), COLUMNS, height_ratios=heights)
    for number, ((network, size, batch, work), rows) in enumerate(cases.items()):
        axes = figure.add_subplot(grid[number // COLUMNS, number % COLUMNS])
        _bars(axes, rows)
        axes.set_title(f"{network} at {size}×{size}, batch {batch}: {'a training step' if work == 'train' else work}")
    if report["roof"] is not None:
        _roofline(figure.add_subplot(grid[-1, :]), report)
    about = report["machine"]
    title = f"{about['gpu'] or about['cpu']}, {report['threads']} threads: milliseconds, × as long as facecnn"
    figure.suptitle(title, fontsize=11, x=0.01, ha="left")
    save(figure, path)


def _bars(axes: Axes, rows: Rows) -> None:
    """A bar for each implementation, facecnn's at the top, with a stroke at the least time."""
    ours = next((row["median_ms"] for row in rows if row["implementation"] == FACECNN), None)
    medians = [row["median_ms"] for row in rows]
    names = [row["implementation"].replace("allocator ", "") for row in rows]
    axes.barh(names, medians, height=0.72, color=[_colour(row) for row in rows])
    # Bars that are very much longer than the others are cut off, so that the others can be seen.
    limit = min(max(medians), 6 * float(np.median(medians)))
    shown = [(row["min_ms"], number) for number, row in enumerate(rows) if row["median_ms"] <= limit]
    axes.plot(*zip(*shown, strict=True), "|", color="black", markersize=6)
    for number, median in enumerate(medians):
        ratio = "" if ours is None else f"  ×{median / ours:.2f}"
        beyond = median > limit
        axes.annotate(
            (f"{median:,.0f}" if median >= 100 else f"{median:.3g}") + f" ms{ratio}" + (" →" if beyond else ""),
            (min(median, limit), number),
            (-4 if beyond else 4, 0),
            textcoords="offset points",
            va="center",
            ha="right" if beyond else "left",
            fontsize=8,
            color="white" if beyond else "black",
        )
    axes.set_xlim(0, 1.28 * limit)
    axes.tick_params(labelsize=8)
    axes.grid(axis="y", visible=False)
    axes.invert_yaxis()


def _colour(row: dict[str, Any]) -> str:
    if not row["implementation"].startswith("torch"):
        return BLUE
    return next((colour for word, colour in COLOURS.items() if word in row["implementation"]), GREY)


def _roofline(axes: Axes, report: dict[str, Any]) -> None:
    """Operations per second over operations per byte: facecnn's rows, and PyTorch's best ones in float32."""
    peak, bandwidth = report["roof"]["peak"] / 1e9, report["roof"]["bandwidth"] / 1e9
    from matplotlib.ticker import NullFormatter

    counted = [row for row in report["rows"] if row["share_of_peak"] is not None]
    ridge = peak / bandwidth
    intensities = [row["operations"] / row["bytes"] for row in counted]
    low, high = min([*intensities, ridge]) / 2, max([*intensities, ridge]) * 3
    line = np.array([low, ridge, high])
    axes.loglog(line, np.minimum(peak, bandwidth * line), color=GREY)
    axes.annotate(f"{peak:,.0f} Gflop/s", (high, peak), (-4, 4), textcoords="offset points", ha="right", fontsize=8)
    axes.annotate(
        f"{bandwidth:,.1f} GB/s", (low, bandwidth * low), (4, 10), textcoords="offset points", fontsize=8, rotation=0
    )
    cases: dict[tuple[Any, ...], Rows] = {}
    for row in counted:
        cases.setdefault((row["network"], row["size"], row["work"], row["batch"]), []).append(row)
    markers = dict(zip(dict.fromkeys(key[:2] for key in cases), "osD^vPX", strict=False))
    labelled: set[str] = set()
    for key, rows in cases.items():
        ours = [row for row in rows if row["implementation"] == FACECNN]
        theirs = [row for row in rows if row["implementation"].startswith("torch")]
        best = sorted(theirs, key=lambda row: float(row["median_ms"]))[:1]
        for who, found, colour in ((FACECNN, ours, BLUE), ("PyTorch's best", best, ORANGE)):
            for row in found:
                name = f"{who}: {key[0]} {key[1]}"
                axes.plot(
                    row["operations"] / row["bytes"],
                    row["operations"] / row["median_ms"] / 1e6,
                    markers[key[:2]],
                    color=colour,
                    markerfacecolor=colour if row["work"] == "train" else "white",
                    markersize=4 + 2.2 * np.log10(row["batch"] + 1),
                    label=None if name in labelled else name,
                )
                labelled.add(name)
    batches = ", ".join(map(str, sorted({row["batch"] for row in counted})))
    axes.set_title(
        f"Roofline: training filled, prediction hollow; the larger the mark, the larger the batch ({batches})"
    )
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("dense-equivalent operations per byte that must be moved")
    axes.set_ylabel("Gflop/s")
    axes.set_xlim(low, high)
    handles, labels = axes.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda number: labels[number])
    axes.set_ylim(bottom=axes.get_ylim()[0] / 4)  # room for the legend
    axes.legend([handles[i] for i in order], [labels[i] for i in order], fontsize=8, ncols=2, loc="lower right")
