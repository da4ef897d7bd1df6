"""``facecnn train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from facecnn.cli import common
from facecnn.cli.common import (
    ConfigOption,
    DeviceOption,
    Format,
    FormatOption,
    OutOption,
    SetOption,
    ThreadsOption,
    megabytes,
    number,
    percent,
)
from facecnn.cli.console import StderrConsole
from facecnn.errors import shown
from facecnn.reports.findings import several_faces

PhotosArgument = Annotated[
    Path | None,
    typer.Argument(
        parser=common.path,
        metavar="PHOTOS",
        help="A folder with one folder of photos per person. Without it: data/photos where it exists, else two sample "
        "people.",
    ),
]
EpochsOption = Annotated[int | None, typer.Option(help="Passes over the photos (train.epochs, and no least_steps).")]
SeedOption = Annotated[int | None, typer.Option(help="Seed of all that is random (train.seed).")]
StrictOption = Annotated[bool, typer.Option("--strict", help="Fail where a photo is skipped or the data are doubtful.")]


@common.command
def train(
    console: StderrConsole,
    photos: PhotosArgument = None,
    config: ConfigOption = common.DEFAULT_CONFIG,
    overrides: SetOption = None,
    device: DeviceOption = "auto",
    epochs: EpochsOption = None,
    seed: SeedOption = None,
    threads: ThreadsOption = None,
    out: OutOption = common.DEFAULT_OUT,
    name: Annotated[str | None, typer.Option(help="The run's name; made of date and config unless said.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run of that name.")] = False,
    resume: Annotated[Path | None, typer.Option(help="Go on with an interrupted run, to the same result.")] = None,
    init_from: Annotated[
        Path | None,
        typer.Option(metavar="MODEL", help="Start from the weights of another run, or model file, where they fit."),
    ] = None,
    validation: Annotated[Path | None, typer.Option(help="A second folder of people, to judge by.")] = None,
    overfit_batch: Annotated[
        bool, typer.Option("--overfit-batch", help="Only check that the network can learn one batch by heart.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Everything up to the first step; write nothing.")] = False,
    profile: Annotated[bool, typer.Option("--profile", help="Time every layer, forward and backward.")] = False,
    strict: StrictOption = False,
    format: FormatOption = Format.text,
) -> None:
    """Train a network on a folder of photos."""
    from facecnn.jobs.training import rehearsal
    from facecnn.jobs.training.options import TrainOptions
    from facecnn.jobs.training.train import train as job

    common.require(not (overfit_batch and dry_run), "--overfit-batch and --dry-run: one of them, please")
    common.require(
        not (overfit_batch and init_from), "--overfit-batch starts from fresh weights: leave --init-from out"
    )
    common.require(not (profile and (overfit_batch or dry_run)), "--profile times a training: leave it out here")
    if resume is not None:
        given = {
            "--config": config != common.DEFAULT_CONFIG,
            "--set": overrides,
            "--seed": seed is not None,
            "--epochs": epochs is not None,
            "--out": out != common.DEFAULT_OUT,
            "--name": name,
            "--overwrite": overwrite,
            "--init-from": init_from,
            "--validation": validation,
            "--overfit-batch": overfit_batch,
            "--dry-run": dry_run,
        }
        common.refuse_given(given, "--resume goes on with the run's own settings")
    loaded = common.read_settings(config, overrides, setting_options(epochs, seed))
    options = TrainOptions(
        photos=photos,
        label=Path(config).stem,
        out=out,
        name=name,
        overwrite=overwrite,
        resume=resume,
        init_from=None if init_from is None else common.find_model(init_from, out, console),
        validation=validation,
        device=device,
        threads=threads,
        strict=strict,
        profile=profile,
    )
    if dry_run:
        result, describe = rehearsal.dry_run(loaded, options, console), _describe_plan
    elif overfit_batch:
        result, describe = rehearsal.overfit_batch(loaded, options, console), _describe_overfit
    else:
        result, describe = job(loaded, options, console), _describe_run
    common.print_result(result, format, describe)


def setting_options(epochs: int | None, seed: int | None) -> dict[str, tuple[str, object]]:
    """The options that stand for a setting, as ``apply_overrides`` takes them."""
    options: dict[str, tuple[str, object]] = {}
    if epochs is not None:
        options["--epochs"] = ("train.epochs", epochs)
        options["--epochs (least_steps)"] = ("train.least_steps", 0)
    if seed is not None:
        options["--seed"] = ("train.seed", seed)
    return options


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
    lines = [
        f"Trained {result['epochs']} epoch{'s' if result['epochs'] > 1 else ''} in {result['seconds']:.0f} s "
        f"({result['photos_per_second']:.0f} photos/s); the best was epoch {result['best_epoch']}.",
        "",
        f"  {'':22}{'photos':>7}{'named right':>13}{'refused':>9}{'named wrong':>13}{'loss':>9}",
        *rows,
        "",
        "  kernels moved by "
        + ", ".join(f"{100 * change:.0f} % ({name})" for name, change in result["kernel_change"].items())
        + " of their norm",
    ]
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
            "  patches, watching, and how the kernels came about: kernels.gif)",
        ]
    else:
        lines += ["", f"{run})"]
    return "\n".join(lines)


def _profile_table(milliseconds: dict[str, float]) -> list[str]:
    """Lines for 80 columns: a row for each layer, a column for each way through it."""
    ways = {"": "once", "forward": "forward", "backward_weight": "to weights", "backward": "to input"}
    rows: dict[str, dict[str, float]] = {}
    for place, value in milliseconds.items():
        layer, _, way = place.partition(" ")
        rows.setdefault(layer, {})[way] = value
    lines = [f"  {'milliseconds a step':20}" + "".join(f"{title:>11}" for title in (*ways.values(), "in all"))]
    for layer, values in rows.items():
        cells = "".join(f"{values[way]:11.3f}" if way in values else " " * 11 for way in ways)
        lines.append(f"  {layer:20}{cells}{sum(values.values()):11.3f}")
    sums = [sum(values.get(way, 0.0) for values in rows.values()) for way in ways]
    return [*lines, f"  {'in all':20}" + "".join(f"{value:11.3f}" for value in (*sums, sum(sums)))]


def _describe_overfit(result: dict[str, Any]) -> str:
    return f"Learned {result['photos']} photos by heart: loss {result['loss']:.4f} after {result['steps']} steps."


def _describe_plan(result: dict[str, Any]) -> str:
    lines = [f"Would train {result['epochs']} epochs, {result['steps']} steps of {result['batch_size']} photos."]
    lines += common.layer_table(result["layers"])
    lines.append(f"Memory: about {megabytes(result['training_bytes'])} besides photos and libraries.")
    return "\n".join(lines)
