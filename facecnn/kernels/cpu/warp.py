"""A photo as it lies in the cache, toned, turned, zoomed and moved, for ``prepare``.

A photo is toned once, from bytes to floats, and then read wherever the warp leads. Without a turn, rows and columns are
interpolated one after the other, and only a few toned rows are held; without a zoom, too, all of a row lies equally far
between pixels.
"""

from __future__ import annotations

from math import cos, exp, sin
from typing import Any

import numpy as np

from facecnn.kernels.cpu.jit import compiled
from facecnn.kernels.cpu.memory import Array
from facecnn.kernels.protocol import ANGLE, BRIGHTNESS, CONTRAST, GAMMA, MIRROR, SHIFT_X, SHIFT_Y, ZOOM

_F = np.float32
_ZERO, _ONE, _HALF = _F(0), _F(1), _F(0.5)
_RADIANS = _F(np.pi / 180)


@compiled()
def fill_table(table: Array, gamma: Any, contrast: Any, brightness: Any) -> None:
    """table[v] = ((v / 255)^exp(gamma) - 1/2) * contrast + 1/2 + brightness, from 0 to 1; only used with a gamma."""
    if gamma == _ZERO:
        return
    power = _F(exp(gamma))
    for i in range(256):
        value = (_F(_F(i) / _F(255)) ** power - _HALF) * contrast + _HALF + brightness
        table[i] = min(max(value, _ZERO), _ONE)


@compiled()
def tone(toned: Array, pixels: Array, table: Array, gamma: Any, contrast: Any, brightness: Any) -> None:
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


@compiled(inline=True)
def _mix_neighbours(
    out: Array, line: Array, lefts: Array, shares: Array, first: int, end: int, maps: int, beside: int
) -> None:
    """Pixels ``first`` to ``end`` of a row, each between two of ``line`` (see ``_places``), ``beside`` floats apart."""
    for j in range(first, end):
        left, along = lefts[j] * maps, shares[j]
        for c in range(maps):
            out[j * maps + c] = line[left + c] * (_ONE - along) + line[left + beside + c] * along


@compiled()
def warp_straight(
    out: Array, pixels: Array, rows: int, columns: int, maps: int, table: Array, p: Array, height: int, width: int,
    lefts: Array, shares: Array, lines: Array,
) -> None:  # fmt: skip
    """As ``warp`` where nothing is turned: first between rows, then between columns."""
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
            tone(held, source, table, p[GAMMA], p[CONTRAST], p[BRIGHTNESS])
        upper = held[(top - first_held) * size : (top - first_held + 1) * size]
        lower = held[(below - first_held) * size : (below - first_held + 1) * size]
        for k in range(size):
            line[k] = upper[k] * (_ONE - down) + lower[k] * down
        if mirrored:
            _turn_round(line, columns, maps)
        o = out[i * width * maps : (i + 1) * width * maps]
        _mix_neighbours(o, line, lefts, shares, 0, start, maps, beside)
        if stop > start:
            along = shares[start]
            seen = line[lefts[start] * maps : lefts[start] * maps + (stop - start + 1) * maps]
            target = o[start * maps : stop * maps]
            for k in range(len(target)):
                target[k] = seen[k] * (_ONE - along) + seen[k + maps] * along
        _mix_neighbours(o, line, lefts, shares, stop, width, maps, beside)


@compiled()
def warp(
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
