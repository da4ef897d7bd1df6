"""Further processes of a job, which end with the one that started them.

Each runs a module, is told what to do through its standard input, and ends when that closes.
"""

import os
import subprocess
import sys
import threading
from pathlib import Path


def start(module: str, *, stdout: int) -> subprocess.Popen[bytes]:
    """Run a module of facecnn in a child process, whose stderr is discarded. Raises OSError.

    ``stdout``: as for ``Popen``.
    """
    paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    return subprocess.Popen(
        [sys.executable, "-P", "-m", module],  # -P: don't import from the current folder
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
    )


def end_with_the_first() -> None:
    """From now on, end this process when its standard input closes, which is when the parent process closes it or ends.
    Call this only after reading everything that the parent sends."""
    threading.Thread(target=_wait_and_end, daemon=True).start()


def _wait_and_end() -> None:
    os.read(sys.stdin.fileno(), 1)  # until the first process closes the pipe, or ends: it writes no more
    os._exit(0)
