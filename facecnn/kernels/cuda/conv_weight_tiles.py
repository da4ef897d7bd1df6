"""Into what pieces the gradient of a convolution's weights is cut: see conv_weight.py.

The order of its sums depends on these sizes, and they follow from the shapes alone, never from the card: so results are
the same on every card.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from random import Random

from facecnn.kernels.cuda.conv_tiles import (
    BANKS,
    FLOATS,
    KERNELS_OF_THREAD,
    LANES,
    LOAD_COST,
    PHOTOS,
    SIDES,
    ceil_div,
    conflicts,
)
from facecnn.kernels.cuda.driver import SIMULATED

_THREADS: int = 12 if SIMULATED else 256
"""Most threads of a block that sums up the weights' gradient."""
_SUMS = 64
"""Approximate number of the weights' gradient's elements that a thread sums up."""
_CHUNKS: int = 6 if SIMULATED else 528
"""Blocks that sum up the weights' gradient, each over tiles of its own: four for each multiprocessor of an H100."""


@dataclass(frozen=True)
class WeightTile:
    """How a block of threads sums up the gradient of some weights, over one tile of pooled outputs after the other.

    A thread sums up ``tap_rows`` rows of taps of ``kernels`` kernels and one map in registers. With pooling each kernel
    has its own winner in a window, so no two sums share an element of x, and a thread has one kernel; without, four.
    Threads left over form further teams, which share the outputs of the tile with a stride; in the end the teams' sums
    are added in order. Threads are numbered by maps, kernels, rows of taps, teams.
    """

    kernel_rows: int
    kernel_columns: int
    pool: int
    kernels: int
    kernel_groups: int
    """Groups of ``kernels`` kernels in a block."""
    maps: int
    """Of a block."""
    tap_rows: int
    tap_groups: int
    rows: int
    """Pooled outputs of a tile, down."""
    columns: int
    most_chunks: int
    """Most blocks for the same weights, each with outputs of its own."""
    spare_columns: int = 0
    """Between the rows of the input in shared memory."""

    @property
    def block_kernels(self) -> int:
        return self.kernels * self.kernel_groups

    @property
    def places(self) -> int:
        """Threads of a team."""
        return self.maps * self.kernel_groups * self.tap_groups

    @property
    def teams(self) -> int:
        return max(1, _THREADS // self.places)

    @property
    def threads(self) -> int:
        """Rounded up to whole warps."""
        return ceil_div(self.places * self.teams, LANES) * LANES

    @property
    def outputs(self) -> int:
        return self.rows * self.columns

    @property
    def sums(self) -> int:
        return self.kernels * self.tap_rows * self.kernel_columns

    @property
    def input_rows(self) -> int:
        return self.rows * self.pool + self.tap_groups * self.tap_rows - 1

    @property
    def input_columns(self) -> int:
        return self.columns * self.pool + self.kernel_columns - 1

    @property
    def row_stride(self) -> int:
        """Floats from a row of the input in shared memory to the next."""
        return (self.input_columns + self.spare_columns) * self.maps

    @property
    def floats(self) -> int:
        """Floats of input in shared memory, or of a team's sums."""
        held = self.input_rows * self.row_stride
        return max(held, self.places * (self.sums + self.kernels) if self.teams > 1 else 0)

    def tiles(self, photos: int, rows: int, columns: int) -> int:
        return photos * ceil_div(rows, self.rows) * ceil_div(columns, self.columns)

    def chunks(self, photos: int, rows: int, columns: int) -> int:
        return min(self.most_chunks, self.tiles(photos, rows, columns))

    def cost(self, rows: int, columns: int) -> float:
        """Time, roughly, as in ``Tile``: turns of a block, times a warp's instructions in a turn."""
        reads = self.sums // self.kernels + 2 * self.kernels
        work = ceil_div(self.outputs, self.teams) * max(self.sums + reads, 4 * reads)
        loaded = self.input_rows * self.input_columns * self.maps + 2 * self.outputs * self.block_kernels
        tiles = self.tiles(PHOTOS, rows, columns)
        return ceil_div(tiles, min(tiles, self.most_chunks)) * (work + LOAD_COST * loaded / self.threads)


@cache
def choose_weight_tile(
    rows: int, columns: int, kernels: int, maps: int, kernel_size: tuple[int, int], pool: int
) -> WeightTile:
    """For weights (kernels, *kernel_size, maps) and pooled outputs (photos, rows, columns, kernels): as many of the
    weights as there are threads for, and the tile of outputs with the least cost, of those that fit."""
    kernel_rows, kernel_columns = kernel_size
    of_thread = min(KERNELS_OF_THREAD, kernels) if pool == 1 else 1
    tap_groups = ceil_div(kernel_rows, max(1, _SUMS // (of_thread * kernel_columns)))
    area = (pool + kernel_rows + tap_groups - 2) * (pool + kernel_columns - 1)  # of one output's input, at most
    maps_at_most = max(1, min(LANES, _THREADS // tap_groups, FLOATS // area))
    block_maps = ceil_div(maps, ceil_div(maps, maps_at_most))
    groups = ceil_div(kernels, of_thread)
    groups_at_most = max(1, _THREADS // (tap_groups * block_maps))
    block_groups = ceil_div(groups, ceil_div(groups, groups_at_most))
    blocks = ceil_div(groups, block_groups) * ceil_div(maps, block_maps)
    shape = (*kernel_size, pool, of_thread, block_groups, block_maps, ceil_div(kernel_rows, tap_groups), tap_groups)
    tiles = [
        WeightTile(*shape, down, across, max(1, _CHUNKS // blocks))
        for down in SIDES[: 1 + sum(side < rows for side in SIDES)]
        for across in SIDES[: 1 + sum(side < columns for side in SIDES)]
    ]

    def excess(tile: WeightTile) -> int:
        return max(0, tile.floats + 2 * tile.outputs * tile.block_kernels - FLOATS)

    tile = min(tiles, key=lambda tile: (excess(tile), tile.cost(rows, columns)))
    padded = [replace(tile, spare_columns=spare) for spare in range(8)]
    return min(padded, key=lambda tile: (excess(tile), _expected_conflicts(tile)))


def _expected_conflicts(tile: WeightTile) -> int:
    """Turns of some warps that read from the input, each thread under a winner drawn at random."""
    random, turns = Random(0), 0
    threads = range(tile.places * tile.teams)
    for _ in range(10):
        for first in range(0, min(3 * BANKS, len(threads)), BANKS):
            winners: dict[tuple[int, int], int] = {}
            addresses = []
            for thread in threads[first : first + BANKS]:
                team, place = divmod(thread, tile.places)
                row, column = divmod(team, tile.columns)
                kernel = team, place // tile.maps % tile.kernel_groups
                r, s = divmod(winners.setdefault(kernel, random.randrange(tile.pool**2)), tile.pool)
                tap_row = place // (tile.maps * tile.kernel_groups) * tile.tap_rows
                y, x = row * tile.pool + r + tap_row, column * tile.pool + s
                addresses.append(y * tile.row_stride + x * tile.maps + place % tile.maps)
            turns += conflicts(addresses)
    return turns
