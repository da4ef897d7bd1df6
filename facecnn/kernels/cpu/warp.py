"""Tone, rotation, zoom and shift of a crop, for ``prepare``.

A photo is toned once, from bytes to floats, and then read wherever the warp leads. Without a turn, rows and columns are
interpolated one after the other, and only a few rows are toned at once; without a zoom, too, all pixels lie equally far
between those of the photo.
"""

from __future__ import annotations

from math import cos, exp, sin
from typing import Any

import numpy as np

from facecnn.arrays import Array
from facecnn.kernels.cpu.jit import helper
from facecnn.kernels.cpu.vector_ir.photo_kernels import LANES, VECTOR, mix_rows, mix_squares
from facecnn.kernels.protocol import ANGLE, BRIGHTNESS, CONTRAST, GAMMA, MIRROR, SHIFT_X, SHIFT_Y, ZOOM

_F = np.float32
_ZERO, _ONE, _HALF = _F(0), _F(1), _F(0.5)
_RADIANS = _F(np.pi / 180)
_mix_vectors = mix_rows(VECTOR)
_mix_1, _mix_1_mirrored, _mix_3, _mix_3_mirrored = (
    mix_squares(maps, mirrored, VECTOR) for maps in (1, 3) for mirrored in (False, True)
)
_BAND, _HELD = 4096, 8192
"""Target size of a band of rows, and of rows toned at once: they stay in the first-level cache."""


@helper()
def fill_table(table: Array, gamma: Any, contrast: Any, brightness: Any) -> None:
    """table[v] = ((v / 255)^exp(gamma) - 1/2) * contrast + 1/2 + brightness, from 0 to 1; only used with a gamma."""
    if gamma == _ZERO:
        return
    power = _F(exp(gamma))
    for i in range(256):
        value = (_F(_F(i) / _F(255)) ** power - _HALF) * contrast + _HALF + brightness
        table[i] = min(max(value, _ZERO), _ONE)


@helper(inline=True)
def tone_line(contrast: Any, brightness: Any) -> Any:
    """(factor, offset): without a gamma, a byte becomes byte * factor + offset, from 0 to 1."""
    return contrast / _F(255), _HALF + brightness - _HALF * contrast


@helper()
def tone(toned: Array, pixels: Array, table: Array, gamma: Any, contrast: Any, brightness: Any) -> None:
    """toned = table[pixels]; without a gamma the tone is linear, and vectors are faster than the table."""
    if gamma == _ZERO:
        factor, offset = tone_line(contrast, brightness)
        for i in range(len(pixels)):
            toned[i] = min(max(_F(pixels[i]) * factor + offset, _ZERO), _ONE)
    else:
        for i in range(len(pixels)):
            toned[i] = table[pixels[i]]


@helper()
def _places(lefts: Array, shares: Array, step: Any, start: Any, columns: int) -> None:
    """Column start + j * step of ``columns`` lies shares[j] of the way from lefts[j] to the next."""
    last = np.int32(max(columns - 2, 0))
    for j in range(len(lefts)):
        source = min(max(start + _F(j) * step, _ZERO), _F(columns - 1))
        left = min(np.int32(source), last)
        lefts[j] = left
        shares[j] = source - _F(left)


@helper()
def _mix_neighbours(
    out: Array, place: int, line: Array, start: int, lefts: Array, shares: Array, maps: int, columns: int,
    mirrored: bool,
) -> None:  # fmt: skip
    """A row of out, from ``place`` on: each pixel between two of the photo's row that begins at ``start`` of ``line``
    (see ``_places``). A mirrored one is written from its end."""
    beside = maps if columns > 1 else 0
    for j in range(len(lefts)):
        left, along = start + lefts[j] * maps, shares[j]
        o = place + (len(lefts) - 1 - j if mirrored else j) * maps
        for c in range(maps):
            out[o + c] = line[left + c] * (_ONE - along) + line[left + beside + c] * along


@helper(inline=True)
def _mix_squares(
    out: Array, x: Array, first: int, row: int, share: Any, down: Any, factor: Any, offset: Any, height: int,
    width: int, maps: int, mirrored: bool,
) -> None:  # fmt: skip
    """``mix_squares``, for the numbers of maps that ``_has_squares`` says; in bands of rows that stay in
    the first-level cache while strip after strip of them is written."""
    size = width * maps
    band = max(_BAND // size, 4)
    for top in range(0, height, band):
        rows, place, start = min(band, height - top), top * size, first + top * row
        if maps == 1 and mirrored:
            _mix_1_mirrored(out, place, x, start, row, share, down, factor, offset, rows, width)
        elif maps == 1:
            _mix_1(out, place, x, start, row, share, down, factor, offset, rows, width)
        elif mirrored:
            _mix_3_mirrored(out, place, x, start, row, share, down, factor, offset, rows, width)
        else:
            _mix_3(out, place, x, start, row, share, down, factor, offset, rows, width)


@helper(inline=True)
def _has_squares(width: int, maps: int) -> bool:
    return LANES > 0 and width >= LANES and (maps == 1 or maps == 3)


@helper(inline=True)
def _mix_rows(
    out: Array, place: int, lines: Array, upper: int, lower: int, share: Any, factor: Any, offset: Any, count: int
) -> None:
    """Interpolate numbers of out, from ``place`` on, between two rows of ``lines``; times factor, plus offset."""
    if LANES > 0 and count >= LANES:
        _mix_vectors(out, place, lines, upper, lines, lower, share, factor, offset, count)
    else:
        for i in range(count):
            out[place + i] = (lines[upper + i] * (_ONE - share) + lines[lower + i] * share) * factor + offset


@helper()
def warp_straight(
    out: Array, pixels: Array, rows: int, columns: int, maps: int, table: Array, p: Array, height: int, width: int,
    lefts: Array, shares: Array, toned: Array, lines: Array,
) -> None:  # fmt: skip
    """Tone, and ``warp`` where nothing is turned. ``toned`` has room for the photo. Each row of out is a mixture of two
    rows of the photo, which ``lines`` (2 * width * C) has room for, already mixed along themselves."""
    scale = _ONE / p[ZOOM]
    mirrored = p[MIRROR] > _ZERO
    first_y = -p[SHIFT_Y] * _F(height) + _F((rows - 1) / 2) - scale * _F((height - 1) / 2)
    first_x = -p[SHIFT_X] * _F(width) + _F((columns - 1) / 2) - scale * _F((width - 1) / 2)
    # A tone that is a line, and cuts nothing off, may as well come last: fewer numbers, and no pass of its own.
    factor, offset = tone_line(p[CONTRAST], p[BRIGHTNESS])
    tone_is_last = p[GAMMA] == _ZERO and offset >= _ZERO and offset + p[CONTRAST] <= _ONE
    if not tone_is_last:
        factor, offset = _ONE, _ZERO
    size, numbers, last_row = columns * maps, width * maps, max(rows - 2, 0)
    # Without a zoom, and where the photo's edges hold nothing back, all pixels lie equally far between those of it.
    is_inside = first_x >= _ZERO and first_x + _F(width) <= _F(columns - 1)
    is_inside &= first_y >= _ZERO and first_y + _F(height) <= _F(rows - 1)
    if scale == _ONE and is_inside and _has_squares(width, maps):
        top, left = int(first_y), int(first_x)
        first, share, down = top * size + left * maps, first_x - _F(left), first_y - _F(top)
        if tone_is_last:
            _mix_squares(out, pixels, first, size, share, down, factor, offset, height, width, maps, mirrored)
        else:
            tone(toned, pixels, table, p[GAMMA], p[CONTRAST], p[BRIGHTNESS])
            _mix_squares(out, toned, first, size, share, down, factor, offset, height, width, maps, mirrored)
        return
    _places(lefts, shares, scale, first_x, columns)
    # Rows are referred to by where they begin: arrays that point to them would be counted, at each turn. Of two that
    # follow each other one is even, and has the first half of ``lines``.
    first_held, end_held, most_held = 0, 0, max(2, _HELD // size)
    even, odd = -1, -1
    for i in range(height):
        source_y = min(max(first_y + scale * _F(i), _ZERO), _F(rows - 1))
        top = min(int(source_y), last_row)
        below = min(top + 1, rows - 1)
        if not tone_is_last and (top < first_held or below >= end_held):
            first_held, end_held = top, min(rows, top + most_held)
            source = pixels[first_held * size : end_held * size]
            tone(toned, source, table, p[GAMMA], p[CONTRAST], p[BRIGHTNESS])
        for row in range(top, below + 1):
            if row == (odd if row % 2 else even):
                continue
            line = row % 2 * numbers
            if tone_is_last:
                _mix_neighbours(lines, line, pixels, row * size, lefts, shares, maps, columns, mirrored)
            else:
                begin = (row - first_held) * size
                _mix_neighbours(lines, line, toned, begin, lefts, shares, maps, columns, mirrored)
            even, odd = (even, row) if row % 2 else (row, odd)
        upper, lower = top % 2 * numbers, below % 2 * numbers
        _mix_rows(out, i * numbers, lines, upper, lower, source_y - _F(top), factor, offset, numbers)


@helper(inline=True)
def _read(
    out: Array, start: int, toned: Array, places: Array, along: Array, down: Array, below: int, beside: int, maps: int
) -> None:
    """A row of out, from ``start`` on: each pixel between four of the photo, which are so far below and beside."""
    row = out[start : start + len(places) * maps]
    for j in range(len(places)):
        a, d, q = along[j], down[j], np.uint64(np.uint32(places[j]))
        for c in range(maps):
            k = q + np.uint64(c)
            upper = toned[k] * (_ONE - a) + toned[k + np.uint64(beside)] * a
            k += np.uint64(below)
            lower = toned[k] * (_ONE - a) + toned[k + np.uint64(beside)] * a
            row[j * maps + c] = upper * (_ONE - d) + lower * d


@helper()
def warp(
    out: Array, toned: Array, rows: int, columns: int, maps: int, p: Array, height: int, width: int, places: Array,
    along: Array, down: Array,
) -> None:  # fmt: skip
    """out (height * width * C): the photo (rows, columns, C) turned, zoomed and moved; bilinear. Places, along and down
    (width,) are room for each pixel of a row: where the upper left one of four is, and how far beyond."""
    angle = p[ANGLE] * _RADIANS
    cosine, sine = _F(cos(angle)) / p[ZOOM], _F(sin(angle)) / p[ZOOM]
    middle_y = -p[SHIFT_Y] * _F(height) + _F((rows - 1) / 2)
    middle_x = -p[SHIFT_X] * _F(width) + _F((columns - 1) / 2)
    last_y, last_x = _F(rows - 1), _F(columns - 1)
    most_top, most_left = np.int32(max(rows - 2, 0)), np.int32(max(columns - 2, 0))
    row_length, pixel_length = np.int32(columns * maps), np.int32(maps)
    below = columns * maps if rows > 1 else 0
    beside = maps if columns > 1 else 0
    direction, half = -_ONE if p[MIRROR] > _ZERO else _ONE, _F((width - 1) / 2)
    for i in range(height):
        y = _F(i) - _F((height - 1) / 2)
        row_y, row_x = cosine * y + middle_y, sine * y + middle_x
        for j in range(len(places)):
            x = direction * (_F(np.int32(j)) - half)
            source_y = min(max(row_y - sine * x, _ZERO), last_y)
            source_x = min(max(row_x + cosine * x, _ZERO), last_x)
            top, left = min(np.int32(source_y), most_top), min(np.int32(source_x), most_left)
            down[j], along[j] = source_y - _F(top), source_x - _F(left)
            places[j] = top * row_length + left * pixel_length
        start = i * width * maps
        if maps == 1:  # the same in each case, with steps that are known where it is compiled
            _read(out, start, toned, places, along, down, below, beside, 1)
        elif maps == 3:
            _read(out, start, toned, places, along, down, below, beside, 3)
        else:
            _read(out, start, toned, places, along, down, below, beside, maps)
