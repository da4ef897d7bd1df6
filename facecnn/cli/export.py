"""``facecnn export``."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from facecnn.cli import common
from facecnn.cli.common import megabytes
from facecnn.cli.options import DEFAULT_OUT, FormatOption, ModelArgument, ModelOption, path
from facecnn.errors import shown
from facecnn.jobs.choosing import find_model
from facecnn.jobs.stderr import StderrConsole, paragraph


@common.command
def export(
    console: StderrConsole,
    *,
    argument: ModelArgument = None,
    model: ModelOption = None,
    to: Annotated[
        Literal["onnx", "npz"],
        typer.Option(help="onnx: a graph from crop to answer, for other programs; npz: weights as NumPy arrays."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(parser=path, metavar="FILE", help="The file to write; by default beside the model's own."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
    format: FormatOption = "text",
) -> None:
    """Write a model as a file that other programs read.

    It also holds preparation, people and threshold. docs/EXPORT.md explains how to use it.
    """
    from facecnn.jobs.export import export as job

    given = common.one_of(model, argument, "the model")
    result = job(find_model(given, DEFAULT_OUT, console), to, out, overwrite, console)
    common.print_result(result, format, _describe)


def _describe(result: dict[str, Any]) -> str:
    from facecnn.photos.folder import class_order, some

    names = some([shown(name) for name in sorted(result["classes"], key=class_order)], 10)
    _, rows, columns, channels = result["input"]["shape"]
    colour = "grey" if channels == 1 else "red, green and blue"
    return "\n".join(
        [
            f"{shown(result['file'])}: {megabytes(result['bytes'])}, {len(result['classes'])} classes ({names})",
            f"Input: crops of {rows}x{columns} pixels, {colour}, {result['input']['dtype']}",
            paragraph("It holds the people's names, and weights that were made from their photos."),
        ]
    )
