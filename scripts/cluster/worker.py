"""The ranks of scaling.py: ``mpiexec -n K python -m mpi4py worker.py PLAN`` measures steps and exchanges in turns, and
rank 0 prints the seconds of each run in JSON. Ranks that have no part in a turn sleep meanwhile."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.facecnn_worker import Facecnn
from benchmarks.work import TIMED_LEARNING_RATE, WARM_UP_STEPS, Case, Work, work_of
from facecnn.arrays import Array
from facecnn.network.network import Keep, Network
from facecnn.parallel.mpi import MpiRanks, give_way
from facecnn.parallel.ranks import ALONE, Alone, Ranks, share

SMALL_BYTES, LARGE_BYTES = 8, 4 << 20
TIME_LIMIT = 300.0
MOST_STEPS = 50
"""Of a turn."""
IDLE_SECONDS = 0.005


class Unanswered(Alone):
    """A rank of two whose other one says the same at once; it notes what is told. A step with it computes what a rank
    does in a shared step, and sends nothing."""

    size = 2

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []

    def add_up(self, array: Array) -> None:
        self.told.append({"kind": "add_up", "bytes": array.nbytes})

    def stack(self, array: Array) -> Array:
        self.told.append({"kind": "stack", "bytes": array.nbytes})
        return np.repeat(array[None], self.size, axis=0)


class SharedFacecnn(Facecnn):
    """facecnn on one thread, as one of some ranks."""

    def __init__(self, ranks: Ranks) -> None:
        super().__init__({"device": "cpu", "threads": 1, "recorded": True})
        self._ranks = ranks

    def _filled(self, work: Work, keep: Keep) -> Network:
        network = super()._filled(work, keep)
        network.ranks = self._ranks
        return network


@dataclass(frozen=True)
class Task:
    """Something that is timed."""

    name: str
    of: int
    """Photos, ranks or bytes."""
    size: int
    """Ranks that take part."""
    ranks: Ranks
    run: Callable[[], object]


def tasks_of(plan: dict[str, Any], mpi: Any) -> tuple[list[Task], Unanswered]:
    """All that this rank takes part in or waits for, in the same order on all, and what a step tells others."""
    case = Case(**plan["case"])
    work, counting = work_of(case), Unanswered()
    world = mpi.COMM_WORLD
    first, made = world.rank == 0, []

    def part(start: int, stop: int) -> Work:
        rows = np.arange(start, stop) % case.batch
        return replace(work, pictures=work.pictures[rows], labels=work.labels[rows])

    def training(ranks: Ranks, start: int, stop: int) -> Callable[[], object]:
        return SharedFacecnn(ranks).training(part(start, stop), TIMED_LEARNING_RATE)

    def nothing() -> None:
        pass

    for photos in plan["batches"]:
        for name, ranks in (("alone", ALONE), ("shared", counting)):
            made.append(Task(name, photos, 1, ranks, training(ranks, 0, photos) if first else nothing))
    small, large = np.zeros(SMALL_BYTES, np.uint8), np.zeros(LARGE_BYTES // 4, np.float32)
    other = np.zeros_like(large)
    for name, size, array in (("call", 1, small), ("small", 2, small), ("large", 2, large)):
        among: Ranks = group(mpi, size) or ALONE
        tell = among.add_up if array is large else among.stack
        made.append(Task(name, array.nbytes, size, among, partial(tell, array)))
    made.append(Task("look", 0, 1, ALONE, give_way))
    made.append(Task("adding", large.nbytes, 1, ALONE, partial(np.add, large, other, out=large)))
    for size in plan["ranks"]:
        among = (group(mpi, size) if size > 1 else None) or ALONE
        run = training(among, *share(case.batch, among)) if world.rank < size else nothing
        made.append(Task("step", size, size, among, run))
    return made, counting


def group(mpi: Any, size: int) -> MpiRanks | None:
    """The first ``size`` ranks, if this is one of them."""
    comm = mpi.COMM_WORLD.Split(0 if mpi.COMM_WORLD.rank < size else mpi.UNDEFINED)
    if comm == mpi.COMM_NULL:
        return None
    return MpiRanks(SimpleNamespace(**{**vars(mpi), "COMM_WORLD": comm}), TIME_LIMIT)


def turn(task: Task, seconds: float) -> list[tuple[float, float]]:
    """Seconds of each run by the clock and of the processor, for about so many seconds in all; the first isn't
    counted."""
    wanted = round(seconds / max(timed(task.run)[0], 1e-9))
    count = task.ranks.broadcast(max(1, min(MOST_STEPS, wanted)))
    return [timed(task.run) for _ in range(count)]


def timed(run: Callable[[], object]) -> tuple[float, float]:
    started, busy = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - started, time.process_time() - busy


def idle(world: Any) -> None:
    """Wait for all ranks without keeping a processor busy."""
    request = world.Ibarrier()
    while not request.Test():
        time.sleep(IDLE_SECONDS)


def main() -> None:
    import mpi4py

    mpi4py.rc.thread_level = "serialized"
    from mpi4py import MPI

    plan = json.loads(sys.argv[1])
    world = MPI.COMM_WORLD
    tasks, counting = tasks_of(plan, MPI)
    found: dict[str, dict[int, list[tuple[float, float]]]] = {task.name: {} for task in tasks}
    exchanges: list[dict[str, Any]] = []
    for task in tasks:
        for _ in range(WARM_UP_STEPS if world.rank < task.size else 0):
            counting.told.clear()
            task.run()
            exchanges = exchanges or list(counting.told)
        idle(world)
    for number in range(plan["rounds"]):
        first = number % len(tasks)
        for task in tasks[first:] + tasks[:first]:
            if world.rank < task.size:
                found[task.name].setdefault(task.of, []).extend(turn(task, plan["seconds"]))
                counting.told.clear()
            idle(world)
    if world.rank == 0:
        print(json.dumps({"exchanges": exchanges, "times": found}), flush=True)


if __name__ == "__main__":
    main()
