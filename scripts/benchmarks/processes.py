"""What benchmark.py times in processes of their own: the implementations, and how the processes are spoken to."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from benchmarks.work import question
from common.worker import LineProcess, last_line
from facecnn.errors import FacecnnError, UsageError

HERE = Path(__file__).parent
FACECNN = "facecnn"

TUNED = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "20000000000",
    "MALLOC_TOP_PAD_": "67108864",
    "THP_MEM_ALLOC_ENABLE": "1",
}
"""With these PyTorch keeps the memory that it frees, instead of having the system clear every page again and again."""

Item = TypeVar("Item")


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
        return self.script == "torch_worker.py"


@dataclass(frozen=True)
class Conditions:
    """Under which conditions everything is measured."""

    device: str
    threads: int
    quick: bool
    rounds: int | None
    """Turns of each implementation, if they were asked for."""

    @property
    def options(self) -> dict[str, Any]:
        """Options of every worker."""
        return {"device": self.device, "threads": self.threads}

    def turns(self, usual: int, quick: int) -> int:
        return self.rounds or (quick if self.quick else usual)

    def facecnn(self, name: str = FACECNN, *, recorded: bool = True) -> Implementation:
        """facecnn on ready pictures, its steps recorded as in training, or launched kernel by kernel."""
        return Implementation(name, "facecnn_worker.py", {**self.options, "recorded": recorded})

    def training(self, config: str, overrides: Sequence[str], photos: Path, folder: Path) -> Implementation:
        """Training like that of ``facecnn train``, with its run and its cache in ``folder``."""
        options = {"config": config, "overrides": overrides, "photos": str(photos), "folder": str(folder)}
        return Implementation(FACECNN, "training_worker.py", {**self.options, **options})


def implementations(conditions: Conditions, against: Sequence[str]) -> list[Implementation]:
    """facecnn, and those of PyTorch whose names contain one of the words in ``against`` (all, if there are none)."""
    on_card = conditions.device == "cuda"
    ours = [conditions.facecnn()]
    if on_card:
        ours.append(conditions.facecnn("facecnn, plain launches", recorded=False))
    theirs: list[Implementation] = []

    def add(name: str, *, channels_last: bool = False, compile: str | None = None, graph: bool = False) -> None:
        own = {"channels_last": channels_last, "compile": compile, "one_graph": graph, "tf32": False, "bf16": False}
        theirs.append(Implementation(name, "torch_worker.py", {**conditions.options, **own}))

    for layout, channels_last in (("NCHW", False), ("channels_last", True)):
        add(f"torch eager {layout}", channels_last=channels_last)
        if on_card:
            add(f"torch eager {layout}, one CUDA graph", channels_last=channels_last, graph=True)
    add("torch.compile", compile="default")  # it chooses layouts by itself, and given channels_last it is slower
    if on_card:
        add("torch.compile, CUDA graphs", compile="reduce-overhead")
        add("torch.compile, one CUDA graph", compile="default", graph=True)
    plain = [one for one in theirs if one.options["compile"] is None and not one.options["one_graph"]]
    for kind, option in (("bf16", "bf16"), ("TF32", "tf32"))[: 2 if on_card else 1]:
        theirs += [
            replace(one, name=f"{one.name}, {kind}", options={**one.options, option: True}, float32=False)
            for one in plain
        ]
    if not on_card:
        theirs += [replace(one, name=f"{one.name}, allocator tuned", environment=TUNED) for one in theirs]
    chosen = [one for one in theirs if not against or any(word in one.name for word in against)]
    if not chosen and "none" not in against:
        names = "\n".join(f"  {one.name}" for one in theirs)
        raise UsageError(f"--against {' '.join(against)}: none of PyTorch's names contains it:\n{names}")
    return ours + chosen


def in_turns(items: list[Item], rounds: int) -> Iterator[list[Item]]:
    """The items of each round, which begins with another of them each time. Items may be removed meanwhile."""
    for number in range(rounds):
        first = number % len(items)
        yield items[first:] + items[:first]


def environment() -> dict[str, str]:
    """This process's environment, without what tunes the allocator."""
    return {name: value for name, value in os.environ.items() if name not in TUNED}


def launched(
    name: str, command: Sequence[str | Path], more: Mapping[str, str] = MappingProxyType({})
) -> tuple[str, dict[str, Any]]:
    """Run a command as a whole process. Returns what it printed, and the figures of ``launch.py``.

    Args:
        name: in messages.
        command: the program and its arguments.
        more: variables of its environment.

    Raises:
        FacecnnError: it failed.
    """
    done = subprocess.run(
        [sys.executable, "-I", "-S", HERE / "launch.py", *command],
        env={**environment(), **more},
        capture_output=True,
        encoding="utf-8",
    )
    *said, figures = done.stdout.strip().splitlines() or ["{}"]
    found: dict[str, Any] = json.loads(figures) if done.returncode == 0 else {}
    if found.get("exit_code") != 0:
        raise FacecnnError(f"{name}: it failed: {last_line(done.stderr)}")
    return "\n".join(said), found


class WorkerError(Exception):
    """A worker's error message, and the exit code that goes with it."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Process:
    """A worker process."""

    def __init__(self, implementation: Implementation) -> None:
        self.implementation = implementation
        script, options = HERE / implementation.script, json.dumps(implementation.options)
        self._lines = LineProcess([sys.executable, script, options], environment() | implementation.environment)
        self.close = self._lines.close

    def ask(self, do: str, **arguments: Any) -> Any:
        """Call a method of the worker. Raises WorkerError."""
        try:
            answer = self._lines.ask(question(do, **arguments))
        except FacecnnError as error:
            raise WorkerError(str(error), error.exit_code) from None
        if "error" in answer:
            raise WorkerError(answer["error"], answer["exit_code"])
        return answer["result"]


@contextlib.contextmanager
def started(chosen: Sequence[Implementation]) -> Iterator[list[Process]]:
    """Start a process for each, ended with the block. They get ready one after the other, so that each finds the
    processors free: from that facecnn decides how its threads wait."""
    with contextlib.ExitStack() as stack:
        processes = []
        for implementation in chosen:
            processes.append(Process(implementation))
            stack.callback(processes[-1].close)
            with contextlib.suppress(WorkerError):  # the first question gets the same error
                processes[-1].ask("get_ready")
        yield processes


def ask_facecnn(process: Process, do: str, **arguments: Any) -> Any:
    """Call a method of a worker that runs facecnn. Raises FacecnnError."""
    try:
        return process.ask(do, **arguments)
    except WorkerError as error:
        raise_if_ours(process, error)


def raise_if_ours(process: Process, error: WorkerError) -> None:
    """Raise FacecnnError, unless it is PyTorch that failed: the benchmark goes on without it."""
    if not process.implementation.is_torch:
        failure = FacecnnError(str(error))
        failure.exit_code = error.exit_code
        raise failure


class Elsewhere:
    """How busy other programs keep the processors, on Linux."""

    def __init__(self) -> None:
        self._start = self._read()

    @staticmethod
    def _read() -> tuple[float, float, float] | None:
        """Processor seconds so far: in all, busy, and busy with this program and its ended children."""
        try:
            fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]
            total, idle = sum(map(int, fields)), int(fields[3]) + int(fields[4])
            per_second = os.sysconf("SC_CLK_TCK")
        except (OSError, ValueError, IndexError):
            return None
        return total / per_second, (total - idle) / per_second, sum(os.times()[:4])

    def share(self) -> float | None:
        """Their share, 0 to 1, since this object was made; processes started since then must have ended."""
        start, stop = self._start, self._read()
        if start is None or stop is None or stop[0] <= start[0]:
            return None
        total, busy, own = (after - before for before, after in zip(start, stop, strict=True))
        return min(1.0, max(0.0, (busy - own) / total))
