"""What all commands share: their options, how errors end them, where text goes."""

from __future__ import annotations

import functools
import inspect
import io
import json
import os
import sys
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from facecnn.cli.console import StderrConsole, fitted
from facecnn.cli.environment import check_environment, package_error
from facecnn.errors import FacecnnError, InterruptedTraining, OutputError, UsageError, shown
from facecnn.jobs.signals import StopAtOnce, Stopped

if TYPE_CHECKING:
    from facecnn.config import Loaded

DEFAULT_CONFIG = "default"
DEFAULT_OUT = Path("runs")

BROKEN_PIPE = 141
"""Exit code where the reader of the output has gone: what a shell shows for a program that SIGPIPE ended."""


class Format(StrEnum):
    """Formats of results."""

    text = "text"
    json = "json"


def path(text: str | Path) -> Path:
    """For ``parser=`` of an option or argument: a path. An empty text, as an unset variable of a shell gives, would be
    the current folder. Raises BadParameter."""
    if not str(text):
        raise typer.BadParameter("empty: give a name, or . for the current folder")
    return Path(text)


FormatOption = Annotated[Format, typer.Option("--format", help="Of the results on stdout.")]
ConfigOption = Annotated[
    str, typer.Option("--config", "-c", help="A settings file, or a shipped one: default, many, seed, deep, smoke.")
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting: train.epochs=20. Repeatable.")
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or reference.")]
ThreadsOption = Annotated[int | None, typer.Option(help="Processor threads; all there are unless said.")]
ModelOption = Annotated[
    Path | None,
    typer.Option(
        "--model",
        "-m",
        parser=path,
        metavar="MODEL",
        help="A run's folder or a .safetensors file; the pinned or newest finished run unless said.",
    ),
]
ThresholdOption = Annotated[
    str, typer.Option(help="Unknown-score beyond which a face is a stranger's: auto, off, or 0 to 1.")
]
OutOption = Annotated[Path, typer.Option("--out", parser=path, metavar="DIR", help="The folder that runs are made in.")]

_QUIET = Annotated[bool, typer.Option("--quiet", "-q", help="Only warnings and errors on stderr.")]
_VERBOSE = Annotated[
    bool, typer.Option("--verbose", "-v", help="Say more: a line an epoch; in data check, every note.")
]
_TRACEBACK = Annotated[bool, typer.Option("--traceback", help="Show the Python traceback of an error.")]


def command(function: Callable[..., None]) -> Callable[..., None]:
    """A command that takes ``console`` as its first argument: adds the options that are everywhere, makes the console
    of them, and turns exceptions into messages and exit codes."""

    @functools.wraps(function)
    def run(*, quiet: bool = False, verbose: bool = False, traceback: bool = False, **arguments: Any) -> None:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # None where the caller closed it
                # Any name can be printed, whatever the locale's encoding.
                stream.reconfigure(errors="backslashreplace")
        try:
            check_environment()
            with StopAtOnce(), StderrConsole(quiet=quiet, verbose=verbose) as console:
                function(console, **arguments)
        except FacecnnError as error:
            _show(error, traceback)
            raise typer.Exit(error.exit_code) from None
        except Stopped as stopped:
            typer.echo("Stopped.", err=True)
            raise typer.Exit(128 + stopped.number) from None
        except MemoryError as error:
            _show(
                FacecnnError(f"Not enough memory ({error}): close other programs, or take a smaller network"), traceback
            )
            raise typer.Exit(1) from None
        except typer.Exit:
            raise
        except BrokenPipeError:
            # Whoever reads the output has seen enough.
            drop_output()
            raise typer.Exit(BROKEN_PIPE) from None
        except Exception as error:
            package = package_error(error) if isinstance(error, ImportError) else None
            reason = f"{type(error).__name__}: {error}"
            _show(
                package
                or FacecnnError(f"internal error: {reason}\nThis is a mistake in facecnn; --traceback shows where."),
                traceback,
            )
            raise typer.Exit(1) from None

    own = inspect.signature(function, eval_str=True)
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)
        for name, annotation in (("quiet", _QUIET), ("verbose", _VERBOSE), ("traceback", _TRACEBACK))
    ]
    parameters = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in list(own.parameters.values())[1:]
    ]
    signature = own.replace(parameters=[*parameters, *shared])
    run.__signature__ = signature  # type: ignore[attr-defined]
    run.__annotations__ = {name: parameter.annotation for name, parameter in signature.parameters.items()}
    return run


def _show(error: FacecnnError, traceback: bool) -> None:
    if traceback:
        import traceback as tracebacks

        typer.echo(tracebacks.format_exc(), err=True)
    # What an interrupted training says holds a command, to be copied as one line.
    typer.echo(str(error) if isinstance(error, InterruptedTraining) else fitted(f"error: {error}"), err=True)


def print_result(result: Any, format: Format, describe: Callable[[Any], str]) -> None:
    """A result on stdout, as JSON or described in text."""
    if format is Format.json:
        print_json(result)
    else:
        print_text(describe(result))


def print_json(result: Any) -> None:
    """One JSON document on stdout; strict, in ASCII, so that any file name survives."""
    print_text(json.dumps(result, indent=2, allow_nan=False))


def print_text(text: str) -> None:
    """Results on stdout, ended by one line's end. Raises OutputError where it can't be written to."""
    try:
        typer.echo(text, nl=not text.endswith("\n"))
    except BrokenPipeError:
        raise
    except OSError as error:
        drop_output()
        raise OutputError(f"standard output: {error.strerror}: nothing, or only a part, was written") from error


def read_settings(config: str, overrides: list[str] | None, options: dict[str, tuple[str, object]]) -> Loaded:
    """The config with ``--set`` and the options that stand for a setting applied, in this order."""
    from facecnn.config import apply_overrides, load

    loaded = load(config)
    return apply_overrides(loaded, overrides or [], options) if overrides or options else loaded


def drop_output() -> None:
    """Send what is left in stdout's buffer nowhere: Python would try it again, with a traceback, when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def find_model(model: Path | None, out: Path, console: StderrConsole) -> Path:
    """The checkpoint that ``--model`` stands for; without it, which run answers is said where that may surprise."""
    from facecnn.runs.checkpoint import find_checkpoint
    from facecnn.runs.choice import resolve_model

    return find_checkpoint(find_run(out, console)) if model is None else resolve_model(model, out)


def find_run(out: Path, console: StderrConsole) -> Path:
    """The folder of the run that answers where none is named."""
    from facecnn.runs.choice import choose_run

    choice = choose_run(out)
    for remark in choice.remarks:
        console.warning(remark)
    return choice.run


def one_of(option: Path | None, argument: Path | None, what: str) -> Path | None:
    """What is given by ``-m`` or as an argument. Raises UsageError where both are."""
    require(option is None or argument is None, f"{shown(argument or '')}: {what} is given by -m already")
    return argument if option is None else option


def threshold(text: str) -> float | str:
    """What ``--threshold`` says. Raises UsageError."""
    if text in ("auto", "off"):
        return text
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise UsageError(f"--threshold {shown(text)}: auto, off, or a number from 0 to 1")
    return value


def percent(share: float | None) -> str:
    """``97.6 %``, or ``-`` where there is nothing to count."""
    return "-" if share is None else f"{100 * share:.1f} %"


def number(value: float | None, digits: int = 4) -> str:
    """A number for a table, or ``-``."""
    return "-" if value is None else f"{value:.{digits}f}"


def megabytes(size: int) -> str:
    """``0.004 MB``, ``41 MB``: two figures at least, above a kilobyte."""
    millions = size / 1e6 if size >= 1000 else 0
    return f"{millions:,.0f} MB" if millions >= 10 else f"{millions:.2g} MB"


def layer_table(layers: list[dict[str, Any]]) -> list[str]:
    """Lines for 80 columns, from ``facecnn.network.size.layer_rows``, with the sums at the end."""
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
