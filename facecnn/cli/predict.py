"""``facecnn predict``."""

import glob
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from facecnn.cli import common
from facecnn.cli.options import ComputeOptions, ModelOptions, ThresholdOption, path
from facecnn.errors import PhotoError, shown
from facecnn.jobs.choosing import checked_threshold
from facecnn.jobs.stderr import StderrConsole
from facecnn.parallel import current_ranks
from facecnn.reports.findings import confidence

_Format = Literal["text", "json", "jsonl", "csv"]


@common.command
def predict(
    console: StderrConsole,
    *,
    photos: Annotated[list[str], typer.Argument(help="Photos, folders, patterns, or - for a list of paths on stdin.")],
    model: ModelOptions,
    null: Annotated[bool, typer.Option("-0", help="Paths on stdin end with a NUL byte instead of a newline.")] = False,
    threshold: ThresholdOption = "auto",
    explain: Annotated[
        Path | None,
        typer.Option(
            parser=path,
            metavar="DIR",
            help="Also draw, for each photo, what the answers are based on, into this folder: PHOTO.explained.png.",
        ),
    ] = None,
    draw: Annotated[
        Path | None,
        typer.Option(
            parser=path,
            metavar="DIR",
            help="Also draw a copy of each photo, with its faces framed and named, into this folder: PHOTO.drawn.jpg, "
            "upright, 800 to 2,000 pixels long, without the photo's metadata.",
        ),
    ] = None,
    compute: ComputeOptions,
    format: Annotated[_Format, typer.Option("--format", help="Format of the answers on stdout.")] = "text",
) -> None:
    """Say who is in a photo. Exit code 3 if any photo has no answer.

    Drawn pictures never replace a file: they get numbers. In a folder of photos, they are ignored.
    """
    from facecnn.jobs.predict import predict as job
    from facecnn.runs.atomic import make_folder

    limit, ranks = checked_threshold(threshold, "--threshold"), current_ranks()
    given: tuple[Path, list[Path]] | None = None
    if ranks.rank == 0:  # which alone has stdin, and of which the runs may be
        given = model.find(console), _files(photos, null)
        for folder in (explain, draw):
            if folder is not None:
                make_folder(folder)  # before the work, in case it can't be made
    model_file, paths = ranks.broadcast(given)
    results = job(model_file, paths, limit, console, compute.device, compute.threads, ranks)
    if ranks.rank:
        return
    ranks.busy()
    _print(results, format)
    if draw is not None:
        from facecnn.jobs.draw import draw as draw_job

        draw_job(model_file, results, draw, console, compute.threads)
    if explain is not None:
        from facecnn.jobs.explain import explain as explain_job

        explain_job(model_file, results, explain, console, compute.device, compute.threads)
    failed = [result for result in results if result["error"] is not None]
    if failed:
        raise PhotoError(f"{len(failed)} of {len(results)} photos have no answer")


def _files(photos: list[str], null: bool) -> list[Path]:
    """The files that the arguments name, at least one."""
    files = [file for name in photos for file in (_listed(null) if name == "-" else _matching(name))]
    common.require(bool(files), "no photos given: the list on stdin is empty")
    return files


def _matching(given: str) -> list[Path]:
    """The path itself, or the sorted files that match it as a pattern, without pictures that predict has drawn."""
    if os.path.lexists(given) or not glob.has_magic(given):
        return [Path(given)]
    from facecnn.photos.companions import is_drawn

    found = glob.glob(given, recursive=True)  # noqa: PTH207 (Path.glob takes no absolute pattern)
    photos = [file for file in map(Path, sorted(found)) if not is_drawn(file.name)]
    return photos or [Path(given)]


def _listed(null: bool) -> list[Path]:
    """The paths on stdin."""
    common.require(sys.stdin is not None, "-: stdin is closed: give the photos' names instead")
    data = sys.stdin.buffer.read()
    common.require(
        null or b"\0" not in data,
        "-: no list of paths, one a line, on stdin: with -0 they may end with NUL bytes; a photo is given by its name",
    )
    parts = data.split(b"\0") if null else data.splitlines()
    return [Path(os.fsdecode(part)) for part in parts if part]


def _print(results: list[dict[str, Any]], format: _Format) -> None:
    from facecnn.jobs.answers import as_csv, json_lines

    if format == "json":
        common.print_json(results)
    elif format == "jsonl":
        common.print_text(json_lines(results))
    elif format == "csv":
        common.print_text(as_csv(_by_face(results)))
    else:
        common.print_text("\n".join(map(_describe, results)))


def _by_face(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each face, with its box in four columns and a confidence only where a person is named.

    A photo without a face has a row with its error.
    """
    rows = []
    for result in results:
        for face in result["faces"] or [result]:
            values = {key: face.get(key, result[key]) for key in result if key != "faces"}
            named = values["probabilities"] is not None and values["label"] in values["probabilities"]
            values["confidence"] = values["confidence"] if named else None
            corners = values.pop("box") or [None] * 4
            row: dict[str, Any] = {}
            for key, value in values.items():
                if key == "error":
                    row |= dict(zip(("x0", "y0", "x1", "y1"), corners, strict=True))
                row[key] = value
            rows.append(row)
    return rows


def _describe(result: dict[str, Any]) -> str:
    photo = shown(result["path"])
    if result["error"] is not None:
        return f"{photo}: no answer: {result['error']}"
    if not result["faces"]:
        return f"{photo}: no face found"
    first, *others = [f"{_name(face)} {_place(face['box'])}" for face in result["faces"]]
    return "\n".join([f"{photo}: {first}", *(f"  and {face}" for face in others)])


def _name(face: dict[str, Any]) -> str:
    if face["label"] in face["probabilities"]:
        return f"{shown(face['label'])} ({confidence(face['confidence'])})"
    if face["also_like"] is not None:
        return f"{face['label']} (like {shown(face['also_like'])}, who is another face here)"
    likeliest = max(face["probabilities"], key=face["probabilities"].get)
    return f"{face['label']} (unknown-score {face['unknown_score']:.3f}; most like {shown(likeliest)})"


def _place(box: list[float]) -> str:
    """The position of a face, or of the part looked at instead, in pixels of the upright photo."""
    left, top, right, bottom = map(round, box)
    return f"at left {left}, top {top}, width {right - left}, height {bottom - top}"
