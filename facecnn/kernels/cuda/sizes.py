"""Block and grid sizes: on a card, and in the simulator, where each thread costs a Python thread."""

from __future__ import annotations

from typing import Any

from facecnn.kernels.cuda.driver import SIMULATED, launch

THREADS: int = 8 if SIMULATED else 256
"""Threads of a block in elementwise kernels."""

BLOCKS: int = 3 if SIMULATED else 1056
"""Most blocks of an elementwise kernel, a grid-stride loop: eight for each of an H100's 132 multiprocessors. A
constant, so that results are the same on every card."""

STRIDE: int = BLOCKS * THREADS
"""Stride of the grid-stride loop. A smaller grid has a thread for every element and never strides. (A constant, since a
stride of ``gridsize`` costs a 64-bit division.)"""


def blocks_for(elements: int, threads: int = THREADS) -> int:
    """Blocks for a grid-stride loop over ``elements``, with stride STRIDE."""
    return max(1, min(BLOCKS, -(-elements // threads)))


def launch_each(kernel: Any, elements: int, workspace: Any, *arguments: Any) -> None:
    """Launch a grid-stride kernel over ``elements``, in ``blocks_for`` blocks of THREADS."""
    launch(kernel, blocks_for(elements), THREADS, workspace, *arguments)
