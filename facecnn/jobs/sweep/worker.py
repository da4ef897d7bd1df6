"""Runs a sweep's trials in several processes.

Each process runs this module. What it has to do comes through its standard input, which stays open: when that closes,
the first process has ended, and so does this one. Its messages go to its standard output, one JSON text per line.

Heavy modules are imported only once that is watched.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from facecnn.errors import FacecnnError, OutputError, shown
from facecnn.jobs import further_process
from facecnn.jobs.console import Console

if TYPE_CHECKING:
    from facecnn.jobs.console import Console
    from facecnn.jobs.sweep.trial import Task

_LONGEST_END = 60.0
"""Seconds within which the processes of a killed sweep end."""


def run_in_processes(task: Task, console: Console) -> None:
    """Run all trials in ``task.processes`` processes. Ends them all if one fails, or this one is stopped.

    Raises FacecnnError: a process failed, and why.
    """
    messages: SimpleQueue[tuple[int, dict[str, Any] | None]] = SimpleQueue()
    workers: list[subprocess.Popen[bytes]] = []
    with _ending(workers):
        for number in range(task.processes):
            workers.append(_start(task, number))
            threading.Thread(target=_read, args=(workers[-1], number, messages), daemon=True).start()
        left = task.processes
        while left:
            number, message = messages.get()
            if message is None:
                left -= 1
                code = workers[number].wait()
                if code:
                    raise FacecnnError(f"a process of the sweep ended with code {code}: --resume continues it")
            elif "error" in message:
                failure = FacecnnError(message["error"])
                failure.exit_code = message["code"]
                raise failure
            else:
                console.info(message["info"])


def wait_for_the_last(journal: Path) -> None:
    """Wait until all processes of a sweep whose first process was killed have ended, so that they don't finish a trial
    that is repeated. Raises OutputError if that takes too long."""
    for lock in sorted(journal.parent.glob(_lock_name(journal, "*"))):
        try:
            with FileLock(lock, timeout=_LONGEST_END):
                pass
        except Timeout:
            raise OutputError(f"{shown(journal.parent)}: a process is still working on this sweep: end it") from None


def known_to_work(journal: Path, number: int) -> FileLock:
    """Lets ``wait_for_the_last`` know, as a context manager, that process ``number`` works on a sweep."""
    return FileLock(journal.with_name(_lock_name(journal, number)))


def _lock_name(journal: Path, number: object) -> str:
    return f".{journal.name}.process{number}"


def _start(task: Task, number: int) -> subprocess.Popen[bytes]:
    process = further_process.start(__name__, stdout=subprocess.PIPE)
    assert process.stdin is not None
    lock = task.journal.with_name(_lock_name(task.journal, number)).resolve()
    for part in (os.fsencode(lock), pickle.dumps(task)):
        process.stdin.write(b"%d\n" % len(part) + part)
    process.stdin.flush()
    return process


def _read(
    process: subprocess.Popen[bytes], number: int, messages: SimpleQueue[tuple[int, dict[str, Any] | None]]
) -> None:
    """Pass on what a process says, and then None."""
    assert process.stdout is not None
    for line in process.stdout:
        messages.put((number, json.loads(line)))
    messages.put((number, None))


@contextmanager
def _ending(workers: list[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Kills the processes that are left at the end."""
    try:
        yield
    finally:
        for process in workers:
            process.kill()
            process.wait()


class _Console(Console):
    """Sends messages to the first process."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def send(self, message: dict[str, Any]) -> None:
        self._stream.write(json.dumps(message) + "\n")
        self._stream.flush()

    def info(self, text: str) -> None:
        self.send({"info": text})


def _work() -> None:
    """What a further process does."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the first one ends the others
    console = _Console(sys.stdout)
    sys.stdout = sys.stderr
    lock, task = (sys.stdin.buffer.read(int(sys.stdin.buffer.readline())) for _ in range(2))
    with FileLock(os.fsdecode(lock)):
        further_process.end_with_the_first()
        try:
            _run(task, console)
        except FacecnnError as error:
            console.send({"error": str(error), "code": error.exit_code})
        except Exception as error:
            console.send({"error": f"internal error: {type(error).__name__}: {error}", "code": 1})


def _run(pickled: bytes, console: Console) -> None:
    from facecnn.jobs.sweep.trial import run_trials
    from facecnn.kernels import open_device

    task: Task = pickle.loads(pickled)
    run_trials(task, open_device(task.device, task.threads), console)


if __name__ == "__main__":
    _work()
