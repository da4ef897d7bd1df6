"""``facecnn cross-validate``."""

from pathlib import Path
from typing import Annotated, Any

import typer

from facecnn.cli import common
from facecnn.cli.common import number, percent
from facecnn.cli.options import ComputeOptions, FormatOption, StrictOption, TrainingSettingsOptions
from facecnn.jobs.stderr import StderrConsole
from facecnn.parallel import current_ranks
from facecnn.reports.findings import several_faces


@common.command
def cross_validate(
    console: StderrConsole,
    *,
    photos: Annotated[Path, typer.Argument(help="A folder with one folder of photos per person.")],
    folds: Annotated[int, typer.Option(help="Number of training runs, each leaving out different photos.")] = 5,
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate",
            help="Hold out some of each fold's training photos, as train does, and judge as predict does, with a "
            "threshold.",
        ),
    ] = False,
    settings: TrainingSettingsOptions,
    compute: ComputeOptions,
    strict: StrictOption = False,
    format: FormatOption = "text",
) -> None:
    """Train several times, leaving out different photos each time, and judge by those."""
    from facecnn.jobs.cross_validate import cross_validate as job
    from facecnn.jobs.training.options import TrainOptions

    options = TrainOptions(photos=photos, device=compute.device, threads=compute.threads, strict=strict)
    result = job(settings.read(), options, folds, console, calibrated=calibrate, ranks=current_ranks())
    common.print_result(result, format, _describe)


def _describe(result: dict[str, Any]) -> str:
    calibrated = "known" in result["folds"][0]
    counts = "   right   refused   wrong" if calibrated else ""
    moved = "" if calibrated else "   kernels moved"
    lines = [f"  fold   photos{counts}   closed-set   log loss{moved}   seconds"]
    for fold, row in enumerate(result["folds"], start=1):
        least = percent(min(row["kernel_change"].values(), default=None))
        counts, moved = "", f"{least:>16}"
        if calibrated:
            known = row["known"]
            counts, moved = f"{known['named_right']:>8}{known['refused']:>10}{known['named_wrong']:>8}", ""
        lines.append(
            f"  {fold:>4}{row['photos']:>9}{counts}{percent(row['closed_set_accuracy']):>13}"
            f"{number(row['log_loss']):>11}{moved}{row['seconds']:>10.1f}"
        )
    lines.append("  (closed-set: accuracy of the likeliest person, nobody refused)")
    if not calibrated:
        lines.append("  (kernels moved: of the layer that moved least, as a share of their first norm)")
    mean, std = result["mean"], result["std"]
    if calibrated:
        lines += ["", f"  named right: mean {percent(mean)}, standard deviation {percent(std)}"]
        if (several := several_faces(result)) is not None:
            lines.append(f"  {several}")
        if result["unknown"] is not None:
            unknown = result["unknown"]
            lines.append(f"  strangers: {unknown['refused']} of {unknown['photos']} refused, {unknown['named']} named")
    else:
        lines += ["", f"  closed_set_accuracy: mean {percent(mean)}, standard deviation {percent(std)}"]
    return "\n".join(lines)
