"""``facecnn config``: look at settings without training."""

from __future__ import annotations

from typing import Annotated

import typer

from facecnn.cli import common
from facecnn.cli.common import ConfigOption, SetOption
from facecnn.cli.console import StderrConsole

app = typer.Typer(no_args_is_help=True, help="Show and check settings files.")


@app.command()
@common.command
def show(console: StderrConsole, config: ConfigOption = common.DEFAULT_CONFIG, overrides: SetOption = None) -> None:
    """Print a settings file with every option and what it means."""
    from facecnn.config import to_yaml

    common.print_text(to_yaml(common.read_settings(config, overrides, {}).settings))


@app.command()
@common.command
def schema(console: StderrConsole) -> None:
    """Print the JSON schema of the settings file, for editors."""
    from facecnn.config import json_schema

    common.print_json(json_schema())


@app.command()
@common.command
def check(
    console: StderrConsole,
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="A settings file, or the name of a shipped one.")],
) -> None:
    """Check a settings file, and print the layers with their shapes for two people."""
    from math import prod

    from facecnn.config import load
    from facecnn.network.layers import shape_text

    stages = load(config).plan(outputs=2)
    lines = [f"{'layer':14} {'input':18} {'output':18} {'parameters':>10} {'multiply-adds':>13}"]
    parameters = [sum(prod(parameter.shape) for parameter in stage.parameters.values()) for stage in stages]
    multiply_adds = [stage.layer.multiply_adds(stage.shape) for stage in stages]
    for stage, weights, work in zip(stages, parameters, multiply_adds, strict=True):
        shapes = f"{shape_text(stage.shape):18} {shape_text(stage.out_shape):18}"
        lines.append(f"{stage.name:14} {shapes} {weights:10,} {work:13,}")
    lines.append(f"{'in all':14} {'':18} {'':18} {sum(parameters):10,} {sum(multiply_adds):13,}")
    common.print_text("\n".join(lines))
