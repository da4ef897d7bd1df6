"""``facecnn lr-find``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from facecnn.cli import common
from facecnn.cli.options import (
    DEFAULT_OUT,
    ComputeOptions,
    FormatOption,
    PhotosArgument,
    SeededSettingsOptions,
    StrictOption,
    path,
)
from facecnn.errors import shown
from facecnn.jobs.choosing import find_model
from facecnn.jobs.stderr import StderrConsole, paragraph
from facecnn.runs.atomic import check_output, make_folder

DEFAULT_PLOT = Path("lr-find.png")


@dataclass(frozen=True)
class PictureOptions:
    """Where the picture goes."""

    plot: Annotated[
        Path | None, typer.Option(help=f"Draw the loss against the rate to this PNG file, not to {DEFAULT_PLOT}.")
    ] = None
    out: Annotated[
        Path | None,
        typer.Option(parser=path, metavar="DIR", help="The folder for the picture; by default the current one."),
    ] = None

    def file(self) -> Path:
        """The PNG file; its folder is made if missing. Raises OutputError if it can't be written."""
        if self.out is not None:
            make_folder(self.out)
        file = self.plot or (self.out or Path()) / DEFAULT_PLOT
        check_output(file)
        return file


@common.command
def lr_find(
    console: StderrConsole,
    *,
    photos: PhotosArgument = None,
    settings: SeededSettingsOptions,
    model: Annotated[
        Path | None,
        typer.Option("--model", "-m", help="A run or .safetensors file: measure the curvature at its weights."),
    ] = None,
    compute: ComputeOptions,
    steps: Annotated[int, typer.Option(min=20, max=100_000, help="Steps of each of the three range tests.")] = 150,
    write: Annotated[
        Path | None, typer.Option(help="Write the config with the suggested rate to this file (.yaml).")
    ] = None,
    picture: PictureOptions,
    strict: StrictOption = False,
    format: FormatOption = "text",
) -> None:
    """Find a learning rate, by training with one that rises at each step and by measuring the loss's curvature."""
    from facecnn.jobs.lr_find import lr_find as job
    from facecnn.jobs.training.options import TrainOptions

    plot = picture.file()  # before the work, in case it can't be written
    if model is not None:
        common.refuse_given(settings.given(), "--model comes with its own settings")
    result = job(
        settings.read(),
        TrainOptions(photos=photos, device=compute.device, threads=compute.threads, strict=strict),
        steps=steps,
        model=None if model is None else find_model(model, picture.out or DEFAULT_OUT, console),
        plot=plot,
        config=settings.config,
        write=write,
        console=console,
    )
    common.print_result(result, format, _describe)


def _describe(result: dict[str, Any]) -> str:
    lines = [*_suggestion(result), "", *_limit(result), "", f"Picture: {shown(result['plot'])}"]
    if result["written"] is not None:
        lines.append(f"Config with the suggested rate: {shown(result['written'])}")
    return "\n".join(lines)


def _suggestion(result: dict[str, Any]) -> list[str]:
    rate, test = result["suggestion"], result["range_test"]
    if rate is None:
        return [
            paragraph(
                "No rate made the loss fall. Give more --steps; if still none does, the network can't learn these "
                "photos: facecnn train --overfit-batch says more."
            )
        ]
    low = " to ".join(f"{end:.2g}" for end in test["low"])
    diverges = "" if test["diverged_at"] is None else f", and diverges at {test['diverged_at']:.2g}"
    why = "the suggestion is the middle"
    if rate < test["middle"]:
        why = (
            f"the middle is {test['middle']:g}, but too long a step for this curvature: the suggestion is 1 / curvature"
        )
    return [
        f"Suggested learning rate: {rate:g}   (the config has {result['learning_rate']:g})",
        paragraph(
            f"With a rate that rises at each step, the loss is low from {low}{diverges}; {why}. Use it as it is, "
            f"as the schedule's largest rate: --set optimizer.learning_rate={rate:g}"
        ),
    ]


def _limit(result: dict[str, Any]) -> list[str]:
    curvature, stable = result["curvature"], result["largest_stable_rate"]
    where = "the fresh weights" if curvature["weights"] is None else "the model's weights"
    settled = "" if curvature["converged"] else ", not converged"
    lines = [
        paragraph(
            f"Largest curvature of the loss at {where}: {curvature['largest']:.4g} (by {curvature['products']} "
            f"products, {curvature['photos']} photos{settled})."
        )
    ]
    plain, own = stable["gradient_descent"], stable["optimizer"]
    if plain is None:
        return [*lines, "It is not positive, so it sets no limit to the rate here."]
    lines.append(f"Largest stable rate, plain gradient descent (2 / curvature): {plain:.3g}")
    if own is None:
        lines.append(
            paragraph(
                f"{result['optimizer']} scales each weight's step separately, so this limit doesn't apply to it: go by "
                "the suggestion."
            )
        )
        return lines
    if own != plain:
        lines.append(f"Largest stable rate, {result['optimizer']} as in the config: {own:.3g}")
    lines.append(
        paragraph(
            "Above it, training moves away from these weights instead of settling; it may find flatter ones, or "
            "diverge. A warm-up (schedule.warmup) carries it past a steep start."
        )
    )
    return lines
