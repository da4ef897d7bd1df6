"""``facecnn data``: write sample photos, check and crop a folder of photos."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from facecnn.cli import common
from facecnn.cli.common import percent
from facecnn.cli.options import ComputeOptions, Format, FormatOption, SettingsOptions, TrainingSettingsOptions, path
from facecnn.errors import OutputError, shown
from facecnn.jobs.stderr import StderrConsole, paragraph

if TYPE_CHECKING:
    from facecnn.config import Loaded
    from facecnn.jobs.label_check import LabelCheck

app = typer.Typer(help="Check and prepare folders of photos.", no_args_is_help=True, rich_markup_mode=None)


@app.command(short_help="Write sample people as a folder of photos per person.")
@common.command
def sample(
    console: StderrConsole,
    destination: Annotated[Path, typer.Argument(help="A folder that doesn't exist yet, or is empty.")],
    people: Annotated[int, typer.Option(help="How many people get a folder of their own.")] = 2,
    strangers: Annotated[int, typer.Option(help="How many other people go into unknown/.")] = 0,
    format: FormatOption = "text",
) -> None:
    """Write sample people (ORL faces, 10 photos each) as a folder of photos per person."""
    from facecnn.photos.sample import write_sample

    written = write_sample(destination, people, strangers)
    common.print_result({**asdict(written), "folder": str(written.folder)}, format, _describe_sample)


def _describe_sample(result: dict[str, Any]) -> str:
    names = [*result["people"], *(["unknown"] if result["strangers"] else [])]
    photos = result["photos"] + result["strangers"]
    return f"{photos} photos written to {shown(result['folder'])}: {', '.join(names)}"


@dataclass(frozen=True)
class FaceCheckOptions:
    """Whether and how to look for photos in the wrong folder."""

    faces: Annotated[
        bool,
        typer.Option(
            "--faces",
            help="List photos that are unlike their folder, or show too little. Trains five times.",
        ),
    ] = False
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", parser=path, metavar="FOLDER", help="With --faces: write a contact sheet, FOLDER/index.html."
        ),
    ] = None
    quick: Annotated[
        bool, typer.Option("--quick", help="With --faces: without training, in about a second, but less reliably.")
    ] = False


@app.command(short_help="Report people, counts, and unusable, duplicate or doubtful photos.")
@common.command
def check(
    console: StderrConsole,
    photos: Annotated[Path, typer.Argument(help="A folder with one folder of photos per person.")],
    settings: TrainingSettingsOptions,
    look: FaceCheckOptions,
    compute: ComputeOptions,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 6 if anything is wrong or doubtful.")] = False,
    format: FormatOption = "text",
) -> None:
    """Report people, counts, sizes, unusable photos and duplicates of a folder.

    With --faces, list instead the photos that may be in the wrong folder, or show too little. Nothing is changed.
    """
    for_training = {
        "--device": compute.device != "auto",
        "--epochs": settings.epochs is not None,
        "--seed": settings.seed is not None,
    }
    if not look.faces:
        for_faces = {"--out": look.out is not None, "--quick": look.quick, **for_training}
        for_faces["--threads"] = compute.threads is not None
        _refuse(for_faces, "only goes with --faces: add --faces, or leave it out")
    elif look.quick:
        _refuse(for_training, "--quick trains nothing: leave one of them out")
    loaded = settings.read()
    if look.faces:
        has_problems = _check_faces(loaded, photos, look, compute, format, console)
    else:
        has_problems = _check_files(loaded, photos, format, console)
    if strict and has_problems:
        raise OutputError(f"--strict: {shown(photos)} has the problems listed above")


def _refuse(options: dict[str, bool], why: str) -> None:
    """Raise UsageError for the first of the options that is given."""
    given = [option for option, is_given in options.items() if is_given]
    common.require(not given, f"{given[0] if given else ''}: {why}")


def _check_files(loaded: Loaded, photos: Path, format: Format, console: StderrConsole) -> bool:
    """Print the report of ``photos.check``, and return whether it has problems."""
    from facecnn.jobs.faces import installed_finder
    from facecnn.photos.check import check as job

    finder = installed_finder(loaded.settings.photos, console)
    with console.counting("Reading photos") as progress:
        report = job(photos, loaded.settings.photos, finder, progress)
    common.print_result(report.as_dict(), format, lambda _: report.text(all_notes=console.verbose))
    return bool(report.skipped or report.warnings)


def _check_faces(
    loaded: Loaded,
    photos: Path,
    look: FaceCheckOptions,
    compute: ComputeOptions,
    format: Format,
    console: StderrConsole,
) -> bool:
    """Print the doubtful photos, and return whether the album as a whole has problems."""
    from facecnn.jobs.label_check import check_labels
    from facecnn.jobs.training.options import TrainOptions

    options = TrainOptions(photos=photos, device=compute.device, threads=compute.threads)
    found = check_labels(loaded, options, console, quick=look.quick, out=look.out)
    for text in found.alike:
        console.warning(text)
    common.print_result([photo.as_dict() for photo in found.photos], format, lambda _: _describe_doubts(found))
    return bool(found.dataset.skipped or found.dataset.warnings or found.alike)


_LINES = 20
"""Photos that the text lists; JSON has all."""
_COLUMNS = 44, 24
"""Characters of a photo's path and of a name, in the text."""


def _describe_doubts(found: LabelCheck) -> str:
    from facecnn.photos.check import cell, wrapped

    doubtful = [photo for photo in found.photos if photo.is_doubtful]
    lines = wrapped(
        f"{shown(found.dataset.folder)}: {len(found.photos)} photos, {len(doubtful) or 'none'} worth a look"
    )
    if doubtful:
        lines += ["", f"{'folder/photo':{_COLUMNS[0]}}{'likeliest':{_COLUMNS[1]}}  confidence"]
    for photo in doubtful[:_LINES]:
        path, confidence = shown(photo.path), "-" if photo.confidence is None else percent(photo.confidence)
        if len(path) > _COLUMNS[0] - 2:
            lines.append(path)
            path = ""
        lines.append(f"{cell(path, _COLUMNS[0])}{cell(shown(photo.likeliest), _COLUMNS[1])}{confidence:>12}")
        lines += [line for reason in photo.reasons for line in wrapped(reason, "  ")]
    if len(doubtful) > _LINES:
        lines.append(f"… {len(doubtful) - _LINES} more; --format json has all, --out FOLDER shows them")
    lines += ["", paragraph(f"{found.explanation} Nothing was changed.")]
    if found.page is not None:
        lines += ["", *wrapped(f"Contact sheet: {shown(found.page)}")]
    return "\n".join(lines)


@app.command(short_help="Write what the network would see of each photo.")
@common.command
def crop(
    console: StderrConsole,
    source: Annotated[Path, typer.Argument(help="A folder of photos.")],
    destination: Annotated[Path, typer.Argument(help="A folder that doesn't exist yet, or is empty.")],
    settings: SettingsOptions,
    format: FormatOption = "text",
) -> None:
    """Write what the network would see of each photo: the aligned faces, and a contact sheet of all."""
    from facecnn.jobs.crop import crop as job

    result = job(source, destination, settings.read().settings.photos, console)
    common.print_result(result, format, _describe_crops)


def _describe_crops(result: dict[str, Any]) -> str:
    skipped = [f"{photo['path']}: {photo['reason']}" for photo in result["skipped"]]
    crops = f"{result['crops']} crops written to {shown(result['folder'])}"
    return "\n".join([*skipped, f"{crops}, side by side in {shown(result['contact_sheet'])}"])
