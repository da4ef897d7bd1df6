"""``facecnn group``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from facecnn.cli import common
from facecnn.cli.options import ComputeOptions, FormatOption, LinkOption, path
from facecnn.errors import PhotoError, shown
from facecnn.jobs.stderr import StderrConsole
from facecnn.parallel import current_ranks

if TYPE_CHECKING:
    from facecnn.jobs.group import Grouping

_LINES = 20
"""Groups that the text lists; the folders and the JSON have all."""


@common.command
def group(
    console: StderrConsole,
    *,
    source: Annotated[
        Path,
        typer.Argument(parser=path, metavar="ALBUM", help="A folder of photos, or one photo. It is only read."),
    ],
    destination: Annotated[
        Path,
        typer.Argument(parser=path, metavar="OUT", help="A new or empty folder, which gets a folder per person."),
    ],
    link: LinkOption = False,
    compute: ComputeOptions,
    format: FormatOption = "text",
) -> None:
    """Find the people in an unsorted album, without knowing any of them.

    Each gets a folder, person-001 being the one with the most faces; a photo of several people goes into all their
    folders. Photos go into unclear/ if each face in them is like no other in the album, blurred, cut off by the edge,
    or smaller than 30 pixels. groups.csv has a row for each face; index.html shows them. Then rename the folders and
    train on OUT: training leaves out unclear/. If group is interrupted, the same command completes it.

    Needs the extras faces and pretrained. Photos without a face are listed. Exit code 3 if any photo can't be read.
    """
    from facecnn.jobs.group import group as job

    result = job(source, destination, console, compute.device, compute.threads, link=link, ranks=current_ranks())
    if result is None:  # rank 0 has it
        return
    if format == "json":
        common.print_json(result.faces)
    else:
        common.print_text(_describe(result))
    if result.unreadable:
        raise PhotoError(f"{len(result.unreadable)} of {result.photos} photos have no answer")


def _describe(result: Grouping) -> str:
    from facecnn.reports.findings import counted

    people = [name for name in result.folders if name in result.people]
    width = max([20, *(len(name) for name in result.folders)])
    lines = [f"{'':{width + 2}} photos"]
    lines += [f"  {name:{width}} {result.folders[name]:6}" for name in people[:_LINES]]
    if len(people) > _LINES:
        lines.append(f"  … {len(people) - _LINES:,} more")
    lines += [f"  {name:{width}} {photos:6}" for name, photos in result.folders.items() if name not in result.people]
    done = [
        f"{count} {words}"
        for count, words in (
            (result.copied, "copied"),
            (result.linked, "linked"),
            (result.already_there, "already there"),
        )
        if count
    ]
    groups = counted(len(people), "group")
    lines += [
        "",
        f"{groups}, {', '.join(done) or 'nothing copied'}; look at {shown(result.destination / 'index.html')}",
    ]
    if people:
        lines += ["Give the folders the people's names (one folder for each person), then:"]
        lines += [f"  facecnn train {shown(result.destination)}"]
    if result.without_face:
        lines += ["", f"Without a face, left where they are ({len(result.without_face)}):"]
        lines += [f"  {shown(photo)}" for photo in result.without_face]
    if result.unreadable:
        lines += ["", "Can't be read, left where they are:"]
        lines += [f"  {shown(photo['path'])}: {photo['reason']}" for photo in result.unreadable]
    return "\n".join(lines)
