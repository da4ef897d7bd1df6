"""``facecnn config``: look at settings without training."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Show and check settings files.")


@app.command()
def show(
    config: Annotated[
        str, typer.Option("--config", "-c", help="A settings file, or the name of a shipped one.")
    ] = "default",
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Replace a setting: train.epochs=30.")
    ] = None,
) -> None:
    """Print a settings file with every option and what it means."""
    from facecnn.config import apply_overrides, load, to_yaml

    typer.echo(to_yaml(apply_overrides(load(config), overrides or []).settings), nl=False)


@app.command()
def schema() -> None:
    """Print the JSON schema of the settings file, for editors."""
    import json

    from facecnn.config import json_schema

    typer.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))


@app.command()
def check(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="A settings file, or the name of a shipped one.")],
) -> None:
    """Check a settings file, and print the layers with their shapes for two people."""
    from math import prod

    from facecnn.config import load
    from facecnn.network.layers import shape_text

    stages = load(config).plan(outputs=2)
    typer.echo(f"{'layer':14} {'input':18} {'output':18} {'parameters':>10} {'multiply-adds':>13}")
    parameters = [sum(prod(parameter.shape) for parameter in stage.parameters.values()) for stage in stages]
    multiply_adds = [stage.layer.multiply_adds(stage.shape) for stage in stages]
    for stage, weights, work in zip(stages, parameters, multiply_adds, strict=True):
        shapes = f"{shape_text(stage.shape):18} {shape_text(stage.out_shape):18}"
        typer.echo(f"{stage.name:14} {shapes} {weights:10,} {work:13,}")
    typer.echo(f"{'in all':14} {'':18} {'':18} {sum(parameters):10,} {sum(multiply_adds):13,}")
