"""``facecnn eval``."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from facecnn.cli import common
from facecnn.cli.common import number, percent
from facecnn.cli.options import ComputeOptions, FormatOption, ModelOptions
from facecnn.errors import OutputError, shown
from facecnn.jobs.stderr import StderrConsole
from facecnn.reports.findings import listed_people, several_faces

_MOST_NAMES = 20


@common.command
def evaluate(
    console: StderrConsole,
    *,
    photos: Annotated[
        Path | None, typer.Argument(help="A folder with one folder per person; by default the run's own photos.")
    ] = None,
    model: ModelOptions,
    split: Annotated[
        Literal["validation", "train", "all"] | None,
        typer.Option(help="Which photos: held out, trained on, or all. By default those not trained on."),
    ] = None,
    hide_face: Annotated[
        bool, typer.Option("--hide-face", help="Blank the faces first: what do their surroundings give away?")
    ] = False,
    others_as_unknown: Annotated[
        bool, typer.Option("--others-as-unknown", help="Judge people the model doesn't know as strangers.")
    ] = False,
    predictions: Annotated[
        Path | None, typer.Option(help="Write the answer to every photo to this file (.csv, .json or .jsonl).")
    ] = None,
    fail_under: Annotated[float | None, typer.Option(help="Exit with 6 if the accuracy (0 to 1) is lower.")] = None,
    compute: ComputeOptions,
    format: FormatOption = "text",
) -> None:
    """Judge a model by photos whose people are known."""
    from facecnn.jobs.answers import check_predictions_name, write_predictions
    from facecnn.jobs.evaluate import EvaluateOptions
    from facecnn.jobs.evaluate import evaluate as job

    common.require(fail_under is None or 0 <= fail_under <= 1, f"--fail-under {fail_under}: a fraction from 0 to 1")
    if predictions is not None:
        check_predictions_name(predictions)
    options = EvaluateOptions(
        model=model.find(console),
        photos=photos,
        split=split,
        hide_face=hide_face,
        others_as_unknown=others_as_unknown,
        device=compute.device,
        threads=compute.threads,
    )
    evaluation = job(options, console)
    common.print_result(evaluation.figures, format, _describe)
    if predictions is not None:
        write_predictions(predictions, evaluation.predictions)
    accuracy = evaluation.figures["accuracy"]
    if fail_under is not None and (accuracy is None or accuracy < fail_under):
        raise OutputError(f"--fail-under {fail_under}: the accuracy is {number(accuracy)}")


def _describe(figures: dict[str, Any]) -> str:
    known, unknown = figures["known"], figures["unknown"]
    lines = [f"{figures['photos']} photos, {known['photos']} of known people"]
    if known["photos"]:
        low, high = figures["interval"]
        lines += [
            "",
            f"{_part('named right', known['named_right'], known['photos'])}   (accuracy; expect {100 * low:.1f} to "
            f"{percent(high)})",
            _part("refused", known["refused"], known["photos"]),
            _part("named wrong", known["named_wrong"], known["photos"]),
        ]
        several = several_faces(figures)
        if several is not None:
            lines += [f"  {several}", "  (log loss, calibration error and ROC curve below: photos with one face only)"]
    if unknown is not None:
        limit = "no threshold" if unknown["threshold"] is None else f"threshold {number(unknown['threshold'])}"
        lines += [
            "",
            f"{_part('strangers refused', unknown['refused'], unknown['photos'])}   ({limit})",
            _part("strangers named", unknown["named"], unknown["photos"]),
        ]
        if unknown["auroc"] is not None:
            lines.append(_figure("area under the ROC curve", number(unknown["auroc"])))
    if known["photos"]:
        error = percent(figures["expected_calibration_error"])
        lines += [
            "",
            _figure("closed_set_accuracy", percent(figures["closed_set_accuracy"]), "likeliest person, nobody refused"),
            _figure("balanced accuracy", percent(figures["balanced_accuracy"]), "mean recall"),
            _figure("log loss", number(figures["log_loss"]), "probabilities over the people"),
            _figure("calibration error", error, "confidence of the photos named"),
            "",
            f"  {'':18}{'photos':>7}{'right':>7}{'refused':>9}{'wrong':>7}{'precision':>11}{'recall':>9}{'f1':>9}",
        ]
        for row in listed_people(figures["per_class"], _MOST_NAMES):
            lines.append(
                f"  {shown(row['name'])[:17]:18}{row['support']:>7}{row['named_right']:>7}{row['refused']:>9}"
                f"{row['named_wrong']:>7}"
                f"{percent(row['precision']):>11}{percent(row['recall']):>9}{percent(row['f1']):>9}"
            )
        left_out = len(figures["per_class"]) - _MOST_NAMES
        if left_out > 0:
            lines.append(f"  These {_MOST_NAMES} are known worst; --format json lists the other {left_out:,}, too.")
    return "\n".join(lines)


def _part(what: str, count: int, whole: int) -> str:
    return f"  {what:<18}{count:>5} of {whole:<5}{percent(count / whole):>8}"


def _figure(what: str, value: str, explanation: str = "") -> str:
    return f"  {what:<27}{value:>13}" + (f"   ({explanation})" if explanation else "")
