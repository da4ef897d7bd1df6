"""``facecnn cross-validate``."""

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
    SetOption,
    ThreadsOption,
    number,
    percent,
)
from facecnn.cli.console import StderrConsole
from facecnn.cli.train import EpochsOption, SeedOption, StrictOption, setting_options


@common.command
def cross_validate(
    console: StderrConsole,
    photos: Annotated[Path, typer.Argument(help="A folder with one folder of photos per person.")],
    folds: Annotated[int, typer.Option(help="Number of trainings, each of which leaves out other photos.")] = 5,
    config: ConfigOption = common.DEFAULT_CONFIG,
    overrides: SetOption = None,
    device: DeviceOption = "auto",
    epochs: EpochsOption = None,
    seed: SeedOption = None,
    threads: ThreadsOption = None,
    strict: StrictOption = False,
    format: FormatOption = Format.text,
) -> None:
    """Train several times, leaving out other photos each time, and judge by those."""
    from facecnn.jobs.cross_validate import cross_validate as job
    from facecnn.jobs.training_setup import TrainOptions

    loaded = common.read_settings(config, overrides, setting_options(epochs, seed))
    result = job(loaded, TrainOptions(photos=photos, device=device, threads=threads, strict=strict), folds, console)
    if format is Format.json:
        common.print_json(result)
    else:
        common.print_text(_describe(result))


def _describe(result: dict[str, Any]) -> str:
    lines = ["  fold   photos   accuracy   log loss   kernels moved   seconds"]
    for fold, row in enumerate(result["folds"], start=1):
        moved = min(row["kernel_change"].values(), default=None)
        lines.append(
            f"  {fold:>4}{row['photos']:>9}{percent(row['accuracy']):>11}{number(row['log_loss']):>11}"
            f"{percent(moved):>16}{row['seconds']:>10.1f}"
        )
    lines.append("  (kernels moved: of the layer that moved least, in parts of their first norm)")
    lines += ["", f"  mean {percent(result['mean'])}, standard deviation {percent(result['std'])}"]
    return "\n".join(lines)
