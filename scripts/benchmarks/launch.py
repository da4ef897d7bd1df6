"""Runs a command, then prints a line of JSON: its seconds, those of processors, peak memory in bytes and exit code.

benchmark.py starts it for every process that it measures as a whole. On Linux a program's peak includes the memory of
the process that started it, so this one imports as little as possible; run it with Python's -I -S.
"""

import json
import os
import sys
import time


def run(command: list[str]) -> dict[str, object]:
    """Run a command. Returns its figures; None where the system doesn't report one (Windows)."""
    started = time.perf_counter()
    if not hasattr(os, "wait4"):
        code = os.spawnv(os.P_WAIT, command[0], command)
        seconds = time.perf_counter() - started
        return {"seconds": seconds, "processor_seconds": None, "peak_bytes": None, "exit_code": code}
    child = os.posix_spawn(command[0], command, os.environ)
    _, status, usage = os.wait4(child, 0)
    seconds = time.perf_counter() - started
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {
        "seconds": seconds,
        "processor_seconds": usage.ru_utime + usage.ru_stime,
        "peak_bytes": peak,
        "exit_code": os.waitstatus_to_exitcode(status),
    }


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1:])))
