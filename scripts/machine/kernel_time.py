"""Estimates how long a card would take for a planned launch, from the code that the launch would run.

**No card has confirmed it.** Each of the times below is what one part of the card needs, and the largest of them counts
as the launch's. That is too short where they don't overlap completely, and bank conflicts aren't counted. It is too
long where ptxas shortens address arithmetic, and joins short branches so that several reads are under way at a time.

A multiprocessor works on as many blocks at a time as registers, shared memory and threads allow. The busiest one has
``turns = ceil(blocks / multiprocessors)`` blocks, each with the mean of the grid's ``Counts`` (machine_code.py compiles
the kernel, executed_instructions.py follows three of its blocks). For each block in turn it needs, in cycles:

* issue: machine instructions / 4 (each of four schedulers issues a warp's instruction per cycle. Float32 isn't a bound
  of its own: 128 multiply-adds per cycle are those of four warps);
* integers: / 2 (64 results per cycle);
* special: / 0.5 (16 results per cycle: approximations of 1/x, roots and powers, conversions);
* shared: reads and writes of shared and global memory, one per cycle (32 banks of 4 bytes, which global memory passes
  through, too). Bank conflicts aren't counted.

For the whole launch:

* L2: bytes that warps read and write in global memory / (5120 bytes per cycle); where neighbouring threads read the
  same numbers again, they may come from the nearer L1, which isn't counted;
* DRAM: every array, read or written once / bandwidth. Scratch memory and small maps stay in the L2 (50 MB), and may be
  faster;
* latency: waves * the time of a warp by itself, with ``waves = ceil(blocks / (multiprocessors * blocks held))``: a
  cycle per instruction, 30 for each wait for shared memory and 500 for global memory.

A fixed time is added to the largest: what a node of a CUDA graph takes, one kernel after another.

Where the figures come from:

* throughput of instructions, what a multiprocessor holds: CUDA C++ Programming Guide, "Arithmetic Instructions" and
  "Compute Capabilities", for 9.0;
* 132 multiprocessors of 128 lanes, 67 TFLOP/s, 3.35 TB/s: NVIDIA's H100 data sheet and white paper, SXM; the clock
  follows from them: 67e12 / (132 * 128 * 2) = 1.98 GHz;
* 5120 bytes per cycle: NVIDIA's A100 white paper; for the H100 no figure is published;
* assumed, in round figures and not from NVIDIA: the latencies of 30 and 500 cycles, 2 µs per node, and the numbers of
  machine instructions in executed_instructions.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, prod

from facecnn.kernels.cuda.planning import Launch, PlannedArray, flattened
from machine.executed_instructions import Counts, executed
from machine.machine_code import LIMITS, machine_code

CAPABILITY = (9, 0)
LANES_OF_FLOAT32 = 128
ISSUED, INTEGERS, SPECIAL, SHARED = 4, 2, 0.5, 1
"""Warps' instructions per cycle."""
L2_BYTES = 5120
"""Per cycle."""
SHARED_LATENCY, GLOBAL_LATENCY = 30, 500
"""Cycles."""


@dataclass(frozen=True)
class Card:
    """A card; an H100 SXM by default."""

    peak: float = 67e12
    """float32 operations per second."""
    bandwidth: float = 3.35e12
    """Bytes per second."""
    multiprocessors: int = 132
    node_seconds: float = 2e-6
    """From one kernel of a graph to the next."""

    @property
    def clock(self) -> float:
        """Cycles per second."""
        return self.peak / (self.multiprocessors * LANES_OF_FLOAT32 * 2)


@dataclass(frozen=True)
class KernelTime:
    """The estimate for a launch."""

    seconds: float
    """Without the time of a node."""
    bound: str
    held: int
    """Blocks that a multiprocessor holds at a time."""
    occupancy: float
    """Share of the warps that a multiprocessor can hold."""
    waves: int


def kernel_time(launch: Launch, card: Card) -> KernelTime:
    """Compile a launch, count its instructions, and estimate its time."""
    code = machine_code(launch, CAPABILITY)
    return timed(launch, executed(code.ptx, launch), code.blocks_per_multiprocessor(launch.threads, CAPABILITY), card)


def timed(launch: Launch, counts: Counts, most_held: int, card: Card) -> KernelTime:
    """Apply the formula to the counts of all warps, and the blocks that a multiprocessor can hold."""
    blocks, warps = prod(launch.grid), -(-launch.threads // 32)
    turns = ceil(blocks / card.multiprocessors)
    held = min(most_held, turns)
    waves = ceil(blocks / (card.multiprocessors * most_held))
    alone = counts.slots + SHARED_LATENCY * counts.shared_waits + GLOBAL_LATENCY * counts.global_waits
    cycles = {
        "issue": counts.slots / blocks * turns / ISSUED,
        "integers": counts.integers / blocks * turns / INTEGERS,
        "special": counts.special / blocks * turns / SPECIAL,
        "shared": counts.memory / blocks * turns / SHARED,
        "L2": counts.global_bytes / L2_BYTES,
        "latency": waves * alone / (blocks * warps),
    }
    seconds = {bound: count / card.clock for bound, count in cycles.items()}
    arrays = {id(a): a.nbytes for a in flattened(launch.arguments) if isinstance(a, PlannedArray)}
    seconds["DRAM"] = sum(arrays.values()) / card.bandwidth
    bound = max(seconds, key=lambda name: seconds[name])
    return KernelTime(seconds[bound], bound, held, held * warps * 32 / LIMITS[CAPABILITY].threads, waves)
