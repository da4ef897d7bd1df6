"""What scaling.py measures: ranks of its own on this machine, in short turns, of which medians are taken.

A step's arithmetic is measured in processor seconds: where other programs are at work, a step that is longer than a
turn of the scheduler takes several times as long by the clock. How many programs would slow it down that much is noted.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.processes import environment
from benchmarks.work import Case
from cluster.model import Exchange, Host, Link, Round, exchange_seconds, fit, looks
from common.command import say
from common.worker import last_line
from facecnn.errors import FacecnnError, UsageError
from facecnn.kernels import available_threads, processor_name

HERE = Path(__file__).parent
BATCHES, QUICK_BATCHES = (1, 4, 16, 64), (1, 8)
"""Photos of the steps that arithmetic is measured with."""
ROUNDS, QUICK_ROUNDS = 9, 3
SECONDS, QUICK_SECONDS = 0.3, 0.02
"""Of a turn."""
HARDLY = 1.1
"""Seconds by the clock for each of a processor: with less, a step had one to itself."""
LONGEST_RUN = 3600


@dataclass(frozen=True)
class Measured:
    """A network's steps and this machine's exchanges: medians."""

    cpu: str
    processors: int
    others: float
    """Other programs at work, from what a step took by the clock for each second of a processor."""
    network: str
    size: int
    """Pixels a side."""
    batch: int
    """Photos of a step that ranks shared."""
    alone: Mapping[int, float]
    """Processor seconds of a step, by its photos."""
    shared: Mapping[int, float]
    """Processor seconds of a rank's part of a shared step, without the exchange, by photos."""
    steps: Mapping[int, float]
    """Seconds by the clock of a step of ``batch`` photos, by ranks."""
    call: float
    look: float
    latency: float
    bandwidth: float
    per_added_byte: float
    exchanges: tuple[Exchange, ...]

    @property
    def host(self) -> Host:
        lines = fit(dict(self.alone)), fit(dict(self.shared))
        return Host(*lines, self.call, self.look, self.per_added_byte, self.processors, self.exchanges, self.others)

    @property
    def link(self) -> Link:
        """What ranks send messages over here: memory."""
        return Link("here", self.latency, self.bandwidth, one_machine=True)

    def plain(self) -> dict[str, Any]:
        return asdict(self)


def read(text: str, name: str) -> Measured:
    """What an earlier run has measured, from the JSON that it printed. Raises UsageError."""
    try:
        plain = dict(json.loads(text)["measured"])
        times = {
            what: {int(count): float(seconds) for count, seconds in plain[what].items()}
            for what in ("alone", "shared", "steps")
        }
        exchanges = tuple(Exchange(one["kind"], int(one["bytes"])) for one in plain["exchanges"])
        found = Measured(**{**plain, **times, "exchanges": exchanges})
        numbers = [number for of in times.values() for both in of.items() for number in both]
        numbers += [
            found.call,
            found.look,
            found.latency,
            found.bandwidth,
            found.per_added_byte,
            found.processors,
            found.batch,
        ]
        if not (found.alone and found.shared and exchanges and found.others >= 0 and all(n > 0 for n in numbers)):
            raise ValueError("it lacks times, or one isn't above 0")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{name}: is no measurement of this script ({type(error).__name__}: {error}): make one with --json"
        ) from None
    return found


def measure(case: Case, ranks: Sequence[int], *, quick: bool) -> Measured:
    """Measure a network's steps, alone and on each number of ranks, and exchanges.

    Raises:
        UsageError: there is no mpiexec, or no mpi4py.
        FacecnnError: the ranks failed.
    """
    plan = {
        "case": asdict(case),
        "batches": QUICK_BATCHES if quick else BATCHES,
        "ranks": list(ranks),
        "rounds": QUICK_ROUNDS if quick else ROUNDS,
        "seconds": QUICK_SECONDS if quick else SECONDS,
    }
    size = max(2, *ranks)
    command = [*_mpiexec(), "-n", str(size), sys.executable, "-m", "mpi4py", HERE / "worker.py"]
    say(f"{case.network}, {case.size} pixels: {size} ranks take turns ...")
    found = _answer(command, plan)
    clock, processor = (
        {what: {int(of): median(run[kind] for run in runs) for of, runs in times.items()} for what, times in all_times}
        for all_times in [found["times"].items()]
        for kind in (0, 1)
    )
    [(large_bytes, large)] = clock["large"].items()
    [small], [look] = clock["small"].values(), clock["look"].values()
    [call], [adding] = processor["call"].values(), processor["adding"].values()
    per_added_byte, latency = adding / large_bytes, max(small - call - (looks(Round(1, 0)) - 0.5) * look, 1e-7)
    return Measured(
        cpu=processor_name(),
        processors=available_threads(),
        others=_others(clock["alone"], processor["alone"]),
        network=case.network,
        size=case.size,
        batch=case.batch,
        alone=processor["alone"],
        shared=processor["shared"],
        steps=clock["step"],
        call=call,
        look=look,
        latency=latency,
        bandwidth=_bandwidth(large_bytes, large, latency, call, look, per_added_byte),
        per_added_byte=per_added_byte,
        exchanges=tuple(Exchange(**one) for one in found["exchanges"]),
    )


def _others(clock: Mapping[int, float], processor: Mapping[int, float]) -> float:
    """How many programs share the processors with a step, if all get the same share: the longest step is the one that
    they interrupt in any case. None, if it is hardly interrupted."""
    longest = max(clock)
    times = clock[longest] / processor[longest]
    return max(0.0, times * available_threads() - 1) if times > HARDLY else 0.0


def _bandwidth(size: int, seconds: float, latency: float, call: float, look: float, per_added_byte: float) -> float:
    """Bytes a second, from the time that two ranks take to add up ``size`` bytes: the bandwidth with which the model
    gives that time for two ranks with a processor each."""
    exchange, none = Exchange("add_up", size), ()
    lines = fit({1: 1.0}), fit({1: 1.0})
    host = Host(*lines, call, look, per_added_byte, 2, none)
    low, high = size / seconds, 1e13
    for _ in range(60):
        middle = (low * high) ** 0.5
        if sum(exchange_seconds(exchange, 2, Link("", latency, middle), host)) > seconds:
            low = middle
        else:
            high = middle
    return low


def _mpiexec() -> list[str | Path]:
    try:
        import mpi4py
    except ImportError:
        mpi4py = None  # type: ignore[assignment]
    beside = Path(sys.executable).with_name("mpiexec")
    found = str(beside) if beside.exists() else shutil.which("mpiexec")
    if mpi4py is None or found is None:
        missing = "mpi4py" if mpi4py is None else "mpiexec"
        raise UsageError(
            f"{missing} isn't installed, and ranks here are measured with it: pip install 'facecnn[mpi]', or give "
            "--measured a file that another machine has made"
        )
    return [found]


def _answer(command: Sequence[str | Path], plan: Mapping[str, Any]) -> dict[str, Any]:
    paths = os.pathsep.join(str(HERE.parents[up]) for up in (0, 1))
    known = environment()
    path = f"{paths}{os.pathsep}{known['PYTHONPATH']}" if known.get("PYTHONPATH") else paths
    try:
        done = subprocess.run(
            [*command, json.dumps(plan)],
            env={**known, "PYTHONPATH": path},
            capture_output=True,
            encoding="utf-8",
            timeout=LONGEST_RUN,
        )
    except subprocess.TimeoutExpired:
        raise FacecnnError(
            f"the ranks didn't end within {LONGEST_RUN} seconds: give --quick or a smaller --size"
        ) from None
    if done.returncode or not done.stdout.strip():
        raise FacecnnError(f"the ranks failed ({done.returncode}): {last_line(done.stderr)}")
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer
