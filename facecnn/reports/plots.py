"""Plots of training curves, confusion matrices, schedules and range tests."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from facecnn.reports.figure import FAINT, TRAIN_COLOUR, count_on, explain, make_plain, place_below, saved_figure
from facecnn.reports.lettering import Lettering, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

_VALIDATION_COLOUR = "#d9641e"
_BROKEN = (0, (4, 3))
_FAINT_EPOCHS = 300
"""With more epochs, a moving average is drawn over the faint values."""
_NAMED_CLASSES = 40


def draw_curves(path: Path, metrics: Sequence[Mapping[str, Any]], best_epoch: int | None) -> None:
    """Draw loss, accuracy and learning rate over the epochs, and mark the best epoch.

    Args:
        metrics: a record for each epoch, with "epoch" and any of "train_loss", "validation_loss", "train_accuracy",
            "validation_accuracy" (0 to 1) and "learning_rate"; the line goes on from one known value to the next.
        best_epoch: the epoch of best.safetensors, None if there is none.

    Raises:
        OutputError: the picture couldn't be written.
    """
    from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

    epochs = np.array([record["epoch"] for record in metrics], dtype=np.float64)
    best: Mapping[str, Any] = next((record for record in metrics if record["epoch"] == best_epoch), {})
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
        count_on(rate.xaxis)
        if len(epochs) <= 1:
            middle = epochs.sum()
            rate.set_xlim(middle - 1, middle + 1)
        for panel in (loss, accuracy, rate):
            make_plain(panel)
            if best_epoch is not None:
                panel.axvline(best_epoch, color=FAINT, linestyle=_BROKEN, linewidth=1, zorder=1.5)
        for panel, key in ((loss, "validation_loss"), (accuracy, "validation_accuracy")):
            if best.get(key) is not None:
                panel.plot(best_epoch, best[key], "o", color=_VALIDATION_COLOUR, markeredgecolor="white", markersize=8)
        figure.align_ylabels()
        legend = explain(figure, _curve_handles(loss, len(epochs), best_epoch, best), columns=3)
        place_below(legend, figure, left=0.9, titles=0.1, gap=0.08)


def _curve_handles(loss: "Axes", epochs: int, best_epoch: int | None, best: Mapping[str, Any]) -> list["Line2D"]:
    """The legend's entries: the two kinds of photos, then thin, thick and dashed lines."""
    from matplotlib.lines import Line2D

    handles: list[Line2D] = [line for line in loss.get_lines() if not str(line.get_label()).startswith("_")]
    if epochs > _FAINT_EPOCHS:
        handles += [
            Line2D([], [], color=FAINT, linewidth=0.8, label="thin: each epoch"),
            Line2D([], [], color=FAINT, linewidth=2.4, label=f"thick: mean of the {_window(epochs)} epochs around"),
        ]
    if best_epoch is not None:
        parts = [f"best: epoch {best_epoch}"]
        for key, form in (("validation_loss", "loss {:.3g}"), ("validation_accuracy", "{:.1%} right")):
            if best.get(key) is not None:
                parts.append(form.format(best[key]))
        handles.append(Line2D([], [], color=FAINT, linestyle=_BROKEN, linewidth=1, label=", ".join(parts)))
    return handles


def _column(metrics: Sequence[Mapping[str, Any]], key: str) -> np.ndarray:
    return np.array([np.nan if record.get(key) is None else record[key] for record in metrics], dtype=np.float64)


def _draw_pair(panel: "Axes", epochs: np.ndarray, metrics: Sequence[Mapping[str, Any]], quantity: str) -> np.ndarray:
    """Draw the training and validation curves of a quantity. Returns all values."""
    drawn = []
    for side, label, colour in (
        ("train", "photos trained on", TRAIN_COLOUR),
        ("validation", "held-out photos", _VALIDATION_COLOUR),
    ):
        values = _column(metrics, f"{side}_{quantity}")
        drawn.append(values)
        known = np.isfinite(values)
        at, values = epochs[known], values[known]
        if not len(at):
            continue
        if len(at) > _FAINT_EPOCHS:
            panel.plot(at, values, color=colour, linewidth=0.6, alpha=0.3)
            panel.plot(at, _smooth(values, _window(len(at))), color=colour, linewidth=1.8, label=label)
        else:
            marker = "o" if len(at) <= 40 else None
            panel.plot(at, values, color=colour, linewidth=1.6, marker=marker, markersize=3.5, label=label)
    return np.concatenate(drawn)


def _window(epochs: int) -> int:
    """Width, in epochs, of the moving average."""
    return epochs // 100 * 2 + 1


def _smooth(values: np.ndarray, window: int) -> np.ndarray:
    """The centred moving average over ``window`` values (fewer at the ends)."""
    ones = np.ones(window)
    # Mode "full" and a slice, because the result of "same" is as long as the longer argument.
    cut = slice(window // 2, window // 2 + len(values))
    return np.convolve(values, ones)[cut] / np.convolve(np.ones(len(values)), ones)[cut]


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


def draw_confusion(
    path: Path | None, matrix: np.ndarray, rows: Sequence[str], columns: Sequence[str], title: str
) -> None:
    """Draw a confusion matrix. Colours are shares of the row, numbers are counts and, with few classes, shares.

    With more than 40 classes, only colours are drawn, in a picture of fixed size, with the classes' numbers as labels.

    Args:
        path: the PNG file to write; None: it is only drawn.
        matrix: (rows, columns) counts; rows are the truth, columns the answers.
        columns: the same names in the same order, then other answers.

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
        upright = count > 4 or longest > 10
        label_size = 10 if count <= 20 else 8
        panel.set_xticks(
            range(len(columns)), column_names, parse_math=False, fontsize=label_size, rotation=90 if upright else 0
        )
        row_labels = [f"{name} ({total})" for name, total in zip(row_names, totals, strict=True)]
        panel.set_yticks(range(len(rows)), row_labels, parse_math=False, fontsize=label_size)
        spelled = any(lettering.changes(name) for name in (*rows, *columns))
        panel.set_xlabel("answer (names in Latin letters: no font here has theirs)" if spelled else "answer")
        panel.set_ylabel("is (photos)")
        panel.set_xticks(np.arange(len(columns) + 1) - 0.5, minor=True)
        panel.set_yticks(np.arange(len(rows) + 1) - 0.5, minor=True)
        panel.grid(which="minor", color="#dddddd", linewidth=0.7)
        panel.tick_params(which="both", length=0)
        _write_counts(panel, matrix, shares)


def _write_counts(panel: "Axes", matrix: np.ndarray, shares: np.ndarray) -> None:
    """Write the count into each cell, in small matrices with its share."""
    count = max(matrix.shape)
    size = 13 if count <= 4 else 10 if count <= 10 else 9 if count <= 20 else 7
    for row, column in np.ndindex(*matrix.shape):
        number = int(matrix[row, column])
        if number == 0 and count > 4:
            continue
        text = f"{number}\n{shares[row, column]:.0%}" if count <= 10 else str(number)
        colour = "white" if shares[row, column] > 0.55 else "#222222"
        panel.text(column, row, text, ha="center", va="center", color=colour, fontsize=size)


def draw_schedule(path: Path, rates: np.ndarray, steps_an_epoch: int, about_steps: str, remark: str) -> None:
    """Draw the learning rate over the steps of training, with the epochs above.

    Args:
        rates: the learning rate of each step, (N,), N >= 1.
        steps_an_epoch: steps in an epoch.
        about_steps: a note on the number of steps, for the axis.
        remark: goes below the plot; may be empty.

    Raises:
        OutputError: the picture couldn't be written.
    """
    from matplotlib.ticker import FuncFormatter

    steps = np.arange(1, len(rates) + 1)
    with saved_figure(path, 8.0, 3.8) as figure:
        panel = figure.subplots()
        panel.plot(steps, rates, color=TRAIN_COLOUR, linewidth=1.8, marker="o" if len(rates) == 1 else None)
        panel.fill_between(steps, rates, color=TRAIN_COLOUR, alpha=0.1, linewidth=0)
        panel.set_xlim(1 if len(rates) > 1 else 0, max(len(rates), 2))
        panel.set_ylim(0, 1.06 * float(rates.max()))
        count_on(panel.xaxis)
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
        panel.set_ylabel("learning rate")
        panel.set_xlabel(f"step ({about_steps})")
        make_plain(panel)

        def to_epochs(step: Any) -> Any:
            return step / steps_an_epoch

        def to_steps(epoch: Any) -> Any:
            return epoch * steps_an_epoch

        epochs = panel.secondary_xaxis("top", functions=(to_epochs, to_steps))
        count_on(epochs.xaxis)
        epochs.set_xlabel("epoch")
        epochs.spines["top"].set_color(FAINT)
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
    """Draw a range test: the loss against the rising learning rate.

    Args:
        rates: the learning rate of each step, (N,), N >= 1.
        single: the losses of each test, (n,) with n <= N.
        smooth: their smoothed mean, (n,).
        diverged: whether the tests ended early because the loss grew too large.
        marks: rates to mark with a line, and their labels, the suggestion first.

    Raises:
        OutputError: the picture couldn't be written.
    """
    from matplotlib.ticker import FuncFormatter, NullFormatter

    with saved_figure(path, 8.0, 4.6) as figure:
        panel = figure.subplots()
        for number, losses in enumerate(single):
            label = "each batch" if number == 0 else None
            panel.plot(rates[: len(losses)], losses, color=TRAIN_COLOUR, linewidth=0.7, alpha=0.3, label=label)
        panel.plot(rates[: len(smooth)], smooth, color=TRAIN_COLOUR, linewidth=2.2, label="smoothed")
        panel.set_xscale("log")
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.xaxis.set_minor_formatter(NullFormatter())
        # The loss of a diverged test may be huge: show the range before it.
        top = max(float(smooth[: max(1, len(smooth) // 4)].max()), float(np.median(smooth)))
        panel.set_ylim(min(0.0, float(smooth.min())), 2.0 * top)
        panel.set_xlim(rates[0] / 1.1, max([rates[-1], *(rate for rate, _ in marks)]) * 1.1)
        panel.set_xlabel("learning rate")
        panel.set_ylabel("loss")
        make_plain(panel)
        if diverged:
            panel.axvspan(rates[len(smooth) - 1], panel.get_xlim()[1], color="#f6dcd0", alpha=0.6, label="diverges")
        for (rate, label), style in zip(marks, ((0, ()), (0, (5, 3)), (0, (1.5, 2))), strict=False):
            colour = _VALIDATION_COLOUR if style == (0, ()) else "#444444"
            panel.axvline(rate, color=colour, linestyle=style, linewidth=1.6, label=label)
        explain(figure, panel.get_legend_handles_labels()[0], columns=3)
