"""The device that a job computes on."""

from __future__ import annotations

from facecnn.jobs.console import Console
from facecnn.kernels import Device, open_device
from facecnn.kernels.cards import card_number, is_simulated


def open_and_show(name: str, threads: int | None, console: Console) -> Device:
    """What ``facecnn.kernels.open_device`` gives; what has to be compiled for it shows on the console."""
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
"""Multiply-adds that NumPy does in about a third of a second, half the time that it takes to load Numba and what it
compiled (measured: 0.10 s of one processor for 57 million; loading 0.7 s)."""


def open_for_answers(name: str, threads: int | None, console: Console, multiply_adds: int | None) -> Device:
    """As ``open_and_show``. Where an answer takes so few operations that loading what it is faster with would take
    longer, and no card is asked for, NumPy computes it, rounding a little otherwise. None: not known, or many."""
    if name in ("auto", "cpu") and multiply_adds is not None and multiply_adds <= _LITTLE:
        name = "reference"
    return open_and_show(name, threads, console)
