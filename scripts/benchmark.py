"""How fast facecnn is beside PyTorch: the same networks, pictures and work, in processes that take turns.

The parts, each of which --only names:

    steps   a training step and prediction on ready pictures, against PyTorch, and against what the processor can do
    start   whole processes: from the start to the answer about one photo, and peak memory
    growth  training from 1,000, 10,000 and 100,000 photos
    share   training in full, as a share of its bare step
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks import growth, share, start, steps
from benchmarks.picture import draw
from benchmarks.processes import (
    FACECNN,
    HERE,
    Elsewhere,
    Implementation,
    ask_facecnn,
    busy_elsewhere,
    environment,
    implementations,
    last_line,
    started,
)
from common.command import errors_told
from facecnn.errors import FacecnnError, OutputError, UsageError, shown
from facecnn.kernels import available_threads, processor_name
from facecnn.runs.atomic import check_output
from machine.roofline import Roof


class DeviceName(StrEnum):
    """Where both sides run."""

    cpu = "cpu"
    cuda = "cuda"


class Part(StrEnum):
    """What can be measured alone."""

    steps = "steps"
    start = "start"
    growth = "growth"
    share = "share"


def machine(device: str, threads: int) -> dict[str, Any]:
    """The processor and, where it was used, the card."""
    gpu = None
    if device == "cuda":
        options = {"device": device, "threads": threads, "recorded": True}
        with started([Implementation(FACECNN, "facecnn_worker.py", options)]) as (process,):
            gpu = ask_facecnn(process, "hello")["device"]
    # Numba is slow to load, and not needed to say what is wrong.
    from facecnn.kernels.cpu.vector_ir.lanes import instructions

    return {
        "cpu": processor_name(),
        "cores": os.cpu_count(),
        "simd": instructions(),
        "gpu": gpu,
    }


def measured_roof(threads: int) -> Roof:
    """Peak and bandwidth of the processor, measured in a process of its own."""
    typer.echo("Peak and bandwidth of the processor ...", err=True)
    command = [sys.executable, HERE.parent / "machine" / "roofline.py", "--threads", str(threads), "--json"]
    done = subprocess.run(command, env=environment(), capture_output=True, encoding="utf-8")
    if done.returncode:
        raise FacecnnError(f"roofline.py failed: {last_line(done.stderr)}")
    found = json.loads(done.stdout)
    return Roof(found["peak"], found["bandwidth"])


def table(report: dict[str, Any], rows: list[steps.Row]) -> str:
    """The report to be read, in lines of 80 characters."""
    about = report["machine"]
    lines = [
        f"{about['cpu']}, {about['cores']} cores, vectors: {about['simd']}; "
        f"{report['threads']} thread{'s' if report['threads'] > 1 else ''}",
        *([f"Card: {about['gpu']}"] if about["gpu"] else []),
        "PyTorch " + (report["pytorch"] or "is not installed: facecnn alone"),
        *busy_elsewhere(about["busy_elsewhere"]),
    ]
    if rows:
        lines += steps.table(report, rows)
    if report["memory"] is not None:
        lines += start.table(report["cold_start"], report["memory"])
    if report["growth"] is not None:
        lines += growth.table(report["growth"])
    if report["training"] is not None:
        lines += share.table(report["training"])
    return "\n".join(line.rstrip() for line in lines)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command(context_settings={"help_option_names": ["-h", "--help"]})
def benchmark(
    device: Annotated[DeviceName, typer.Option(help="Where both sides run.")] = DeviceName.cpu,
    threads: Annotated[int | None, typer.Option(help="Processor threads of each; all there are unless said.")] = None,
    only: Annotated[
        list[Part] | None,
        typer.Option(
            help="Only this part; all unless said, but steps where --network is given. Repeatable.",
        ),
    ] = None,
    network: Annotated[
        list[str] | None,
        typer.Option(
            help="Of steps: seed, deep or default, all three unless said; at one size: seed-224 and so on; or many. "
            "smoke: only to see that it runs. Of start: whose training's memory is measured; deep unless said. Of "
            "share: a shipped config or seed-64. Repeatable."
        ),
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WORD",
            help="Only those PyTorch implementations whose names contain this: eager, compile, tuned, bf16 ...; none: "
            "facecnn alone. Repeatable.",
        ),
    ] = None,
    photos: Annotated[
        list[int] | None,
        typer.Option(min=100, help="Of growth: train from so many photos; 1,000 to 100,000 unless said. Repeatable."),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Only batches of 60, and few rounds.")] = False,
    rounds: Annotated[
        int | None,
        typer.Option(min=1, help="Turns of each implementation; unless said, enough for steady medians."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the table.")] = False,
    output: Annotated[Path | None, typer.Option(help="A file to write the JSON to, too.")] = None,
    picture: Annotated[Path | None, typer.Option(help="A PNG file to draw the steps into: bars and roofline.")] = None,
) -> None:
    """Compare facecnn with PyTorch, if that is installed, and with what the processor can do: the time of a training
    step and of prediction (the same networks from the same weights on the same ready pictures, which is checked first,
    in processes that take turns), start and memory of whole processes, training from many photos, and training in full
    beside its bare step."""
    with errors_told():
        available = available_threads()
        if threads is not None and not 1 <= threads <= available:
            raise UsageError(f"--threads {threads}: must be 1 to {available}, the processors that there are")
        count = available if threads is None else threads
        parts = set(only or ([Part.steps] if network else Part))
        subjects = steps.chosen_subjects(network or []) if parts & {Part.steps, Part.start} else []
        trained = share.chosen(network or []) if Part.share in parts else []
        for file in (output, picture):
            if file is not None:
                check_output(file)
        if picture is not None and Part.steps not in parts:
            raise UsageError("--picture: shows the steps, which are left out: add --only steps")
        there = importlib.util.find_spec("torch") is not None
        chosen = implementations(device, count, (against or []) if there else ["none"])
        about = machine(device, count)
        report: dict[str, Any] = {
            "machine": about,
            "threads": count,
            "pytorch": importlib.metadata.version("torch") if there else None,
            "roof": None,
            **dict.fromkeys(("ratios", "rows", "cold_start", "memory", "growth", "training_share", "training")),
        }
        rows: list[steps.Row] = []

        def measure_steps() -> None:
            # What a card can do at best isn't measured: scripts/machine/cuda_roofline.py counts with its data sheet.
            roof = measured_roof(count) if device == "cpu" else None
            report["roof"] = None if roof is None else asdict(roof)
            batches = (steps.COMPARED_BATCH,) if quick else steps.BATCHES
            turns = rounds or (steps.QUICK_ROUNDS if quick else steps.ROUNDS)
            for subject in subjects:
                steps.measure(subject, chosen, batches, turns, rows, roof)

        def measure_start() -> None:
            turns = rounds or (start.QUICK_ROUNDS if quick else start.ROUNDS)
            kept = subjects[0].cases([steps.COMPARED_BATCH])[0] if network else start.TRAINED
            report["cold_start"], report["memory"] = start.measure(device, count, chosen, kept, turns)

        def measure_growth() -> None:
            turns = rounds or (growth.QUICK_ROUNDS if quick else growth.ROUNDS)
            report["growth"] = growth.measure(device, count, photos or growth.SIZES, turns)

        def measure_share() -> None:
            turns = rounds or (share.QUICK_ROUNDS if quick else share.ROUNDS)
            report["training"] = share.measure(device, count, trained, turns)
            report["training_share"] = {row["name"]: row["share"] for row in report["training"]}

        measures: dict[Part, Callable[[], None]] = {
            Part.steps: measure_steps,
            Part.start: measure_start,
            Part.growth: measure_growth,
            Part.share: measure_share,
        }
        elsewhere = Elsewhere()
        failure: FacecnnError | None = None
        for part, measure in measures.items():
            try:
                if part in parts:
                    measure()
            except FacecnnError as error:  # what else can be found is shown all the same
                failure = failure or error
        about["busy_elsewhere"] = elsewhere.share()
        report["ratios"] = steps.ratios(subjects, rows)
        report["rows"] = [row.plain() for row in rows]
        text = json.dumps(report, indent=2)
        typer.echo(text if as_json else table(report, rows))
        if output is not None:
            try:
                output.write_text(text + "\n", encoding="utf-8")
            except OSError as error:
                raise OutputError(f"--output {shown(output)}: {error.strerror}") from error
        if picture is not None and rows:
            draw(report, picture)
        if failure is not None:
            raise failure


if __name__ == "__main__":
    app()
