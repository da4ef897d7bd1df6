"""Pictures of a sweep: which settings matter, and which values did well."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from facecnn.reports.figure import TRAIN_COLOUR, make_plain, saved_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TICKS = 5
"""Ticks on an axis of numbers."""


class DrawnTrial(NamedTuple):
    """A completed trial."""

    parameters: Mapping[str, Any]
    log_loss: float


def draw_importance(path: Path, importance: Mapping[str, float]) -> None:
    """Draw a bar for each setting, the most important one at the top.

    ``importance``: by setting, summing to 1. Raises OutputError.
    """
    from matplotlib.ticker import PercentFormatter

    ordered = sorted(importance.items(), key=lambda item: item[1])
    with saved_figure(path, 7.0, 1.2 + 0.38 * len(ordered)) as figure:
        panel = figure.subplots()
        bars = panel.barh([name for name, _ in ordered], [share for _, share in ordered], color=TRAIN_COLOUR)
        panel.bar_label(bars, [f"{share:.0%}" for _, share in ordered], padding=4)
        panel.set_xlim(0, 1.1)
        panel.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        panel.set_xlabel("share of what tells good trials from others")
        make_plain(panel)


def draw_parallel(path: Path, ranges: Mapping[str, Mapping[str, Any]], trials: Sequence[DrawnTrial]) -> None:
    """Draw a line for each trial across an axis for each setting, and one for the log loss; the darker, the better.

    ``ranges``: for each setting its ``choices``, or ``low``, ``high`` and ``log``. Raises OutputError.
    """
    import matplotlib

    losses = np.array([trial.log_loss for trial in trials])
    low, high = float(losses.min()), float(losses.max())
    loss_range = {"low": low, "high": high if high > low else low + 1, "log": False}
    axes = [*ranges.items(), ("log loss", loss_range)]
    colours = matplotlib.colormaps["Blues"]
    order = losses.argsort(kind="stable")
    ranks = order.argsort()
    with saved_figure(path, 2.4 + 1.7 * len(axes), 4.6) as figure:
        panel = figure.subplots()
        for number in order[::-1].tolist():  # the best one over the others
            trial = trials[number]
            values = [*(trial.parameters[key] for key in ranges), trial.log_loss]
            heights = [_height(spread, value) for (_, spread), value in zip(axes, values, strict=True)]
            best = ranks[number] == 0
            colour = "#d9641e" if best else colours(0.9 - 0.65 * float(ranks[number]) / max(len(trials) - 1, 1))
            panel.plot(heights, color=colour, linewidth=2.4 if best else 1.3, marker="o", markersize=3)
        for place, (_, spread) in enumerate(axes):
            _draw_axis(panel, place, spread)
        panel.set_xticks(range(len(axes)), [".\n".join(name.rsplit(".", 1)) for name, _ in axes], fontsize=8)
        panel.set_yticks([])
        panel.set_xlim(-0.1, len(axes) - 0.4)
        panel.spines[["top", "right", "left", "bottom"]].set_visible(False)
        panel.set_title("orange: the best trial; the darker the blue, the better", fontsize=9)


def _height(spread: Mapping[str, Any], value: Any) -> float:
    """Where a value lies on its axis, from 0 to 1."""
    if "choices" in spread:
        return float(spread["choices"].index(value)) / max(len(spread["choices"]) - 1, 1)
    scale = math.log if spread["log"] else float
    low, high, at = (scale(number) for number in (spread["low"], spread["high"], value))
    return (at - low) / (high - low)


def _draw_axis(panel: "Axes", place: int, spread: Mapping[str, Any]) -> None:
    """Draw a vertical axis with the values beside it."""
    panel.axvline(place, color="#8a8a8a", linewidth=0.8, zorder=0.5)
    if "choices" in spread:
        values = spread["choices"]
        texts = [json.dumps(value).strip('"')[:18] for value in values]
    else:
        low, high = spread["low"], spread["high"]
        values = np.geomspace(low, high, _TICKS) if spread["log"] else np.linspace(low, high, _TICKS)
        texts = [f"{value:.3g}" for value in values]
    for value, text in zip(values, texts, strict=True):
        label = panel.annotate(
            text, (place, _height(spread, value)), xytext=(5, 0), textcoords="offset points", fontsize=7, va="center"
        )
        label.set_bbox({"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1})  # over the lines
