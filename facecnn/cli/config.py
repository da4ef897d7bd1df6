"""``facecnn config``: show and check settings files."""

from pathlib import Path
from typing import Annotated

import typer

from facecnn.cli import common
from facecnn.cli.options import SettingsOptions
from facecnn.jobs.stderr import StderrConsole

app = typer.Typer(no_args_is_help=True, help="Show and check settings files.")


@app.command()
@common.command
def show(
    console: StderrConsole,
    settings: SettingsOptions,
    plot: Annotated[Path | None, typer.Option(help="Draw the learning-rate schedule to this PNG file.")] = None,
) -> None:
    """Print a settings file with every option and what it means."""
    from facecnn.config import to_yaml

    resolved = settings.read().settings
    if plot is not None:
        from facecnn.jobs.schedule import draw

        draw(resolved, plot)
    common.print_text(to_yaml(resolved))


@app.command()
@common.command
def schema(console: StderrConsole) -> None:
    """Print the JSON schema of the settings file, for editors."""
    from facecnn.config import json_schema
    from facecnn.config.sweep import SCHEMA

    schema = json_schema()
    common.print_json({**schema, "properties": {**schema["properties"], "sweep": SCHEMA}})


@app.command(short_help="Check a settings file, and print the layers.")
@common.command
def check(
    console: StderrConsole,
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="A settings file, or the name of a shipped one.")],
) -> None:
    """Check a settings file, and print the layers with their shapes for two people."""
    from facecnn.config import load
    from facecnn.config.sweep import ranges_in
    from facecnn.network.size import layer_rows

    loaded = load(config)
    if loaded.sweep is not None:
        ranges_in(loaded)
    common.print_text("\n".join(common.layer_table(layer_rows(loaded.plan(outputs=2)))))
