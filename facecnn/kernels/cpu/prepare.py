"""Photos as they lie in the cache become the network's input: tone, warp, blur, normalisation and erasing in one pass
over each photo, which stays in the first-level cache."""

from __future__ import annotations

from functools import cache
from math import cos, exp, sin, sqrt
from typing import Any

import numpy as np
from numba import prange

from facecnn.kernels.cpu.jit import compiled, thread_number
from facecnn.kernels.cpu.memory import THREADS, Array, Workspace
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

_F = np.float32
_ZERO, _ONE, _HALF = _F(0), _F(1), _F(0.5)
_RADIANS = _F(np.pi / 180)
_BLUR_RADIUS = 4
_HELD = 8192
"""About so many toned pixels are held at once; they stay in the first-level cache."""
_CODES: dict[Normalise, int] = {"none": 0, "standardise": 1, "local_contrast": 2}


# ------------------------------------------------------------------------------------------------- tone and warp
#
# A photo is toned once, from bytes to floats, and then read wherever the warp leads. Without a turn, rows and columns
# are interpolated one after the other, and only a few toned rows are held; without a zoom, too, all of a row lies
# equally far between pixels.


@compiled()
def _fill_table(table: Array, gamma: Any, contrast: Any, brightness: Any) -> None:
    """table[v] = ((v / 255)^exp(gamma) - 1/2) * contrast + 1/2 + brightness, from 0 to 1; only used with a gamma."""
    if gamma == _ZERO:
        return
    power = _F(exp(gamma))
    for i in range(256):
        value = (_F(_F(i) / _F(255)) ** power - _HALF) * contrast + _HALF + brightness
        table[i] = min(max(value, _ZERO), _ONE)


@compiled()
def _tone(toned: Array, pixels: Array, table: Array, gamma: Any, contrast: Any, brightness: Any) -> None:
    """toned = the pixels as the table says; without a gamma it is a line, and vectors are faster."""
    if gamma == _ZERO:
        factor, offset = contrast / _F(255), _HALF + brightness - _HALF * contrast
        for i in range(len(pixels)):
            toned[i] = min(max(_F(pixels[i]) * factor + offset, _ZERO), _ONE)
    else:
        for i in range(len(pixels)):
            toned[i] = table[pixels[i]]


@compiled()
def _places(lefts: Array, shares: Array, count: int, step: Any, start: Any, columns: int) -> None:
    """Column start + j * step of ``columns``, for ``count`` j, lies shares[j] of the way from lefts[j] to the next."""
    last = np.int32(max(columns - 2, 0))
    for j in range(count):
        source = min(max(start + _F(j) * step, _ZERO), _F(columns - 1))
        left = min(np.int32(source), last)
        lefts[j] = left
        shares[j] = source - _F(left)


@compiled()
def _turn_round(line: Array, columns: int, maps: int) -> None:
    """A row of pixels from right to left."""
    for j in range(columns // 2):
        other = columns - 1 - j
        for c in range(maps):
            a, b = j * maps + c, other * maps + c
            line[a], line[b] = line[b], line[a]


@compiled()
def _warp_straight(
    out: Array, pixels: Array, rows: int, columns: int, maps: int, table: Array, p: Array, height: int, width: int,
    lefts: Array, shares: Array, lines: Array,
) -> None:  # fmt: skip
    """As ``_warp`` where nothing is turned: first between rows, then between columns."""
    scale = _ONE / p[ZOOM]
    mirrored = p[MIRROR] > _ZERO
    first_y = -p[SHIFT_Y] * _F(height) + _F((rows - 1) / 2) - scale * _F((height - 1) / 2)
    middle_x = -p[SHIFT_X] * _F(width) + _F((columns - 1) / 2)
    # Of a mirrored photo the rows are turned round, and the columns counted from the other side.
    first_x = (_F(columns - 1) - middle_x if mirrored else middle_x) - scale * _F((width - 1) / 2)
    _places(lefts, shares, width, scale, first_x, columns)
    beside = maps if columns > 1 else 0
    size, last_row = columns * maps, max(rows - 2, 0)
    line, held = lines[:size], lines[size:]
    first_held, end_held, most_held = 0, 0, len(held) // size
    # Columns that follow each other and are equally far between pixels: all but those that the photo's edge holds back.
    start, stop = 0, 0
    if scale == _ONE:
        while start < width and first_x + _F(start) < _ZERO:
            start += 1
        stop = start
        while stop < width and first_x + _F(stop) <= _F(columns - 2):
            stop += 1
    for i in range(height):
        source_y = min(max(first_y + scale * _F(i), _ZERO), _F(rows - 1))
        top = min(int(source_y), last_row)
        down = source_y - _F(top)
        below = min(top + 1, rows - 1)
        if top < first_held or below >= end_held:
            first_held, end_held = top, min(rows, top + most_held)
            source = pixels[first_held * size : end_held * size]
            _tone(held, source, table, p[GAMMA], p[CONTRAST], p[BRIGHTNESS])
        upper = held[(top - first_held) * size : (top - first_held + 1) * size]
        lower = held[(below - first_held) * size : (below - first_held + 1) * size]
        for k in range(size):
            line[k] = upper[k] * (_ONE - down) + lower[k] * down
        if mirrored:
            _turn_round(line, columns, maps)
        o = out[i * width * maps : (i + 1) * width * maps]
        for j in range(start):
            left, along = lefts[j] * maps, shares[j]
            for c in range(maps):
                o[j * maps + c] = line[left + c] * (_ONE - along) + line[left + beside + c] * along
        if stop > start:
            along = shares[start]
            seen = line[lefts[start] * maps : lefts[start] * maps + (stop - start + 1) * maps]
            target = o[start * maps : stop * maps]
            for k in range(len(target)):
                target[k] = seen[k] * (_ONE - along) + seen[k + maps] * along
        for j in range(stop, width):
            left, along = lefts[j] * maps, shares[j]
            for c in range(maps):
                o[j * maps + c] = line[left + c] * (_ONE - along) + line[left + beside + c] * along


@compiled()
def _warp(
    out: Array, toned: Array, rows: int, columns: int, maps: int, p: Array, height: int, width: int, places: Array,
    along: Array, down: Array,
) -> None:  # fmt: skip
    """out (height * width * C): the photo (rows, columns, C) turned, zoomed and moved; bilinear. Places, along and down
    have room for ``width`` numbers: of each pixel of a row, where the upper left one of four is, and how far beyond."""
    angle = p[ANGLE] * _RADIANS
    cosine, sine = _F(cos(angle)) / p[ZOOM], _F(sin(angle)) / p[ZOOM]
    middle_y = -p[SHIFT_Y] * _F(height) + _F((rows - 1) / 2)
    middle_x = -p[SHIFT_X] * _F(width) + _F((columns - 1) / 2)
    last_y, last_x = _F(rows - 1), _F(columns - 1)
    most_top, most_left = np.int32(max(rows - 2, 0)), np.int32(max(columns - 2, 0))
    below = columns * maps if rows > 1 else 0
    beside = maps if columns > 1 else 0
    direction = -_ONE if p[MIRROR] > _ZERO else _ONE
    for i in range(height):
        y = _F(i) - _F((height - 1) / 2)
        for j in range(width):
            x = direction * (_F(j) - _F((width - 1) / 2))
            source_y = min(max(cosine * y - sine * x + middle_y, _ZERO), last_y)
            source_x = min(max(sine * y + cosine * x + middle_x, _ZERO), last_x)
            top, left = min(np.int32(source_y), most_top), min(np.int32(source_x), most_left)
            down[j], along[j] = source_y - _F(top), source_x - _F(left)
            places[j] = (top * np.int32(columns) + left) * np.int32(maps)
        o = out[i * width * maps : (i + 1) * width * maps]
        for j in range(width):
            d, a, q = down[j], along[j], np.uint64(np.uint32(places[j]))
            for c in range(maps):
                k = q + np.uint64(c)
                upper = toned[k] * (_ONE - a) + toned[k + np.uint64(beside)] * a
                k += np.uint64(below)
                lower = toned[k] * (_ONE - a) + toned[k + np.uint64(beside)] * a
                o[j * maps + c] = upper * (_ONE - d) + lower * d


@compiled()
def _blur(out: Array, picture: Array, weights: Array, height: int, maps: int, line: Array) -> None:
    """out = picture (height rows) convolved along its columns and rows with symmetric weights; the border is repeated.

    ``line`` has room for a row of the picture and a border of one radius at each end. All loops run along a row.
    """
    radius = len(weights) // 2
    size = len(picture) // height
    border = radius * maps
    for y in range(height):
        middle = line[border : border + size]
        source = picture[y * size : (y + 1) * size]
        w = weights[radius]
        for i in range(size):
            middle[i] = w * source[i]
        for t in range(1, radius + 1):
            w = weights[radius + t]
            above, below = max(y - t, 0) * size, min(y + t, height - 1) * size
            a, b = picture[above : above + size], picture[below : below + size]
            for i in range(size):
                middle[i] += w * (a[i] + b[i])
        for t in range(radius):
            for c in range(maps):
                line[t * maps + c] = middle[c]
                line[border + size + t * maps + c] = middle[size - maps + c]
        o = out[y * size : (y + 1) * size]
        w = weights[radius]
        for i in range(size):
            o[i] = w * middle[i]
        for t in range(1, radius + 1):
            w = weights[radius + t]
            a, b = (
                line[border - t * maps : border - t * maps + size],
                line[border + t * maps : border + t * maps + size],
            )
            for i in range(size):
                o[i] += w * (a[i] + b[i])


@compiled(reorder=True)
def _sums(picture: Array) -> Any:
    """Of the pixels, and of their squares."""
    total, squares = 0.0, 0.0
    for i in range(picture.size):
        value = np.float64(picture[i])
        total += value
        squares += value * value
    return total, squares


@compiled()
def _standardise(picture: Array) -> None:
    total, squares = _sums(picture)
    mean = total / picture.size
    deviation = sqrt(max(squares / picture.size - mean * mean, 1 / picture.size))
    centre, factor = _F(mean), _F(1 / deviation)
    for i in range(picture.size):
        picture[i] = (picture[i] - centre) * factor


@compiled()
def _local_contrast(
    picture: Array, blurred: Array, squares: Array, weights: Array, height: int, maps: int, line: Array
) -> None:
    """picture = d / (max(r, mean(r) / 2) + 4 / 255) with d = picture - G(picture), r = sqrt(G(d^2)), cut to [-4, 4]."""
    _blur(blurred, picture, weights, height, maps, line)
    for i in range(picture.size):
        picture[i] -= blurred[i]
        squares[i] = picture[i] * picture[i]
    _blur(blurred, squares, weights, height, maps, line)
    for i in range(picture.size):
        blurred[i] = _F(sqrt(blurred[i]))
    for c in range(maps):
        total = 0.0
        for i in range(c, picture.size, maps):
            total += blurred[i]
        least = _HALF * _F(total / (picture.size // maps))
        for i in range(c, picture.size, maps):
            value = picture[i] / (max(blurred[i], least) + _F(4 / 255))
            picture[i] = min(max(value, _F(-4)), _F(4))


@compiled()
def _erase(picture: Array, p: Array, height: int, width: int, maps: int) -> None:
    top, left = int(np.rint(p[ERASE_Y] * _F(height))), int(np.rint(p[ERASE_X] * _F(width)))
    bottom = min(top + int(np.rint(p[ERASE_HEIGHT] * _F(height))), height)
    right = min(left + int(np.rint(p[ERASE_WIDTH] * _F(width))), width)
    for y in range(top, bottom):
        for i in range((y * width + left) * maps, (y * width + right) * maps):
            picture[i] = _ZERO


@compiled(parallel=True)
def _prepare(
    out: Array,
    pixels: Array,
    rows: Array,
    parameters: Array,
    normalise: int,
    weights: Array,
    pictures: Array,
    lines: Array,
    tables: Array,
    toned: Array,
    held: Array,
    places: Array,
    shares: Array,
) -> None:
    # out (N, H, W, C); pictures (threads, 2 H W C and more), lines (threads, (W + 2 radius) C), tables (threads, 265);
    # of the stored photo: toned (threads, its size), lines (threads, a row and those that are held); places (threads,
    # W), shares (threads, 2, W)
    height, width, maps = out.shape[1], out.shape[2], out.shape[3]
    size = height * width * maps
    for n in prange(out.shape[0]):
        thread = thread_number()
        first, second = pictures[thread, :size], pictures[thread, size : 2 * size]
        line = lines[thread]
        table, blur = tables[thread, :256], tables[thread, 256 : 256 + 2 * _BLUR_RADIUS + 1]
        p = parameters[n]
        picture = out[n].reshape(-1)
        stored_height, stored_width = pixels.shape[1], pixels.shape[2]
        photo = pixels[rows[n]].reshape(-1)
        _fill_table(table, p[GAMMA], p[CONTRAST], p[BRIGHTNESS])
        warped = first if p[BLUR] > _ZERO else picture
        place, share, other = places[thread], shares[thread, 0], shares[thread, 1]
        if p[ANGLE] == _ZERO:
            _warp_straight(
                warped, photo, stored_height, stored_width, maps, table, p, height, width, place, share, held[thread]
            )
        else:
            _tone(toned[thread], photo, table, p[GAMMA], p[CONTRAST], p[BRIGHTNESS])
            _warp(warped, toned[thread], stored_height, stored_width, maps, p, height, width, place, share, other)
        if p[BLUR] > _ZERO:
            _gaussian(blur, p[BLUR])
            _blur(picture, first, blur, height, maps, line)
        if normalise == 1:
            _standardise(picture)
        elif normalise == 2:
            _local_contrast(picture, first, second, weights, height, maps, line)
        _erase(picture, p, height, width, maps)


@compiled()
def _gaussian(weights: Array, sigma: Any) -> None:
    total = 0.0
    for i in range(weights.size):
        distance = (i - weights.size // 2) / sigma
        weights[i] = exp(-0.5 * distance * distance)
        total += weights[i]
    for i in range(weights.size):
        weights[i] /= _F(total)


@cache
def _contrast_weights(height: int, width: int) -> Array:
    return local_contrast_weights(height, width).astype(_F)


def prepare_photos(
    out: Array, pixels: Array, rows: Array, parameters: Array, normalise: Normalise, workspace: Workspace
) -> None:
    """Tone, warp, blur, normalise and erase each photo."""
    _, height, width, maps = out.shape
    weights = _contrast_weights(height, width)
    border = max(len(weights) // 2, _BLUR_RADIUS) * maps
    _prepare(
        out,
        pixels,
        rows,
        parameters,
        _CODES[normalise],
        weights,
        workspace.per_thread("pictures", 2 * height * width * maps),
        workspace.per_thread("lines", width * maps + 2 * border),
        workspace.per_thread("tables", 256 + 2 * _BLUR_RADIUS + 1),
        workspace.per_thread("toned", pixels[0].size),
        workspace.per_thread("toned rows", pixels[0, 0].size * (1 + max(2, _HELD // pixels[0, 0].size))),
        workspace.per_thread("places", width, np.int32),
        workspace.array("shares", (THREADS, 2, width)),
    )
