"""The device that a job computes on."""

from __future__ import annotations

from facecnn.jobs.console import Console
from facecnn.kernels import Device, open_device


def open_and_show(name: str, threads: int | None, console: Console) -> Device:
    """What ``facecnn.kernels.open_device`` gives; what has to be compiled for it shows on the console."""
    device = open_device(name, threads)
    if device.name != "reference":
        console.show_compilation()
    return device
