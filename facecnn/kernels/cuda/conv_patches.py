"""The factors of the products in conv_strided.py: their elements are looked up in the maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from facecnn.kernels.cuda.columns import natural
from facecnn.kernels.cuda.driver import device_function
from facecnn.kernels.cuda.elementwise import derivative_of
from facecnn.kernels.cuda.memory import Array
from facecnn.kernels.protocol import Activation

_I, _U, _U64 = np.int32, np.uint32, np.uint64
_ZERO = np.float32(0)


@dataclass(frozen=True)
class StridedShape:
    """A strided convolution, all but the number of photos."""

    height: int
    width: int
    maps: int
    rows: int
    columns: int
    kernels: int
    kernel_rows: int
    kernel_columns: int
    stride: tuple[int, int]
    padding: tuple[int, int]

    @property
    def patch(self) -> int:
        return self.kernel_rows * self.kernel_columns * self.maps


def shape_of(x: Array, weight: Array, out: Array, stride: tuple[int, int], padding: tuple[int, int]) -> StridedShape:
    kernels, kernel_rows, kernel_columns, maps = weight.shape
    _, height, width, _ = x.shape
    _, rows, columns, _ = out.shape
    return StridedShape(height, width, maps, rows, columns, kernels, kernel_rows, kernel_columns, stride, padding)


@device_function
def divided(a: Any, b: Any) -> Any:
    """Quotient and remainder, in 32 bits."""
    quotient = _U(_U(a) // _U(b))
    return quotient, _U(_U(a) - quotient * _U(b))


# ------------------------------------------------------------------------------------------------------- elements
#
# Device functions ``element(source, line, depth)``: an element of a factor.


def patches_of(shape: StridedShape) -> Any:
    """Of x (N, H, W, C), flat: number ``depth`` of the window of pixel ``line``, zero outside of the photo."""
    maps, kernel_columns, rows, columns = shape.maps, shape.kernel_columns, shape.rows, shape.columns
    height, width, (down, along), (top, left) = shape.height, shape.width, shape.stride, shape.padding

    @device_function
    def element(x: Array, line: Any, depth: Any) -> Any:
        tap, c = divided(depth, maps)
        r, s = divided(tap, kernel_columns)
        row, column = divided(line, columns)
        n, row = divided(row, rows)
        y, z = _I(row) * _I(down) + _I(r) - _I(top), _I(column) * _I(along) + _I(s) - _I(left)
        value = _ZERO
        if y >= 0 and y < height and z >= 0 and z < width:
            value = x[_U64(((np.int64(n) * height + y) * width + z) * maps + np.int64(c))]
        return value

    return element


def weights_of(shape: StridedShape) -> Any:
    """Of weight (K, D), flat: kernel ``line``, number ``depth``."""
    size = shape.patch

    @device_function
    def element(weight: Array, line: Any, depth: Any) -> Any:
        return weight[_U64(natural(line) * size + natural(depth))]

    return element


def deltas_of(shape: StridedShape, activation: Activation) -> Any:
    """Of delta (pixels, K): kernel ``line`` at pixel ``depth``; source = (dout flat, out flat, slope)."""
    kernels, slope_of = shape.kernels, derivative_of(activation)

    @device_function
    def element(source: Any, line: Any, depth: Any) -> Any:
        dout, out, slope = source
        index = _U64(natural(depth) * kernels + natural(line))
        return dout[index] * slope_of(out[index], slope)

    return element


def patches_by_pixel(shape: StridedShape) -> Any:
    """Number ``line`` of the window of pixel ``depth``."""
    element_of = patches_of(shape)

    @device_function
    def element(x: Array, line: Any, depth: Any) -> Any:
        return element_of(x, depth, line)

    return element


class Remainder(NamedTuple):
    """The pixels of x whose row and column leave the same remainders by the stride, and the taps that see them. All are
    pairs: of rows, and of columns."""

    shape: StridedShape
    first: tuple[int, int]
    pixels: tuple[int, int]
    """How many there are."""
    first_tap: tuple[int, int]
    taps: tuple[int, int]
    output: tuple[int, int]
    """The position of the window that has the first pixel at the first tap."""


def remainder_of(shape: StridedShape, first: tuple[int, int]) -> Remainder:
    """Those of which ``first`` is the first pixel."""
    sides, sizes = (shape.height, shape.width), (shape.kernel_rows, shape.kernel_columns)
    found = []
    for begin, stride, padding, side, size in zip(first, shape.stride, shape.padding, sides, sizes, strict=True):
        output, tap = divmod(begin + padding, stride)
        found.append((-(-(side - begin) // stride), tap, max(0, -(-(size - tap) // stride)), output))
    rows, columns = found
    return Remainder(shape, first, *zip(rows, columns, strict=True))


def deltas_around(remainder: Remainder, activation: Activation) -> Any:
    """For pixel ``line`` of a remainder: kernel and tap ``depth``, (taps, K); zero where there is no such window."""
    shape, slope_of = remainder.shape, derivative_of(activation)
    (pixel_rows, pixel_columns), tap_columns = remainder.pixels, max(1, remainder.taps[1])
    (first_row, first_column), kernels = remainder.output, shape.kernels
    rows, columns = shape.rows, shape.columns

    @device_function
    def element(source: Any, line: Any, depth: Any) -> Any:
        dout, out, slope = source
        tap, k = divided(depth, kernels)
        r, s = divided(tap, tap_columns)
        row, column = divided(line, pixel_columns)
        n, row = divided(row, pixel_rows)
        y, z = _I(row) + _I(first_row) - _I(r), _I(column) + _I(first_column) - _I(s)
        value = _ZERO
        if y >= 0 and y < rows and z >= 0 and z < columns:
            index = _U64(((np.int64(n) * rows + y) * columns + z) * kernels + np.int64(k))
            value = dout[index] * slope_of(out[index], slope)
        return value

    return element


def weights_around(remainder: Remainder) -> Any:
    """Of weight (K, R, S, C), flat: map ``line`` of kernel and tap ``depth``, (taps of the remainder, K)."""
    shape, (first_row, first_column) = remainder.shape, remainder.first_tap
    tap_columns, (down, along) = max(1, remainder.taps[1]), shape.stride
    kernels, kernel_rows, kernel_columns, maps = shape.kernels, shape.kernel_rows, shape.kernel_columns, shape.maps

    @device_function
    def element(weight: Array, line: Any, depth: Any) -> Any:
        tap, k = divided(depth, kernels)
        r, s = divided(tap, tap_columns)
        row, column = natural(r) * down + first_row, natural(s) * along + first_column
        return weight[_U64(((natural(k) * kernel_rows + row) * kernel_columns + column) * maps + natural(line))]

    return element
