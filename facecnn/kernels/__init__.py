"""The arithmetic, several times over: ``reference`` (NumPy, to be read) and ``cpu`` (Numba).

``open_device`` picks one of these backends.
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from facecnn.errors import DeviceError, UsageError
from facecnn.kernels.protocol import Kernels

DEVICES = ("auto", "cpu", "cuda", "reference")


@dataclass(frozen=True)
class Device:
    """A backend that was opened, and what a user is told about it."""

    kernels: Kernels
    """The module with the functions of ``facecnn.kernels.reference``."""
    name: str
    """``cpu`` or ``reference``."""
    description: str
    """``AMD EPYC, 2 threads``."""
    reason: str
    """Why this device was taken."""
    notice: str | None = None
    """What a user should know before waiting for it."""


def open_device(device: str, threads: int | None = None) -> Device:
    """The kernels for what ``--device`` and ``--threads`` say: auto, cpu, cuda, cuda:N or reference.

    ``threads`` None takes all that this process may use. A backend is imported only here. Raises UsageError for a
    name that there isn't or a number of threads that can't be had, DeviceError for a device that can't be used.
    """
    if device == "cuda" or (device.startswith("cuda:") and device[5:].isdecimal()):
        raise DeviceError(
            f"--device {device}: {_no_cuda()}. Use --device cpu, or leave --device out to get the best that there is"
        )
    if device not in DEVICES:
        near = get_close_matches(device.lower(), DEVICES, n=1)
        hint = f"did you mean {near[0]}?" if near else "choose auto, cpu, cuda, cuda:N or reference"
        raise UsageError(f"--device {device!r}: there is no such device; {hint}")
    available = available_threads()
    if threads is not None and not 1 <= threads <= available:
        raise UsageError(f"--threads {threads}: must be 1 to {available}, the processors that this process may use")
    if device == "reference":
        from threadpoolctl import threadpool_limits

        from facecnn.kernels import reference

        threadpool_limits(1)  # BLAS sums in another order with another number of threads
        return Device(reference, "reference", "NumPy, one operation at a time (slow)", "asked for")

    from facecnn.kernels import cpu

    count = available if threads is None else threads
    cpu.set_threads(count)
    reason = "asked for" if device == "cpu" else f"the best device here: {_no_cuda()}"
    notice = None if cpu.are_compiled() else "The kernels are compiled first; that takes about half a minute, once."
    return Device(cpu, "cpu", f"{_processor()}, {count} thread{'s' if count > 1 else ''}", reason, notice)


def available_threads() -> int:
    """The processors that this process may use: those of its affinity mask and NUMBA_NUM_THREADS, if that is set."""
    affinity = getattr(os, "sched_getaffinity", None)
    count = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    limit = os.environ.get("NUMBA_NUM_THREADS", "")
    return min(count, max(1, int(limit))) if limit.isdecimal() else count


def _no_cuda() -> str:
    """Why no GPU is used, as the middle of a sentence."""
    return "this version of facecnn has no CUDA kernels"


def _processor() -> str:
    """The processor's name as its maker writes it, where the system tells."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return " ".join(value.split())
    except OSError:
        pass
    return platform.processor() or platform.machine() or "processor"
