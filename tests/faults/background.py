"""A training in the background, stopped in its middle while something happens to its photos."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cli.running import Outcome, killed_at_the_end

from .conftest import COMMAND, QUICK

EPOCHS = 400
"""Enough that the training isn't over before it is stopped."""


@contextmanager
def training_halted(photos: Path, run: Path) -> Iterator[Callable[[], Outcome]]:
    """Train on photos, and halt the process after its first epoch while the block begins; what is yielded lets it go
    on and waits for its end."""
    where = ("--out", os.fspath(run.parent), "--name", run.name)
    words = [*COMMAND, "train", os.fspath(photos), *QUICK, "--epochs", str(EPOCHS), *where]
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def end() -> Outcome:
        process.send_signal(signal.SIGCONT)
        stdout, stderr = process.communicate(timeout=120)
        return Outcome(process.returncode, stdout.decode(), stderr.decode())

    with killed_at_the_end(process):
        deadline = time.monotonic() + 120
        while epochs_done(run) == 0:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGSTOP)
        assert epochs_done(run) < EPOCHS
        yield end


def epochs_done(run: Path) -> int:
    """Lines in a run's metrics."""
    metrics = run / "metrics.jsonl"
    return metrics.read_bytes().count(b"\n") if metrics.exists() else 0
