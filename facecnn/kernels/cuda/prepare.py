"""Photos as they lie in the cache become the network's input.

First kernel: tone, warp and blur, tile by tile. "none" erases at once and is done. "standardise" keeps each tile's mean
and squared deviations, which a second kernel merges before it scales the photo. "local_contrast" blurs the photo down
its columns and along its rows, and again the squared differences from that, and then scales: six kernels in all.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from facecnn.kernels.cuda.block import block_sum, columns_of
from facecnn.kernels.cuda.driver import SIMULATED, cuda, device_function, kernel, launch, unfused
from facecnn.kernels.cuda.memory import Array, Workspace
from facecnn.kernels.cuda.sizes import BLOCKS, THREADS
from facecnn.kernels.cuda.trigonometry import cosine_and_sine
from facecnn.kernels.protocol import (
    ANGLE,
    BLUR,
    BRIGHTNESS,
    CONTRAST,
    ERASE_HEIGHT,
    ERASE_WIDTH,
    ERASE_X,
    ERASE_Y,
    GAMMA,
    MIRROR,
    SHIFT_X,
    SHIFT_Y,
    ZOOM,
    Normalise,
    local_contrast_weights,
)

_F, _I, _U = np.float32, np.int32, np.uint32
_ZERO, _ONE, _HALF = _F(0), _F(1), _F(0.5)
_BRIGHTEST = _F(255)
_QUARTER, _RADIANS = _F(90), _F(math.pi / 180)
_LEAST_CONTRAST, _MOST = _F(4 / 255), _F(4)

_TONES = 256
_RADIUS = 4
"""Of the photos' blur."""
_TAPS = 2 * _RADIUS + 1

_TILE: tuple[int, int] = (5, 6) if SIMULATED else (16, 32)
"""Rows and columns that a block makes at a time: in three colours, with the border that a blur needs, 19 KB of shared
memory."""
_TURNS = 16
"""Elements that a thread scales, one after another: so many that it pays to merge a photo's partial sums for them."""
_ROWS_A_THREAD = 4
"""Of the large blur: as many numbers are made from each weight, and down the columns from each value that is read."""


# -------------------------------------------------------------------------------------------------------- erasing

_multiply, _ = unfused()


@device_function
def _rounded(part: Any, side: Any) -> Any:
    """round(part * side) for part >= 0, halves to the even number, as NumPy's rint of the rounded product."""
    pixels = _multiply(part, _F(side))
    whole = _I(pixels)
    rest = pixels - _F(whole)
    if rest > _HALF or (rest == _HALF and whole & 1 == 1):
        whole += 1
    return whole


@device_function
def _erased_box(parameters: Any, n: Any, height: Any, width: Any) -> Any:
    """The photo's box that is erased, from (top, left) to before (bottom, right)."""
    top = _rounded(parameters[n, ERASE_Y], height)
    left = _rounded(parameters[n, ERASE_X], width)
    bottom = top + _rounded(parameters[n, ERASE_HEIGHT], height)
    right = left + _rounded(parameters[n, ERASE_WIDTH], width)
    return top, left, bottom, right


@device_function
def _in_box(i: Any, pitch: Any, maps: Any, top: Any, left: Any, bottom: Any, right: Any) -> Any:
    """Whether element i of a photo, whose rows have ``pitch`` elements, lies in the box."""
    if i < top * pitch or i >= bottom * pitch:
        return False
    along = _I(_U(i) % _U(pitch))
    return left * maps <= along < right * maps


# ------------------------------------------------------------------------------------------- tone, warp and blur


@cache
def _warp_tile(rows: int, columns: int, maps: int, threads: int) -> Any:
    """A device function that fills a tile (rows, columns, maps) in shared memory with the toned and warped photo, from
    the output's pixel (top, left) on; beyond the output its border is repeated.

    A thread makes whole pixels. What is the same for all of them stands in ``warp``: see ``_warp_of``.
    """

    @device_function
    def warp_tile(
        tile: Any,
        table: Any,
        warp: Any,
        pixels: Any,
        photo: Any,
        photo_rows: Any,
        photo_columns: Any,
        top: Any,
        left: Any,
        height: Any,
        width: Any,
    ) -> None:
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
            i += threads

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
    """What becomes of the value i of 0 ... 255."""
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


@cache
def _warp(tile_rows: int, tile_columns: int, maps: int, threads: int, erase: bool, measure: bool) -> Any:
    columns = columns_of(threads)
    wide_rows, wide_columns = tile_rows + 2 * _RADIUS, tile_columns + 2 * _RADIUS
    wide_size, between_size = wide_rows * wide_columns * maps, tile_rows * wide_columns * maps
    wide_pitch, pitch = wide_columns * maps, tile_columns * maps
    size = tile_rows * pitch
    add_up = block_sum(threads)
    warp_tile = _warp_tile(tile_rows, tile_columns, maps, threads)
    warp_wide_tile = _warp_tile(wide_rows, wide_columns, maps, threads)

    @kernel
    def warp(
        out: Array,
        partials: Array,
        pixels: Array,
        rows: Array,
        parameters: Array,
        photo_rows: Any,
        photo_columns: Any,
    ) -> None:
        # out (N, H, W * C), pixels (P, rows * columns * C) uint8, rows (N,), parameters (N, 13)
        # partials (N, 3, tiles), if ``measure``: each tile's elements, their mean, their squared deviations from it
        # Blocks (N, parts): each makes every so-manieth tile of a photo.
        table = cuda.shared.array(_TONES, _F)
        geometry = cuda.shared.array(5, _F)
        taps = cuda.shared.array(_TAPS, _F)
        tile = cuda.shared.array(wide_size, _F)
        between = cuda.shared.array(between_size, _F)
        values = cuda.shared.array(threads, _F)
        partial = cuda.shared.array(columns, _F)
        thread = cuda.threadIdx.x
        n = cuda.blockIdx.x
        photo = rows[n]
        height, row_size = out.shape[1], out.shape[2]
        width = row_size // maps
        blurred = parameters[n, BLUR] > _ZERO
        box_top, box_left, box_bottom, box_right = _erased_box(parameters, n, height, width)

        i = thread
        while i < _TONES:
            table[i] = _tone(i, parameters, n)
            i += threads
        if thread == 0:
            _warp_of(geometry, parameters, n, photo_rows, photo_columns, height, width)
        if blurred:
            i = thread
            while i < _TAPS:
                taps[i] = _tap(i, parameters[n, BLUR])
                i += threads
        cuda.syncthreads()

        down = (height + tile_rows - 1) // tile_rows
        across = (width + tile_columns - 1) // tile_columns
        t = cuda.blockIdx.y
        while t < down * across:
            tile_row = _I(_U(t) // _U(across))
            top = tile_row * tile_rows
            left = (t - tile_row * across) * tile_columns
            if blurred:
                warp_wide_tile(
                    tile,
                    table,
                    geometry,
                    pixels,
                    photo,
                    photo_rows,
                    photo_columns,
                    top - _RADIUS,
                    left - _RADIUS,
                    height,
                    width,
                )
                cuda.syncthreads()
                i = thread
                while i < between_size:
                    total = taps[0] * tile[i]
                    for k in range(1, _TAPS):
                        total += taps[k] * tile[i + k * wide_pitch]
                    between[i] = total
                    i += threads
                cuda.syncthreads()
                i = thread
                while i < size:
                    row = _I(_U(i) // _U(pitch))
                    at = row * wide_pitch + i - row * pitch
                    total = taps[0] * between[at]
                    for k in range(1, _TAPS):
                        total += taps[k] * between[at + k * maps]
                    tile[i] = total
                    i += threads
            else:
                warp_tile(tile, table, geometry, pixels, photo, photo_rows, photo_columns, top, left, height, width)
            cuda.syncthreads()

            # What of the tile lies in the photo is written.
            there_rows, there_pitch = min(tile_rows, height - top), min(pitch, row_size - left * maps)
            count = _F(there_rows * there_pitch)
            total = _ZERO
            i = thread
            while i < size:
                row = _I(_U(i) // _U(pitch))
                along = i - row * pitch
                if row < there_rows and along < there_pitch:
                    value = tile[i]
                    total += value
                    y, x = top + row, left * maps + along
                    if erase and box_top <= y < box_bottom and box_left * maps <= x < box_right * maps:
                        value = _ZERO
                    out[n, y, x] = value
                i += threads
            if measure:
                mean = add_up(values, partial, total) / count
                squares = _ZERO
                i = thread
                while i < size:
                    row = _I(_U(i) // _U(pitch))
                    if row < there_rows and i - row * pitch < there_pitch:
                        difference = tile[i] - mean
                        squares += difference * difference
                    i += threads
                squares = add_up(values, partial, squares)
                if thread == 0:
                    partials[n, 0, t] = count
                    partials[n, 1, t] = mean
                    partials[n, 2, t] = squares
            cuda.syncthreads()  # the tile has been read before the next one is made
            t += cuda.gridDim.y

    return warp


# ---------------------------------------------------------------------------------------------------- standardise


@cache
def _standardise(maps: int, threads: int) -> Any:
    columns = columns_of(threads)
    add_up = block_sum(threads)

    @kernel
    def standardise(out: Array, partials: Array, parameters: Array, height: Any, pitch: Any) -> None:
        # out (N, H * W * C), in place; pitch = W * C; partials (N, 3, tiles). Blocks (N, parts), each of which merges
        # the partials for itself.
        values = cuda.shared.array(threads, _F)
        partial = cuda.shared.array(columns, _F)
        thread = cuda.threadIdx.x
        n = cuda.blockIdx.x
        size = out.shape[1]
        total = _ZERO
        t = thread
        while t < partials.shape[2]:
            total += partials[n, 0, t] * partials[n, 1, t]
            t += threads
        mean = add_up(values, partial, total) / _F(size)
        squares = _ZERO  # Chan, Golub and LeVeque 1979: deviations from a tile's mean, and that mean's from the photo's
        t = thread
        while t < partials.shape[2]:
            difference = partials[n, 1, t] - mean
            squares += partials[n, 2, t] + partials[n, 0, t] * difference * difference
            t += threads
        variance = add_up(values, partial, squares) / _F(size)
        scale = _ONE / max(_F(math.sqrt(variance)), _ONE / _F(math.sqrt(_F(size))))

        top, left, bottom, right = _erased_box(parameters, n, height, pitch // maps)
        i = cuda.blockIdx.y * threads * _TURNS + thread
        behind = min(size, (cuda.blockIdx.y + 1) * threads * _TURNS)
        while i < behind:
            erased = _in_box(i, pitch, maps, top, left, bottom, right)
            out[n, i] = _ZERO if erased else (out[n, i] - mean) * scale
            i += threads

    return standardise


# ------------------------------------------------------------------------------------------------- local contrast


@cache
def _contrast_weights(side: int) -> npt.NDArray[np.float32]:
    """The Gaussian's weights for photos with this shorter side."""
    return local_contrast_weights(side, side).astype(_F)


@cache
def _blur_down(side: int, threads: int, squared: bool) -> Any:
    taps = _contrast_weights(side)
    radius = len(taps) // 2
    before = _ROWS_A_THREAD - 1
    inputs = -(-(len(taps) + before) // _ROWS_A_THREAD) * _ROWS_A_THREAD
    weights = np.concatenate([np.zeros(before), taps, np.zeros(inputs - len(taps))]).astype(_F)

    @kernel
    def blur_down(out: Array, x: Array) -> None:
        # out, x (N, H, W * C): out = x (or x squared) blurred down the columns, the border repeated. Blocks (N, parts).
        # A thread makes 4 numbers below one another, from at least 2 radius + 4 values: the weight that one of them
        # gives to a value is what the number below gives to the next value. Because of the zeros at the weights' ends
        # the first and the last values count for some of the four only.
        weight = cuda.const.array_like(weights)
        n = cuda.blockIdx.x
        height, pitch = out.shape[1], out.shape[2]
        i = cuda.blockIdx.y * threads + cuda.threadIdx.x
        strip = _I(_U(i) // _U(pitch))
        along = i - strip * pitch
        y = strip * _ROWS_A_THREAD
        if y < height:
            a, b, c, d = _ZERO, _ZERO, _ZERO, _ZERO
            for first in range(0, inputs, _ROWS_A_THREAD):
                for k in range(first, first + _ROWS_A_THREAD):  # unrolled, so that four values are on their way at once
                    value = x[n, min(max(y - radius + k, 0), height - 1), along]
                    if squared:
                        value *= value
                    a += weight[k + 3] * value
                    b += weight[k + 2] * value
                    c += weight[k + 1] * value
                    d += weight[k] * value
            out[n, y, along] = a
            if y + 1 < height:
                out[n, y + 1, along] = b
            if y + 2 < height:
                out[n, y + 2, along] = c
            if y + 3 < height:
                out[n, y + 3, along] = d

    return blur_down


@cache
def _blur_along(side: int, maps: int) -> Any:
    """A device function: 4 numbers below one another of x (N, H, W * C) blurred along the rows, the border repeated."""
    weights = _contrast_weights(side)
    taps = len(weights)
    radius = taps // 2

    @device_function
    def blur_along(x: Any, n: Any, y: Any, along: Any) -> Any:
        weight = cuda.const.array_like(weights)
        last, pitch = x.shape[1] - 1, x.shape[2]
        y1, y2, y3 = min(y + 1, last), min(y + 2, last), min(y + 3, last)
        first = _I(_U(along) % _U(maps))
        a, b, c, d = _ZERO, _ZERO, _ZERO, _ZERO
        for k in range(taps):
            at = along + (k - radius) * maps
            if at < 0:
                at = first
            elif at >= pitch:
                at = pitch - maps + first
            a += weight[k] * x[n, y, at]
            b += weight[k] * x[n, y1, at]
            c += weight[k] * x[n, y2, at]
            d += weight[k] * x[n, y3, at]
        return a, b, c, d

    return blur_along


@cache
def _subtract_blurred(side: int, maps: int, threads: int) -> Any:
    blur_along = _blur_along(side, maps)

    @kernel
    def subtract_blurred(out: Array, x: Array) -> None:
        # out (N, H, W * C) -= x, blurred along the rows. Blocks (N, parts).
        n = cuda.blockIdx.x
        height, pitch = out.shape[1], out.shape[2]
        i = cuda.blockIdx.y * threads + cuda.threadIdx.x
        strip = _I(_U(i) // _U(pitch))
        along = i - strip * pitch
        y = strip * _ROWS_A_THREAD
        if y < height:
            a, b, c, d = blur_along(x, n, y, along)
            out[n, y, along] -= a
            if y + 1 < height:
                out[n, y + 1, along] -= b
            if y + 2 < height:
                out[n, y + 2, along] -= c
            if y + 3 < height:
                out[n, y + 3, along] -= d

    return subtract_blurred


@cache
def _root_of_blurred(side: int, maps: int, threads: int) -> Any:
    columns = columns_of(threads)
    blur_along = _blur_along(side, maps)
    add_up = block_sum(threads)

    @kernel
    def root_of_blurred(roots: Array, partials: Array, x: Array) -> None:
        # roots (N, H, W * C) = the root of x, blurred along the rows; partials (N, C, parts) each block's sum of them
        values = cuda.shared.array(threads, _F)
        partial = cuda.shared.array(columns, _F)
        n = cuda.blockIdx.x
        height, pitch = roots.shape[1], roots.shape[2]
        i = cuda.blockIdx.y * threads + cuda.threadIdx.x
        strip = _I(_U(i) // _U(pitch))
        along = i - strip * pitch
        y = strip * _ROWS_A_THREAD
        total = _ZERO
        if y < height:
            a, b, c, d = blur_along(x, n, y, along)
            total = _F(math.sqrt(a))
            roots[n, y, along] = total
            if y + 1 < height:
                root = _F(math.sqrt(b))
                total += root
                roots[n, y + 1, along] = root
            if y + 2 < height:
                root = _F(math.sqrt(c))
                total += root
                roots[n, y + 2, along] = root
            if y + 3 < height:
                root = _F(math.sqrt(d))
                total += root
                roots[n, y + 3, along] = root
        own = _I(_U(along) % _U(maps))
        for c in range(maps):
            in_all = add_up(values, partial, total if own == c else _ZERO)
            if cuda.threadIdx.x == 0:
                partials[n, c, cuda.blockIdx.y] = in_all

    return root_of_blurred


@cache
def _scale_by_roots(maps: int, threads: int) -> Any:
    columns = columns_of(threads)
    add_up = block_sum(threads)

    @kernel
    def scale_by_roots(out: Array, roots: Array, partials: Array, parameters: Array, height: Any, pitch: Any) -> None:
        # out, roots (N, H * W * C), out in place; pitch = W * C; partials (N, C, parts). Blocks (N, parts).
        values = cuda.shared.array(threads, _F)
        partial = cuda.shared.array(columns, _F)
        least = cuda.shared.array(maps, _F)
        thread = cuda.threadIdx.x
        n = cuda.blockIdx.x
        width = pitch // maps
        size = out.shape[1]
        for c in range(maps):
            total = _ZERO
            k = thread
            while k < partials.shape[2]:
                total += partials[n, c, k]
                k += threads
            total = add_up(values, partial, total)
            if thread == 0:
                least[c] = _HALF * total / _F(height * width)
        cuda.syncthreads()
        top, left, bottom, right = _erased_box(parameters, n, height, width)
        i = cuda.blockIdx.y * threads * _TURNS + thread
        behind = min(size, (cuda.blockIdx.y + 1) * threads * _TURNS)
        while i < behind:
            value = out[n, i] / (max(roots[n, i], least[_I(_U(i) % _U(maps))]) + _LEAST_CONTRAST)
            erased = _in_box(i, pitch, maps, top, left, bottom, right)
            out[n, i] = _ZERO if erased else min(max(value, -_MOST), _MOST)
            i += threads

    return scale_by_roots


# --------------------------------------------------------------------------------------------------------- all of it


def prepare_photos(
    out: Array, pixels: Array, rows: Array, parameters: Array, normalise: Normalise, workspace: Workspace
) -> None:
    """Tone, warp, blur, normalise and erase each photo."""
    photos, height, width, maps = out.shape
    pitch = width * maps
    lines = out.reshape(photos, height, pitch)
    flat = out.reshape(photos, height * pitch)
    stored, photo_rows, photo_columns, _ = pixels.shape
    stored_flat = pixels.reshape(stored, photo_rows * photo_columns * maps)

    tiles = -(-height // _TILE[0]) * -(-width // _TILE[1])
    measured = workspace.array("tiles", (photos, 3, tiles))
    warp = _warp(*_TILE, maps, THREADS, normalise == "none", normalise == "standardise")
    blocks = (photos, max(1, min(tiles, BLOCKS // photos)))
    geometry = photo_rows, photo_columns
    launch(warp, blocks, THREADS, workspace, lines, measured, stored_flat, rows, parameters, *geometry)

    per_element = (photos, -(-height * pitch // (THREADS * _TURNS)))
    if normalise == "standardise":
        scale = _standardise(maps, THREADS)
        launch(scale, per_element, THREADS, workspace, flat, measured, parameters, height, pitch)
    elif normalise == "local_contrast":
        side = min(height, width)
        strips = (photos, -(-height // _ROWS_A_THREAD * pitch // THREADS))
        between = workspace.array("blurred", (photos, height, pitch))
        roots = workspace.array("roots", (photos, height, pitch))
        sums = workspace.array("root sums", (photos, maps, strips[1]))
        launch(_blur_down(side, THREADS, False), strips, THREADS, workspace, between, lines)
        launch(_subtract_blurred(side, maps, THREADS), strips, THREADS, workspace, lines, between)
        launch(_blur_down(side, THREADS, True), strips, THREADS, workspace, between, lines)
        launch(_root_of_blurred(side, maps, THREADS), strips, THREADS, workspace, roots, sums, between)
        scale = _scale_by_roots(maps, THREADS)
        flat_roots = roots.reshape(photos, height * pitch)
        launch(scale, per_element, THREADS, workspace, flat, flat_roots, sums, parameters, height, pitch)
