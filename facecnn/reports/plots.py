"""The pictures of a run. Figures are drawn without pyplot, so no display and no global state is touched."""

import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from facecnn.reports.lettering import FONT, Lettering, printable
from facecnn.runs.atomic import write_atomically

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.legend import Legend
    from matplotlib.lines import Line2D

_TRAIN_COLOUR = "#1f6fb4"
_VALIDATION_COLOUR = "#d9641e"
_FAINT = "#8a8a8a"
_LATE_COLOUR = "#c62828"
_FAINT_EPOCHS = 300
"""Beyond so many epochs only a mean can be read; the values themselves stay behind it as a band."""
_NAMED_CLASSES = 40
DPI = 110
"""Pixels an inch of every picture."""


WITHOUT_PICTURES = "matplotlib can't be loaded, so the pictures are left out: pip install matplotlib"


def draw_curves(path: Path, metrics: list[dict[str, Any]], best_epoch: int | None) -> None:
    """Draws loss, accuracy and learning rate over the epochs, and marks the best epoch. All is explained above.

    Args:
        path: the PNG file to write.
        metrics: a record an epoch, with "epoch" and any of "train_loss", "validation_loss", "train_accuracy",
            "validation_accuracy" (0 to 1) and "learning_rate"; absent or None leaves a gap.
        best_epoch: the epoch of best.safetensors, None where there is none.

    Raises:
        OutputError: the picture couldn't be written.
    """
    from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

    epochs = np.array([record["epoch"] for record in metrics], dtype=np.float64)
    with saved_figure(path, 8.0, 7.6, laid_out=False) as figure:
        loss, accuracy, rate = figure.subplots(3, 1, sharex=True, height_ratios=[3, 3, 1])
        losses = _draw_pair(loss, epochs, metrics, "loss")
        _set_loss_scale(loss, losses)
        loss.set_ylabel("loss")
        accuracies = _draw_pair(accuracy, epochs, metrics, "accuracy")
        lowest = min(accuracies[np.isfinite(accuracies)], default=0.0)
        accuracy.set_ylim(max(0.0, min(0.8, np.floor(lowest * 10) / 10)) - 0.02, 1.02)
        accuracy.yaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10]))
        accuracy.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        accuracy.set_ylabel("likeliest answer is right")
        rates = _column(metrics, "learning_rate")
        rate.plot(epochs, rates, color="#444444", linewidth=1.3, marker="o" if len(epochs) == 1 else None)
        rate.set_ylim(bottom=0)
        rate.yaxis.set_major_locator(MaxNLocator(3))
        rate.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
        rate.set_ylabel("learning rate")
        rate.set_xlabel("epoch")
        rate.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        if len(epochs) <= 1:
            middle = epochs.sum()
            rate.set_xlim(middle - 1, middle + 1)
        for panel in (loss, accuracy, rate):
            panel.grid(color="#e4e4e4", linewidth=0.8)
            panel.set_axisbelow(True)
            panel.spines[["top", "right"]].set_visible(False)
        if best_epoch is not None:
            for panel in (loss, accuracy, rate):
                panel.axvline(best_epoch, color=_FAINT, linestyle=(0, (4, 3)), linewidth=1, zorder=1.5)
            _mark_best(loss, accuracy, metrics, best_epoch)
        figure.align_ylabels()
        legend = _explain(figure, _curve_handles(loss, len(epochs), _told_of_best(metrics, best_epoch)), columns=3)
        _place_below(legend, figure, left=0.9, titles=0.1, gap=0.08)


def _mark_best(loss: "Axes", accuracy: "Axes", metrics: list[dict[str, Any]], best_epoch: int) -> None:
    record = next((record for record in metrics if record["epoch"] == best_epoch), {})
    for panel, key in ((loss, "validation_loss"), (accuracy, "validation_accuracy")):
        if (value := record.get(key)) is not None:
            panel.plot([best_epoch], [value], "o", color=_VALIDATION_COLOUR, markeredgecolor="white", markersize=8)


def _told_of_best(metrics: list[dict[str, Any]], best_epoch: int | None) -> str:
    if best_epoch is None:
        return ""
    record = next((record for record in metrics if record["epoch"] == best_epoch), {})
    told = [f"best: epoch {best_epoch}"]
    for key, form in (("validation_loss", "loss {:.3g}"), ("validation_accuracy", "{:.1%} right")):
        if (value := record.get(key)) is not None:
            told.append(form.format(value))
    return ", ".join(told)


def _curve_handles(loss: "Axes", epochs: int, best: str) -> list["Line2D"]:
    """What the legend of the curves shows: the two kinds of photos, then what thin, thick and broken lines are."""
    from matplotlib.lines import Line2D

    handles: list[Line2D] = [line for line in loss.get_lines() if not str(line.get_label()).startswith("_")]
    if epochs > _FAINT_EPOCHS:
        handles += [
            Line2D([], [], color=_FAINT, linewidth=0.8, label="thin: each epoch"),
            Line2D([], [], color=_FAINT, linewidth=2.4, label=f"thick: mean of the {_window(epochs)} epochs around"),
        ]
    if best:
        handles.append(Line2D([], [], color=_FAINT, linestyle=(0, (4, 3)), linewidth=1, label=best))
    return handles


def _explain(figure: "Figure", handles: Sequence["Artist"], columns: int, title: str | None = None) -> "Legend | None":
    """A legend above all panels, where it hides no data; in fewer columns where it is too wide for the figure."""
    if not handles:
        return None
    while True:
        legend = figure.legend(
            handles=handles, loc="outside upper center", ncols=columns, frameon=False, fontsize=9, title=title
        )
        if columns == 1 or legend.get_window_extent().width <= figure.bbox.width:
            return legend
        legend.remove()
        columns -= 1


def _place_below(legend: "Legend | None", figure: "Figure", left: float, titles: float, gap: float) -> None:
    """Place the panels of a figure that isn't laid out: below the legend, with ``left`` inches for the scales and
    ``titles`` inches above them, and ``gap`` of a panel's height and width between them."""
    above = titles + (0.0 if legend is None else legend.get_window_extent().height / figure.dpi)
    width, height = figure.get_size_inches()
    figure.subplots_adjust(
        left=left / width, right=1 - 0.15 / width, bottom=0.55 / height, top=1 - above / height, hspace=gap, wspace=gap
    )


def _column(metrics: list[dict[str, Any]], key: str) -> np.ndarray:
    return np.array([np.nan if record.get(key) is None else record[key] for record in metrics], dtype=np.float64)


def _draw_pair(panel: "Axes", epochs: np.ndarray, metrics: list[dict[str, Any]], quantity: str) -> np.ndarray:
    """Draws the training and validation curve of a quantity; returns all their values."""
    drawn = []
    for key, label, colour in (
        (f"train_{quantity}", "photos trained on", _TRAIN_COLOUR),
        (f"validation_{quantity}", "held-out photos", _VALIDATION_COLOUR),
    ):
        values = _column(metrics, key)
        drawn.append(values)
        if not np.isfinite(values).any():
            continue
        crowded = len(epochs) > _FAINT_EPOCHS
        marker = "o" if len(epochs) <= 40 else None
        panel.plot(
            epochs,
            values,
            color=colour,
            linewidth=0.6 if crowded else 1.6,
            alpha=0.3 if crowded else 1.0,
            marker=marker,
            markersize=3.5,
            label=None if crowded else label,
        )
        if crowded:
            panel.plot(epochs, _smooth(values, _window(len(epochs))), color=colour, linewidth=1.8, label=label)
    return np.concatenate(drawn)


def _window(epochs: int) -> int:
    """Over so many epochs crowded curves are smoothed."""
    return epochs // 100 * 2 + 1


def _smooth(values: np.ndarray, window: int) -> np.ndarray:
    """The mean of `window` values around each (fewer at the ends); gaps stay gaps."""
    known = np.isfinite(values)
    ones = np.ones(window)
    # "full", cut by hand: "same" is as long as the longer of the two.
    cut = slice(window // 2, window // 2 + len(values))
    sums = np.convolve(np.where(known, values, 0.0), ones)[cut]
    return np.where(known, sums / np.maximum(np.convolve(known, ones)[cut], 1), np.nan)


def _set_loss_scale(panel: "Axes", losses: np.ndarray) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    positive = losses[np.isfinite(losses) & (losses > 0)]
    if len(positive) and positive.max() >= 100 * positive.min():
        panel.set_yscale("log")
        decades = np.log10(positive.max() / positive.min())
        if decades <= 3:
            panel.yaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.yaxis.set_minor_formatter(NullFormatter())
    else:
        panel.set_ylim(bottom=0)


def draw_confusion(path: Path, matrix: np.ndarray, rows: Sequence[str], columns: Sequence[str], title: str) -> None:
    """Draws a confusion matrix: colour is the share of the row, numbers are counts and, with few classes, shares.

    With more than 40 classes only colours are drawn, in a picture of fixed size, with the classes' numbers at its edge.

    Args:
        path: the PNG file to write.
        matrix: counts, (rows, columns); row = who it is, column = what was answered.
        rows: the names of those who are in the photos, in the matrix's order.
        columns: the answers: the same names in the same order, and others after them.
        title: the text above.

    Raises:
        OutputError: the picture couldn't be written.
    """
    from matplotlib.ticker import PercentFormatter

    count = max(len(rows), len(columns))
    totals = matrix.sum(axis=1)
    shares = matrix / np.maximum(totals, 1)[:, None]
    cell = 1.15 if count <= 4 else 0.8 if count <= 10 else 0.48 if count <= 20 else 0.32
    lettering = Lettering(list(dict.fromkeys((*rows, *columns))), title)
    row_names, column_names = lettering.labels(rows), lettering.labels(columns)
    longest = max(len(name) for name in (*row_names, *column_names))
    margin = 0.4 + 0.085 * longest
    height, width = (cell * min(len(names), _NAMED_CLASSES) + margin for names in (rows, columns))
    with saved_figure(path, max(width + 1.9, 4.8), max(height + 1.0, 3.6), lettering.families) as figure:
        panel = figure.subplots()
        image = panel.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        panel.set_title(printable(title), parse_math=False, fontsize=12, pad=10)
        bar = figure.colorbar(image, ax=panel, shrink=0.8, aspect=24, format=PercentFormatter(1.0))
        bar.set_label("share of the row")
        bar.outline.set_visible(False)
        if count > _NAMED_CLASSES:
            panel.set_xlabel(f"number of the answer, of {len(columns)}")
            panel.set_ylabel(f"is (number of the {len(rows)} people)")
            return
        size = 13 if count <= 4 else 10 if count <= 10 else 9 if count <= 20 else 7
        for row, column in np.ndindex(*matrix.shape):
            number = int(matrix[row, column])
            if number == 0 and count > 4:
                continue  # what is empty is seen best where nothing stands
            text = f"{number}\n{shares[row, column]:.0%}" if count <= 10 else str(number)
            colour = "white" if shares[row, column] > 0.55 else "#222222"
            panel.text(column, row, text, ha="center", va="center", color=colour, fontsize=size)
        label_size = 10 if count <= 20 else 8
        upright = count > 4 or longest > 10
        panel.set_xticks(
            range(len(columns)), column_names, parse_math=False, fontsize=label_size, rotation=90 if upright else 0
        )
        panel.set_yticks(
            range(len(rows)),
            [f"{name} ({total})" for name, total in zip(row_names, totals, strict=True)],
            parse_math=False,
            fontsize=label_size,
        )
        spelled = any(lettering.changes(name) for name in (*rows, *columns))
        panel.set_xlabel("answer (names in Latin letters: no font here has theirs)" if spelled else "answer")
        panel.set_ylabel("is (photos)")
        panel.set_xticks(np.arange(len(columns) + 1) - 0.5, minor=True)
        panel.set_yticks(np.arange(len(rows) + 1) - 0.5, minor=True)
        panel.grid(which="minor", color="#dddddd", linewidth=0.7)
        panel.tick_params(which="both", length=0)


def draw_schedule(path: Path, rates: np.ndarray, steps_an_epoch: int, about_steps: str, remark: str) -> None:
    """Draws the learning rate over the steps of a training, with the epochs above.

    Args:
        path: the PNG file to write.
        rates: the learning rate of each step, (N,), N >= 1.
        steps_an_epoch: so many steps make an epoch.
        about_steps: what the number of steps rests on, to stand beside the axis.
        remark: what else is to be known, to stand below; may be empty.

    Raises:
        OutputError: the picture couldn't be written.
    """
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    steps = np.arange(1, len(rates) + 1)
    with saved_figure(path, 8.0, 3.8) as figure:
        panel = figure.subplots()
        panel.plot(steps, rates, color=_TRAIN_COLOUR, linewidth=1.8, marker="o" if len(rates) == 1 else None)
        panel.fill_between(steps, rates, color=_TRAIN_COLOUR, alpha=0.1, linewidth=0)
        panel.set_xlim(1 if len(rates) > 1 else 0, max(len(rates), 2))
        panel.set_ylim(0, 1.06 * float(rates.max()))
        panel.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
        panel.set_ylabel("learning rate")
        panel.set_xlabel(f"step ({about_steps})")
        panel.grid(color="#e4e4e4", linewidth=0.8)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)

        def to_epochs(step: Any) -> Any:
            return step / steps_an_epoch

        def to_steps(epoch: Any) -> Any:
            return epoch * steps_an_epoch

        epochs = panel.secondary_xaxis("top", functions=(to_epochs, to_steps))
        epochs.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        epochs.set_xlabel("epoch")
        epochs.spines["top"].set_color(_FAINT)
        if remark:
            figure.supxlabel(remark, fontsize=9, color="#555555")


def draw_range_test(
    path: Path,
    rates: np.ndarray,
    single: Sequence[np.ndarray],
    smooth: np.ndarray,
    diverged: bool,
    marks: Sequence[tuple[float, str]],
) -> None:
    """Draws a range test: the loss against the rising learning rate, with rates that are marked.

    Args:
        path: the PNG file to write.
        rates: the learning rate of each step, (N,), N >= 1.
        single: the losses of each test, (n,) with n <= N.
        smooth: their smoothed mean, (n,).
        diverged: whether the tests ended early because the loss grew too large.
        marks: rates that are marked with a line, and what they are, the suggestion first.

    Raises:
        OutputError: the picture couldn't be written.
    """
    from matplotlib.ticker import FuncFormatter, NullFormatter

    with saved_figure(path, 8.0, 4.6) as figure:
        panel = figure.subplots()
        for number, losses in enumerate(single):
            label = "each batch" if number == 0 else None
            panel.plot(rates[: len(losses)], losses, color=_TRAIN_COLOUR, linewidth=0.7, alpha=0.3, label=label)
        panel.plot(rates[: len(smooth)], smooth, color=_TRAIN_COLOUR, linewidth=2.2, label="smoothed")
        panel.set_xscale("log")
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.xaxis.set_minor_formatter(NullFormatter())
        # The loss of a diverged test has no end: what came before is what is to be seen.
        top = max(float(smooth[: max(1, len(smooth) // 4)].max()), float(np.median(smooth)))
        panel.set_ylim(min(0.0, float(smooth.min())), 2.0 * top)
        panel.set_xlim(rates[0] / 1.1, max([rates[-1], *(rate for rate, _ in marks)]) * 1.1)
        panel.set_xlabel("learning rate")
        panel.set_ylabel("loss")
        panel.grid(color="#e4e4e4", linewidth=0.8)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
        if diverged:
            panel.axvspan(rates[len(smooth) - 1], panel.get_xlim()[1], color="#f6dcd0", alpha=0.6, label="diverges")
        for (rate, label), style in zip(marks, ((0, ()), (0, (5, 3)), (0, (1.5, 2))), strict=False):
            colour = _VALIDATION_COLOUR if style == (0, ()) else "#444444"
            panel.axvline(rate, color=colour, linestyle=style, linewidth=1.6, label=label)
        _explain(figure, panel.get_legend_handles_labels()[0], columns=3)


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
    """Draws each kernel's gradient norm, update ratio, share of active outputs and distance from the start.

    A column for each of the first six conv layers. Up to eight kernels have colours of their own; more are thin lines
    around their median. Kernels that are dead or asleep in the last of the records with such figures are red. What the
    colours are is told above the panels.

    Args:
        path: the PNG file to write.
        metrics: a record an epoch; those without "kernels" and "asleep_kernels" are left out.

    Raises:
        OutputError: the picture couldn't be written.
        ValueError: no record has such figures.
    """
    from matplotlib.ticker import MaxNLocator, NullLocator, PercentFormatter

    looks = [record for record in metrics if record.get("kernels")]
    if not looks:
        raise ValueError("there are no figures of kernels")
    epochs = np.array([record["epoch"] for record in looks])
    names = list(looks[-1]["kernels"])
    late = {*looks[-1]["dead_kernels"], *looks[-1]["asleep_kernels"]}
    shown = names[:_MOST_LAYERS]
    figures = {name: _of_kernels(looks, name) for name in shown}
    limits = [_limits(key, [of_layer[key] for of_layer in figures.values() if key in of_layer]) for key, _ in _WATCHED]
    with saved_figure(path, 1.2 + 3.4 * max(len(shown), 1.6), 9.4, laid_out=False) as figure:
        panels = figure.subplots(len(_WATCHED), len(shown), sharex=True, sharey="row", squeeze=False)
        for column, name in enumerate(shown):
            for panel, (key, title), (lowest, _) in zip(panels[:, column], _WATCHED, limits, strict=True):
                values = figures[name].get(key)
                if values is not None:
                    _draw_kernel_lines(panel, epochs, np.maximum(values, lowest), name, late)
                if key in ("active", "distance"):
                    panel.yaxis.set_major_formatter(PercentFormatter(1.0))
                if column == 0:
                    panel.set_ylabel(title)
                panel.grid(color="#e4e4e4", linewidth=0.8)
                panel.set_axisbelow(True)
                panel.spines[["top", "right"]].set_visible(False)
            count = len(looks[-1]["kernels"][name]["distance"])
            panels[0, column].set_title(
                f"{printable(name)}: {count} kernel{'s' * (count != 1)}", parse_math=False, fontsize=10.5, loc="left"
            )
            panels[-1, column].set_xlabel("epoch")
            panels[-1, column].xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
        if len(epochs) == 1:
            panels[0, 0].set_xlim(epochs[0] - 1, epochs[0] + 1)
        for row, (key, _), (lowest, highest) in zip(panels, _WATCHED, limits, strict=True):
            if key in _LOGARITHMIC:
                row[0].set_yscale("log")
                row[0].yaxis.set_minor_locator(NullLocator())  # placing these takes longer than all else
            row[0].set_ylim(lowest, highest)
        cut = f"The first {len(shown)} of {len(names)} conv layers" if len(names) > len(shown) else None
        handles = _kernel_handles([len(looks[-1]["kernels"][name]["distance"]) for name in shown], shown, late)
        legend = _explain(figure, handles, columns=min(len(handles), 3 if len(shown) < 3 else 5), title=cut)
        _place_below(legend, figure, left=0.85, titles=0.35, gap=0.1)
        figure.align_ylabels()


def _kernel_handles(counts: Sequence[int], names: Sequence[str], late: set[str]) -> list["Line2D"]:
    """What the legend of the watched kernels shows, of layers with so many kernels."""
    from matplotlib.lines import Line2D

    handles = []
    if max(counts) > _NAMED_KERNELS:
        handles += [
            Line2D([], [], color=_TRAIN_COLOUR, linewidth=0.8, alpha=0.6, label="a kernel"),
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
    """(look, kernel) of each figure that a layer's kernels have."""
    rows = [record["kernels"].get(name) for record in looks]
    return {
        key: np.array([[np.nan] * len(rows[-1][key]) if row is None else row[key] for row in rows], np.float64)
        for key, _ in _WATCHED
        if key in rows[-1]
    }


def _limits(key: str, layers: Sequence[np.ndarray]) -> tuple[float, float]:
    """Where a row of panels begins and ends: all of it, but of very small numbers."""
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
        # One artist for them all: a line of its own for each would take seconds.
        thin = [np.column_stack([epochs, line]) for line in values[:, ~red].T]
        panel.add_collection(LineCollection(thin, colors=_TRAIN_COLOUR, linewidths=0.6, alpha=0.35, zorder=2))
        panel.plot(epochs, np.median(values, axis=1), color="#222222", linewidth=1.6, zorder=4, marker=marker)
    for kernel in np.flatnonzero(red | few):
        colour = _LATE_COLOUR if red[kernel] else _KERNEL_COLOURS[kernel]
        panel.plot(epochs, values[:, kernel], color=colour, linewidth=1.4, zorder=3, marker=marker, label=str(kernel))


def can_draw() -> bool:
    """Whether matplotlib is there. A training does without its pictures where it isn't."""
    try:
        import matplotlib  # noqa: F401 (whether it is there doesn't say whether it can be loaded)
    except ImportError:
        return False
    return True


@contextmanager
def saved_figure(
    path: Path,
    width: float,
    height: float,
    families: Sequence[str] = (FONT,),
    *,
    laid_out: bool = True,
    transparent: bool = False,
) -> Iterator["Figure"]:
    """A figure of that many inches, written to `path` at the end, in matplotlib's own style whatever the user's is.

    `families`: the fonts, see `Lettering`. One that is not `laid_out` is of just that size, and whoever draws it places
    all that is in it, which takes less than half the time; else it becomes as large as what is in it. Without a
    `transparent` ground it has a white one, and the report turns it over on a dark page.
    """
    import matplotlib
    import matplotlib.style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.style.context("default"), warnings.catch_warnings():
        # A letter that no font has is drawn as a box.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        matplotlib.rcParams["font.family"] = list(families)  # the context restores it
        figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained" if laid_out else None)
        canvas = FigureCanvasAgg(figure)
        yield figure
        picture = io.BytesIO()
        size: dict[str, Any] = {"bbox_inches": "tight", "pad_inches": 0.12} if laid_out else {}
        canvas.print_figure(picture, format="png", dpi=DPI, facecolor="none" if transparent else "auto", **size)
    write_atomically(path, picture.getvalue())
