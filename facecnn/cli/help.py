"""``facecnn help``."""

from difflib import get_close_matches
from typing import Annotated, Any

import typer

from facecnn.cli import common
from facecnn.errors import UsageError, shown
from facecnn.jobs.stderr import StderrConsole


@common.command
def help(
    console: StderrConsole,
    context: typer.Context,
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[COMMAND]...", help="A command, such as train or data check.")
    ] = None,
) -> None:
    """Show the help of a command."""
    asked: Any = context.find_root()
    for word in words or []:
        commands = getattr(asked.command, "commands", {})
        if word not in commands:
            near = get_close_matches(word, commands, n=1)
            hint = f"did you mean {near[0]}?" if near else f"{asked.command_path} -h lists what there is"
            raise UsageError(f"{asked.command_path} {shown(word)}: no such command: {hint}")
        asked = type(context)(commands[word], info_name=word, parent=asked)
    common.print_text(asked.command.get_help(asked))
