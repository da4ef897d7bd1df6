"""The arithmetic, several times over: ``reference`` (NumPy, to be read), ``cpu`` (Numba) and ``cuda`` (Numba CUDA).

``open_device`` picks one of these backends.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from facecnn.errors import DeviceError, UsageError
from facecnn.kernels.backend import Backend
from facecnn.kernels.cards import Cuda, card_number, find_cuda, free_memory

DEVICES = ("auto", "cpu", "cuda", "reference")


@dataclass(frozen=True)
class Device:
    """An opened backend, with a description for the user."""

    backend: Backend
    """The module with the functions of ``facecnn.kernels.reference``."""
    name: str
    """``cpu``, ``cuda:0`` or ``reference``."""
    description: str
    """``AMD EPYC, 2 threads``, ``NVIDIA H100 80GB HBM3, 80 GB, compute capability 9.0``."""
    reason: str
    """Why this device was taken."""
    free_memory: Callable[[], int | None] = lambda: None
    """Bytes of a card's own memory that are free at the time; None for what works in the machine's memory."""


def open_device(device: str, threads: int | None = None) -> Device:
    """Open the backend for ``--device`` (auto, cpu, cuda, cuda:N or reference) and ``--threads``.

    auto takes a card on which a kernel really runs, else the CPU; cuda is the first card. ``threads`` None takes all
    that this process may use. A compiled backend is imported only here.

    Raises:
        UsageError: for an unknown device or an impossible number of threads.
        DeviceError: for a device that can't be used.
    """
    card = card_number(device)
    if device not in DEVICES and card is None:
        meant = device.lower().replace("gpu", "cuda")
        near = get_close_matches(meant, DEVICES, n=1) if card_number(meant) is None else [meant]
        hint = f"did you mean {near[0]}?" if near else "choose auto, cpu, cuda, cuda:N or reference"
        raise UsageError(f"--device {device!r}: there is no such device; {hint}")
    available = available_threads()
    if threads is not None and not 1 <= threads <= available:
        raise UsageError(f"--threads {threads}: must be 1 to {available}, the processors that this process may use")
    if device == "reference":
        from threadpoolctl import threadpool_limits

        from facecnn.kernels import reference

        threadpool_limits(1, user_api="blas")  # BLAS sums in another order with another number of threads
        return Device(reference, "reference", "NumPy, one operation at a time (slow)", "asked for")

    reason = "asked for"
    if device != "cpu":
        found = find_cuda(card or 0)
        if found.available and (card is not None or not found.simulated):
            return _open_card(found, card or 0, "the best device here" if card is None else reason)
        if card is not None:
            raise DeviceError(f"--device {device}: {found.reason}; {found.mend}. Or take --device cpu")
        reason = f"the best device here: {found.reason or 'CUDA is only simulated (NUMBA_ENABLE_CUDASIM is set)'}"

    from facecnn.kernels import cpu

    count = available if threads is None else threads
    try:
        _run_on(count, cpu.set_threads)
    except ValueError as error:
        layer = os.environ.get("NUMBA_THREADING_LAYER")
        if layer is None:
            raise
        raise UsageError(f"NUMBA_THREADING_LAYER is {layer!r}, which isn't installed here: unset it") from error
    return Device(cpu, "cpu", f"{processor_name()}, {count} thread{'s' if count > 1 else ''}", reason)


def _run_on(count: int, start: Callable[[int], None]) -> None:
    """Run this thread's parallel loops on ``count`` threads. If Numba's threads don't run yet, ``start`` starts them:
    it first watches for some milliseconds how busy the processors are, which would be wasted later."""
    import numba
    from numba.np.ufunc import parallel

    layer: Any = parallel.threading_layer
    try:
        layer()
    except ValueError:  # not started
        start(count)
    else:
        numba.set_num_threads(count)


def _open_card(found: Cuda, number: int, reason: str) -> Device:
    from facecnn.kernels import cuda

    description = next(card.description for card in found.cards if card.number == number)
    return Device(cuda, f"cuda:{number}", description, reason, lambda: free_memory(number))


def available_threads() -> int:
    """How many threads this process may use: the processors of its affinity mask, NUMBA_NUM_THREADS at most."""
    affinity = getattr(os, "sched_getaffinity", None)
    count = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    limit = os.environ.get("NUMBA_NUM_THREADS", "")
    return min(count, max(1, int(limit))) if limit.isdecimal() else count


def processor_name() -> str:
    """The processor's name as its maker writes it, where the system tells."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return " ".join(value.split())
    except OSError:
        pass
    return platform.processor() or platform.machine() or "processor"
