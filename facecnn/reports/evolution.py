"""An animated GIF of the kernels' evolution, made of palette indices: matplotlib would take minutes."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from facecnn.reports.kernel_pictures import blue_to_red
from facecnn.runs.atomic import write_atomically
from facecnn.runs.frames import Frame

_EDGE = 10  # pixels
_LEAST_WIDTH = 320
_HEAD = 34  # pixels above the first layer
_TITLE, _BELOW = 20, 12  # above and below each layer's kernels
_GREYS, _SIGNED = 16, 65
"""The palette: the transparent background and greys for text, then blue to red; the rest is for kernels in colour."""
_PAGE, _LABEL = 0, 1
"""Palette indices of the transparent background, and of the background of text, which makes it readable on any page."""
_EPOCH_WIDTH = 170
"""Width in pixels behind the epoch's text, the same in all frames: transparent pixels would show the last frame."""
_MILLISECONDS, _FIRST, _LAST = 100, 600, 2500


def draw_evolution(path: Path, frames: Sequence[Frame], shapes: Mapping[str, tuple[int, ...]], epochs: int) -> None:
    """Draw the kernels after each epoch as a GIF that repeats, each layer on one scale.

    Colours and order are those of ``draw_kernels``. There are ten frames a second, and the last one stays longer.

    Args:
        frames: at least one, oldest first, all of the same layers.
        shapes: (kernels, rows, columns, input maps) of each whole layer; the frames may hold a part of it.

    Raises:
        OutputError: the picture couldn't be written.
    """
    from PIL import Image

    films = [_Film(name, shape, np.stack([frame.layers[name] for frame in frames])) for name, shape in shapes.items()]
    palette = _palette(films).tobytes()
    width = max(_LEAST_WIDTH, *(film.width for film in films)) + 2 * _EDGE
    background = np.zeros((_HEAD + sum(_TITLE + film.height + _BELOW for film in films), width), np.uint8)
    tops, top = [], _HEAD
    for film in films:
        _write(background, film.title, top)
        tops.append(top + _TITLE)
        top += _TITLE + film.height + _BELOW
    pictures = []
    for number, frame in enumerate(frames):
        canvas = background.copy()
        _write(canvas, f"epoch {frame.epoch} of {epochs}" if frame.epoch else "before the first step", 5, _EPOCH_WIDTH)
        done = round((width - 2 * _EDGE) * frame.epoch / max(epochs, 1))
        canvas[25:28, _EDGE : width - _EDGE] = 2
        canvas[25:28, _EDGE : _EDGE + done] = _GREYS - 6
        for film, top in zip(films, tops, strict=True):
            film.place(canvas, number, top)
        picture = Image.fromarray(canvas)
        picture.putpalette(palette)
        pictures.append(picture)
    durations = [_FIRST, *[_MILLISECONDS] * (len(pictures) - 2), _LAST][-len(pictures) :]
    stream = io.BytesIO()
    pictures[0].save(
        stream,
        "GIF",
        save_all=True,
        append_images=pictures[1:],
        duration=durations,
        loop=0,
        transparency=_PAGE,
    )
    write_atomically(path, stream.getvalue())


class _Film:
    """One layer's kernels over the frames."""

    def __init__(self, name: str, shape: tuple[int, ...], weights: np.ndarray) -> None:
        """``shape`` is that of the whole layer, ``weights`` (frame, kernel, row, column, input map)."""
        _, kernels, height, width, maps = weights.shape
        weights = np.nan_to_num(weights.astype(np.float32))
        self.shares = 0.5 + weights / (float(np.abs(weights).max(initial=0.0)) or 1.0) / 2
        """0 to 1, with 0.5 for a weight of 0: (frame, kernel, row, column, channel), in a table (frame, map, kernel,
        row, column, 1)."""
        self.coloured = maps == 3
        table = maps not in (1, 3)
        if table:
            self._columns, rows, side, gap = kernels, maps, 15, 2
            self.shares = self.shares.transpose(0, 4, 1, 2, 3)[..., None]
        else:
            self._columns = kernels if kernels <= 8 else 8 if kernels <= 32 else 16
            rows, gap = -(-kernels // self._columns), 4
            side = 80 if self._columns <= 8 else 40
        self._block = max(1, side // max(height, width))
        self._pitch = (height * self._block + gap, width * self._block + gap)
        self.height, self.width = rows * self._pitch[0], self._columns * self._pitch[1]
        across, down = (
            f"{part} of {all_}" if part < all_ else f"{all_}"
            for part, all_ in zip((kernels, maps), (shape[0], shape[3]), strict=True)
        )
        what = f"{name}: {across} kernel{'s' * (shape[0] != 1)}"
        self.title = f"{what} across, {down} input maps down" if table else what
        self.numbers: np.ndarray = np.zeros(0, np.uint8)
        """Palette indices: (frame, kernel, row, column), in a table (frame, map, kernel, row, column)."""

    def place(self, canvas: np.ndarray, frame: int, top: int) -> None:
        tiles = self.numbers[frame]
        tiles = tiles.reshape(-1, *tiles.shape[-2:]).repeat(self._block, axis=1).repeat(self._block, axis=2)
        for index, tile in enumerate(tiles):
            row, column = divmod(index, self._columns)
            y, x = top + row * self._pitch[0], _EDGE + column * self._pitch[1]
            canvas[y : y + tile.shape[0], x : x + tile.shape[1]] = tile


def _palette(films: Sequence[_Film]) -> np.ndarray:
    """The palette (256, 3) of all films. Sets the palette indices of each film."""
    from PIL import Image

    palette: np.ndarray = np.zeros((256, 3), np.uint8)
    palette[_LABEL:_GREYS] = np.linspace(232, 32, _GREYS - _LABEL).round().astype(np.uint8)[:, None]
    signed = blue_to_red(np.linspace(0, 1, _SIGNED))
    palette[_GREYS : _GREYS + _SIGNED] = (255 * signed).round().astype(np.uint8)
    first = _GREYS + _SIGNED
    for film in films:
        if not film.coloured:
            film.numbers = (film.shares[..., 0] * (_SIGNED - 1)).round().astype(np.uint8) + np.uint8(_GREYS)
    coloured = [film for film in films if film.coloured]
    if coloured:
        pixels = np.concatenate([(255 * film.shares).round().astype(np.uint8).reshape(-1, 3) for film in coloured])
        reduced = Image.fromarray(pixels[None]).quantize(256 - first, dither=Image.Dither.NONE)
        found = np.array(reduced.getpalette(), np.uint8).reshape(-1, 3)[: 256 - first]
        palette[first : first + len(found)] = found
        ends = np.cumsum([film.shares[..., 0].size for film in coloured])
        parts = np.split(np.asarray(reduced).ravel() + np.uint8(first), ends[:-1])
        for film, part in zip(coloured, parts, strict=True):
            film.numbers = part.reshape(film.shares.shape[:-1])
    return palette


def _write(canvas: np.ndarray, text: str, top: int, least: int = 0) -> None:
    """Write a line of text on a canvas of palette indices, on a background that is ``least`` pixels wide or more."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(13)
    wide = min(max(least, round(font.getlength(text)) + 12), canvas.shape[1])
    line = Image.new("L", (wide, 18))
    ImageDraw.Draw(line).text((6, 1), text, fill=255, font=font)
    greys = _LABEL + np.asarray(line).astype(np.uint16) * (_GREYS - 1 - _LABEL) // 255
    left = min(_EDGE - 6, canvas.shape[1] - wide)
    canvas[top : top + 18, left : left + wide] = greys.astype(np.uint8)
