"""``facecnn train``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from facecnn.cli import common
from facecnn.cli.common import megabytes, number, percent
from facecnn.cli.options import (
    DEFAULT_OUT,
    ComputeOptions,
    FormatOption,
    OutOption,
    PhotosArgument,
    StrictOption,
    TrackOption,
    TrainingSettingsOptions,
)
from facecnn.errors import shown
from facecnn.jobs.choosing import find_model
from facecnn.jobs.stderr import StderrConsole
from facecnn.parallel import current_ranks
from facecnn.reports.findings import profile_rows, several_faces


@dataclass(frozen=True)
class RunOptions:
    """Where the run goes, and what it starts from."""

    out: OutOption = DEFAULT_OUT
    name: Annotated[str | None, typer.Option(help="The run's name; by default made from date and config.")] = None
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run of that name.")] = False
    resume: Annotated[Path | None, typer.Option(help="Resume an interrupted run, with the same result.")] = None
    init_from: Annotated[
        Path | None,
        typer.Option(metavar="MODEL", help="Start from the weights of another run, or model file, where they fit."),
    ] = None
    validation: Annotated[Path | None, typer.Option(help="A second folder of people, to judge by.")] = None
    track: TrackOption = False


@common.command
def train(
    console: StderrConsole,
    *,
    photos: PhotosArgument = None,
    settings: TrainingSettingsOptions,
    compute: ComputeOptions,
    run: RunOptions,
    overfit_batch: Annotated[
        bool, typer.Option("--overfit-batch", help="Only check that the network can learn one batch by heart.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Do everything up to the first step; write nothing.")
    ] = False,
    profile: Annotated[bool, typer.Option("--profile", help="Time every layer, forward and backward.")] = False,
    strict: StrictOption = False,
    format: FormatOption = "text",
) -> None:
    """Train a network on a folder of photos."""
    from facecnn.jobs.training import rehearsal
    from facecnn.jobs.training.options import TrainOptions
    from facecnn.jobs.training.train import train as job

    ranks = current_ranks()
    _refuse_contradictions(settings, run, overfit_batch, dry_run, profile)
    common.require(
        ranks.size == 1 or not (overfit_batch or dry_run),
        "--overfit-batch and --dry-run aren't shared among ranks: start facecnn without the MPI launcher",
    )
    loaded = settings.read()
    options = TrainOptions(
        photos=photos,
        label=Path(settings.config).stem,
        out=run.out,
        name=run.name,
        overwrite=run.overwrite,
        resume=run.resume,
        init_from=None if run.init_from is None else find_model(run.init_from, run.out, console),
        validation=run.validation,
        device=compute.device,
        threads=compute.threads,
        strict=strict,
        profile=profile,
        track=run.track,
    )
    if dry_run:
        result, describe = rehearsal.dry_run(loaded, options, console), _describe_plan
    elif overfit_batch:
        result, describe = rehearsal.overfit_batch(loaded, options, console), _describe_overfit
    else:
        result, describe = job(loaded, options, console, ranks), _describe_run
    common.print_result(result, format, describe)


def _refuse_contradictions(
    settings: TrainingSettingsOptions, run: RunOptions, overfit_batch: bool, dry_run: bool, profile: bool
) -> None:
    """Raise UsageError for options that don't go together."""
    common.require(not (overfit_batch and dry_run), "--overfit-batch and --dry-run: one of them, please")
    common.require(
        not (overfit_batch and run.init_from), "--overfit-batch starts from fresh weights: leave --init-from out"
    )
    common.require(
        not (run.track and (overfit_batch or dry_run)),
        "--track follows a training: leave it out here",
    )
    common.require(not (profile and (overfit_batch or dry_run)), "--profile times training: leave it out here")
    if run.resume is not None:
        given = {
            **settings.given(),
            "--out": run.out != DEFAULT_OUT,
            "--name": run.name,
            "--overwrite": run.overwrite,
            "--init-from": run.init_from,
            "--validation": run.validation,
            "--overfit-batch": overfit_batch,
            "--dry-run": dry_run,
        }
        common.refuse_given(given, "--resume goes on with the run's own settings")


def _describe_run(result: dict[str, Any]) -> str:
    rows = []
    for side, what in (("train", "trained on"), ("validation", "held out")):
        figures, photos = result[side], result["photos"][side]
        known, unknown = figures["known"], figures["unknown"]
        loss = number(figures["loss"])
        rows.append(
            f"  {what:<22}{known['photos']:>7}{percent(figures['accuracy']):>13}{known['refused']:>9}"
            f"{known['named_wrong']:>13}{loss if photos else '-':>9}"
        )
        if unknown is not None:
            rows.append(
                f"  {what + ', strangers':<22}{unknown['photos']:>7}{'':13}{unknown['refused']:>9}"
                f"{unknown['named']:>13}"
            )
    held_out = result["validation"]
    if held_out["accuracy"] is not None:
        low, high = held_out["interval"]
        several = several_faces(held_out, "held out")
        rows += [
            *([] if several is None else ["", f"  {several}"]),
            "",
            f"  on other photos like those held out, expect {100 * low:.1f} to {percent(high)} to be named right",
            f"  closed_set_accuracy (likeliest person, nobody refused): {percent(held_out['closed_set_accuracy'])}",
        ]
    made = f"Made from the photos' embeddings in {result['seconds']:.1f} s: nothing had to be trained."
    lines = [
        made
        if result["by_embeddings"]
        else f"Trained {result['epochs']} epoch{'s' if result['epochs'] > 1 else ''} in {result['seconds']:.0f} s "
        f"({result['photos_per_second']:.0f} photos/s); the best was epoch {result['best_epoch']}.",
        "",
        f"  {'':22}{'photos':>7}{'named right':>13}{'refused':>9}{'named wrong':>13}{'loss':>9}",
        *rows,
    ]
    if changes := [f"{100 * change:.0f} % ({name})" for name, change in result["kernel_change"].items()]:
        lines += ["", f"  kernels moved by {', '.join(changes)} of their norm"]
    for key, what in (("dead_kernels", "got no error to learn from"), ("asleep_kernels", "hardly moved")):
        if result[key]:
            lines.append(f"  kernels that {what}: {', '.join(result[key])}")
    if "milliseconds" in result:
        lines += ["", *_profile_table(result["milliseconds"])]
    run = f"Run: {shown(result['run'])} (model: best.safetensors"
    if (Path(result["run"]) / "curves.png").exists():
        lines += [
            "",
            f"{run}; pictures: curves, confusion, kernels,",
            "  patches, watching, and how the kernels developed: kernels.gif)",
        ]
    else:
        lines += ["", f"{run})"]
    return "\n".join(lines)


def _profile_table(milliseconds: dict[str, float]) -> list[str]:
    """Lines for 80 columns: a row for each layer, a column for each pass through it."""
    titles = ("once", "forward", "to weights", "to input", "in all")
    rows = [("milliseconds a step", titles), *profile_rows(milliseconds)]
    return [f"  {layer:20}" + "".join(f"{cell:>11}" for cell in cells) for layer, cells in rows]


def _describe_overfit(result: dict[str, Any]) -> str:
    return f"Learned {result['photos']} photos by heart: loss {result['loss']:.4f} after {result['steps']} steps."


def _describe_plan(result: dict[str, Any]) -> str:
    lines = [f"Would train {result['epochs']} epochs, {result['steps']} steps of {result['batch_size']} photos."]
    lines += common.layer_table(result["layers"])
    lines.append(f"Memory: about {megabytes(result['training_bytes'])} besides photos and libraries.")
    return "\n".join(lines)
