"""The image pyramid for the P-Net: a picture at many scales, cut into pieces that are packed on tiles of one size.

One network of fixed size thus serves pictures of every size, and works on a picture's tiles in parallel.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from facecnn.arrays import Float64Array, Int64Array, UInt8Array
from facecnn.faces.nets import CELL, STRIDE

RATIO = 0.709
"""Side of a level relative to the one before: about the square root of 1/2, as in the authors' program."""

GREY = 128
"""Value outside of the picture and between pieces: about zero after normalisation."""


class Pyramid:
    """A picture, and the same at half the size, a quarter, and so on, each made when it is first needed.

    Resizing starts from the smallest of them that is large enough. So it is quick for large pictures too, and each
    pixel of the result is the mean of all that it covers.
    """

    def __init__(self, image: Image.Image, crop_squares: Callable[..., None] | None = None) -> None:
        """
        Args:
            image: mode RGB.
            crop_squares: ``facecnn.kernels.cpu.crop_squares``, or None for Pillow, which does the same more slowly.
        """
        self._halved = [image]
        self._arrays: dict[int, UInt8Array] = {}
        self._crop_squares = crop_squares

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self._halved[0].size

    def halved(self, times: int) -> Image.Image:
        """Each pixel is the mean of 2^times x 2^times; at the right and bottom edge, of those that exist."""
        while len(self._halved) <= times:
            self._halved.append(self._halved[-1].reduce(2))
        return self._halved[times]

    def resized(self, width: int, height: int) -> UInt8Array:
        """Shrink to (height, width, 3) with a box filter; a source pixel counts where its centre lies."""
        times = _halvings(min(self.size[0] / width, self.size[1] / height))
        # The last row and column may be means of fewer pixels: the picture ends within them.
        box = (0, 0, self.size[0] / 2**times, self.size[1] / 2**times)
        image = self.halved(times)
        return np.asarray(image.resize((width, height), Image.Resampling.BOX, box), dtype=np.uint8)

    def crops(self, boxes: Float64Array, side: int) -> UInt8Array:
        """Squares ``boxes`` (n, 4) as (n, side, side, 3), bilinear, grey outside of the picture."""
        out = np.empty((len(boxes), side, side, 3), np.uint8)
        halvings = np.array([_halvings(width / side) for width in (boxes[:, 2] - boxes[:, 0]).tolist()], np.intp)
        if self._crop_squares is not None:
            for times in np.unique(halvings).tolist():
                (places,) = np.nonzero(halvings == times)
                self._crop_squares(out, self._array(times), boxes[places] / 2**times, places, GREY)
            return out
        for crop, box, times in zip(out, boxes, halvings.tolist(), strict=True):
            window = self.halved(times).transform(
                (side, side),
                Image.Transform.EXTENT,
                tuple((box / 2**times).tolist()),
                Image.Resampling.BILINEAR,
                fillcolor=(GREY, GREY, GREY),
            )
            crop[...] = np.asarray(window)
        return out

    def _array(self, times: int) -> UInt8Array:
        """``halved`` as (height, width, 3)."""
        if times not in self._arrays:
            self._arrays[times] = np.array(self.halved(times))
        return self._arrays[times]


def _halvings(ratio: float) -> int:
    """How often to halve a picture before shrinking it by ``ratio``: down to at least twice the final size.

    More halvings blur crops and make landmarks worse; fewer skip pixels and let noise in.
    """
    return max(0, int(np.log2(max(ratio, 1.0) / 2)))


@dataclass(frozen=True)
class Piece:
    """A part of a level and its position on a tile. All positions are even, to fit the P-Net's stride."""

    level: int
    row: int
    column: int
    """Position in the level."""
    rows: int
    columns: int
    tile: int
    tile_row: int
    tile_column: int


def level_scales(shorter: int, smallest: float) -> list[float]:
    """Scales at which faces from ``smallest`` pixels up to the picture's shorter side become ``CELL`` pixels wide."""
    scales = []
    scale = CELL / smallest
    while int(shorter * scale) >= CELL:
        scales.append(scale)
        scale *= RATIO
    return scales


def pack(sizes: Sequence[tuple[int, int]], side: int) -> list[Piece]:
    """Cut levels into pieces, and pack these on as few tiles as possible (first fit, by decreasing height, on shelves).

    Neighbouring pieces overlap so that every window of ``CELL`` x ``CELL`` pixels at an even position lies on one
    piece only.

    ``sizes``: rows and columns of each level; ``side``: of a tile, in pixels.
    """
    step = side - CELL + STRIDE
    cut = [
        (level, row, column, min(side, rows - row), min(side, columns - column))
        for level, (rows, columns) in enumerate(sizes)
        for row in range(0, rows - CELL + 1, step)
        for column in range(0, columns - CELL + 1, step)
    ]
    cut.sort(key=lambda piece: (-piece[3], -piece[4]))
    shelves: list[_Shelf] = []
    tiles: list[int] = []  # rows used on each
    pieces = []
    for level, row, column, rows, columns in cut:
        shelf = next((shelf for shelf in shelves if shelf.used + columns <= side), None)
        if shelf is None:
            tile = next((tile for tile, used in enumerate(tiles) if used + rows <= side), len(tiles))
            if tile == len(tiles):
                tiles.append(0)
            shelf = _Shelf(tile, tiles[tile])
            shelves.append(shelf)
            tiles[tile] += _even(rows)
        pieces.append(Piece(level, row, column, rows, columns, shelf.tile, shelf.row, shelf.used))
        shelf.used += _even(columns)
    return pieces


@dataclass
class _Shelf:
    tile: int
    row: int
    used: int = 0
    """Columns."""


def _even(pixels: int) -> int:
    return -(-pixels // STRIDE) * STRIDE


def fill_tiles(levels: Sequence[UInt8Array], pieces: Sequence[Piece], side: int) -> UInt8Array:
    """Tiles (n, side, side, 3) with the levels' pieces at their positions."""
    count = max((piece.tile + 1 for piece in pieces), default=0)
    tiles = np.full((count, side, side, 3), GREY, np.uint8)
    for piece in pieces:
        part = levels[piece.level][piece.row : piece.row + piece.rows, piece.column : piece.column + piece.columns]
        place = tiles[piece.tile, piece.tile_row :, piece.tile_column :]
        place[: piece.rows, : piece.columns] = part
    return tiles


def windows_of(pieces: Sequence[Piece]) -> Int64Array:
    """Where the P-Net's outputs for each piece are, out of those for all tiles (tiles, rows, columns, ...).

    At an edge of odd length the last pixel is only seen by windows that begin further in. Given the level alone, the
    network would pool half a window there. Returns (pieces, 8): level, the piece's row and column in it, tile, the
    outputs' first row and column, and their rows and columns.
    """
    windows = [
        (
            *(piece.level, piece.row, piece.column, piece.tile, piece.tile_row // STRIDE, piece.tile_column // STRIDE),
            *((length - CELL) // STRIDE + 1 for length in (piece.rows, piece.columns)),
        )
        for piece in pieces
    ]
    return np.array(windows, np.int64).reshape(-1, 8)
