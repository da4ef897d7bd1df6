"""Cuts faces out as dlib does ("face chips"), for networks that were trained on its crops.

dlib's ``get_face_chip`` with a padding of 0.25 (dlib 20, ``image_transforms/interpolation.h``): a square of the photo,
turned about its middle, is sampled bilinearly. A large one is first halved by a pyramid of 5x5 binomial filters.
Everything is truncated to whole grey values, never rounded, and is black beyond the photo. dlib aligns on the corners
of the eyes and the base of the nose; here the finder's five landmarks take their place.

Coordinates are x before y, and in dlib the first pixel's centre is (0, 0).
"""

import math
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image

from facecnn.arrays import Array, Float64Array, Int64Array, UInt8Array, UInt16Array
from facecnn.photos.face import Face

CHIP_VERSION = 1
"""Part of the cache's key: raise it whenever the pixels of a chip change."""

SIDE = 150
"""Pixels a side of the crops that dlib's face network was trained on."""

LANDMARKS = np.array([(46.73, 45.17), (101.36, 45.08), (73.89, 77.56), (50.21, 105.18), (98.08, 105.38)])
"""Where eyes, tip of the nose and corners of the mouth lie in dlib's chips of ``SIDE`` pixels: medians over 875 photos
of LFW, of the landmarks that our finder gives."""

WEIGHTS = np.array([3, 3, 1, 0.5, 0.5])
"""Weights of the landmarks. dlib aligns on four points of the eyes and one of the nose, and not on the mouth."""

_LEAST_SIDE = 8
"""dlib's pyramid halves no picture whose shorter side isn't longer than this."""

_BAND = 32
"""Rows that are halved or sampled at a time, so that what is computed stays in the processor's cache."""


class _Window(NamedTuple):
    """A turned square of a photo."""

    low: Float64Array
    """(2,) where the centre of its top left pixel lies, before the square is turned about its middle."""
    high: Float64Array
    """(2,) the same of its bottom right pixel."""
    turn: Float64Array
    """(2, 2) rotation, from the square to the photo."""

    @property
    def extent(self) -> float:
        """From the centre of the first pixel to that of the last one, in pixels."""
        return float(self.high[0] - self.low[0])

    def turned(self, *points: tuple[float, float]) -> Float64Array:
        """(points, 2): points of the square before it is turned, as they lie in the photo."""
        middle = (self.low + self.high) / 2
        return np.array([self.turn @ (np.array(point) - middle) + middle for point in points])

    def corners(self) -> Float64Array:
        """(4, 2): top left, top right, bottom left and bottom right, in the photo."""
        (left, top), (right, bottom) = self.low.tolist(), self.high.tolist()
        return self.turned((left, top), (right, top), (left, bottom), (right, bottom))

    def moved(self, by: Int64Array) -> "_Window":
        """The same square, seen from the pixel ``by`` (2,)."""
        return self._replace(low=self.low - by, high=self.high - by)

    def halved(self) -> "_Window":
        """The same square in the next level of the pyramid; dlib's offsets, though 1 would be exact."""
        offset = np.array([1.25, 0.75])
        return self._replace(low=self.low / 2 - offset, high=self.high / 2 - offset)


def face_chip(image: Image.Image, face: Face, side: int, margin: int, mode: Literal["L", "RGB"]) -> UInt8Array:
    """Cut a face out of a picture, aligned on its landmarks.

    Args:
        image: upright picture, mode L or RGB.
        side: rows and columns of the chip.
        margin: more rows and columns on each edge, sampled in the same way. They don't change the chip.
        mode: of the result. Grey is the luma, taken before anything else.

    Returns:
        uint8 of (side + 2 margin, side + 2 margin, 1 or 3).
    """
    channels, stored = len(mode), side + 2 * margin
    window = _window(face, side)
    levels = _levels(window.extent, side)
    first, end = _bounds(window, 2 * (2 << levels) - 2, image.size)
    if not _can_be_halved(end - first, levels):
        return np.zeros((stored, stored, channels), np.uint8)
    # The margin needs a larger part. It begins a whole number of pixels earlier in each level of the pyramid, so that
    # the chip is made of the same pixels.
    unit = 1 << levels
    beyond = math.ceil(margin * window.extent / (side - 1) * np.abs(window.turn[0]).sum() / unit) * unit
    extra = np.minimum(beyond, first // unit * unit)
    end = np.minimum(end + beyond, image.size)
    part = image.crop((*(first - extra).tolist(), *end.tolist())).convert(mode)
    planes = np.stack([np.asarray(band) for band in part.split()])
    window = window.moved(first)
    for _ in range(levels):
        planes, window = halve(planes), window.halved()
    return _sampled(planes, window, extra // unit, side, margin)


def chip_scale(face: Face, side: int) -> float:
    """Pixels of the picture for each pixel of the face's chip, along a side."""
    return _window(face, side).extent / (side - 1)


def halve(planes: UInt8Array) -> UInt8Array:
    """The next level of dlib's pyramid: 5x5 binomial filter (1 4 6 4 1), every other pixel, truncated to whole numbers.

    ``planes``: (channels, rows, columns), at least 5 rows and columns. Returns (channels, (rows - 3) // 2, (columns -
    3) // 2); its pixel (r, c) lies at (2 r + 2, 2 c + 2).
    """
    channels, *lengths = planes.shape
    rows, columns = ((length - 3) // 2 for length in lengths)
    half = np.empty((channels, rows, columns), np.uint8)
    for row in range(0, rows, _BAND):
        count = min(_BAND, rows - row)
        band = planes[:, 2 * row : 2 * (row + count) + 3]
        sums = _binomial(*(band[:, tap : tap + 2 * count - 1 : 2] for tap in range(5)))
        sums = _binomial(*(sums[..., tap : tap + 2 * columns - 1 : 2] for tap in range(5)))
        half[:, row : row + count] = sums >> 8
    return half


def _window(face: Face, side: int) -> _Window:
    """Where a chip of ``side`` pixels lies in the photo."""
    matrix, shift = similarity(LANDMARKS * side / SIDE, np.array(face.landmarks) - 0.5, WEIGHTS)
    middle = matrix @ np.array([side / 2, side / 2]) + shift
    half = (side * float(np.hypot(matrix[0, 0], matrix[1, 0])) - 1) / 2
    angle = np.arctan2(matrix[1, 0], matrix[0, 0])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return _Window(middle - half, middle + half, turn)


def _levels(extent: float, side: int) -> int:
    """How often the photo is halved: as long as the window, halved once more, still has more pixels than the chip."""
    levels = 0
    while extent / (2 << levels) + 1 > side:
        levels += 1
    return levels


def _bounds(window: _Window, reach: int, size: tuple[int, int]) -> tuple[Int64Array, Int64Array]:
    """The part of a photo of ``size`` (width, height) that a window needs, with ``reach`` pixels on each edge.

    Returns the column and row of its first pixel, and those just past its last, (2,) each; the second aren't above the
    first where the window lies beyond the photo.
    """
    corners = window.corners()
    low = np.maximum(corners.min(axis=0) - reach, 0)
    high = np.minimum(corners.max(axis=0) + reach, np.array(size) - 1)
    return np.floor(low + 0.5).astype(np.int64), np.floor(high + 0.5).astype(np.int64) + 1


def _can_be_halved(size: Int64Array, levels: int) -> bool:
    """Whether a part of ``size`` (width, height) can be halved ``levels`` times, and has any pixels at all."""
    shorter = int(size.min())
    for _ in range(levels):
        if shorter <= _LEAST_SIDE:
            return False
        shorter = (shorter - 3) // 2
    return shorter > 0


def _binomial(first: Array, second: Array, third: Array, fourth: Array, fifth: Array) -> UInt16Array:
    """first + 4 second + 6 third + 4 fourth + fifth; after both directions at most 256 x 255, which 16 bits hold."""
    sums = np.add(second, fourth, dtype=np.uint16)
    sums *= 4
    sums += first
    sums += np.multiply(third, 6, dtype=np.uint16)
    sums += fifth
    return sums


def _sampled(planes: UInt8Array, window: _Window, origin: Int64Array, side: int, margin: int) -> UInt8Array:
    """Sample a window of ``side`` pixels, and its margin; its places count from the pixel ``origin`` of ``planes``."""
    corners = window.corners()
    right, down = (corners[1:3] - corners[0]) / (side - 1)
    steps = np.arange(-margin, side + margin)
    bands = []
    for row in range(0, len(steps), _BAND):
        below = steps[row : row + _BAND, None]
        x, y = (corners[0, axis] + steps * right[axis] + below * down[axis] for axis in (0, 1))
        bands.append(_bilinear(planes, x, y, origin))
    return np.concatenate(bands)


def _bilinear(planes: UInt8Array, x: Float64Array, y: Float64Array, origin: Int64Array) -> UInt8Array:
    """Sample planes between their pixels.

    Args:
        planes: (channels, rows, columns).
        x: (height, width) columns at which to sample, counted from ``origin``.
        y: the same of rows.
        origin: (2,) column and row.

    Returns:
        (height, width, channels), truncated to whole numbers; 0 where one of four neighbours lies beyond the planes.
    """
    channels, height, width = planes.shape
    left, top = np.floor(x), np.floor(y)
    along, down = x - left, y - top
    before, above = 1 - along, 1 - down
    column, row = left.astype(np.int64) + origin[0], top.astype(np.int64) + origin[1]
    inside = (column >= 0) & (row >= 0) & (column < width - 1) & (row < height - 1)
    start = np.where(inside, row * width + column, 0)
    sampled = np.empty((*x.shape, channels), np.uint8)
    for channel, pixels in enumerate(planes.reshape(channels, -1)):
        upper, lower = (
            before * pixels.take(start + first, mode="clip") + along * pixels.take(start + first + 1, mode="clip")
            for first in (0, width)
        )
        upper *= above
        lower *= down
        upper += lower
        upper *= inside
        sampled[..., channel] = upper
    return sampled


def similarity(
    source: Float64Array, target: Float64Array, weights: Float64Array | None = None
) -> tuple[Float64Array, Float64Array]:
    """Rotation, scale and shift from ``source`` to ``target``, by least squares (Umeyama 1991); never a reflection.

    Args:
        source: (n, 2) points.
        target: (n, 2) where they should come to lie.
        weights: (n,) of their squared distances; all are equal by default.

    Returns:
        A matrix (2, 2) and a shift (2,): ``source @ matrix.T + shift`` is nearest to ``target``.
    """
    weights = np.ones(len(source)) if weights is None else weights
    centre_source, centre_target = (np.average(points, axis=0, weights=weights) for points in (source, target))
    a, b = source - centre_source, target - centre_target
    # In complex numbers: the factor that brings factor * a nearest to b. A reflection can't be written like this.
    factor = np.vdot(weights * (a[:, 0] + 1j * a[:, 1]), b[:, 0] + 1j * b[:, 1]) / (weights[:, None] * a * a).sum()
    matrix = np.array([[factor.real, -factor.imag], [factor.imag, factor.real]])
    return matrix, centre_target - matrix @ centre_source
