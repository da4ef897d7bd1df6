"""The device that a job computes on."""

from __future__ import annotations

from dataclasses import dataclass

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


@dataclass(frozen=True)
class Work:
    """What it takes to answer for one photo with one face."""

    finds_faces: bool
    """Whether the face is looked for."""
    multiply_adds: int
    by_embeddings: bool
    """Whether the network is the pretrained body, whose many maps NumPy multiplies at a better rate."""

    @property
    def seconds_in_numpy(self) -> float:
        """About how long NumPy takes, on one processor (AMD EPYC, family 25, model 1: 0.10 s for 57 million
        multiply-adds of the default network, 0.13 s for 542 million of the body, 0.14 s for a face in 150x150)."""
        rate = 4e9 if self.by_embeddings else 0.5e9
        return 0.15 * self.finds_faces + self.multiply_adds / rate

    @property
    def seconds_to_load(self) -> float:
        """About how long it takes to load Numba and the compiled code: measured, as above, 0.7 s, and 0.8 s more for
        the face finder."""
        return 0.7 + 0.8 * self.finds_faces


def quickest_for(name: str, work: Work, photos: int) -> str:
    """The device to answer on: for ``auto`` and ``cpu`` the reference (NumPy), if it answers for so many photos in half
    the time that Numba takes to load, as a photo may hold several faces. It rounds a little differently.

    ``work``: for each photo.
    """
    few = photos * work.seconds_in_numpy <= work.seconds_to_load / 2
    return "reference" if few and name in ("auto", "cpu") else name
