"""Into what pieces a convolution is cut: which thread does what, and what lies in shared memory at a time.

The sizes follow from the shapes alone, never from the card, and no sum's order depends on them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache

from facecnn.kernels.cuda.driver import SIMULATED

LANES: int = 4 if SIMULATED else 32
"""Threads that read neighbouring numbers: a warp."""
_THREADS: int = 16 if SIMULATED else 128
"""Most threads of a block that sums up outputs. With up to 170 registers each, three blocks fit a multiprocessor."""
FLOATS: int = 400 if SIMULATED else 5200
"""Target for a block's shared memory, in floats: 64 KiB, the least that a multiprocessor has, hold three blocks."""
_WARPS: int = 4 if SIMULATED else 528
"""Warps that keep a card busy (one for each scheduler of an H100): fewer take as long as these."""
PHOTOS: int = 2 if SIMULATED else 32
"""Batch size that tiles are chosen for: the same for every batch, so that the last one compiles no other kernel."""

BANKS = 32
_LARGEST_PATCH = 18
"""Elements of the convolution's result that a thread sums up, for each of its kernels."""
KERNELS_OF_THREAD = 4
LOAD_COST = 15
"""Instructions to load a number into shared memory, roughly."""
SIDES = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 64, 128)
"""Numbers of threads side by side to try."""


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def conflicts(addresses: Iterable[int]) -> int:
    """Bank conflicts: the most different floats that a warp reading these addresses takes from one bank."""
    banks = [0] * BANKS
    for address in set(addresses):
        banks[address % BANKS] += 1
    return max(banks)


@dataclass(frozen=True)
class Tile:
    """The part of a photo's outputs that a block of threads makes, all of it at once for some kernels.

    A thread sums up a patch of the convolution's result for ``kernels`` kernels in registers. With every row of taps it
    reads patch_rows * (patch_columns + S - 1) floats of the input and S * kernels weights from shared memory, and does
    S * kernels * patch_rows * patch_columns multiply-adds: six for each float read, with 5x5 taps. A multiprocessor
    can do four in the time of one read.

    The patch covers outputs_down x outputs_across whole pooling windows; windows too large for the registers are summed
    up in ``strips`` of one row. Threads are numbered column by column, row by row, then by kernels.
    """

    kernel_rows: int
    kernel_columns: int
    pool: int
    outputs_down: int
    outputs_across: int
    threads_down: int
    threads_across: int
    kernels: int
    groups: int
    """Groups of ``kernels`` kernels in a block."""
    maps: int = 1
    """Input maps that lie in shared memory at a time."""
    row_stride: int = 0
    """Floats from a row in shared memory to the next; 0 for no more than there must be."""
    map_stride: int = 0
    staged_stride: int = 0
    """Floats from a kernel's outputs to the next kernel's, where a row of each thread's outputs waits for its way to
    global memory."""

    @property
    def places(self) -> int:
        return self.threads_down * self.threads_across

    @property
    def threads(self) -> int:
        """Rounded up to whole warps."""
        return ceil_div(self.places * self.groups, LANES) * LANES

    @property
    def block_kernels(self) -> int:
        return self.kernels * self.groups

    @property
    def block_rows(self) -> int:
        """Rows of (pooled) outputs of a block."""
        return self.threads_down * self.outputs_down

    @property
    def block_columns(self) -> int:
        return self.threads_across * self.outputs_across

    @property
    def patch_rows(self) -> int:
        return self.outputs_down * self.pool if self.strips == 1 else 1

    @property
    def patch_columns(self) -> int:
        return self.outputs_across * self.pool

    @property
    def strips(self) -> int:
        return 1 if self.pool**2 <= _LARGEST_PATCH else self.pool

    @property
    def input_rows(self) -> int:
        return self.block_rows * self.pool + self.kernel_rows - 1

    @property
    def input_columns(self) -> int:
        return self.block_columns * self.pool + self.kernel_columns - 1

    @property
    def phase_stride(self) -> int:
        """Floats from the columns 0, p, 2p ... of a row to 1, p + 1, 2p + 1 ..., with p = patch_columns: in this order
        threads that stand side by side read floats that do."""
        return ceil_div(self.input_columns, self.patch_columns)

    @property
    def weights(self) -> int:
        """Floats of weights in shared memory."""
        return self.maps * self.kernel_rows * self.kernel_columns * self.block_kernels

    @property
    def floats(self) -> int:
        """Floats of input in shared memory, or of outputs and their places in the window."""
        staged = self.block_kernels * (self.staged_stride or self.places * self.outputs_across)
        held = self.maps * self.map_stride or self.input_rows * self.phase_stride * self.patch_columns
        return max(held, 2 * staged if self.pool > 1 else staged)

    def blocks(self, photos: int, rows: int, columns: int, kernels: int) -> int:
        across = ceil_div(columns, self.block_columns)
        return photos * ceil_div(rows, self.block_rows) * across * ceil_div(kernels, self.block_kernels)

    def cost(self, rows: int, columns: int, kernels: int, maps: int) -> float:
        """Time, roughly: instructions of a warp times the number of warps. A read from shared memory counts as four
        instructions, unless there are enough others to hide it."""
        taps = self.kernel_columns * self.kernels
        sums = taps * self.patch_rows * self.patch_columns
        reads = taps + self.patch_rows * (self.patch_columns + self.kernel_columns - 1)
        work = self.strips * self.kernel_rows * max(sums + reads, 4 * reads)
        input_rows = self.input_rows if self.strips == 1 else self.threads_down * self.kernel_rows
        loaded = self.strips * (input_rows * self.input_columns + self.weights)
        written = self.block_rows * self.block_columns * self.block_kernels
        instructions = maps * (work + LOAD_COST * loaded / self.threads) + LOAD_COST * written / self.threads
        warps = self.blocks(PHOTOS, rows, columns, kernels) * self.threads // LANES
        return instructions * max(_WARPS, warps)


@cache
def choose_tile(rows: int, columns: int, kernels: int, maps: int, kernel_size: tuple[int, int], pool: int) -> Tile:
    """For outputs (photos, rows, columns, kernels): the tile with the least cost, of those that fit."""
    of_thread = min(KERNELS_OF_THREAD, kernels)
    all_groups = ceil_div(kernels, of_thread)
    best: tuple[float, float] | None = None
    for groups in sorted({ceil_div(all_groups, blocks) for blocks in range(1, all_groups + 1)}):
        for patch in _patches(pool):
            for across, down in _threads(groups, ceil_div(rows, patch[0]), ceil_div(columns, patch[1])):
                tile = Tile(*kernel_size, pool, *patch, down, across, of_thread, groups)
                excess = max(0, tile.floats + tile.weights - FLOATS)
                rank = (excess, tile.cost(rows, columns, kernels, maps))
                if best is None or rank < best:
                    best, chosen = rank, tile
    return _laid_out(chosen, maps)


def _patches(pool: int) -> Iterator[tuple[int, int]]:
    """Outputs of a patch, down and across."""
    yield 1, 1
    for down in range(1, 5):
        for across in (down, 2 * down):
            if across > 1 and down * across * pool**2 <= _LARGEST_PATCH:
                yield down, across


def _threads(groups: int, most_down: int, most_across: int) -> Iterator[tuple[int, int]]:
    """Threads across and down; no more than are of use."""
    for across in SIDES:
        for down in SIDES:
            if groups * across * down > _THREADS:
                break
            yield across, down
            if down >= most_down:
                break
        if across >= most_across:
            break


def _laid_out(tile: Tile, maps: int) -> Tile:
    """The tile with strides that keep a warp's threads off each other's banks, and as many maps as fit."""
    pitch, kernels = tile.outputs_down * tile.pool, tile.block_kernels
    row = tile.phase_stride * tile.patch_columns
    warp = [divmod(place, tile.threads_across) for place in range(min(BANKS, tile.places))]

    def rank(stride: int) -> tuple[bool, int]:
        too_large = tile.input_rows * stride + tile.weights > FLOATS
        return too_large, conflicts(y * pitch * stride + x for y, x in warp)

    row = min(range(row, row + BANKS), key=rank)

    area = tile.input_rows * row
    held = max(1, min(maps, FLOATS // (area + tile.weights)))
    held = ceil_div(maps, ceil_div(maps, held))
    stored = [  # by a warp that copies neighbouring floats of NHWC: map, and place in a row
        (i % held, i // held % tile.patch_columns * tile.phase_stride + i // held // tile.patch_columns)
        for i in range(BANKS)
    ]
    area = min(range(area, area + BANKS), key=lambda stride: conflicts(m * stride + place for m, place in stored))

    written = [  # by a warp that writes neighbouring floats of NHWC: kernel, and place in its outputs
        (i % kernels, i // kernels % tile.outputs_across * tile.places + i // kernels // tile.outputs_across)
        for i in range(BANKS)
    ]
    staged = tile.places * tile.outputs_across
    staged = min(range(staged, staged + BANKS), key=lambda stride: conflicts(k * stride + o for k, o in written))
    return replace(tile, maps=held, row_stride=row, map_stride=area, staged_stride=staged)
