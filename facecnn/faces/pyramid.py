"""A picture in many sizes, as the P-Net is given it: cut into pieces that lie side by side on tiles of one size.

So one network, made once, serves pictures of every size, and works on the tiles of a picture in parallel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from facecnn.faces.nets import CELL, STRIDE

Floats = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]

RATIO = 0.709
"""Of a level's side to that of the level before: about the square root of 1/2, as in the paper's own program."""

GREY = 128
"""Of what lies beyond a picture, and between the pieces on a tile: about zero to the networks."""


class Picture:
    """A picture that can be had at half the size, a quarter, and so on, each made once.

    Shrinking begins with the smallest of them that has pixels enough, so it takes little time from a large picture
    too, and each pixel of the result is the mean of all that it stands for.
    """

    def __init__(self, image: Image.Image) -> None:
        """``image``: mode RGB."""
        self._halved = [image]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self._halved[0].size

    def halved(self, times: int) -> Image.Image:
        """Each pixel the mean of 2^times x 2^times; at the right and bottom edge of those that are there."""
        while len(self._halved) <= times:
            self._halved.append(self._halved[-1].reduce(2))
        return self._halved[times]

    def resized(self, width: int, height: int) -> Pixels:
        """(height, width, 3), at most the picture's size: each pixel the mean of its area.

        At an area's edge, a pixel of the picture that shrinking begins with is in or out by its centre.
        """
        times = _halvings(min(self.size[0] / width, self.size[1] / height))
        # Where the edge's pixels are means of fewer than the others, the picture ends within the last one.
        box = (0, 0, self.size[0] / 2**times, self.size[1] / 2**times)
        image = self.halved(times)
        return np.asarray(image.resize((width, height), Image.Resampling.BOX, box), dtype=np.uint8)

    def crops(self, boxes: npt.NDArray[np.float64], side: int) -> Pixels:
        """(n, side, side, 3): the squares ``boxes`` (n, 4), bilinear, with grey where they reach beyond the picture."""
        out = np.empty((len(boxes), side, side, 3), np.uint8)
        for crop, box in zip(out, boxes, strict=True):
            times = _halvings((box[2] - box[0]) / side)
            window = self.halved(times).transform(
                (side, side),
                Image.Transform.EXTENT,
                tuple((box / 2**times).tolist()),
                Image.Resampling.BILINEAR,
                fillcolor=(GREY, GREY, GREY),
            )
            crop[...] = np.asarray(window)
        return out


def _halvings(ratio: float) -> int:
    """How often a picture is halved before it is shrunk by ``ratio``: to at least twice the size that it is to have.

    Halving further blurs crops, and landmarks get worse; halving less skips pixels, and noise gets in.
    """
    return max(0, int(np.log2(max(ratio, 1.0) / 2)))


@dataclass(frozen=True)
class Piece:
    """A part of a level and its place on a tile. All places are even, as the P-Net's stride needs it."""

    level: int
    row: int
    column: int
    """In the level."""
    rows: int
    columns: int
    tile: int
    tile_row: int
    tile_column: int


def level_scales(shorter: int, smallest: float) -> list[float]:
    """Scales at which faces from ``smallest`` pixels to the picture's shorter side are ``CELL`` pixels wide."""
    scales = []
    scale = CELL / smallest
    while int(shorter * scale) >= CELL:
        scales.append(scale)
        scale *= RATIO
    return scales


def pack(sizes: Sequence[tuple[int, int]], side: int) -> list[Piece]:
    """Cut levels of ``sizes`` (rows, columns) into pieces, and find each a place on one of as few tiles as may be.

    Neighbouring pieces overlap such that every field of ``CELL`` x ``CELL`` pixels at even places lies on exactly one.
    The pieces, the highest first, are put on the first shelf (of the height of its first piece) with room for them.
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
    tiles: list[int] = []  # rows taken of each
    pieces = []
    for level, row, column, rows, columns in cut:
        shelf = next((shelf for shelf in shelves if shelf.taken + columns <= side), None)
        if shelf is None:
            tile = next((tile for tile, taken in enumerate(tiles) if taken + rows <= side), len(tiles))
            if tile == len(tiles):
                tiles.append(0)
            shelf = _Shelf(tile, tiles[tile])
            shelves.append(shelf)
            tiles[tile] += _even(rows)
        pieces.append(Piece(level, row, column, rows, columns, shelf.tile, shelf.row, shelf.taken))
        shelf.taken += _even(columns)
    return pieces


@dataclass
class _Shelf:
    tile: int
    row: int
    taken: int = 0
    """Columns."""


def _even(pixels: int) -> int:
    return -(-pixels // STRIDE) * STRIDE


def fill_tiles(levels: Sequence[Pixels], pieces: Sequence[Piece], side: int) -> Pixels:
    """(tiles, side, side, 3) with all pieces of the levels in their places."""
    count = max((piece.tile + 1 for piece in pieces), default=0)
    tiles = np.full((count, side, side, 3), GREY, np.uint8)
    for piece in pieces:
        part = levels[piece.level][piece.row : piece.row + piece.rows, piece.column : piece.column + piece.columns]
        place = tiles[piece.tile, piece.tile_row :, piece.tile_column :]
        place[: piece.rows, : piece.columns] = part
    return tiles


def outputs_of(piece: Piece, outputs: Floats) -> Floats:
    """Of the P-Net's outputs (tiles, rows, columns, ...) for tiles those that looked at this piece and nothing else.

    So at an edge of odd length the last pixel is looked at only by fields that begin further in, whereas the network
    would pool half a window there if it were given the level by itself.
    """
    row, column = piece.tile_row // STRIDE, piece.tile_column // STRIDE
    rows, columns = (piece.rows - CELL) // STRIDE + 1, (piece.columns - CELL) // STRIDE + 1
    return outputs[piece.tile, row : row + rows, column : column + columns]
