"""How many threads work together, on how much: on a card, and in the simulator, where each costs a Python thread."""

from __future__ import annotations

from typing import Any

from facecnn.kernels.cuda.driver import SIMULATED, launch

THREADS: int = 8 if SIMULATED else 256
"""Threads of a block in kernels that go over arrays element by element."""

BLOCKS: int = 3 if SIMULATED else 1056
"""Most blocks of such a kernel, each of which takes several turns if there is more to do: eight for each of an H100's
132 multiprocessors. A constant, so that results are the same on every card."""

STRIDE: int = BLOCKS * THREADS
"""From one element of a thread to its next. A smaller grid has a thread for every element, and needs no second turn. (A
constant, since a stride of ``gridsize`` costs a 64-bit division.)"""


def blocks_for(elements: int, threads: int = THREADS) -> int:
    """Blocks of a kernel that goes over so many elements, a thread each, in strides of STRIDE."""
    return max(1, min(BLOCKS, -(-elements // threads)))


def launch_each(kernel: Any, elements: int, workspace: Any, *arguments: Any) -> None:
    """Ask for a kernel that goes over so many elements as ``blocks_for`` says, in blocks of THREADS."""
    launch(kernel, blocks_for(elements), THREADS, workspace, *arguments)
