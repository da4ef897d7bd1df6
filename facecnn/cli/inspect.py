"""``facecnn inspect``."""

from pathlib import Path
from typing import Annotated, Any

import typer

from facecnn.cli import common
from facecnn.cli.common import megabytes, number
from facecnn.cli.options import FormatOption, ModelArgument, ModelOptions
from facecnn.errors import shown
from facecnn.jobs.choosing import find_model
from facecnn.jobs.stderr import StderrConsole, paragraph


@common.command
def inspect(
    console: StderrConsole,
    *,
    argument: ModelArgument = None,
    model: ModelOptions,
    kernels: Annotated[Path | None, typer.Option(help="Draw the kernels to this PNG file.")] = None,
    format: FormatOption = "text",
) -> None:
    """Show what a model consists of."""
    from facecnn.jobs.inspect import inspect as job

    given = common.one_of(model.model, argument, "the model")
    result = job(find_model(given, model.out, console), kernels)
    common.print_result(result, format, _describe)


def _describe(result: dict[str, Any]) -> str:
    from facecnn.photos.folder import class_order, some
    from facecnn.reports.findings import highest_confidence

    given = result["input"]
    names = some([shown(name) for name in sorted(result["classes"], key=class_order)], 10)
    lines = [
        f"{shown(result['model'])}: {len(result['classes'])} classes ({names})",
        f"Input: {given['height']}x{given['width']} {given['colour']}, normalised: {given['normalise']}",
        *_origin(result),
        *map(paragraph, highest_confidence(result["highest_confidence"], result["calibrated_on"])),
        "",
        *common.layer_table(result["layers"]),
        "",
        f"Weights: {megabytes(result['parameter_bytes'])}",
    ]
    if not result["by_embeddings"]:
        lines.append(
            f"Training with batches of {result['batch_size']}: about {megabytes(result['training_bytes'])} besides "
            "photos and libraries"
        )
    if result["kernels"]:
        lines.append(f"Kernels drawn: {shown(result['kernels'])}")
    return "\n".join(lines)


def _origin(result: dict[str, Any]) -> list[str]:
    """What weights and threshold come from."""
    if result["by_embeddings"]:
        return [
            f"Made from the embeddings of {result['trained_on']} photos; the body's weights are dlib's",
            f"Threshold for strangers {number(result['threshold'])}, by the distances between other people's faces",
        ]
    return [
        f"Trained on {result['trained_on']} photos; the weights are those of epoch {result['best_epoch']}",
        f"Temperature {number(result['temperature'])}, threshold for strangers {number(result['threshold'])}",
        f"Both set on {result['calibrated_on']} held-out photos of people and {result['strangers_calibrated_on']} of "
        "strangers",
    ]
