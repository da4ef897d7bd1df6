"""The device that a job computes on."""

from __future__ import annotations

from facecnn.jobs.console import Console
from facecnn.kernels import Device, open_device
from facecnn.kernels.cards import card_number, is_simulated


def open_and_show(name: str, threads: int | None, console: Console) -> Device:
    """Open a device (see ``facecnn.kernels.open_device``), and show on the console what is compiled for it."""
    if card_number(name) is not None and is_simulated():  # before anything is tried on it
        console.warning(
            "NUMBA_ENABLE_CUDASIM is set: this is Numba's slow simulator of a card, for tests, where everything takes "
            "very long"
        )
    device = open_device(name, threads)
    if device.name != "reference":
        console.show_compilation()
    return device


_LITTLE = 150_000_000
"""Multiply-adds that take NumPy about a third of a second, half as long as loading Numba and its compiled code takes
(measured: 0.10 s on one processor for 57 million; loading 0.7 s)."""


def open_for_answers(name: str, threads: int | None, console: Console, multiply_adds: int | None) -> Device:
    """Open a device as ``open_and_show`` does, but for ``auto`` and ``cpu`` the reference (NumPy) if that is faster.

    The reference rounds a little differently. It is faster if the answers take few ``multiply_adds`` (None: not known,
    or many), because Numba takes longer to load.
    """
    if name in ("auto", "cpu") and multiply_adds is not None and multiply_adds <= _LITTLE:
        name = "reference"
    return open_and_show(name, threads, console)
