"""The command line: a module for each command, which reads the arguments, calls a job and prints the result.

Nothing heavy is imported before a command runs, so that ``facecnn --help`` is fast.
"""

import sys
from typing import Annotated

import typer

from facecnn import __version__
from facecnn.cli import (
    add,
    common,
    config,
    cross_validate,
    data,
    doctor,
    evaluate,
    export,
    forget,
    gradcheck,
    group,
    help,
    inspect,
    lr_find,
    predict,
    report,
    runs,
    sort,
    sweep,
    train,
)
from facecnn.cli.ranks import run_among_ranks
from facecnn.errors import OutputError, shown
from facecnn.jobs.signals import StopAtOnce, Stopped, ignore_signals

app = typer.Typer(
    name="facecnn",
    help="Train a small convolutional network to tell people's faces apart, and ask it who is in a photo.",
    # \b keeps Typer from wrapping these lines, which would split --fail-under.
    epilog="\b\n"
    "Exit codes: 0 done; 1 internal error; 2 usage or config; 3 photos;\n"
    "4 checkpoint; 5 device; 6 output could not be written, or --strict or\n"
    "--fail-under not met; 7 training diverged; 129, 130, 143 after a signal.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("train")(train.train)
app.command("eval")(evaluate.evaluate)
app.command("predict")(predict.predict)
app.command("sort")(sort.sort)
app.command("add", short_help="Add a person to a model, from one or more photos.")(add.add)
app.command("forget", short_help="Remove a person from a model, the runs and the caches.")(forget.forget)
app.command("group", short_help="Find the people in an unsorted album.")(group.group)
app.command("cross-validate", short_help="Train several times and judge by the photos left out.")(
    cross_validate.cross_validate
)
app.command("sweep", short_help="Search for the best settings.")(sweep.sweep)
app.command("gradcheck", short_help="Check every gradient of a config's network.")(gradcheck.gradcheck)
app.command("lr-find", short_help="Find a learning rate.")(lr_find.lr_find)
app.command("inspect")(inspect.inspect)
app.command("report")(report.report)
app.command("export", short_help="Write a model as ONNX or NumPy arrays.")(export.export)
app.command("doctor", short_help="Check the installation, and test kernels.")(doctor.doctor)
app.add_typer(runs.app, name="runs", short_help="List, compare, pin and delete runs.")
app.add_typer(data.app, name="data")
app.add_typer(config.app, name="config")
app.command("help")(help.help)


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"facecnn {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """The console script."""
    stdout = sys.stdout
    try:
        with StopAtOnce():
            run_among_ranks(app)
    except Stopped as stopped:
        sys.exit(128 + stopped.number)
    except SystemExit as end:
        if end.code == 1 and sys.stdout is not stdout:  # Click's way to end when the reader of --help is gone
            sys.exit(common.BROKEN_PIPE)
        raise
    except OSError as error:  # from --help, --version and --install-completion: commands handle their own
        common.drop_output()
        where = "standard output" if error.filename is None else shown(error.filename)
        sys.stderr.write(f"error: {where}: {error.strerror}\n")
        sys.exit(OutputError.exit_code)
    finally:
        ignore_signals()  # the exit code is decided; another Ctrl-C mustn't change it
