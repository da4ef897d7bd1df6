"""``facecnn runs``: list, compare, pin and delete runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from facecnn.cli import common
from facecnn.cli.common import megabytes, percent
from facecnn.cli.options import DEFAULT_OUT, FormatOption, OutOption, path
from facecnn.errors import shown
from facecnn.jobs.choosing import find_run
from facecnn.jobs.stderr import StderrConsole, paragraph
from facecnn.reports.findings import counted

if TYPE_CHECKING:
    from facecnn.reports.summary import Summary

WIDTH = 80
_SIDE_BY_SIDE = 4
"""Runs shown side by side in a comparison; the others follow below."""

app = typer.Typer(help="List, compare and delete runs, and choose the one that answers.", no_args_is_help=True)


def _complete(context: typer.Context, incomplete: str) -> list[str]:
    """Names of runs that begin with a text, for the shell's completion."""
    from facecnn.runs.choice import run_folders

    out = context.params.get("out") or DEFAULT_OUT
    return [run.name for run in run_folders(out) if run.name.startswith(incomplete)]


_RUN = {"parser": path, "metavar": "RUN", "autocompletion": _complete}


@app.command("list")
@common.command
def list_(console: StderrConsole, out: OutOption = DEFAULT_OUT, format: FormatOption = "text") -> None:
    """List the runs, the newest last."""
    from facecnn.reports.summary import summaries

    runs = summaries(out)
    if format == "json":
        common.print_json([asdict(run) for run in runs])
    elif runs:
        problems = [paragraph(run.problem) for run in runs if run.problem is not None]
        common.print_text("\n".join([*_table(runs), "", *problems, paragraph(_who_answers(out))]))
    else:
        common.print_text(f"No runs in {shown(out)}.")


@app.command()
@common.command
def show(
    console: StderrConsole,
    run: Annotated[
        Path | None, typer.Argument(help="Its name or folder; by default the run that answers.", **_RUN)
    ] = None,
    out: OutOption = DEFAULT_OUT,
    format: FormatOption = "text",
) -> None:
    """Show a run: people, photos, how good it is, and its settings. Its model is checked for damage."""
    from facecnn.jobs.runs import show as job
    from facecnn.runs.choice import named_run

    result = job(find_run(out, console) if run is None else named_run(run, out), out)
    common.print_result(result, format, _describe)


@app.command(short_help="Show runs side by side.")
@common.command
def compare(
    console: StderrConsole,
    runs: Annotated[list[Path], typer.Argument(help="Names or folders of two runs or more.", **_RUN)],
    out: OutOption = DEFAULT_OUT,
    format: FormatOption = "text",
) -> None:
    """Show runs side by side: figures, and the settings in which they differ."""
    from facecnn.jobs.runs import compare as job
    from facecnn.jobs.runs import runs_to_compare

    common.require(len(runs) > 1, "runs compare: give two runs or more")
    result = job(runs_to_compare(runs, out), out)
    common.print_result(result, format, _side_by_side)


@app.command()
@common.command
def pin(
    console: StderrConsole,
    run: Annotated[Path | None, typer.Argument(help="Its name or folder.", **_RUN)] = None,
    none: Annotated[bool, typer.Option("--none", help="Pin no run: the newest finished one answers.")] = False,
    out: OutOption = DEFAULT_OUT,
    format: FormatOption = "text",
) -> None:
    """Choose the run whose model answers when -m isn't given. Without RUN, say which is pinned."""
    from facecnn.runs.choice import named_run, read_pin, write_pin

    common.require(run is None or not none, "runs pin: a run, or --none, not both")
    if none:
        write_pin(None, out)
    elif run is not None:
        write_pin(named_run(run, out), out)
    pinned = read_pin(out)
    text = "No run is pinned: the newest finished one answers."
    if pinned is not None:
        text = f"Pinned: {shown(pinned)}: it answers where no -m names another."
    common.print_result({"pinned": None if pinned is None else pinned.name}, format, lambda _: text)


@app.command()
@common.command
def prune(
    console: StderrConsole,
    keep: Annotated[int, typer.Option(min=0, help="Number of the newest finished runs to keep.")] = 1,
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="Also delete runs that are unfinished or damaged.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    out: OutOption = DEFAULT_OUT,
    format: FormatOption = "text",
) -> None:
    """Delete old runs. Shows which, and asks.

    The pinned run and those in use stay, as do files that training didn't write.
    """
    from facecnn.jobs.runs import delete, to_prune

    runs = to_prune(out, keep, unfinished)
    if runs and not yes and not _agreed(runs):
        runs = []
    common.print_result(delete(runs, console), format, _describe_deleted)


def _describe_deleted(result: dict[str, Any]) -> str:
    if not result["deleted"]:
        return "Nothing deleted."
    return f"Deleted {counted(len(result['deleted']), 'run')}, {megabytes(result['bytes'])}."


def _agreed(runs: Sequence[Summary]) -> bool:
    size = megabytes(sum(run.bytes for run in runs))
    question = f"Delete {'this run' if len(runs) == 1 else f'these {len(runs)} runs'}, {size}?"
    return common.agreed("runs prune", len(runs), question, "\n".join(_table(runs)))


def _table(runs: Sequence[Summary]) -> list[str]:
    """A line for each run, for 80 columns. A name too long for its column gets a line of its own."""
    rows = [_cells(run) for run in runs]
    titles = ("people", "accuracy", "closed set", "config", "size", "age")
    widths = [max(len(title), *(len(row[column]) for row in rows)) for column, title in enumerate(titles)]
    room = WIDTH - 2 - sum(width + 2 for width in widths)
    names = [shown(run.name) for run in runs]
    first = min(max(3, *map(len, names)), max(room, 3))

    def line(mark: str, name: str, cells: Sequence[str]) -> str:
        figures = "".join(f"  {cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
        return f"{mark} {name:{first}}{figures}"

    lines = [line(" ", "run", titles)]
    for run, name, row in zip(runs, names, rows, strict=True):
        mark = "*" if run.pinned else " "
        if len(name) > first:
            lines.append(f"{mark} {name}")
            mark = name = " "
        lines.append(line(mark, name, row))
    return lines


def _cells(run: Summary) -> list[str]:
    done = run.state == "finished"
    figures = [percent(run.accuracy), percent(run.closed_set_accuracy)] if done else [run.state, ""]
    people = str(len(run.people)) if run.people else "-"
    config = shown(run.config or "-")
    age = _age(run.ended or run.created)
    return [people, *figures, config if len(config) <= 12 else f"{config[:11]}…", megabytes(run.bytes), age]


def _who_answers(out: Path) -> str:
    from facecnn.errors import CheckpointError
    from facecnn.runs.choice import choose_run

    try:
        choice = choose_run(out)
    except CheckpointError as error:
        return f"Without -m, no run answers: {error}"
    return f"Without -m, {shown(choice.run.name)} answers: {choice.reason}."


def _age(moment: str | None) -> str:
    """``3 min``, ``5 h``, ``12 days``."""
    if moment is None:
        return "-"
    seconds = max(0.0, (datetime.now().astimezone() - datetime.fromisoformat(moment)).total_seconds())
    for unit, length, enough in (("min", 60, 60), ("h", 3600, 48), ("days", 86400, 1000)):
        if seconds < enough * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds / 86400 / 365.25:.0f} years"


def _describe(run: dict[str, Any]) -> str:
    counts = run["counts"]
    trained, held = (sum(row[side] for row in counts) for side in ("train", "validation"))
    state = run["state"] + (", pinned" if run["pinned"] else "")
    rows = [
        ("run", f"{shown(run['path'])} ({state})"),
        ("damage", run["problem"]),
        ("made", _moment(run["created"])),
        ("model written", _moment(run["ended"])),
        ("config", None if run["config"] is None else shown(run["config"])),
        ("by", None if run["facecnn"] is None else f"facecnn {shown(str(run['facecnn']))}"),
        ("on", None if run["device"] is None else shown(str(run["device"]))),
        ("epochs", _epochs(run)),
        ("size", megabytes(run["bytes"])),
        ("photos of", None if run["folder"] is None else shown(run["folder"])),
        ("photos", f"{trained} trained on, {held} held out" if counts else None),
    ]
    lines = [f"{title:16}{text}" for title, text in rows if text is not None]
    if counts:
        lines += ["", f"  {'':40}{'trained on':>12}{'held out':>10}"]
        lines += [f"  {shown(row['name'])[:39]:40}{row['train']:12}{row['validation']:10}" for row in counts[:20]]
        lines += [f"  ... {len(counts) - 20} more"] if len(counts) > 20 else []
    if run["held_out"]:
        lines += ["", *_rows(_quality([run]))]
    unlike = run["unlike_config"]
    if unlike:
        lines += ["", "settings that differ from the shipped config"]
        lines += [f"  {key:38}{_value(here)}" for key, (_, here) in unlike.items()]
    return "\n".join(lines)


def _epochs(run: dict[str, Any]) -> str | None:
    if not run["epochs"]:
        return None
    best = "" if run["best_epoch"] is None else f", the best was epoch {run['best_epoch']}"
    return f"{run['epochs']}{best}" + ("" if run["seconds"] is None else f"; {run['seconds']:.0f} s")


def _moment(moment: str | None) -> str | None:
    return None if moment is None else f"{moment[:16].replace('T', ' ')} ({_age(moment)} ago)"


def _side_by_side(result: dict[str, Any]) -> str:
    runs = result["runs"]
    letters = [chr(ord("A") + number) if number < 26 else str(number + 1) for number in range(len(runs))]
    lines = [f"{letter}  {shown(run['path'])} ({run['state']})" for letter, run in zip(letters, runs, strict=True)]
    for start in range(0, len(runs), _SIDE_BY_SIDE):
        part = slice(start, start + _SIDE_BY_SIDE)
        lines += ["", *_rows({"": letters[part]} | _quality(runs[part]) | _sizes(runs[part]))]
    differ = result["differ"]
    lines += ["", "settings that differ" if differ else "Their settings are the same."]
    for key, values in differ.items():
        cells = [f"{letter} {_value(value)}" for letter, value in zip(letters, values, strict=True)]
        line = f"  {key:32}  " + "   ".join(cells)
        lines += [line] if len(line) <= WIDTH else [f"  {key}", *(f"      {cell}" for cell in cells)]
    return "\n".join(lines)


def _quality(runs: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
    """How good the runs are: a row for each figure, a cell for each run."""

    def of(run: dict[str, Any], key: str) -> Any:
        return (run["held_out"] or {}).get(key)

    def known(run: dict[str, Any], key: str) -> str:
        counts = of(run, "known") or {}
        return str(counts.get(key, "-"))

    def several(run: dict[str, Any]) -> str:
        counts = of(run, "several")
        return f"{counts['named_right']} of {counts['photos']}" if counts and counts["photos"] else "-"

    def strangers(run: dict[str, Any]) -> str:
        counts = of(run, "unknown")
        return f"{counts['named']} of {counts['photos']}" if counts else "-"

    with_several = [several(run) for run in runs]
    row_of_several = {"  with several faces, named right": with_several} if set(with_several) != {"-"} else {}
    return {
        "named right": [percent(run["accuracy"]) for run in runs],
        "likeliest person (closed set)": [percent(run["closed_set_accuracy"]) for run in runs],
        "held-out photos of known people": [known(run, "photos") for run in runs],
        "  named right": [known(run, "named_right") for run in runs],
        "  named wrong": [known(run, "named_wrong") for run in runs],
        "  refused": [known(run, "refused") for run in runs],
        **row_of_several,
        "strangers named": [strangers(run) for run in runs],
        "log loss": [common.number(of(run, "log_loss")) for run in runs],
    }


def _sizes(runs: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
    return {
        "people": [str(len(run["people"]) or "-") for run in runs],
        "photos": [str(run["photos"] or "-") for run in runs],
        "epochs": [str(run["epochs"]) for run in runs],
        "seconds": ["-" if run["seconds"] is None else f"{run['seconds']:.0f}" for run in runs],
        "size": [megabytes(run["bytes"]) for run in runs],
    }


def _rows(figures: dict[str, list[str]]) -> list[str]:
    return [f"  {title:34}" + "".join(f"{cell:>11}" for cell in cells) for title, cells in figures.items()]


def _value(value: Any) -> str:
    import json

    return "-" if value is None else shown(value) if isinstance(value, str) else json.dumps(value)
