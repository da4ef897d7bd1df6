"""``facecnn eval``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from facecnn.cli import common
from facecnn.cli.common import (
    DeviceOption,
    Format,
    FormatOption,
    ModelOption,
    OutOption,
    ThreadsOption,
    number,
    percent,
)
from facecnn.cli.console import StderrConsole
from facecnn.errors import OutputError, shown

NAMES_SHOWN = 20


class SplitChoice(StrEnum):
    """Parts of the photos."""

    validation = "validation"
    train = "train"
    all = "all"


@common.command
def evaluate(
    console: StderrConsole,
    photos: Annotated[
        Path | None, typer.Argument(help="A folder with one folder per person; the run's own photos unless said.")
    ] = None,
    model: ModelOption = None,
    split: Annotated[
        SplitChoice | None,
        typer.Option(help="Which photos: held out, trained on, or all. Unless said: those not trained on."),
    ] = None,
    hide_face: Annotated[
        bool, typer.Option("--hide-face", help="Blank the faces first: what do their surroundings give away?")
    ] = False,
    predictions: Annotated[
        Path | None, typer.Option(help="Write the answer to every photo to this file (.csv, .json or .jsonl).")
    ] = None,
    fail_under: Annotated[float | None, typer.Option(help="Exit with 6 if the accuracy (0 to 1) is lower.")] = None,
    out: OutOption = common.DEFAULT_OUT,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    format: FormatOption = Format.text,
) -> None:
    """Judge a model by photos whose people are known."""
    from facecnn.jobs.answers import check_predictions_name, write_predictions
    from facecnn.jobs.evaluate import EvaluateOptions
    from facecnn.jobs.evaluate import evaluate as job

    common.require(fail_under is None or 0 <= fail_under <= 1, f"--fail-under {fail_under}: a fraction from 0 to 1")
    if predictions is not None:
        check_predictions_name(predictions)
    options = EvaluateOptions(
        model=common.find_model(model, out),
        photos=photos,
        split=None if split is None else split.value,
        hide_face=hide_face,
        device=device,
        threads=threads,
    )
    evaluation = job(options, console)
    if format is Format.json:
        common.print_json(evaluation.figures)
    else:
        common.print_text(_describe(evaluation.figures))
    if predictions is not None:
        write_predictions(predictions, evaluation.predictions)
    accuracy = evaluation.figures["accuracy"]
    if fail_under is not None and (accuracy is None or accuracy < fail_under):
        raise OutputError(f"--fail-under {fail_under}: the accuracy is {number(accuracy)}")


def _describe(figures: dict[str, Any]) -> str:
    known, unknown = figures["known"], figures["unknown"]
    lines = [
        f"{figures['photos']} photos, {known['photos']} of known people",
        "",
        f"  accuracy            {percent(figures['accuracy']):>9}",
        f"  balanced accuracy   {percent(figures['balanced_accuracy']):>9}   (every person counts alike)",
        f"  log loss            {number(figures['log_loss']):>9}",
        f"  calibration error   {percent(figures['expected_calibration_error']):>9}   (confidence against accuracy)",
        "",
        f"  {'':24}{'photos':>7}{'precision':>11}{'recall':>9}{'f1':>9}",
    ]
    for row in figures["per_class"][:NAMES_SHOWN]:
        cells = f"{percent(row['precision']):>11}{percent(row['recall']):>9}{percent(row['f1']):>9}"
        lines.append(f"  {shown(row['name'])[:23]:24}{row['support']:>7}{cells}")
    if len(figures["per_class"]) > NAMES_SHOWN:
        lines.append(f"  ... {len(figures['per_class']) - NAMES_SHOWN} more")
    if known["refused"]:
        lines += ["", f"  known people taken for strangers: {known['refused']} of {known['photos']}"]
    if unknown is not None:
        lines += [
            "",
            f"  strangers: {unknown['refused']} of {unknown['photos']} recognised as such "
            f"(threshold {number(unknown['threshold'])})",
            f"  area under the ROC curve: {number(unknown['auroc'])}",
        ]
    return "\n".join(lines)
