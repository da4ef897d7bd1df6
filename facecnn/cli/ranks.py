"""The command line of one of several ranks: rank 0 prints, and all end with the same exit code."""

from __future__ import annotations

import io
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn

from facecnn.errors import UsageError, shown
from facecnn.jobs.signals import Stopped, ignore_signals
from facecnn.parallel import become
from facecnn.parallel.launcher import SWITCH, Launched, launched, time_limit

if TYPE_CHECKING:  # mpi4py and NumPy are only loaded where an MPI launcher has started several processes
    from facecnn.parallel.mpi import MpiRanks

_SHARED = ("train", "predict", "sort", "group", "cross-validate", "sweep")
"""Commands whose work ranks share."""


def run_among_ranks(run: Callable[[], object]) -> None:
    """Run the command line, as one of the ranks if a launcher has started several processes.

    Raises SystemExit, with the largest exit code of all ranks.
    """
    found = None
    try:
        found = launched()
        if found is None:
            run()
            return
        _check_shared(sys.argv[1:], found)
        ranks = _start(found)
    except UsageError as error:
        if found is None or found.rank == 0:
            sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)
    become(ranks)
    _run_as(ranks, run)


def _check_shared(arguments: Sequence[str], found: Launched) -> None:
    """Raise UsageError for a command that several processes would each run by themselves."""
    command = next((argument for argument in arguments if not argument.startswith("-")), None)
    if command not in (None, "help", *_SHARED):
        raise UsageError(
            f"{found.launcher} has started {found.size} processes, but {shown(str(command)[:80])} doesn't share its "
            f"work among them, as {', '.join(_SHARED)} do: start it without {found.launcher} (or set {SWITCH}=off, and "
            "each of them runs it by itself)"
        )


def _start(found: Launched) -> MpiRanks:
    limit = time_limit()
    from facecnn.parallel.mpi import start

    return start(found, limit)


def _run_as(ranks: MpiRanks, run: Callable[[], object]) -> NoReturn:
    stdout, stderr = sys.stdout, sys.stderr
    kept = io.StringIO()
    if ranks.rank:
        sys.stdout, sys.stderr = open(os.devnull, "w"), kept  # noqa: SIM115, PTH123 (open to the end)
    code = 0
    try:
        run()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except Stopped as stopped:
        code = 128 + stopped.number
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        ignore_signals()  # the exit code is decided; all wait for each other
    if ranks.rank:
        sys.stdout, sys.stderr = stdout, stderr
    own = bool(code) and not ranks.other_failed
    ends = ranks.end(code, own)
    # Rank 0 reports what all ranks fail of.
    if ranks.rank and own and not (ends is not None and ends[0][1]):
        sys.stderr.write("".join(f"{ranks.name_of(ranks.rank)}: {line}\n" for line in kept.getvalue().splitlines()))
        sys.stderr.flush()
    if ends is None:
        ranks.abort(code)
    sys.exit(max(code for code, _ in ends))
