"""watching.png: how each kernel learned."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from facecnn.reports.figure import TRAIN_COLOUR, count_on, explain, make_plain, place_below, saved_figure
from facecnn.reports.findings import counted
from facecnn.reports.lettering import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

_LATE_COLOUR = "#c62828"
_WATCHED = (
    ("gradient_norm", "gradient norm"),
    ("update_ratio", "update / weight"),
    ("active", "active outputs"),
    ("distance", "distance from start"),
)
_LOGARITHMIC = ("gradient_norm", "update_ratio")
_KERNEL_COLOURS = ("#1f6fb4", "#d9811e", "#3a923a", "#7d5ba6", "#7a5230", "#d27ab8", "#666666", "#27a9b8")
_MOST_LAYERS = 6
_NAMED_KERNELS = len(_KERNEL_COLOURS)
_MOST_LATE = 3


def draw_watching(path: Path, metrics: Sequence[Mapping[str, Any]]) -> None:
    """Draw each kernel's gradient norm, update ratio, share of active outputs and distance from the start.

    There is a column for each of the first six conv layers. Up to eight kernels have their own colours; if there are
    more, all are thin lines around their median. Kernels that are dead or asleep in the last record are red.

    ``metrics``: a record for each epoch; those without "kernels" are ignored. Raises OutputError if the picture
    couldn't be written, and ValueError if no record has such figures.
    """
    from matplotlib.ticker import NullLocator, PercentFormatter

    looks = [record for record in metrics if record.get("kernels")]
    if not looks:
        raise ValueError("there are no figures of kernels")
    epochs = np.array([record["epoch"] for record in looks])
    names = list(looks[-1]["kernels"])
    late = {*looks[-1]["dead_kernels"], *looks[-1]["asleep_kernels"]}
    shown = names[:_MOST_LAYERS]
    counts = [len(looks[-1]["kernels"][name]["distance"]) for name in shown]
    figures = {name: _of_kernels(looks, name) for name in shown}
    limits = [_limits(key, [of_layer[key] for of_layer in figures.values() if key in of_layer]) for key, _ in _WATCHED]
    with saved_figure(path, 1.2 + 3.4 * max(len(shown), 1.6), 9.4, laid_out=False) as figure:
        panels = figure.subplots(len(_WATCHED), len(shown), sharex=True, sharey="row", squeeze=False)
        for column, (name, count) in enumerate(zip(shown, counts, strict=True)):
            for panel, (key, title), (lowest, _) in zip(panels[:, column], _WATCHED, limits, strict=True):
                values = figures[name].get(key)
                if values is not None:
                    _draw_kernel_lines(panel, epochs, np.maximum(values, lowest), name, late)
                if key in ("active", "distance"):
                    panel.yaxis.set_major_formatter(PercentFormatter(1.0))
                if column == 0:
                    panel.set_ylabel(title)
                make_plain(panel)
            panels[0, column].set_title(
                f"{printable(name)}: {counted(count, 'kernel')}", parse_math=False, fontsize=10.5, loc="left"
            )
            panels[-1, column].set_xlabel("epoch")
            count_on(panels[-1, column].xaxis, 5)
        if len(epochs) == 1:
            panels[0, 0].set_xlim(epochs[0] - 1, epochs[0] + 1)
        for row, (key, _), (lowest, highest) in zip(panels, _WATCHED, limits, strict=True):
            if key in _LOGARITHMIC:
                row[0].set_yscale("log")
                row[0].yaxis.set_minor_locator(NullLocator())  # minor ticks would take most of the time
            row[0].set_ylim(lowest, highest)
        cut = f"The first {len(shown)} of {len(names)} conv layers" if len(names) > len(shown) else None
        handles = _kernel_handles(counts, shown, late)
        legend = explain(figure, handles, columns=min(len(handles), 3 if len(shown) < 3 else 5), title=cut)
        place_below(legend, figure, left=0.85, titles=0.35, gap=0.1)
        figure.align_ylabels()


def _kernel_handles(counts: Sequence[int], names: Sequence[str], late: set[str]) -> list["Line2D"]:
    """The legend's entries, for the layers ``names`` with ``counts`` kernels."""
    from matplotlib.lines import Line2D

    handles = []
    if max(counts) > _NAMED_KERNELS:
        handles += [
            Line2D([], [], color=TRAIN_COLOUR, linewidth=0.8, alpha=0.6, label="a kernel"),
            Line2D([], [], color="#222222", linewidth=1.6, label="median of the layer's kernels"),
        ]
    few = max((count for count in counts if count <= _NAMED_KERNELS), default=0)
    handles += [
        Line2D([], [], color=colour, linewidth=1.4, label=f"kernel {kernel}")
        for kernel, colour in enumerate(_KERNEL_COLOURS[:few])
    ]
    red = [name for name in sorted(late) if name.partition("[")[0] in names]
    if red:
        which = ", ".join(red[:_MOST_LATE]) + (f" and {len(red) - _MOST_LATE} more" if len(red) > _MOST_LATE else "")
        handles.append(Line2D([], [], color=_LATE_COLOUR, linewidth=1.4, label=f"dead or asleep: {printable(which)}"))
    return handles


def _of_kernels(looks: Sequence[Mapping[str, Any]], name: str) -> dict[str, np.ndarray]:
    """(record, kernel) values of each figure of a layer's kernels."""
    rows = [record["kernels"].get(name) for record in looks]
    return {
        key: np.array([[np.nan] * len(rows[-1][key]) if row is None else row[key] for row in rows], np.float64)
        for key, _ in _WATCHED
        if key in rows[-1]
    }


def _limits(key: str, layers: Sequence[np.ndarray]) -> tuple[float, float]:
    """The y limits of a row of panels: all values, except very small ones."""
    if key == "active":
        return -0.02, 1.02
    values = np.concatenate([layer.ravel() for layer in layers])
    positive = values[np.isfinite(values) & (values > 0)]
    if not len(positive):
        return (1e-6, 1.0) if key in _LOGARITHMIC else (0.0, 1.0)
    highest = float(positive.max())
    return (
        (max(float(positive.min()) / 2, highest / 1e6), 2 * highest) if key in _LOGARITHMIC else (0.0, 1.05 * highest)
    )


def _draw_kernel_lines(panel: "Axes", epochs: np.ndarray, values: np.ndarray, name: str, late: set[str]) -> None:
    from matplotlib.collections import LineCollection

    marker = "o" if len(epochs) == 1 else None
    red = np.array([f"{name}[{kernel}]" in late for kernel in range(values.shape[1])])
    few = len(red) <= _NAMED_KERNELS
    if not few:
        # One artist for all lines: one for each would take seconds.
        thin = [np.column_stack([epochs, line]) for line in values[:, ~red].T]
        panel.add_collection(LineCollection(thin, colors=TRAIN_COLOUR, linewidths=0.6, alpha=0.35, zorder=2))
        panel.plot(epochs, np.median(values, axis=1), color="#222222", linewidth=1.6, zorder=4, marker=marker)
    for kernel in np.flatnonzero(red | few):
        colour = _LATE_COLOUR if red[kernel] else _KERNEL_COLOURS[kernel]
        panel.plot(epochs, values[:, kernel], color=colour, linewidth=1.4, zorder=3, marker=marker, label=str(kernel))
