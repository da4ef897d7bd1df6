"""How fast facecnn is beside PyTorch: the same networks, pictures and work, in processes that take turns."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import llvmlite.binding as llvm
import numpy as np
import typer

from benchmark_work import Case, question
from facecnn.errors import FacecnnError, OutputError, UsageError, shown
from facecnn.kernels import available_threads, processor_name

HERE = Path(__file__).parent
FACECNN = "facecnn"
BATCHES = (1, 8, 60)
COMPARED_BATCH = 60
TURN_SECONDS = 0.4
ROUNDS, QUICK_ROUNDS = 9, 4
ENDING_SECONDS = 10
WIDTH = 80
QUIET = 0.05
"""So much of the processors may be taken by other programs."""

TOLERANCES, COARSE_TOLERANCES = (1e-4, 5e-3), (2e-2, 2e-1)
"""By which both sides must agree, in float32 and with TF32: of the loss before the first update, relative, and of the
probabilities; and of the losses after it, which the roundings of all gradients have gone into."""

TUNED = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "20000000000",
    "MALLOC_TOP_PAD_": "67108864",
    "THP_MEM_ALLOC_ENABLE": "1",
}
"""With these PyTorch keeps the memory that it frees, instead of having the system clear every page again and again."""


class DeviceName(StrEnum):
    """Where both sides run."""

    cpu = "cpu"
    cuda = "cuda"


@dataclass(frozen=True)
class Subject:
    """A network at a size."""

    key: str
    """In the names of the ratios."""
    network: str
    channels: int
    size: int
    works: tuple[str, ...]
    least_batch: int = 1

    def cases(self, batches: Sequence[int]) -> list[Case]:
        sizes = [batch for batch in batches if batch >= self.least_batch]
        return [
            Case(self.network, self.channels, self.size, batch, "train" if work == "train" else "predict")
            for work in self.works
            for batch in sizes
        ]


SUBJECTS = (
    Subject("seed-224", "seed", 3, 224, ("train", "predict")),
    Subject("deep-224", "deep", 3, 224, ("train", "predict")),
    Subject("seed-64", "seed", 1, 64, ("train", "predict")),
    Subject("deep-64", "deep", 1, 64, ("train", "predict")),
    Subject("default", "default", 1, 48, ("train",), least_batch=2),  # batch norm of units can't be trained with one
)
SMOKE = Subject("smoke", "smoke", 1, 24, ("train", "predict"))
"""To see that the benchmark itself runs."""


@dataclass(frozen=True)
class Implementation:
    """Something that is timed, in a process of its own."""

    name: str
    script: str
    options: dict[str, Any]
    environment: dict[str, str] = field(default_factory=dict)
    float32: bool = True

    @property
    def is_torch(self) -> bool:
        return self.script == "benchmark_torch.py"


@dataclass
class Row:
    """What was found for one case and implementation."""

    case: Case
    implementation: Implementation
    milliseconds: list[float] = field(default_factory=list)
    note: str | None = None
    """What should be known about it, or why there are no times."""

    @property
    def median(self) -> float | None:
        return statistics.median(self.milliseconds) if self.milliseconds else None

    def plain(self) -> dict[str, Any]:
        case = asdict(self.case)
        return {
            **{name: case[name] for name in ("network", "size", "batch", "work")},
            "implementation": self.implementation.name,
            "float32": self.implementation.float32,
            "median_ms": self.median,
            "min_ms": min(self.milliseconds, default=None),
            "note": self.note,
        }


def implementations(device: str, threads: int, against: Sequence[str]) -> list[Implementation]:
    """facecnn, and those of PyTorch's whose names contain one of the words in ``against`` (all, if there are none)."""
    common = {"device": device, "threads": threads}
    ours = [Implementation(FACECNN, "benchmark_facecnn.py", {**common, "recorded": True})]
    if device == "cuda":
        ours.append(Implementation("facecnn, plain launches", "benchmark_facecnn.py", {**common, "recorded": False}))
    theirs: list[Implementation] = []

    def add(name: str, *, channels_last: bool = False, compile: str | None = None, graph: bool = False) -> None:
        options = {**common, "channels_last": channels_last, "compile": compile, "one_graph": graph, "tf32": False}
        theirs.append(Implementation(name, "benchmark_torch.py", options))

    for layout, channels_last in (("NCHW", False), ("channels_last", True)):
        add(f"torch eager {layout}", channels_last=channels_last)
        if device == "cuda":
            add(f"torch eager {layout}, one CUDA graph", channels_last=channels_last, graph=True)
    add("torch.compile", compile="default")  # it chooses layouts by itself, and given channels_last it is slower
    if device == "cuda":
        add("torch.compile, CUDA graphs", compile="reduce-overhead")
        add("torch.compile, one CUDA graph", compile="default", graph=True)
    if device == "cuda":
        theirs += [
            Implementation(f"{one.name}, TF32", one.script, {**one.options, "tf32": True}, float32=False)
            for one in theirs
            if one.options["compile"] is None and not one.options["one_graph"]
        ]
    else:
        theirs += [
            Implementation(f"{one.name}, allocator tuned", one.script, one.options, environment=TUNED) for one in theirs
        ]
    chosen = [one for one in theirs if not against or any(word in one.name for word in against)]
    if not chosen and "none" not in against:
        names = "\n".join(f"  {one.name}" for one in theirs)
        raise UsageError(f"--against {' '.join(against)}: none of PyTorch's names contains it:\n{names}")
    return ours + chosen


class WorkerError(Exception):
    """What a worker said instead of an answer."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Process:
    """A worker process, spoken to by lines."""

    def __init__(self, implementation: Implementation) -> None:
        self.implementation = implementation
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, HERE / implementation.script, json.dumps(implementation.options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={name: value for name, value in os.environ.items() if name not in TUNED} | implementation.environment,
            encoding="utf-8",
        )

    def ask(self, do: str, **arguments: Any) -> Any:
        """What the worker's method gives back; raises WorkerError."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        line = ""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(question(do, **arguments))
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            last = (self._errors.read().strip().splitlines() or ["it said nothing"])[-1]
            raise WorkerError(f"its process ended ({self._process.wait()}): {last}", 1)
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerError(answer["error"], answer["exit_code"])
        return answer["result"]

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(ENDING_SECONDS)  # by itself, it also ends and accounts for the compilers it has started
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()


@contextlib.contextmanager
def started(chosen: Sequence[Implementation]) -> Iterator[list[Process]]:
    """A process for each; they end with the block."""
    with contextlib.ExitStack() as stack:
        processes = []
        for implementation in chosen:
            processes.append(Process(implementation))
            stack.callback(processes[-1].close)
        yield processes


def ours_or_nothing(process: Process, error: WorkerError) -> None:
    """Go on without one of PyTorch's implementations, but not without facecnn."""
    if not process.implementation.is_torch:
        failure = FacecnnError(str(error))
        failure.exit_code = error.exit_code
        raise failure


def measure(
    subject: Subject, chosen: Sequence[Implementation], batches: Sequence[int], rounds: int, rows: list[Row]
) -> None:
    """Add all rows of a network: first see whether all do the same work, then time them round by round, each in turn.

    Raises FacecnnError where they don't, and where facecnn fails.
    """
    with started(chosen) as processes:
        cases = subject.cases(batches)
        wrong = check(processes, max(cases, key=lambda case: case.batch))
        for case in cases:
            typer.echo(f"{subject.key}, batch {case.batch}, {case.work} ...", err=True)
            ready: list[tuple[Process, Row]] = []
            for process in processes:
                row = Row(case, process.implementation, note=wrong.get(process.implementation.name))
                rows.append(row)
                if row.note is None:
                    try:
                        row.note = process.ask("prepare", case=case)["note"]
                        ready.append((process, row))
                    except WorkerError as error:
                        row.note = str(error)
                        ours_or_nothing(process, error)
            for number in range(rounds):
                first = number % len(ready)
                for process, row in ready[first:] + ready[:first]:
                    try:
                        row.milliseconds += process.ask("turn", seconds=TURN_SECONDS)
                    except WorkerError as error:
                        row.milliseconds, row.note = [], str(error)
                        ours_or_nothing(process, error)
                        ready.remove((process, row))


def check(processes: Sequence[Process], case: Case) -> dict[str, str]:
    """Whether all do the same work: losses of the first steps from the same weights, and answers. Gives back why some
    can't be asked; raises FacecnnError where the numbers differ."""
    wrong: dict[str, str] = {}
    expected: dict[str, Any] = {}
    for process in processes:
        name = process.implementation.name
        try:
            found = process.ask("check", case=case)
        except WorkerError as error:
            ours_or_nothing(process, error)
            wrong[name] = str(error)
            continue
        expected = expected or found
        tolerance, later = TOLERANCES if process.implementation.float32 else COARSE_TOLERANCES
        near = [
            np.isclose(found["losses"][0], expected["losses"][0], rtol=tolerance, atol=0).all(),
            np.isclose(found["losses"], expected["losses"], rtol=later, atol=0).all(),
            np.isclose(found["answers"], expected["answers"], rtol=0, atol=tolerance).all(),
        ]
        if not all(near):
            raise FacecnnError(
                f"{case.network} {case.channels}x{case.size}x{case.size}: {name} does not do the same work as facecnn: "
                f"losses {found['losses']} instead of {expected['losses']}"
                + ("" if near[-1] else ", and other answers")
            )
    return wrong


def ratio(rows: Sequence[Row]) -> float | None:
    """PyTorch's best median in float32 over facecnn's, of the rows of one case."""
    ours = next((row.median for row in rows if row.implementation.name == FACECNN), None)
    theirs = [
        row.median
        for row in rows
        if row.implementation.is_torch and row.implementation.float32 and row.median is not None
    ]
    return min(theirs) / ours if ours is not None and theirs else None


def of_case(rows: Sequence[Row], case: Case) -> list[Row]:
    return [row for row in rows if row.case == case]


def ratios(subjects: Sequence[Subject], rows: Sequence[Row]) -> dict[str, float | None]:
    """``seed-224-train`` and so on; None for what wasn't measured, or not beside PyTorch."""
    names = dict.fromkeys((*SUBJECTS, *subjects))
    return {
        f"{subject.key}-{case.work}": ratio(of_case(rows, case))
        for subject in names
        for case in subject.cases([COMPARED_BATCH])
    }


def machine(device: str, threads: int) -> dict[str, Any]:
    """The processor and, where it was used, the card."""
    gpu = None
    if device == "cuda":
        options = {"device": device, "threads": threads, "recorded": True}
        with started([Implementation(FACECNN, "benchmark_facecnn.py", options)]) as (process,):
            try:
                gpu = process.ask("hello")["device"]
            except WorkerError as error:
                ours_or_nothing(process, error)
    features = llvm.get_host_cpu_features()
    names = {"avx512f": "avx512", "avx2": "avx2", "neon": "neon"}
    return {
        "cpu": processor_name(),
        "cores": os.cpu_count(),
        "simd": next((name for feature, name in names.items() if features.get(feature)), "none"),
        "gpu": gpu,
    }


class Elsewhere:
    """How busy other programs kept the processors, where the system tells."""

    def __init__(self) -> None:
        self._start = self._read()

    @staticmethod
    def _read() -> tuple[float, float, float] | None:
        """Seconds of processors so far: all, busy, and busy with this program and what it started and has ended."""
        try:
            fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]
            total, idle = sum(map(int, fields)), int(fields[3]) + int(fields[4])
            per_second = os.sysconf("SC_CLK_TCK")
        except (OSError, ValueError, IndexError):
            return None
        return total / per_second, (total - idle) / per_second, sum(os.times()[:4])

    def share(self) -> float | None:
        """0 to 1, since this object was made; the processes that were started since must have ended."""
        start, stop = self._start, self._read()
        if start is None or stop is None or stop[0] <= start[0]:
            return None
        total, busy, own = (after - before for before, after in zip(start, stop, strict=True))
        return min(1.0, max(0.0, (busy - own) / total))


def table(report: dict[str, Any], rows: Sequence[Row]) -> str:
    """The report to be read, in lines of 80 characters."""
    about = report["machine"]
    lines = [
        f"{about['cpu']}, {about['cores']} cores, vectors: {about['simd']}; "
        f"{report['threads']} thread{'s' if report['threads'] > 1 else ''}",
        *([f"Card: {about['gpu']}"] if about["gpu"] else []),
        "PyTorch " + (report["pytorch"] or "is not installed: facecnn alone"),
        *busy_elsewhere(report["machine"]["busy_elsewhere"]),
        "Milliseconds a batch; x: how many times as long as facecnn, by the medians;",
        "*: PyTorch's best in float32",
    ]
    if any(not row.implementation.float32 for row in rows):
        lines.append("TF32 computes with 10 bits behind the point: it stands beside, uncounted.")
    for case in dict.fromkeys(row.case for row in rows):
        found = of_case(rows, case)
        ours = next((row.median for row in found if row.implementation.name == FACECNN), None)
        best = min(
            (row for row in found if row.implementation.is_torch and row.implementation.float32 and row.milliseconds),
            key=lambda row: statistics.median(row.milliseconds),
            default=None,
        )
        title = f"{case.network} {case.channels}x{case.size}x{case.size}, batch {case.batch}, {case.work}"
        lines += ["", f"{title:48}{'median':>10}{'min':>10}{'x':>9}"]
        for row in found:
            name = f"  {row.implementation.name}"
            if row.median is None:
                lines.append(f"{name}: {row.note}"[:WIDTH])
                continue
            times = "" if ours is None else f"{row.median / ours:9.2f}"
            lines.append(
                f"{name:48}{row.median:10.3f}{min(row.milliseconds):10.3f}{times}{' *' if row is best else ''}"
            )
            if row.note is not None:
                lines.append(f"    {row.note}"[:WIDTH])
    shown_ratios = {name: value for name, value in report["ratios"].items() if value is not None}
    if shown_ratios:
        lines += ["", f"PyTorch's best over facecnn, batch {COMPARED_BATCH}:"]
        lines += [f"  {name:20}{value:8.2f}" for name, value in shown_ratios.items()]
    return "\n".join(line.rstrip() for line in lines)


def busy_elsewhere(share: float | None) -> list[str]:
    """A warning where other programs disturbed the measurement."""
    if share is None or share < QUIET:
        return []
    return [
        f"OTHER PROGRAMS TOOK {share:.0%} OF THE PROCESSORS MEANWHILE: repeat on a quiet machine.",
        "PyTorch's threads wait for each other in loops, and suffer more than facecnn's.",
    ]


def chosen_subjects(networks: Sequence[str]) -> list[Subject]:
    every: dict[str, list[Subject]] = {}
    for subject in (*SUBJECTS, SMOKE):
        every.setdefault(subject.network, []).append(subject)
    for name in networks:
        if name not in every:
            raise UsageError(f"--network {name}: there is no such network; choose among {', '.join(every)}")
    return [subject for name in dict.fromkeys(networks) for subject in every[name]] or list(SUBJECTS)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command(context_settings={"help_option_names": ["-h", "--help"]})
def benchmark(
    device: Annotated[DeviceName, typer.Option(help="Where both sides run.")] = DeviceName.cpu,
    threads: Annotated[int | None, typer.Option(help="Processor threads of each; all there are unless said.")] = None,
    network: Annotated[
        list[str] | None,
        typer.Option(help="seed, deep or default; all three unless said. smoke: only to see that it runs. Repeatable."),
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WORD",
            help="Only those PyTorch implementations whose names contain this: eager, compile, tuned ...; none: "
            "facecnn alone. Repeatable.",
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Only batches of 60, and few rounds.")] = False,
    rounds: Annotated[
        int | None, typer.Option(min=1, help=f"Turns of each implementation; {ROUNDS}, or {QUICK_ROUNDS}, unless said.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the table.")] = False,
    output: Annotated[Path | None, typer.Option(help="A file to write the JSON to, too.")] = None,
) -> None:
    """Time a training step and prediction of facecnn and of PyTorch, if that is installed: the same networks from the
    same weights on the same ready pictures, which is checked first, in processes that take turns."""
    try:
        available = available_threads()
        if threads is not None and not 1 <= threads <= available:
            raise UsageError(f"--threads {threads}: must be 1 to {available}, the processors that there are")
        count = available if threads is None else threads
        subjects = chosen_subjects(network or [])
        there = importlib.util.find_spec("torch") is not None
        chosen = implementations(device, count, (against or []) if there else ["none"])
        about = machine(device, count)
        batches = (COMPARED_BATCH,) if quick else BATCHES
        rows: list[Row] = []
        elsewhere = Elsewhere()
        failure: FacecnnError | None = None
        try:
            for subject in subjects:
                measure(subject, chosen, batches, rounds or (QUICK_ROUNDS if quick else ROUNDS), rows)
        except FacecnnError as error:  # what was found before is shown all the same
            failure = error
        report = {
            "machine": {**about, "busy_elsewhere": elsewhere.share()},
            "threads": count,
            "pytorch": importlib.metadata.version("torch") if there else None,
            "ratios": ratios(subjects, rows),
            "rows": [row.plain() for row in rows],
            "cold_start": None,
            "memory": None,
            "growth": None,
        }
        text = json.dumps(report, indent=2)
        typer.echo(text if as_json else table(report, rows))
        if output is not None:
            try:
                output.write_text(text + "\n", encoding="utf-8")
            except OSError as error:
                raise OutputError(f"--output {shown(output)}: {error.strerror}") from error
        if failure is not None:
            raise failure
    except FacecnnError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(error.exit_code) from None


if __name__ == "__main__":
    app()
