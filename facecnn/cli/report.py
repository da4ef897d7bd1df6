"""``facecnn report``."""

from pathlib import Path
from typing import Annotated, Any

import typer

from facecnn.cli import common
from facecnn.cli.common import percent
from facecnn.cli.options import DEFAULT_OUT, ComputeOptions, FormatOption, OutOption, path
from facecnn.errors import shown
from facecnn.jobs.choosing import find_run
from facecnn.jobs.stderr import StderrConsole


@common.command
def report(
    console: StderrConsole,
    *,
    argument: Annotated[Path | None, typer.Argument(parser=path, metavar="RUN", help="The same as -m.")] = None,
    run: Annotated[
        Path | None,
        typer.Option(
            "--model",
            "-m",
            parser=path,
            metavar="RUN",
            help="A run's folder; by default the pinned or newest finished run.",
        ),
    ] = None,
    check_background: Annotated[
        bool,
        typer.Option(
            "--check-background",
            help="Also train with the faces hidden: how well do walls, clothes and hair tell these people apart? Takes "
            "as long as the training did.",
        ),
    ] = False,
    out: OutOption = DEFAULT_OUT,
    compute: ComputeOptions,
    format: FormatOption = "text",
) -> None:
    """Write a run's report.html and MODEL_CARD.md again.

    report.html describes the training in one file that can be read offline. MODEL_CARD.md tells users what the model
    is for and how good it is.
    """
    from facecnn.jobs.report import report as job
    from facecnn.runs.choice import named_run

    common.require(check_background or compute == ComputeOptions(), "--device and --threads are for --check-background")
    given = common.one_of(run, argument, "the run")
    found = find_run(out, console) if given is None else named_run(given, out)
    result = job(found, console, check_background=check_background, device=compute.device, threads=compute.threads)
    common.print_result(result, format, _describe)


def _describe(result: dict[str, Any]) -> str:
    lines = [f"Report: {shown(result['report'])}", f"Model card: {shown(result['model_card'])}"]
    background = result["background"]
    if background is not None:
        lines += ["", f"  {'named right, of held-out photos':36}{background['photos']:>8}"]
        for key, what in (
            ("plain", "as they are"),
            ("hidden", "with the faces hidden"),
            ("trained_hidden", "by a training with hidden faces"),
            ("largest_class", "by always naming the most frequent"),
        ):
            if background[key] is not None:
                lines.append(f"  {what:36}{percent(background[key]):>8}")
    if not result["finished"]:
        lines.append("The run isn't finished: both show it as it stands.")
    return "\n".join(lines)
