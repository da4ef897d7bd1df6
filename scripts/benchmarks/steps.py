"""The part of benchmark.py that times a training step and prediction on ready pictures, against PyTorch."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from benchmarks.processes import (
    FACECNN,
    Conditions,
    Implementation,
    Process,
    WorkerError,
    in_turns,
    raise_if_ours,
    started,
)
from benchmarks.work import BODY, Case
from common.command import say
from facecnn.errors import FacecnnError, UsageError
from machine.roofline import Cost, Roof
from machine.roofline import cost as network_cost

BATCHES = (1, 8, 60)
TURN_SECONDS = 0.4
ROUNDS, QUICK_ROUNDS = 9, 4
WIDTH = 80

TOLERANCES, COARSE_TOLERANCES = (1e-4, 5e-3), (2e-2, 2e-1)
"""By which both sides must agree, in float32 and with fewer bits (TF32, bfloat16): in the loss before the first update,
relative, and the probabilities; and in the later losses, which contain the rounding errors of all gradients."""


@dataclass(frozen=True)
class Subject:
    """A network at a size."""

    key: str
    """Its name among the ratios."""
    network: str
    channels: int
    size: int
    works: tuple[str, ...]
    batches: tuple[int, ...] = BATCHES
    """The last one is that of the ratio, and the only one of a quick run."""

    def cases(self, *, quick: bool = False) -> list[Case]:
        return [
            Case(self.network, self.channels, self.size, batch, "train" if work == "train" else "predict")
            for work in self.works
            for batch in self.batches[-1 if quick else 0 :]
        ]


SUBJECTS = (
    Subject("seed-224", "seed", 3, 224, ("train", "predict")),
    Subject("deep-224", "deep", 3, 224, ("train", "predict")),
    Subject("seed-64", "seed", 1, 64, ("train", "predict")),
    Subject("deep-64", "deep", 1, 64, ("train", "predict")),
    Subject("default", "default", 1, 48, ("train",), BATCHES[1:]),  # batch norm of units can't be trained with one
)
ON_REQUEST = (
    Subject("many", "many", 1, 64, ("train",), BATCHES[1:]),
    Subject("body-150", BODY, 3, 150, ("predict",), (1, 32)),  # 32: as the embedder does it
)
"""Only on request."""
SMOKE = Subject("smoke", "smoke", 1, 24, ("train", "predict"))
"""Only shows that the benchmark runs."""


@dataclass
class Row:
    """The figures of one case and implementation."""

    case: Case
    implementation: Implementation
    milliseconds: list[float] = field(default_factory=list)
    note: str | None = None
    """A remark on the times, or why there are none."""
    cost: Cost | None = None
    roof: Roof | None = None
    """What the processor can do at best, if measured."""
    peak_memory: int | None = None
    """Bytes of the process so far, if it never trained."""

    @property
    def median(self) -> float | None:
        return statistics.median(self.milliseconds) if self.milliseconds else None

    def shares(self) -> tuple[float, float] | None:
        """Shares of peak and bandwidth, by the median; None if unknown, and for fewer bits than float32, whose peak is
        another one."""
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
            "peak_memory": self.peak_memory,
            "note": self.note,
        }


def measure(
    conditions: Conditions, subject: Subject, chosen: Sequence[Implementation], rows: list[Row], roof: Roof | None
) -> None:
    """Add all rows of a network: first compare the work of all, then time them round by round, each in turn.

    Raises FacecnnError where their work differs, and where facecnn fails.
    """
    with started(chosen) as processes:
        cases = subject.cases(quick=conditions.quick)
        wrong = check(processes, max(cases, key=lambda case: case.batch))
        for case in cases:
            say(f"{subject.key}, batch {case.batch}, {case.work} ...")
            shape = (case.size, case.size, case.channels)
            cost = network_cost(case.network, shape, case.batch, training=case.work == "train")
            of_case = [Row(case, one, note=wrong.get(one.name), cost=cost, roof=roof) for one in chosen]
            rows += of_case
            timed = list(zip(processes, of_case, strict=True))
            time_in_turns(timed, conditions.turns(ROUNDS, QUICK_ROUNDS))
            if "train" not in subject.works:
                for process, row in timed:
                    row.peak_memory = process.ask("peak_memory") if row.milliseconds else None


def time_in_turns(timed: Sequence[tuple[Process, Row]], rounds: int) -> None:
    """Fill in the times of rows without a note; a row whose process fails gets a note instead."""
    ready: list[tuple[Process, Row]] = []
    for process, row in timed:
        if row.note is None:
            try:
                row.note = process.ask("prepare", case=row.case)["note"]
                ready.append((process, row))
            except WorkerError as error:
                row.note = str(error)
                raise_if_ours(process, error)
    for in_order in in_turns(ready, rounds):
        for process, row in in_order:
            try:
                row.milliseconds += process.ask("turn", seconds=TURN_SECONDS)
            except WorkerError as error:
                row.milliseconds, row.note = [], str(error)
                raise_if_ours(process, error)
                ready.remove((process, row))


def check(processes: Sequence[Process], case: Case) -> dict[str, str]:
    """Compare the work of all: losses of the first steps from the same weights, and answers.

    Returns:
        By name, why some can't be measured; with fewer bits than float32, also which are too far off.

    Raises:
        FacecnnError: Where other numbers differ, and where facecnn fails.
    """
    wrong: dict[str, str] = {}
    expected: dict[str, Any] = {}
    for process in processes:
        name = process.implementation.name
        try:
            found = process.ask("check", case=case)
        except WorkerError as error:
            raise_if_ours(process, error)
            wrong[name] = str(error)
            continue
        expected = expected or found
        tolerance, later = TOLERANCES if process.implementation.float32 else COARSE_TOLERANCES
        near = [
            np.isclose(found["losses"][:1], expected["losses"][:1], rtol=tolerance, atol=0).all(),
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
    ours, best = ours_and_best(rows)
    return None if ours is None or best is None else best / ours


def ours_and_best(rows: Sequence[Row]) -> tuple[float | None, float | None]:
    """facecnn's median and PyTorch's best one in float32, of the rows of one case."""
    ours = next((row.median for row in rows if row.implementation.name == FACECNN), None)
    theirs = [row.median for row in rows if row.implementation.is_torch and row.implementation.float32]
    return ours, min((median for median in theirs if median is not None), default=None)


def of_case(rows: Sequence[Row], case: Case) -> list[Row]:
    return [row for row in rows if row.case == case]


def ratios(subjects: Sequence[Subject], rows: Sequence[Row]) -> dict[str, float | None]:
    """Ratios by name (``seed-224-train``); None for what wasn't measured, or not beside PyTorch."""
    names = dict.fromkeys((*SUBJECTS, *subjects))
    return {
        f"{subject.key}-{case.work}": ratio(of_case(rows, case))
        for subject in names
        for case in subject.cases(quick=True)
    }


def chosen_subjects(networks: Sequence[str]) -> list[Subject]:
    """Choose by network or by key; the usual ones, if there are no ``networks``. Raises UsageError."""
    every: dict[str, list[Subject]] = {}
    for subject in (*SUBJECTS, *ON_REQUEST, SMOKE):
        every.setdefault(subject.network, []).append(subject)
    every |= {subject.key: [subject] for subject in SUBJECTS}
    for name in networks:
        if name not in every:
            raise UsageError(f"--network {name}: there is no such network; choose among {', '.join(every)}")
    return list(dict.fromkeys(subject for name in networks for subject in every[name])) or list(SUBJECTS)


def table(report: dict[str, Any], rows: Sequence[Row]) -> list[str]:
    """Format for a terminal of 80 columns."""
    lines = [
        "Milliseconds a batch; x: how many times as long as facecnn, by the medians;",
        "*: PyTorch's best in float32",
    ]
    names = " ".join(row.implementation.name for row in rows)
    if "tuned" in names:
        lines.append("tuned: with settings by which its allocator keeps the memory that is freed")
    if "bf16" in names:
        lines.append("bf16: autocast to a significand of 7 bits; shown, but not compared")
    if "TF32" in names:
        lines.append("TF32: products with a significand of 10 bits; shown, but not compared")
    roof = report["roof"]
    if roof is not None:
        lines += [
            f"peak, band: shares of this processor's measured {roof['peak'] / 1e9:,.0f} Gflop/s (float32) and",
            f"{roof['bandwidth'] / 1e9:,.1f} GB/s, in dense-equivalent operations (training: 3 times forward, 2 times",
            "for the first layer; fewer may be done, so that 100 % is no bound) and in bytes that",
            "must at least be moved",
        ]
    for case in dict.fromkeys(row.case for row in rows):
        lines += case_table(case, of_case(rows, case), "" if roof is None else f"{'peak':>6}{'band':>6}")
    shown_ratios = {name: value for name, value in report["ratios"].items() if value is not None}
    if shown_ratios:
        lines += ["", "PyTorch's best over facecnn, the largest batch of each:"]
        lines += [f"  {name:20}{value:8.2f}" for name, value in shown_ratios.items()]
    return lines


def case_table(case: Case, rows: Sequence[Row], shares: str) -> list[str]:
    """A line for each implementation, below a title that ends with the headings of the shares."""
    ours, best = ours_and_best(rows)
    title = f"{case.network} {case.channels}x{case.size}x{case.size}, batch {case.batch}, {case.work}"
    lines = ["", f"{title:41}{'median':>9}{'min':>9}{'x':>7}  {shares}"]
    for row in rows:
        name = f"  {row.implementation.name.replace('allocator ', '')}"
        if row.median is None:
            lines.append(f"{name}: {row.note}"[:WIDTH])
            continue
        is_best = row.implementation.is_torch and row.implementation.float32 and row.median == best
        times = f"{'' if ours is None else f'{row.median / ours:.2f}':>7}{' *' if is_best else '  '}"
        of_roof = "".join(f"{share:6.0%}" for share in row.shares() or ())
        lines.append(f"{name:41}{row.median:9.3f}{min(row.milliseconds):9.3f}{times}{of_roof}")
        if row.note is not None:
            lines.append(f"    {row.note}"[:WIDTH])
        if row.peak_memory is not None:
            lines.append(f"    peak memory {row.peak_memory / 1e6:,.0f} MB")
    return lines
