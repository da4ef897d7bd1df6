"""``facecnn data``: sample photos, and what is wrong with a folder of photos."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from facecnn.cli import common
from facecnn.cli.common import ConfigOption, Format, FormatOption, SetOption
from facecnn.cli.console import StderrConsole
from facecnn.errors import OutputError, shown

app = typer.Typer(help="Look after folders of photos.", no_args_is_help=True, rich_markup_mode=None)


@app.command(short_help="Write sample people as a folder of photos per person.")
@common.command
def sample(
    console: StderrConsole,
    destination: Annotated[Path, typer.Argument(help="A folder that doesn't exist yet, or is empty.")],
    people: Annotated[int, typer.Option(help="How many people get a folder of their own.")] = 2,
    strangers: Annotated[int, typer.Option(help="How many other people go into unknown/.")] = 0,
    format: FormatOption = Format.text,
) -> None:
    """Write sample people (ORL faces, 10 photos each) as a folder of photos per person."""
    from facecnn.photos.sample import write_sample

    written = write_sample(destination, people, strangers)
    names = [*written.people, *(["unknown"] if written.strangers else [])]
    if format is Format.json:
        common.print_json(
            {
                "folder": str(written.folder),
                "people": list(written.people),
                "photos": written.photos,
                "strangers": written.strangers,
            }
        )
    else:
        common.print_text(
            f"{written.photos + written.strangers} photos written to {shown(written.folder)}: {', '.join(names)}"
        )


@app.command(short_help="Report people, counts, unusable photos and duplicates.")
@common.command
def check(
    console: StderrConsole,
    photos: Annotated[Path, typer.Argument(help="A folder with one folder of photos per person.")],
    config: ConfigOption = common.DEFAULT_CONFIG,
    overrides: SetOption = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 6 if anything is wrong or doubtful.")] = False,
    format: FormatOption = Format.text,
) -> None:
    """Report people, counts, sizes, unusable photos and duplicates of a folder."""
    from facecnn.jobs.faces import installed_finder
    from facecnn.photos.check import check as job

    loaded = common.read_settings(config, overrides, {})
    finder = installed_finder(loaded.settings.photos, console)
    with console.counting("Reading photos") as progress:
        report = job(photos, loaded.settings.photos, finder, progress)
    if format is Format.json:
        common.print_json(report.as_dict())
    else:
        common.print_text(report.text(all_notes=console.verbose))
    if strict and (report.skipped or report.warnings):
        raise OutputError(f"--strict: {shown(photos)} has the problems listed above")


@app.command(short_help="Write what the network would see of each photo.")
@common.command
def crop(
    console: StderrConsole,
    source: Annotated[Path, typer.Argument(help="A folder of photos.")],
    destination: Annotated[Path, typer.Argument(help="A folder that doesn't exist yet, or is empty.")],
    config: ConfigOption = common.DEFAULT_CONFIG,
    overrides: SetOption = None,
    format: FormatOption = Format.text,
) -> None:
    """Write what the network would see of each photo: the aligned faces, and a contact sheet of all."""
    from facecnn.jobs.crop import crop as job

    loaded = common.read_settings(config, overrides, {})
    written = job(source, destination, loaded.settings.photos, console)
    if format is Format.json:
        common.print_json(written)
        return
    skipped = [f"{photo['path']}: {photo['reason']}" for photo in written["skipped"]]
    crops = f"{written['crops']} crops written to {shown(destination)}"
    common.print_text("\n".join([*skipped, f"{crops}, side by side in {shown(written['contact_sheet'])}"]))
