"""``facecnn add``."""

from pathlib import Path
from typing import Annotated, Any

import typer

from facecnn.cli import common
from facecnn.cli.options import ComputeOptions, FormatOption, ModelOptions, NewNameOption, path
from facecnn.errors import shown
from facecnn.jobs.stderr import StderrConsole
from facecnn.reports.findings import counted


@common.command
def add(
    console: StderrConsole,
    *,
    person: Annotated[str, typer.Argument(help="Name of a new person, or of one the model knows.")],
    photos: Annotated[
        list[Path], typer.Argument(parser=path, metavar="PHOTOS...", help="Photos of the person, or folders of them.")
    ],
    model: ModelOptions,
    name: NewNameOption = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run of that name.")] = False,
    compute: ComputeOptions,
    format: FormatOption = "text",
) -> None:
    """Make a new run that knows one more person, from one or more photos.

    A model made with -c pretrained needs no training for this, and answers as before about everybody else. Any other is
    retrained on everybody's photos. The photos aren't copied.
    """
    from facecnn.jobs.add import add as job
    from facecnn.jobs.training.options import TrainOptions

    out, device, threads = model.out, compute.device, compute.threads
    new = TrainOptions(out=out, name=name, overwrite=overwrite, device=device, threads=threads)
    common.print_result(job(person, photos, model.find(console), new, console), format, _describe)


def _describe(result: dict[str, Any]) -> str:
    people = counted(len([one for one in result["classes"] if one != "unknown"]), "person", "people")
    photos = "" if result["trained"] else f" by {counted(result['photos']['added'], 'photo')}"
    return f"Added {shown(result['person'])}{photos}: {people} now.\nRun: {shown(result['run'])}"
