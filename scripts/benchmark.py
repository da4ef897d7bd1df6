"""How fast is facecnn beside PyTorch? The same networks, pictures and work, in processes that take turns.

The parts, each of which --only names:

    steps     a training step and prediction on ready pictures, against PyTorch and what the processor can do at best
    start     whole processes: from the start to the answer about one photo, and peak memory
    growth    training from 1,000, 10,000 and 100,000 photos
    epochs    training in full, with validation, figures and saving, as a share of the bare step
    first     the first `facecnn train` on a machine, which compiles its kernels, and a later one
    pipeline  from photos to the crops of their faces, beside other finders
    time-to-accuracy  from photos to a model that names others right, beside PyTorch and dlib's embedding

Before anything is timed, both sides compute from the same weights and pictures, and their losses and answers are
compared. Without PyTorch, facecnn is measured alone.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import accuracy, first, growth, picture, pipeline, share, start, steps
from benchmarks.processes import Conditions, Elsewhere, ask_facecnn, environment, implementations, started
from common.command import at_least, exit_on_error, new_file, parser, say
from common.worker import last_line
from facecnn.errors import FacecnnError, UsageError
from facecnn.kernels import available_threads, processor_name
from facecnn.runs.atomic import write_atomically
from machine.roofline import Roof

PARTS = ("steps", "start", "growth", "epochs", "first", "pipeline", "time-to-accuracy")
QUIET = 0.05
"""Share of the processors that other programs may take without a warning."""


def parse_arguments() -> argparse.Namespace:
    arguments = parser(__doc__)
    add = arguments.add_argument
    add("--device", choices=("cpu", "cuda"), default="cpu", help="where both sides run (default: cpu)")
    add("--threads", type=int, help="processor threads of each (default: all)")
    add("--only", choices=PARTS, action="append", help="a part; repeatable (default: all; with --network: steps)")
    add(
        "--network",
        action="append",
        help="of steps: seed, deep or default (default: all three), at one size: seed-224 and so on, many, or body: "
        "embeddings of faces; smoke only shows that it runs. Of start: whose memory in training is measured (default: "
        "deep). Of epochs: a shipped config or seed-64. Of first: a shipped config (default: default). Repeatable",
    )
    add(
        "--against",
        metavar="WORD",
        action="append",
        help="only the PyTorch implementations with this in their names: eager, compile, tuned, bf16 ...; none: "
        "facecnn alone. Repeatable",
    )
    add(
        "--photos",
        type=at_least(100),
        action="append",
        help="of growth: photos to train from; repeatable (default: 1,000, 10,000 and 100,000)",
    )
    add("--faces", type=Path, metavar="FOLDER", help="of pipeline: photos of faces to make others of (default: sample)")
    add("--peer-python", type=Path, help="of pipeline: the Python that has the other finders (default: this one)")
    add("--people", type=Path, metavar="FOLDER", help="of time-to-accuracy: a folder per person (default: the sample)")
    add("--accuracy", type=float, default=0.98, help="of time-to-accuracy: to be reached (default: 0.98)")
    add("--quick", action="store_true", help="only the largest batches, and few rounds")
    add("--rounds", type=at_least(1), help="turns of each implementation (default: enough for steady medians)")
    add("--json", action="store_true", help="print JSON instead of the table")
    add("--output", type=new_file, help="a file for the JSON")
    add("--picture", type=new_file, help="a PNG file: bars and roofline of the steps, or the times to accuracy")
    return arguments.parse_args()


class Benchmark:
    """The chosen parts, and what they found."""

    def __init__(self, options: argparse.Namespace) -> None:
        """Check the arguments. Raises UsageError, and DeviceError where there is no card."""
        available = available_threads()
        if options.threads is not None and not 1 <= options.threads <= available:
            raise UsageError(f"--threads {options.threads}: must be 1 to {available}, the processors that there are")
        self.options = options
        self.conditions = Conditions(options.device, options.threads or available, options.quick, options.rounds)
        self.parts = options.only or (["steps"] if options.network else PARTS)
        networks = options.network or []
        of_steps = "steps" in self.parts or "start" in self.parts
        self.subjects = steps.chosen_subjects(networks) if of_steps else []
        self.trained = share.chosen(networks) if "epochs" in self.parts else []
        if "start" in self.parts and self.subjects and "train" not in self.subjects[0].works:
            raise UsageError(f"--network {networks[0]}: only predicts, but start measures training: add --only steps")
        if not 0 < options.accuracy <= 1:
            raise UsageError(f"--accuracy {options.accuracy:g}: must be above 0 and at most 1, like 0.98")
        if options.picture is not None and not {"steps", "time-to-accuracy"} & set(self.parts):
            raise UsageError(
                "--picture: shows the steps, or the time to accuracy, and both are left out: add --only steps"
            )
        with_torch = importlib.util.find_spec("torch") is not None
        self.implementations = implementations(self.conditions, (options.against or []) if with_torch else ["none"])
        self.rows: list[steps.Row] = []
        self.report: dict[str, Any] = {
            "machine": machine(self.conditions),
            "threads": self.conditions.threads,
            "pytorch": importlib.metadata.version("torch") if with_torch else None,
            "roof": None,
            **dict.fromkeys(("ratios", "rows", "cold_start", "memory")),
            **dict.fromkeys(("growth", "training_share", "training", "first", "pipeline", "time_to_accuracy")),
        }

    def run(self) -> FacecnnError | None:
        """Measure part by part. Returns the first failure, after everything else that can be measured."""
        measures: dict[str, Callable[[], None]] = {
            "steps": self._steps,
            "start": self._start,
            "growth": self._growth,
            "epochs": self._epochs,
            "first": self._first,
            "pipeline": self._pipeline,
            "time-to-accuracy": self._time_to_accuracy,
        }
        elsewhere = Elsewhere()
        failure: FacecnnError | None = None
        for part, measure in measures.items():
            try:
                if part in self.parts:
                    measure()
            except FacecnnError as error:
                failure = failure or error
        self.report["machine"]["busy_elsewhere"] = elsewhere.share()
        self.report["ratios"] = steps.ratios(self.subjects, self.rows)
        self.report["rows"] = [row.plain() for row in self.rows]
        return failure

    def _steps(self) -> None:
        # The peak of a card isn't measured: machine/cuda_roofline.py takes it from the data sheet.
        roof = measured_roof(self.conditions.threads) if self.conditions.device == "cpu" else None
        self.report["roof"] = None if roof is None else asdict(roof)
        for subject in self.subjects:
            steps.measure(self.conditions, subject, self.implementations, self.rows, roof)

    def _start(self) -> None:
        case = self.subjects[0].cases(quick=True)[0] if self.options.network else start.TRAINED
        self.report["cold_start"], self.report["memory"] = start.measure(self.conditions, self.implementations, case)

    def _growth(self) -> None:
        self.report["growth"] = growth.measure(self.conditions, self.options.photos or growth.SIZES)

    def _epochs(self) -> None:
        self.report["training"] = share.measure(self.conditions, self.trained)
        self.report["training_share"] = {row["name"]: row["share"] for row in self.report["training"]}

    def _first(self) -> None:
        self.report["first"] = first.measure(self.conditions, (self.options.network or ["default"])[0])

    def _pipeline(self) -> None:
        options = self.options
        self.report["pipeline"] = pipeline.measure(self.conditions, options.faces, options.peer_python)

    def _time_to_accuracy(self) -> None:
        options = self.options
        self.report["time_to_accuracy"] = accuracy.measure(self.conditions, options.people, options.accuracy)

    def table(self) -> str:
        """Format the report in lines of 80 characters."""
        report, about = self.report, self.report["machine"]
        lines = [
            f"{about['cpu']}, {about['cores']} cores, vectors: {about['simd']}; "
            f"{report['threads']} thread{'s' if report['threads'] > 1 else ''}",
            *([f"Card: {about['gpu']}"] if about["gpu"] else []),
            "PyTorch " + (report["pytorch"] or "is not installed: facecnn alone"),
        ]
        if (about["busy_elsewhere"] or 0) >= QUIET:
            lines += [
                f"OTHER PROGRAMS TOOK {about['busy_elsewhere']:.0%} OF THE PROCESSORS: repeat on a quiet machine.",
                "PyTorch's threads wait for each other in loops, and suffer more than facecnn's.",
            ]
        if self.rows:
            lines += steps.table(report, self.rows)
        if report["memory"] is not None:
            lines += start.table(report["cold_start"], report["memory"])
        if report["growth"] is not None:
            lines += growth.table(report["growth"])
        if report["training"] is not None:
            lines += share.table(report["training"])
        if report["first"] is not None:
            lines += first.table(report["first"])
        if report["pipeline"] is not None:
            lines += pipeline.table(report["pipeline"])
        if report["time_to_accuracy"] is not None:
            lines += accuracy.table(report["time_to_accuracy"])
        return "\n".join(line.rstrip() for line in lines)


def machine(conditions: Conditions) -> dict[str, Any]:
    """Describe the processor and, if it is used, the card."""
    gpu = None
    if conditions.device == "cuda":
        with started([conditions.facecnn()]) as (process,):
            gpu = ask_facecnn(process, "hello")["device"]
    # Numba is slow to load, and mistakes in the arguments are reported without it.
    from facecnn.kernels.cpu.vector_ir.lanes import instructions

    return {"cpu": processor_name(), "cores": os.cpu_count(), "simd": instructions(), "gpu": gpu}


def measured_roof(threads: int) -> Roof:
    """Measure the processor's peak and bandwidth, in a process of their own. Raises FacecnnError."""
    say("Peak and bandwidth of the processor ...")
    script = Path(__file__).parent / "machine" / "roofline.py"
    command = [sys.executable, str(script), "--threads", str(threads), "--json"]
    done = subprocess.run(command, env=environment(), capture_output=True, encoding="utf-8")
    if done.returncode:
        raise FacecnnError(f"roofline.py failed: {last_line(done.stderr)}")
    found = json.loads(done.stdout)
    return Roof(found["peak"], found["bandwidth"])


@exit_on_error()
def main() -> None:
    options = parse_arguments()
    benchmark = Benchmark(options)
    failure = benchmark.run()
    text = json.dumps(benchmark.report, indent=2)
    print(text if options.json else benchmark.table())
    if options.output is not None:
        write_atomically(options.output, f"{text}\n".encode())
    if options.picture is not None and benchmark.rows:
        picture.draw(benchmark.report, options.picture)
    elif options.picture is not None and benchmark.report["time_to_accuracy"] is not None:
        accuracy.draw(benchmark.report, options.picture)
    if failure is not None:
        raise failure


if __name__ == "__main__":
    main()
