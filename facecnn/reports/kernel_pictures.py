"""Pictures of a network's kernels: their weights, how training changed them, and the patches that excite each.

They are composed of pixels, with Pillow's text: matplotlib takes three times as long, and as long again to load.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from facecnn.reports.figure import COMPRESSION
from facecnn.reports.findings import counted
from facecnn.reports.lettering import own_font_file, printable
from facecnn.runs.atomic import write_atomically

MOST_KERNELS = 64
"""Kernels of a layer in the pictures; fewer if it is drawn as a table."""
MOST_COLUMNS = 32
_MOST_ROWS = 8

# In pixels:
_WIDTH = 900
_HALF = 320  # at most, of two blocks side by side
_TILE = 44  # a patch
_GAP = 3
_LEFT = 64  # beside a block, for its numbers
_HEAD = 40  # above it, for its title
_BELOW = 34
_BAR = 12  # a scale's width
_BESIDE_BAR = 42

_TITLE_SIZE, _NUMBER_SIZE = 15.3, 10.7  # of letters
_PAD = 4.6  # around a title, and the radius of its background's corners

# The pictures have a transparent background, and are read on light and dark pages: titles have a background of their
# own, and the numbers' grey shows on both.
_INK, _LABEL = "#20242a", "#e6e9ed"
_NUMBER = (124, 124, 124)


_BLUE_TO_RED = np.array(
    [
        (5, 48, 97), (33, 102, 172), (67, 147, 195), (146, 197, 222), (209, 229, 240), (247, 247, 247),
        (253, 219, 199), (244, 165, 130), (214, 96, 77), (178, 24, 43), (103, 0, 31),
    ]
)  # fmt: skip
"""Cynthia Brewer's RdBu in reverse (https://colorbrewer2.org)."""

_LEVELS = 256


def blue_to_red(shares: np.ndarray) -> np.ndarray:
    """The colours (..., 3), 0 to 1, of ``shares`` (...) from 0, blue, to 1, red, as matplotlib's ``RdBu_r`` has them.

    White is in the middle. Shares beyond the ends have the colours of the ends.
    """
    places = np.linspace(0, len(_BLUE_TO_RED) - 1, _LEVELS)
    channels = [np.interp(places, np.arange(len(_BLUE_TO_RED)), channel / 255) for channel in _BLUE_TO_RED.T]
    levels = np.clip(shares * _LEVELS, 0, _LEVELS - 1).astype(np.int64)
    colours: np.ndarray = np.stack(channels, axis=-1)[levels]
    return colours


@dataclass(frozen=True)
class DrawnKernels:
    """A convolution layer's kernels."""

    name: str
    now: np.ndarray
    """(kernel, row, column, input map)"""
    start: np.ndarray | None = None
    """The kernels before training, or the first of them and of their input maps; None if they aren't known."""


@dataclass(frozen=True)
class ExcitingPatches:
    """The patches of photos that excite a convolution layer's kernels most."""

    kernels: DrawnKernels
    patches: Sequence[Sequence[np.ndarray]]
    """For each kernel, the strongest first: (rows, columns, 1 or 3), 0 to 255, NaN beyond the photo's edges."""


Pixels = npt.NDArray[np.uint8]
"""(rows, columns, 4): RGBA."""


@dataclass(frozen=True)
class _Mark:
    """A small text at a position in pixels from a block's top left corner."""

    x: float
    y: float
    text: str
    side: Literal["left", "right", "center"]
    upright: bool = False


@dataclass(frozen=True)
class _Block:
    title: str
    image: Pixels
    marks: list[_Mark]
    beside: bool = False
    """Whether it is placed beside the block before."""


def draw_kernels(path: Path, layers: Sequence[DrawnKernels]) -> None:
    """Draw the convolution kernels of each layer and, where the start is known, how training changed them.

    Each block has its own scale, symmetric about zero. Kernels with three input maps are shown in colour (grey is
    zero), those with one from blue (negative) to red (positive), others as a table with a column for each kernel and a
    row for each input map. At most 64 kernels of a layer are shown, in a table 32 and 8 input maps; the title says so.
    Raises OutputError.
    """
    _draw(path, [block for layer in layers for block in _kernel_blocks(layer)])


def kernel_tiles(weight: np.ndarray) -> Pixels:
    """The kernels (kernel, row, column, input map) of a layer as ``draw_kernels`` shows them, without any text."""
    _, _, _, maps = weight.shape
    if maps in (1, 3):
        return _grid(weight[:MOST_KERNELS])[0]
    return _table(weight[:MOST_COLUMNS, :, :, :_MOST_ROWS])[0]


def _kernel_blocks(layer: DrawnKernels) -> list[_Block]:
    kernels, height, width, maps = layer.now.shape
    what = f"{printable(layer.name)}: {counted(kernels, 'kernel')} of {height}×{width}"
    table = maps not in (1, 3)
    now = layer.now[:MOST_COLUMNS, :, :, :_MOST_ROWS] if table else layer.now[:MOST_KERNELS]
    if maps != 1:
        what += f"×{maps}"
    cuts = []
    if len(now) < kernels:
        cuts.append(f"{len(now)} of the kernels" if table else f"the first {len(now)}")
    if now.shape[3] < maps:
        cuts.append(f"{now.shape[3]} of the maps")
    draw = _table_block if table else _grid_block
    blocks = [draw(what + (f" ({' and '.join(cuts)} shown)" if cuts else ""), now, False)]
    if layer.start is not None:
        start = layer.start[: len(now), :, :, : now.shape[3]]
        change = now[: len(start), :, :, : start.shape[3]] - start.astype(now.dtype)
        blocks.append(draw(f"{printable(layer.name)}: what training changed", change, not table))
    return blocks


def _grid_block(title: str, weight: np.ndarray, beside: bool) -> _Block:
    """Kernels with one or three input maps, row by row."""
    count, columns = len(weight), _grid_columns(len(weight))
    image, pitch = _grid(weight)
    marks = []
    for row in range(-(-count // columns)):
        first, last = row * columns, min(row * columns + columns, count) - 1
        text = f"{first} to {last}" if first < last else f"{first}"
        marks.append(_Mark(-5, (row + 0.5) * pitch[0], text, "right"))
    marks.append(_Mark(-_LEFT + 7, image.shape[0] / 2, "kernels", "center", upright=True))
    return _with_scale(title, image, marks, weight, beside)


def _grid_columns(kernels: int) -> int:
    return kernels if kernels <= 4 else 4 if kernels <= 16 else 8


def _grid(weight: np.ndarray) -> tuple[Pixels, tuple[int, int]]:
    return _tiled(_coloured(weight), _grid_columns(len(weight)), _HALF)


def _table(weight: np.ndarray) -> tuple[Pixels, tuple[int, int]]:
    kernels, height, width, _ = weight.shape
    cells = _coloured(weight.transpose(3, 0, 1, 2).reshape(-1, height, width, 1))
    return _tiled(cells, kernels, _WIDTH - _LEFT - _BESIDE_BAR - 2 * _BAR)


def _table_block(title: str, weight: np.ndarray, beside: bool) -> _Block:
    """A column for each kernel, a row for each input map."""
    kernels, _, _, maps = weight.shape
    image, pitch = _table(weight)
    marks = [_Mark((n + 0.5) * pitch[1], image.shape[0] + 9, str(n), "center") for n in range(kernels)]
    marks += [_Mark(-5, (n + 0.5) * pitch[0], str(n), "right") for n in range(maps)]
    marks.append(_Mark(image.shape[1] / 2, image.shape[0] + 23, "kernel", "center"))
    marks.append(_Mark(-_LEFT + 7, image.shape[0] / 2, "input map", "center", upright=True))
    return _with_scale(title, image, marks, weight, beside)


def _coloured(weight: np.ndarray) -> np.ndarray:
    """(kernel, row, column, 4) floats: RGB for three input maps, else from blue (negative) to red (positive)."""
    shares = 0.5 + np.nan_to_num(weight) / (2 * _limit(weight))
    colours = shares if weight.shape[3] == 3 else blue_to_red(shares[..., 0])
    return np.concatenate([colours, np.ones((*weight.shape[:3], 1))], axis=3)


def _tiled(cells: np.ndarray, columns: int, width: int) -> tuple[Pixels, tuple[int, int]]:
    """Tile an image with cells.

    Args:
        cells: (cell, row, column, 4) floats, each pixel of which becomes a square.
        columns: of the image, in cells.
        width: of the image, approximate maximum. Cells that are too large are reduced by averaging pixels.

    Returns:
        The image, and the height and width from one cell to the next.
    """
    merged = max(1, -(-columns * cells.shape[2] // (width - columns * _GAP)))
    if merged > 1:
        rows, across = (max(1, side // merged) for side in cells.shape[1:3])
        down = max(1, cells.shape[1] // rows)
        parts = cells[:, : rows * down, : across * merged].reshape(len(cells), rows, down, across, -1, 4)
        cells = parts.mean(axis=(2, 4))
    count, height, broad, _ = cells.shape
    rows = -(-count // columns)
    block = min(max(1, (width - columns * _GAP) // (columns * broad)), max(1, 78 // max(height, broad)))
    pitch = (height * block + _GAP, broad * block + _GAP)
    image = np.zeros((rows * pitch[0] - _GAP, columns * pitch[1] - _GAP, 4), np.uint8)
    for index, cell in enumerate(_bytes(cells)):
        top, left = index // columns * pitch[0], index % columns * pitch[1]
        tile = cell.repeat(block, axis=0).repeat(block, axis=1)
        image[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    return image, pitch


def _with_scale(title: str, image: Pixels, marks: list[_Mark], weight: np.ndarray, beside: bool) -> _Block:
    """The block, with a colour scale at the right."""
    limit, tall = _limit(weight), max(image.shape[0], 40)
    levels = np.linspace(limit, -limit, tall).reshape(1, tall, 1, 1)
    bar = _bytes(_coloured(levels.repeat(3, axis=3) if weight.shape[3] == 3 else levels))[0].repeat(_BAR, axis=1)
    whole = np.zeros((tall, image.shape[1] + 2 * _BAR, 4), np.uint8)
    whole[: image.shape[0], : image.shape[1]] = image
    whole[:, -_BAR:] = bar
    right = whole.shape[1] + 4
    for y, text in ((5, f"{limit:.2g}"), (tall / 2, "0"), (tall - 6, f"{-limit:.2g}")):
        marks.append(_Mark(right, y, text, "left"))
    label = "weight of R, G, B" if weight.shape[3] == 3 else "weight"
    marks.append(_Mark(right - 4 - _BAR / 2, tall + 23, label, "center"))
    return _Block(title, whole, marks, beside)


def draw_patches(path: Path, layers: Sequence[ExcitingPatches]) -> None:
    """Draw the patches of photos that excite each kernel most, the strongest first.

    Kernels with one or three input maps are shown before their patches, in the colours of ``draw_kernels``. Grey
    patches are stretched to full contrast. Coloured ones are only brightened, to keep their hue.

    ``layers``: at least one, each with no more kernels than ``draw_kernels`` shows. Raises OutputError.
    """
    _draw(path, [_patch_block(layer) for layer in layers])


def _patch_block(layer: ExcitingPatches) -> _Block:
    name, weight = printable(layer.kernels.name), layer.kernels.now
    shown, most = len(layer.patches), max(map(len, layer.patches))
    with_kernel = weight.shape[3] in (1, 3)
    tiles = [[_patch_tile(patch) for patch in patches] for patches in layer.patches]
    if with_kernel:
        tiles = [[_tile(kernel), *row] for kernel, row in zip(_coloured(weight), tiles, strict=False)]
    between = 34  # pixels, where the kernel's number stands
    pitch = (most + with_kernel) * (_TILE + _GAP) - _GAP + between
    columns = max(1, min(shown, (_WIDTH - _LEFT + between) // pitch))
    image = np.zeros((-(-shown // columns) * (_TILE + _GAP) - _GAP, columns * pitch - between, 4), np.uint8)
    marks = []
    for number, row in enumerate(tiles):
        top, left = number // columns * (_TILE + _GAP), number % columns * pitch
        marks.append(_Mark(left - 5, top + _TILE / 2, str(number), "right"))
        for place, tile in enumerate(row):
            x = left + place * (_TILE + _GAP)
            image[top : top + _TILE, x : x + _TILE] = tile
    size = "×".join(map(str, layer.patches[0][0].shape[:2]))
    what = f"the {most} patches of {size} pixels that excite"
    title = f"{name}: each kernel, and {what} it most" if with_kernel else f"{name}: {what} each kernel most"
    return _Block(title + (f" (the first {shown} kernels)" if shown < len(weight) else ""), image, marks)


def _patch_tile(patch: np.ndarray) -> Pixels:
    inside = ~np.isnan(patch).any(axis=2, keepdims=True)
    low, high = (float(np.nanmin(patch)), float(np.nanmax(patch))) if inside.any() else (0.0, 0.0)
    if patch.shape[2] == 3:
        low, high = 0.0, max(high, 64.0)
    shares = np.nan_to_num((patch - low) / ((high - low) or 1.0))
    return _tile(np.concatenate([np.broadcast_to(shares, (*patch.shape[:2], 3)), inside], axis=2))


def _tile(pixels: np.ndarray) -> Pixels:
    """A tile with (rows, columns, 4) floats, scaled to fit in its middle; large pixels stay squares."""
    height, width = pixels.shape[:2]
    scale = _TILE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    how = Image.Resampling.NEAREST if scale >= 4 else Image.Resampling.BICUBIC
    tile = Image.new("RGBA", (_TILE, _TILE))
    tile.paste(Image.fromarray(_bytes(pixels)).resize(size, how), ((_TILE - size[0]) // 2, (_TILE - size[1]) // 2))
    whole: Pixels = np.array(tile, np.uint8)
    return whole


def _bytes(shares: np.ndarray) -> Pixels:
    return np.asarray(255 * np.clip(shares, 0, 1)).round().astype(np.uint8)


def _limit(weight: np.ndarray) -> float:
    """The largest absolute weight, where the scale ends on both sides."""
    return float(np.abs(weight[np.isfinite(weight)]).max(initial=0.0)) or 1.0


def _draw(path: Path, blocks: Sequence[_Block]) -> None:
    """Place the blocks one below the other, or beside the one before, and write the picture."""
    places: list[tuple[int, int]] = []
    top = below = 0
    for block in blocks:
        left = _LEFT
        if block.beside:
            left += _WIDTH // 2
        else:
            top = below
        places.append((top + _HEAD, left))
        below = max(below, top + _HEAD + block.image.shape[0] + _BELOW)
    canvas = np.zeros((below, _WIDTH, 4), np.uint8)
    for block, (top, left) in zip(blocks, places, strict=True):
        height, width = block.image.shape[:2]
        canvas[top : top + height, left : left + width] = block.image
    # Letters are blended with what is behind them, so transparent pixels need the letters' colour.
    canvas[canvas[..., 3] == 0, :3] = _NUMBER
    picture = Image.fromarray(canvas)
    titles, numbers = (ImageFont.truetype(own_font_file(), size) for size in (_TITLE_SIZE, _NUMBER_SIZE))
    for block, (top, left) in zip(blocks, places, strict=True):
        _write_title(picture, block.title, left - 5 if block.image.shape[1] < _WIDTH else 0, top - 17, titles)
        for mark in block.marks:
            _write_mark(picture, mark, left, top, numbers)
    stream = io.BytesIO()
    picture.save(stream, "PNG", compress_level=COMPRESSION)
    write_atomically(path, stream.getvalue())


def _write_title(picture: Image.Image, text: str, left: float, middle: float, font: ImageFont.FreeTypeFont) -> None:
    """Write a title that starts at ``left``, on a background with round corners."""
    fine = 4  # pixels of the background's mask to one of the picture, for smooth corners
    width, height = round(font.getlength(text) + 2 * _PAD), round(_TITLE_SIZE + 2 * _PAD)
    corner = (round(left - _PAD), round(middle - height / 2))
    mask = Image.new("L", (fine * width, fine * height))
    whole = (0, 0, mask.width - 1, mask.height - 1)
    ImageDraw.Draw(mask).rounded_rectangle(whole, radius=fine * _PAD, fill=255)
    label = Image.new("RGBA", (width, height), _LABEL)
    ImageDraw.Draw(label).text((_PAD, height / 2), text, fill=_INK, font=font, anchor="lm")
    label.putalpha(mask.resize(label.size, Image.Resampling.BOX))
    picture.alpha_composite(label, (max(corner[0], 0), corner[1]))


def _write_mark(picture: Image.Image, mark: _Mark, left: int, top: int, font: ImageFont.FreeTypeFont) -> None:
    """Write a block's mark; the block begins at ``left`` and ``top``."""
    x, y = left + mark.x, top + mark.y - 1
    if not mark.upright:
        anchor = {"left": "lm", "right": "rm", "center": "mm"}[mark.side]
        ImageDraw.Draw(picture).text((x, y), mark.text, fill=_NUMBER, font=font, anchor=anchor)
        return
    line = Image.new("L", (round(font.getlength(mark.text)), round(1.5 * _NUMBER_SIZE)))
    ImageDraw.Draw(line).text((0, line.height / 2), mark.text, fill=255, font=font, anchor="lm")
    line = line.transpose(Image.Transpose.ROTATE_90)
    picture.paste((*_NUMBER, 255), (round(x - line.width / 2), round(y - line.height / 2)), line)
