"""``facecnn sort``."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from facecnn.cli import common
from facecnn.cli.options import ComputeOptions, FormatOption, LinkOption, ModelOptions, ThresholdOption, path
from facecnn.errors import PhotoError, shown
from facecnn.jobs.choosing import checked_threshold
from facecnn.jobs.stderr import StderrConsole
from facecnn.parallel import current_ranks
from facecnn.reports.findings import counted

_SEVERAL_WENT = {
    "per-person": "copied for each person named in it",
    "main": "sorted by the main one",
    "separate": "in several/",
}


@common.command
def sort(
    console: StderrConsole,
    *,
    source: Annotated[
        Path,
        typer.Argument(parser=path, metavar="SOURCE", help="A folder of photos, or one photo. It is only read."),
    ],
    destination: Annotated[
        Path,
        typer.Argument(
            parser=path, metavar="DESTINATION", help="The folder that gets a folder per person. Made if missing."
        ),
    ],
    model: ModelOptions,
    several: Annotated[
        Literal["per-person", "main", "separate"],
        typer.Option(
            help="Photos with several faces: into the folder of each person named in them, of their main face's "
            "answer, or into several/."
        ),
    ] = "per-person",
    link: LinkOption = False,
    threshold: ThresholdOption = "auto",
    compute: ComputeOptions,
    format: FormatOption = "text",
) -> None:
    """Copy photos into a folder per person, by who is in them.

    Strangers go into unknown/, photos without a face into no_face/. A photo of two people whom the model knows goes
    into both their folders. sorted.csv has a row for each face. Running it again adds new photos. Exit code 3 if any
    photo can't be read.
    """
    from facecnn.jobs.sort import sort as job

    limit = checked_threshold(threshold, "--threshold")
    ranks = current_ranks()
    file = ranks.broadcast(model.find(console) if ranks.rank == 0 else None)
    result = job(
        source,
        destination,
        file,
        limit,
        console,
        compute.device,
        compute.threads,
        several=several,
        link=link,
        ranks=ranks,
    )
    if ranks.rank:
        return
    common.print_result(result, format, _describe)
    if result["unreadable"]:
        raise PhotoError(f"{len(result['unreadable'])} of {result['photos']} photos have no answer")


def _describe(result: dict[str, Any]) -> str:
    width = max([20, *(len(shown(name)) for name in result["folders"])])
    lines = [f"{'':{width + 2}} photos"]
    lines += [f"  {shown(name):{width}} {photos:6}" for name, photos in result["folders"].items()]
    done = [
        f"{result[key]} {words}"
        for key, words in (("copied", "copied"), ("linked", "linked"), ("already_there", "already there"))
        if result[key]
    ]
    lines += ["", f"{', '.join(done) or 'nothing copied'}; face by face in {shown(result['table'])}"]
    if result["several"]["photos"]:
        photos = counted(result["several"]["photos"], "photo has", "photos have")
        lines.append(f"{photos} several faces: {_SEVERAL_WENT[result['several']['mode']]}")
    if result["elsewhere"]:
        lines += ["", "Also in another folder, from an earlier answer or by hand; delete what is wrong:"]
        lines += [f"  {shown(photo['also'])}" for photo in result["elsewhere"]]
    if result["unreadable"]:
        lines += ["", "Left where they are:"]
        lines += [f"  {shown(photo['path'])}: {photo['reason']}" for photo in result["unreadable"]]
    return "\n".join(lines)
