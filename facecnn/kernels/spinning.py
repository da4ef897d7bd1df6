"""Whether there are processors to spare, on which threads that wait for work may spin."""

import os
import time
from pathlib import Path

_seen: bool | None = None


def look_for_free_processors(count: int) -> None:
    """Look now, for threads that are started later, so that what this process starts meanwhile doesn't count."""
    global _seen
    _seen = _are_free(count)


def processors_are_free(count: int) -> bool:
    """Whether at some moment of the next few milliseconds, or when it was looked, this program and ``count - 1``
    threads have processors of their own. Where the system doesn't tell: no."""
    return _are_free(count) if _seen is None else _seen


def _are_free(count: int) -> bool:
    for _ in range(5):
        try:
            running = int(Path("/proc/loadavg").read_text(encoding="ascii").split()[3].partition("/")[0])
        except (OSError, ValueError, IndexError):
            return False
        if running - 1 + count <= (os.cpu_count() or 1):
            return True
        time.sleep(0.002)
    return False
