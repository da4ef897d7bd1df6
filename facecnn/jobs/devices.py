"""The device that a job computes on."""

import os
import platform
from dataclasses import dataclass

from facecnn.errors import DeviceError
from facecnn.jobs.console import Console
from facecnn.kernels import Device, open_device
from facecnn.kernels.cards import card_number, find_cuda, is_simulated
from facecnn.parallel.ranks import Ranks


def open_and_show(name: str, threads: int | None, console: Console) -> Device:
    """Open a device (see ``facecnn.kernels.open_device``), and show on the console what is compiled for it."""
    if card_number(name) is not None and is_simulated():  # before anything is tried on it
        console.warning("NUMBA_ENABLE_CUDASIM is set: this is Numba's very slow simulator of a card, for tests")
    device = open_device(name, threads)
    if device.name != "reference":
        console.show_compilation()
    return device


def part_of_machine(device: str, threads: int | None, ranks: Ranks) -> tuple[str, int | None]:
    """``--device`` and ``--threads`` of a rank: a card of its own, if there are cards, and a fair share of the threads.

    Raises DeviceError if there are fewer cards than ranks.
    """
    if ranks.size == 1:
        return device, threads
    nodes = ranks.gather((platform.node(), _processors()))
    node, own = nodes[ranks.rank]
    beside = [processors for other, processors in nodes if other == node]
    if threads is None:
        # Each processor is divided among the ranks that may run on it; one bound to this rank alone counts as 1.
        threads = max(1, int(sum(1 / sum(one in others for others in beside) for one in own)))
    number = sum(other == node for other, _ in nodes[: ranks.rank])
    return _own_card(device, number, len(beside)), threads


def _processors() -> list[int]:
    affinity = getattr(os, "sched_getaffinity", None)
    return sorted(affinity(0)) if affinity is not None else list(range(os.cpu_count() or 1))


def _own_card(device: str, number: int, beside: int) -> str:
    """The device of rank ``number`` of ``beside`` on this machine."""
    if device not in ("auto", "cuda"):
        return device
    cuda = find_cuda(number)
    if not cuda.cards or cuda.simulated:
        return device
    if beside > len(cuda.cards):
        raise DeviceError(
            f"{beside} ranks on {platform.node()}, whose cards are {len(cuda.cards)}: start no more ranks than cards "
            "there, or name one for all with --device cuda:0, or take --device cpu"
        )
    return f"cuda:{number}" if cuda.available or device == "cuda" else device


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
        multiply-adds of the default network, 0.13 s for 542 million of the body, 0.14 s to find a face in 150x150)."""
        rate = 4e9 if self.by_embeddings else 0.5e9
        return 0.15 * self.finds_faces + self.multiply_adds / rate

    @property
    def seconds_to_load(self) -> float:
        """About how long it takes to load Numba and the compiled code: measured, as above, 0.7 s, and 0.8 s more for
        the face finder."""
        return 0.7 + 0.8 * self.finds_faces


def quickest_for(name: str, work: Work, photos: int) -> str:
    """The device to answer on: for ``auto`` and ``cpu`` the reference (NumPy), if it needs no more than half the time
    that Numba takes to load (half, as a photo may hold several faces). It rounds a little differently.

    ``name``: as of ``--device``; ``work``: for each photo.
    """
    few = photos * work.seconds_in_numpy <= work.seconds_to_load / 2
    return "reference" if few and name in ("auto", "cpu") else name
