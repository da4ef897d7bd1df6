"""Arguments, messages and errors of scripts, like those of facecnn's commands."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from facecnn.errors import FacecnnError
from facecnn.runs.atomic import check_output


@contextmanager
def exit_on_error() -> Iterator[None]:
    """End the script on a FacecnnError, with its message on stderr and its exit code. Also a decorator."""
    try:
        yield
    except FacecnnError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None


def commit() -> str:
    """The commit of this checkout, with a + if files differ from it; "unknown" outside a repository."""
    git = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        done = subprocess.run(git, cwd=Path(__file__).parent, capture_output=True, text=True)
    except FileNotFoundError:
        return "unknown"
    return done.stdout.strip() or "unknown"


def say(text: str) -> None:
    """Print a line of progress, at once."""
    print(text, file=sys.stderr, flush=True)


def parser(description: str | None, picture: str | None = None) -> argparse.ArgumentParser:
    """A parser that shows the description as it is written.

    Args:
        description: Usually the script's docstring.
        picture: If given, the parser has ``--output``, a PNG file to write, and this is its default.
    """
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    if picture is not None:
        made.add_argument("--output", type=new_file, default=picture, help=f"the picture, PNG (default: {picture})")
    return made


def add_config(arguments: argparse.ArgumentParser) -> None:
    """Add ``--config`` and ``--set``, as facecnn's commands have them."""
    arguments.add_argument("-c", "--config", default="default", help="(default: default)")
    arguments.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting")


def new_file(text: str) -> Path:
    """For ``type=`` of an argument: a file that can be written. Raises OutputError, before any work is done."""
    check_output(Path(text))
    return Path(text)


def at_least(least: int) -> Callable[[str], int]:
    """For ``type=`` of an argument: an integer of ``least`` or more."""

    def number(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{text} is less than {least}")
        return value

    return number
