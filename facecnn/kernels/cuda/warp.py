"""Tone, warp and blur: augmentation of a photo, tile by tile."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

from facecnn.kernels.cuda.block import COLUMNS, add_up
from facecnn.kernels.cuda.driver import SIMULATED, cuda, device_function, kernel
from facecnn.kernels.cuda.erasing import erased_box
from facecnn.kernels.cuda.memory import Array
from facecnn.kernels.cuda.sizes import THREADS
from facecnn.kernels.cuda.trigonometry import cosine_and_sine
from facecnn.kernels.protocol import ANGLE, BLUR, BRIGHTNESS, CONTRAST, GAMMA, MIRROR, SHIFT_X, SHIFT_Y, ZOOM

_F, _I, _U = np.float32, np.int32, np.uint32
_ZERO, _ONE, _HALF = _F(0), _F(1), _F(0.5)
_BRIGHTEST = _F(255)
_QUARTER, _RADIANS = _F(90), _F(math.pi / 180)

_TONES = 256
_RADIUS = 4
"""Of the blur."""
_TAPS = 2 * _RADIUS + 1

TILE: tuple[int, int] = (5, 6) if SIMULATED else (16, 32)
"""Rows and columns that a block makes at a time: in three colours, with the border that a blur needs, 19 KB of shared
memory."""
_ROWS, _COLUMNS = TILE


@cache
def _warp_tile(rows: int, columns: int, maps: int) -> Any:
    """A device function that fills a tile (rows, columns, maps) in shared memory with the toned and warped photo, from
    the output's pixel (top, left) on; beyond the output its border is repeated.

    A thread computes whole pixels. What all of them share is in ``warp``: see ``_warp_of``.
    """

    @device_function
    def warp_tile(
        tile: Any, table: Any, warp: Any, pixels: Any, photo: Any, photo_rows: Any, photo_columns: Any, top: Any,
        left: Any, height: Any, width: Any,
    ) -> None:  # fmt: skip
        cosine, sine, middle_y, middle_x, direction = warp[0], warp[1], warp[2], warp[3], warp[4]
        last_y, last_x = _F(photo_rows - 1), _F(photo_columns - 1)
        half_height, half_width = _HALF * _F(height - 1), _HALF * _F(width - 1)
        i = cuda.threadIdx.x
        while i < rows * columns:
            row = _I(_U(i) // _U(columns))
            y = _F(min(max(top + row, 0), height - 1)) - half_height
            x = direction * (_F(min(max(left + i - row * columns, 0), width - 1)) - half_width)
            source_y = min(max(cosine * y - sine * x + middle_y, _ZERO), last_y)
            source_x = min(max(sine * y + cosine * x + middle_x, _ZERO), last_x)
            floor_y, floor_x = _F(_U(source_y)), _F(_U(source_x))
            down, along = source_y - floor_y, source_x - floor_x
            at = _U((_U(floor_y) * _U(photo_columns) + _U(floor_x)) * _U(maps))
            below = _U(at + _U(photo_columns * maps)) if floor_y < last_y else at
            beside = _U(maps) if floor_x < last_x else _U(0)
            for c in range(maps):
                q, r = _U(at + _U(c)), _U(below + _U(c))
                upper = table[pixels[photo, q]] * (_ONE - along) + table[pixels[photo, _U(q + beside)]] * along
                lower = table[pixels[photo, r]] * (_ONE - along) + table[pixels[photo, _U(r + beside)]] * along
                tile[i * maps + c] = upper * (_ONE - down) + lower * down
            i += THREADS

    return warp_tile


@device_function
def _cosine_and_sine(degrees: Any) -> Any:
    """Of an angle below thousands of degrees."""
    quarters = _I(math.floor(degrees / _QUARTER + _HALF))
    return cosine_and_sine(quarters, (degrees - _F(quarters) * _QUARTER) * _RADIANS)


@device_function
def _warp_of(warp: Any, parameters: Any, n: Any, photo_rows: Any, photo_columns: Any, height: Any, width: Any) -> None:
    """warp (5,): cosine and sine over the zoom, where the output's middle lies in the photo, and -1 for a mirror."""
    cosine, sine = _cosine_and_sine(parameters[n, ANGLE])
    zoom = parameters[n, ZOOM]
    warp[0] = cosine / zoom
    warp[1] = sine / zoom
    warp[2] = _HALF * _F(photo_rows - 1) - parameters[n, SHIFT_Y] * _F(height)
    warp[3] = _HALF * _F(photo_columns - 1) - parameters[n, SHIFT_X] * _F(width)
    warp[4] = -_ONE if parameters[n, MIRROR] > _ZERO else _ONE


@device_function
def _tone(i: Any, parameters: Any, n: Any) -> Any:
    """The toned value, 0 to 1, of the grey level i, 0 to 255: gamma, then contrast and brightness."""
    power = _F(math.exp(parameters[n, GAMMA]))
    curved = _F(math.pow(_F(i) / _BRIGHTEST, power))
    value = (curved - _HALF) * parameters[n, CONTRAST] + _HALF + parameters[n, BRIGHTNESS]
    return min(max(value, _ZERO), _ONE)


@device_function
def _tap(i: Any, sigma: Any) -> Any:
    """Weight i of the Gaussian of 2 * _RADIUS + 1 taps."""
    total, wanted = _ZERO, _ZERO
    for k in range(_TAPS):
        distance = _F(k - _RADIUS) / sigma
        weight = _F(math.exp(-_HALF * distance * distance))
        total += weight
        if k == i:
            wanted = weight
    return wanted / total


@device_function
def _set_up(
    table: Any, geometry: Any, taps: Any, parameters: Any, n: Any, photo_rows: Any, photo_columns: Any, height: Any,
    width: Any, blurred: Any,
) -> None:  # fmt: skip
    """Fill ``table``, ``geometry`` and, for a photo that is blurred, ``taps``: see ``_tone``, ``_warp_of`` and
    ``_tap``."""
    thread = cuda.threadIdx.x
    i = thread
    while i < _TONES:
        table[i] = _tone(i, parameters, n)
        i += THREADS
    if thread == 0:
        _warp_of(geometry, parameters, n, photo_rows, photo_columns, height, width)
    if blurred:
        i = thread
        while i < _TAPS:
            taps[i] = _tap(i, parameters[n, BLUR])
            i += THREADS
    cuda.syncthreads()


@cache
def _blur(maps: int) -> Any:
    """A device function that blurs a tile, which has a border of ``_RADIUS``: down into ``between``, then along."""
    wide_pitch, pitch = (_COLUMNS + 2 * _RADIUS) * maps, _COLUMNS * maps
    between_size, size = _ROWS * wide_pitch, _ROWS * pitch

    @device_function
    def blur(tile: Any, between: Any, taps: Any) -> None:
        i = cuda.threadIdx.x
        while i < between_size:
            total = taps[0] * tile[i]
            for k in range(1, _TAPS):
                total += taps[k] * tile[i + k * wide_pitch]
            between[i] = total
            i += THREADS
        cuda.syncthreads()
        i = cuda.threadIdx.x
        while i < size:
            row = _I(_U(i) // _U(pitch))
            at = row * wide_pitch + i - row * pitch
            total = taps[0] * between[at]
            for k in range(1, _TAPS):
                total += taps[k] * between[at + k * maps]
            tile[i] = total
            i += THREADS

    return blur


@cache
def _write(maps: int, erase: bool) -> Any:
    """A device function that writes the part of a tile that lies in the output: ``rows`` rows of ``length`` elements.
    It returns the sum of this thread's elements as they were before the box was erased."""
    pitch = _COLUMNS * maps
    size = _ROWS * pitch

    @device_function
    def write(out: Any, tile: Any, n: Any, top: Any, left: Any, rows: Any, length: Any, box: Any) -> Any:
        box_top, box_left, box_bottom, box_right = box
        total = _ZERO
        i = cuda.threadIdx.x
        while i < size:
            row = _I(_U(i) // _U(pitch))
            along = i - row * pitch
            if row < rows and along < length:
                value = tile[i]
                total += value
                y, x = top + row, left * maps + along
                if erase and box_top <= y < box_bottom and box_left * maps <= x < box_right * maps:
                    value = _ZERO
                out[n, y, x] = value
            i += THREADS
        return total

    return write


@cache
def _squares(maps: int) -> Any:
    """A device function: the sum of this thread's squared deviations from ``mean``, before the box is erased."""
    pitch = _COLUMNS * maps
    size = _ROWS * pitch

    @device_function
    def squares_of(tile: Any, rows: Any, length: Any, mean: Any) -> Any:
        squares = _ZERO
        i = cuda.threadIdx.x
        while i < size:
            row = _I(_U(i) // _U(pitch))
            if row < rows and i - row * pitch < length:
                difference = tile[i] - mean
                squares += difference * difference
            i += THREADS
        return squares

    return squares_of


@cache
def warp(maps: int, erase: bool, measure: bool) -> Any:
    pitch = _COLUMNS * maps
    wide_rows, wide_columns = _ROWS + 2 * _RADIUS, _COLUMNS + 2 * _RADIUS
    wide_size, between_size = wide_rows * wide_columns * maps, _ROWS * wide_columns * maps
    warp_tile, warp_wide_tile = _warp_tile(_ROWS, _COLUMNS, maps), _warp_tile(wide_rows, wide_columns, maps)
    blur, write, squares_of = _blur(maps), _write(maps, erase), _squares(maps)

    @kernel
    def warp(
        out: Array, partials: Array, pixels: Array, rows: Array, parameters: Array, photo_rows: Any, photo_columns: Any
    ) -> None:
        # out (N, H, W * C), pixels (P, rows * columns * C) uint8, rows (N,), parameters (N, 13)
        # partials (N, 3, tiles), if ``measure``: each tile's count, mean and sum of squared deviations
        # Blocks (N, parts): each makes tiles of a photo in a grid-stride loop.
        table = cuda.shared.array(_TONES, _F)
        geometry = cuda.shared.array(5, _F)
        taps = cuda.shared.array(_TAPS, _F)
        tile = cuda.shared.array(wide_size, _F)
        between = cuda.shared.array(between_size, _F)
        values = cuda.shared.array(THREADS, _F)
        partial = cuda.shared.array(COLUMNS, _F)
        thread, n = cuda.threadIdx.x, cuda.blockIdx.x
        photo, blurred = rows[n], parameters[n, BLUR] > _ZERO
        height, row_size = out.shape[1], out.shape[2]
        width = row_size // maps
        box = erased_box(parameters, n, height, width)
        _set_up(table, geometry, taps, parameters, n, photo_rows, photo_columns, height, width, blurred)

        down, across = (height + _ROWS - 1) // _ROWS, (width + _COLUMNS - 1) // _COLUMNS
        t = cuda.blockIdx.y
        while t < down * across:
            tile_row = _I(_U(t) // _U(across))
            top, left = tile_row * _ROWS, (t - tile_row * across) * _COLUMNS
            if blurred:
                warp_wide_tile(
                    tile, table, geometry, pixels, photo, photo_rows, photo_columns, top - _RADIUS, left - _RADIUS,
                    height, width,
                )  # fmt: skip
                cuda.syncthreads()
                blur(tile, between, taps)
            else:
                warp_tile(tile, table, geometry, pixels, photo, photo_rows, photo_columns, top, left, height, width)
            cuda.syncthreads()
            there_rows, there_length = min(_ROWS, height - top), min(pitch, row_size - left * maps)
            total = write(out, tile, n, top, left, there_rows, there_length, box)
            if measure:
                count = _F(there_rows * there_length)
                mean = add_up(values, partial, total) / count
                squares = add_up(values, partial, squares_of(tile, there_rows, there_length, mean))
                if thread == 0:
                    partials[n, 0, t] = count
                    partials[n, 1, t] = mean
                    partials[n, 2, t] = squares
            cuda.syncthreads()  # the tile has been read before the next one is made
            t += cuda.gridDim.y

    return warp
