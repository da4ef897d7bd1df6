"""Photos as they lie in the cache become the network's input: tone, warp, blur, normalisation and erasing in one pass
over each photo, which stays in the first-level cache."""

from __future__ import annotations

from functools import cache
from math import cos, exp, floor, sin, sqrt
from typing import Any

import numpy as np
from numba import prange

from facecnn.kernels.cpu.jit import compiled, thread_number
from facecnn.kernels.cpu.memory import Array, Workspace
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
_CODES: dict[Normalise, int] = {"none": 0, "standardise": 1, "local_contrast": 2}


@compiled()
def _tone(table: Array, gamma: Any, contrast: Any, brightness: Any) -> None:
    power = _F(exp(gamma))
    for i in range(256):
        value = (_F(_F(i) / _F(255)) ** power - _HALF) * contrast + _HALF + brightness
        table[i] = min(max(value, _ZERO), _ONE)


@compiled()
def _warp(out: Array, photo: Array, table: Array, p: Array, height: int, width: int) -> None:
    """out (height * width * C): the photo (rows, columns, C) uint8, toned, turned, zoomed and moved; bilinear."""
    rows, columns, maps = photo.shape
    pixels = photo.reshape(-1)
    angle = p[ANGLE] * _RADIANS
    cosine, sine = _F(cos(angle)) / p[ZOOM], _F(sin(angle)) / p[ZOOM]
    middle_y = -p[SHIFT_Y] * _F(height) + _F((rows - 1) / 2)
    middle_x = -p[SHIFT_X] * _F(width) + _F((columns - 1) / 2)
    last_y, last_x = _F(rows - 1), _F(columns - 1)
    direction = -_ONE if p[MIRROR] > _ZERO else _ONE
    for i in range(height):
        y = _F(i) - _F((height - 1) / 2)
        for j in range(width):
            x = direction * (_F(j) - _F((width - 1) / 2))
            source_y = min(max(cosine * y - sine * x + middle_y, _ZERO), last_y)
            source_x = min(max(sine * y + cosine * x + middle_x, _ZERO), last_x)
            floor_y, floor_x = _F(floor(source_y)), _F(floor(source_x))
            down, along = source_y - floor_y, source_x - floor_x
            top, left = np.uint64(np.uint32(floor_y)), np.uint64(np.uint32(floor_x))
            below = np.uint64(columns * maps if top + np.uint64(1) < np.uint64(rows) else 0)
            beside = np.uint64(maps if left + np.uint64(1) < np.uint64(columns) else 0)
            at = (top * np.uint64(columns) + left) * np.uint64(maps)
            o = (i * width + j) * maps
            for c in range(maps):
                q = at + np.uint64(c)
                upper = table[pixels[q]] * (_ONE - along) + table[pixels[q + beside]] * along
                lower = table[pixels[q + below]] * (_ONE - along) + table[pixels[q + below + beside]] * along
                out[o + c] = upper * (_ONE - down) + lower * down


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


@compiled()
def _standardise(picture: Array) -> None:
    total = 0.0
    for i in range(picture.size):
        total += picture[i]
    mean = _F(total / picture.size)
    total = 0.0
    for i in range(picture.size):
        picture[i] -= mean
        total += picture[i] * picture[i]
    deviation = max(_F(sqrt(total / picture.size)), _F(1 / sqrt(picture.size)))
    for i in range(picture.size):
        picture[i] /= deviation


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
) -> None:
    # out (N, H, W, C); pictures (threads, 2 H W C and more), lines (threads, (W + 2 radius) C), tables (threads, 265)
    height, width, maps = out.shape[1], out.shape[2], out.shape[3]
    size = height * width * maps
    for n in prange(out.shape[0]):
        thread = thread_number()
        first, second = pictures[thread, :size], pictures[thread, size : 2 * size]
        line = lines[thread]
        table, blur = tables[thread, :256], tables[thread, 256 : 256 + 2 * _BLUR_RADIUS + 1]
        p = parameters[n]
        picture = out[n].reshape(-1)
        _tone(table, p[GAMMA], p[CONTRAST], p[BRIGHTNESS])
        if p[BLUR] > _ZERO:
            _warp(first, pixels[rows[n]], table, p, height, width)
            _gaussian(blur, p[BLUR])
            _blur(picture, first, blur, height, maps, line)
        else:
            _warp(picture, pixels[rows[n]], table, p, height, width)
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
    )
