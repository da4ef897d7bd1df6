"""What all commands share: how they run and fail, how they print, and what they check and format alike."""

import functools
import inspect
import io
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from facecnn.cli.options import Format
from facecnn.errors import FacecnnError, InterruptedTraining, OutputError, UsageError, shown
from facecnn.jobs.environment import check_environment, package_error
from facecnn.jobs.signals import StopAtOnce, Stopped
from facecnn.jobs.stderr import StderrConsole, fitted
from facecnn.parallel import current_ranks
from facecnn.reports.findings import counted

BROKEN_PIPE = 141
"""Exit code if the reader of the output has gone: what a shell shows for a program that SIGPIPE ended."""

_COMMON_OPTIONS = {
    "quiet": Annotated[bool, typer.Option("--quiet", "-q", help="Only warnings and errors on stderr.")],
    "verbose": Annotated[
        bool,
        typer.Option(
            "--verbose", "-v", help="Show more: each epoch; in data check each note; in doctor --warm each kernel."
        ),
    ],
    "traceback": Annotated[bool, typer.Option("--traceback", help="Show the Python traceback of an error.")],
}


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Make a Typer command of a function.

    The command has ``--quiet``, ``--verbose`` and ``--traceback`` besides the function's parameters, and an option for
    each field of a parameter whose type is a dataclass. Exceptions become messages and exit codes.

    ``function`` takes the console as its first argument.
    """
    own = inspect.signature(function, eval_str=True)
    parameters = list(own.parameters.values())[1:]
    groups: dict[str, Any] = {
        parameter.name: parameter.annotation for parameter in parameters if is_dataclass(parameter.annotation)
    }

    @functools.wraps(function)
    def run(*, quiet: bool = False, verbose: bool = False, traceback: bool = False, **arguments: Any) -> None:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # None if the caller closed it
                # Any name can be printed, whatever the locale's encoding.
                stream.reconfigure(errors="backslashreplace")
        for name, group in groups.items():
            arguments[name] = group(**{field.name: arguments.pop(field.name) for field in fields(group)})
        try:
            check_environment()
            quiet = quiet or current_ranks().rank > 0
            with StopAtOnce(), StderrConsole(quiet=quiet, verbose=verbose) as console:
                function(console, **arguments)
        except Stopped as stopped:
            typer.echo("Stopped.", err=True)
            raise typer.Exit(128 + stopped.number) from None
        except typer.Exit:
            raise
        except BrokenPipeError:
            drop_output()
            raise typer.Exit(BROKEN_PIPE) from None
        except Exception as error:
            explained = _explained(error)
            _show(explained, traceback)
            raise typer.Exit(explained.exit_code) from None

    options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)
        for name, annotation in _COMMON_OPTIONS.items()
    ]
    signature = own.replace(parameters=[*_without_groups(parameters, groups), *options])
    run.__signature__ = signature  # type: ignore[attr-defined]
    run.__annotations__ = {name: parameter.annotation for name, parameter in signature.parameters.items()}
    return run


def _without_groups(parameters: list[inspect.Parameter], groups: Mapping[str, Any]) -> Iterator[inspect.Parameter]:
    """The parameters as keywords, with the fields of each group in the place of the group."""
    for parameter in parameters:
        group = groups.get(parameter.name)
        fields_of_group = inspect.signature(group, eval_str=True).parameters.values() if group else [parameter]
        for field in fields_of_group:
            yield field.replace(kind=inspect.Parameter.KEYWORD_ONLY)


def _explained(error: Exception) -> FacecnnError:
    """The error with a message for the user."""
    if isinstance(error, FacecnnError):
        return error
    if isinstance(error, MemoryError):
        return FacecnnError(f"Not enough memory ({error}): close other programs, or use a smaller network")
    package = package_error(error) if isinstance(error, ImportError) else None
    reason = f"{type(error).__name__}: {error}"
    return package or FacecnnError(f"internal error: {reason}\nThis is a bug in facecnn; --traceback shows where.")


def _show(error: FacecnnError, traceback: bool) -> None:
    if traceback:
        import traceback as tracebacks

        typer.echo(tracebacks.format_exc(), err=True)
    # The message of interrupted training holds a command that should be copied as one line.
    typer.echo(str(error) if isinstance(error, InterruptedTraining) else fitted(f"error: {error}"), err=True)


def print_result(result: Any, format: Format, describe: Callable[[Any], str]) -> None:
    """Print a result on stdout, as JSON or as the text that ``describe`` makes of it. Of several ranks, only 0 does."""
    if current_ranks().rank:
        return
    if format == "json":
        print_json(result)
    else:
        print_text(describe(result))


def print_json(result: Any) -> None:
    """Print one strict JSON document on stdout, in ASCII, so that any file name survives."""
    print_text(json.dumps(result, indent=2, allow_nan=False))


def print_text(text: str) -> None:
    """Print text on stdout, with one newline at its end. Raises OutputError if stdout can't be written to."""
    try:
        typer.echo(text, nl=not text.endswith("\n"))
    except BrokenPipeError:
        raise
    except OSError as error:
        drop_output()
        raise OutputError(f"standard output: {error.strerror}: nothing, or only a part, was written") from error


def agreed(command: str, runs: int, question: str, listed: str = "") -> bool:
    """Whether the user at the terminal agrees to delete ``runs`` runs, which may be ``listed`` first.

    Raises UsageError if there is no terminal.
    """
    if sys.stdin is None or not sys.stdin.isatty():
        raise UsageError(f"{command}: {counted(runs, 'run')} to delete, and no terminal to ask on: add --yes")
    if listed:
        typer.echo(listed, err=True)
    try:
        return typer.confirm(question, err=True)
    except typer.Abort:
        return False


def drop_output() -> None:
    """Discard what is left in stdout's buffer: Python would try to write it again at exit, and print a traceback."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def one_of(option: Path | None, argument: Path | None, what: str) -> Path | None:
    """The value of ``-m`` or of the argument. Raises UsageError if both are given."""
    require(option is None or argument is None, f"{shown(argument or '')}: {what} is given by -m already")
    return argument if option is None else option


def percent(share: float | None) -> str:
    """``97.6 %``, or ``-`` for None."""
    return "-" if share is None else f"{100 * share:.1f} %"


def number(value: float | None) -> str:
    """A number for a table, or ``-`` for None."""
    return "-" if value is None else f"{value:.4f}"


def megabytes(size: int) -> str:
    """``0.004 MB``, ``41 MB``: two digits at least, above a kilobyte."""
    millions = size / 1e6 if size >= 1000 else 0
    return f"{millions:,.0f} MB" if millions >= 10 else f"{millions:.2g} MB"


def layer_table(layers: list[dict[str, Any]]) -> list[str]:
    """The lines of a table of ``facecnn.network.size.layer_rows`` with the totals, for 80 columns."""
    from facecnn.network.layers import shape_text

    lines = [f"{'layer':14} {'input':18} {'output':18} {'parameters':>10} {'multiply-adds':>13}"]
    for layer in layers:
        shapes = [shape_text(tuple(layer[key])) for key in ("input", "output")]
        figures = f"{layer['parameters']:10,} {layer['multiply_adds']:13,}"
        lines.append(f"{layer['name']:14} {shapes[0]:18} {shapes[1]:18} {figures}")
    parameters, work = (sum(layer[key] for layer in layers) for key in ("parameters", "multiply_adds"))
    return [*lines, f"{'in all':14} {'':18} {'':18} {parameters:10,} {work:13,}"]


def refuse_given(options: Mapping[str, object], why: str) -> None:
    """Raise UsageError where any of the options is given."""
    given = [option for option, is_given in options.items() if is_given]
    require(not given, f"{why}, so {', '.join(given)} can't be given")


def require(condition: bool, message: str) -> None:
    """Raise UsageError unless the condition holds."""
    if not condition:
        raise UsageError(message)
