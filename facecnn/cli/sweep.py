"""``facecnn sweep``."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from facecnn.cli import common
from facecnn.cli.common import number, percent
from facecnn.cli.options import (
    ComputeOptions,
    FormatOption,
    OverridesOption,
    PhotosArgument,
    StrictOption,
    TrainingSettingsOptions,
    path,
)
from facecnn.errors import shown
from facecnn.jobs.stderr import StderrConsole, paragraph
from facecnn.parallel import current_ranks


@dataclass(frozen=True)
class SearchOptions:
    """How much to search, and where."""

    trials: Annotated[int, typer.Option(min=1, max=10_000, help="Total number of settings to try.")]
    folds: Annotated[int, typer.Option(help="Training runs per trial, each leaving out different photos.")] = 3
    outer_folds: Annotated[
        int,
        typer.Option(help="How often to repeat the search without part of the photos, to judge it; 0: never."),
    ] = 3
    processes: Annotated[int, typer.Option(help="Processes that share the processor's threads.")] = 1
    out: Annotated[Path, typer.Option("--out", parser=path, metavar="DIR", help="The folder for sweeps.")] = Path(
        "sweeps"
    )
    name: Annotated[str | None, typer.Option(help="The sweep's name; by default made from date and config.")] = None
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the sweep of that --name, with no trial lost or repeated.")
    ] = False
    track: Annotated[
        bool, typer.Option("--track", help="Also write the trials for TensorBoard, into the sweep's tensorboard/.")
    ] = False


@dataclass(frozen=True)
class ChangeOptions:
    """Changes to the settings from which trials start."""

    overrides: OverridesOption = None
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the photos (train.epochs; least_steps becomes 0).")
    ] = None
    seed: Annotated[int | None, typer.Option(help="Random seed, also of the search (train.seed).")] = None


@common.command
def sweep(
    console: StderrConsole,
    *,
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="A settings file with a section sweep.")],
    photos: PhotosArgument = None,
    search: SearchOptions,
    changes: ChangeOptions,
    compute: ComputeOptions,
    strict: StrictOption = False,
    format: FormatOption = "text",
) -> None:
    """Search for the best settings, in the ranges of the config's section sweep.

    Each trial is a cross-validation, which ends early if it goes badly. docs/SWEEP.md explains ranges and figures.
    """
    from facecnn.jobs.sweep.sweep import SweepOptions
    from facecnn.jobs.sweep.sweep import sweep as job
    from facecnn.jobs.training.options import TrainOptions

    common.require(not search.resume or search.name is not None, "--resume: give the --name of the sweep, too")
    settings = TrainingSettingsOptions(config, changes.overrides, changes.seed, changes.epochs)
    options = TrainOptions(
        photos=photos,
        label=Path(config).stem,
        out=search.out,
        name=search.name,
        device=compute.device,
        threads=compute.threads,
        strict=strict,
    )
    plan = SweepOptions(search.trials, search.folds, search.outer_folds, search.processes, search.resume, search.track)
    common.print_result(job(settings.read(), options, plan, console, current_ranks()), format, _describe)


def _describe(result: dict[str, Any]) -> str:
    trials, best, nested = result["trials"], result["best"], result["nested"]
    complete = sum(trial["state"] == "complete" for trial in trials)
    importance = result["importance"] or {}
    lines = [f"{len(trials)} trials, {complete} completed, {len(trials) - complete} ended early", ""]
    lines.append(f"  {'best: trial ' + str(best['number']):34}{'value':>14}{'importance':>14}")
    for key, value in best["parameters"].items():
        text = f"{value:.4g}" if isinstance(value, float) else json.dumps(value)
        lines.append(f"  {shown(key):34}{text:>14}{percent(importance.get(key)):>14}")
    lines += [
        "",
        f"  {'':34}{'closed-set':>14}{'log loss':>14}",
        f"  {'its own score, chosen by it':34}{percent(best['closed_set_accuracy']):>14}{number(best['log_loss']):>14}",
    ]
    if nested is None:
        lines += ["", paragraph("How good it is on other photos wasn't measured (--outer-folds 0).")]
    else:
        low, high = nested["interval"]
        lines += [
            f"  {'photos that the search never saw':34}{percent(nested['closed_set_accuracy']):>14}"
            f"{number(nested['log_loss']):>14}",
            f"  ({nested['photos']} photos in {len(nested['folds'])} outer folds, each with its own search; expect "
            f"{100 * low:.1f} to {percent(high)})",
        ]
    lines += ["", f"Config: {shown(result['config'])} (facecnn train PHOTOS -c {shown(result['config'])})"]
    if result["pictures"]:
        lines.append(f"Pictures: {', '.join(shown(Path(picture).name) for picture in result['pictures'])}")
    return "\n".join(lines)
