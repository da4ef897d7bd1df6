"""The part of benchmark.py that times a training step and prediction on ready pictures, against PyTorch."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import typer

from benchmarks.processes import FACECNN, Implementation, Process, WorkerError, ours_or_nothing, started
from benchmarks.work import Case
from facecnn.errors import FacecnnError, UsageError
from machine.roofline import Cost, Roof
from machine.roofline import cost as network_cost

BATCHES = (1, 8, 60)
COMPARED_BATCH = 60
TURN_SECONDS = 0.4
ROUNDS, QUICK_ROUNDS = 9, 4
WIDTH = 80

TOLERANCES, COARSE_TOLERANCES = (1e-4, 5e-3), (2e-2, 2e-1)
"""By which both sides must agree, in float32 and with fewer bits (TF32, bfloat16): of the loss before the first update,
relative, and of the probabilities; and of the losses after it, which the roundings of all gradients have gone into."""


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
MANY = Subject("many", "many", 1, 64, ("train",), least_batch=2)
"""Only where it is asked for."""
SMOKE = Subject("smoke", "smoke", 1, 24, ("train", "predict"))
"""To see that the benchmark itself runs."""


@dataclass
class Row:
    """What was found for one case and implementation."""

    case: Case
    implementation: Implementation
    milliseconds: list[float] = field(default_factory=list)
    note: str | None = None
    """What should be known about it, or why there are no times."""
    cost: Cost | None = None
    roof: Roof | None = None
    """What the processor can do at best, where it was measured."""

    @property
    def median(self) -> float | None:
        return statistics.median(self.milliseconds) if self.milliseconds else None

    def shares(self) -> tuple[float, float] | None:
        """Of the peak and of the bandwidth, by the median; None where there are none, and of fewer bits than float32,
        whose peak is another."""
        if self.roof is None or self.cost is None or self.median is None or not self.implementation.float32:
            return None
        seconds = self.median / 1000
        return self.cost.operations / seconds / self.roof.peak, self.cost.bytes / seconds / self.roof.bandwidth

    def plain(self) -> dict[str, Any]:
        case = asdict(self.case)
        of_peak, of_bandwidth = self.shares() or (None, None)
        return {
            **{name: case[name] for name in ("network", "size", "batch", "work")},
            "implementation": self.implementation.name,
            "float32": self.implementation.float32,
            "median_ms": self.median,
            "min_ms": min(self.milliseconds, default=None),
            "operations": None if self.cost is None else self.cost.operations,
            "bytes": None if self.cost is None else self.cost.bytes,
            "share_of_peak": of_peak,
            "share_of_bandwidth": of_bandwidth,
            "note": self.note,
        }


def measure(
    subject: Subject,
    chosen: Sequence[Implementation],
    batches: Sequence[int],
    rounds: int,
    rows: list[Row],
    roof: Roof | None,
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
            shape = (case.size, case.size, case.channels)
            cost = network_cost(case.network, shape, case.batch, training=case.work == "train")
            for process in processes:
                row = Row(
                    case, process.implementation, note=wrong.get(process.implementation.name), cost=cost, roof=roof
                )
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
    can't be asked, or those with fewer bits than float32 aren't to be trusted; raises FacecnnError where the numbers of
    others differ."""
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
        if not all(near) and not process.implementation.float32:
            wrong[name] = f"too far off: losses {found['losses']} instead of {expected['losses']}"
        elif not all(near):
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


def chosen_subjects(networks: Sequence[str]) -> list[Subject]:
    every: dict[str, list[Subject]] = {}
    for subject in (*SUBJECTS, MANY, SMOKE):
        every.setdefault(subject.network, []).append(subject)
    every |= {subject.key: [subject] for subject in SUBJECTS}
    for name in networks:
        if name not in every:
            raise UsageError(f"--network {name}: there is no such network; choose among {', '.join(every)}")
    return list(dict.fromkeys(subject for name in networks for subject in every[name])) or list(SUBJECTS)


def table(report: dict[str, Any], rows: Sequence[Row]) -> list[str]:
    """To be read, in lines of 80 characters."""
    lines = [
        "Milliseconds a batch; x: how many times as long as facecnn, by the medians;",
        "*: PyTorch's best in float32",
    ]
    names = " ".join(row.implementation.name for row in rows)
    if "tuned" in names:
        lines.append("tuned: with settings by which its allocator keeps the memory that is freed")
    if "bf16" in names:
        lines.append("bf16: autocast to 7 bits behind the point; it stands beside, uncounted")
    if "TF32" in names:
        lines.append("TF32: products with 10 bits behind the point; it stands beside, uncounted")
    roof = report["roof"]
    if roof is not None:
        lines += [
            f"peak, band: shares of this processor's measured {roof['peak'] / 1e9:,.0f} Gflop/s (float32) and",
            f"{roof['bandwidth'] / 1e9:,.1f} GB/s, in dense-equivalent operations (training: 3 times forward, 2 times",
            "for the first layer; fewer may be done, so that 100 % is no bound) and in bytes that",
            "must at least be moved",
        ]
    for case in dict.fromkeys(row.case for row in rows):
        found = of_case(rows, case)
        ours = next((row.median for row in found if row.implementation.name == FACECNN), None)
        best = min(
            (row for row in found if row.implementation.is_torch and row.implementation.float32 and row.milliseconds),
            key=lambda row: statistics.median(row.milliseconds),
            default=None,
        )
        title = f"{case.network} {case.channels}x{case.size}x{case.size}, batch {case.batch}, {case.work}"
        shares = f"{'peak':>6}{'band':>6}" if roof is not None else ""
        lines += ["", f"{title:41}{'median':>9}{'min':>9}{'x':>7}  {shares}"]
        for row in found:
            name = f"  {row.implementation.name.replace('allocator ', '')}"
            if row.median is None:
                lines.append(f"{name}: {row.note}"[:WIDTH])
                continue
            times = f"{'' if ours is None else f'{row.median / ours:.2f}':>7}{' *' if row is best else '  '}"
            shares = "".join(f"{share:6.0%}" for share in row.shares() or ())
            lines.append(f"{name:41}{row.median:9.3f}{min(row.milliseconds):9.3f}{times}{shares}")
            if row.note is not None:
                lines.append(f"    {row.note}"[:WIDTH])
    shown_ratios = {name: value for name, value in report["ratios"].items() if value is not None}
    if shown_ratios:
        lines += ["", f"PyTorch's best over facecnn, batch {COMPARED_BATCH}:"]
        lines += [f"  {name:20}{value:8.2f}" for name, value in shown_ratios.items()]
    return lines
