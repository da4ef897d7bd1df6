"""Blurring and normalisation of pictures, for ``prepare``."""

from __future__ import annotations

from math import exp, sqrt
from typing import Any

import numpy as np

from facecnn.kernels.cpu import vectors
from facecnn.kernels.cpu.jit import compiled
from facecnn.kernels.cpu.memory import Array
from facecnn.kernels.cpu.micro_kernels import weigh_neighbours

_F = np.float32
_HALF = _F(0.5)
_LANES = vectors.lanes()
_BLOCK = 512
_VECTOR = max(_LANES, 4)  # where there are none, what is written for vectors is compiled all the same, and not called


@compiled()
def fill_gaussian(weights: Array, sigma: Any) -> None:
    """As ``protocol.gaussian_weights``, of as many numbers as there is room for."""
    total = 0.0
    for i in range(weights.size):
        distance = (i - weights.size // 2) / sigma
        weights[i] = exp(-0.5 * distance * distance)
        total += weights[i]
    for i in range(weights.size):
        weights[i] /= _F(total)


@compiled()
def _weigh(out: Array, x: Array, first: int, weights: Array, radius: int, distance: int) -> None:
    """out (N,) = what ``weigh_neighbours`` says, of x from ``first`` on."""
    count = len(out)
    if _LANES > 0 and count >= 4 * _LANES:
        for start in range(0, count, 4 * _LANES):
            i = min(start, count - 4 * _LANES)
            weigh_neighbours(out, i, x, first + i, weights, radius, distance, 4, _VECTOR)
    elif _LANES > 0 and count >= _LANES:
        for start in range(0, count, _LANES):
            i = min(start, count - _LANES)
            weigh_neighbours(out, i, x, first + i, weights, radius, distance, 1, _VECTOR)
    else:
        w = weights[radius]
        middle = x[first : first + count]
        for i in range(count):
            out[i] = w * middle[i]
        for t in range(1, radius + 1):
            w = weights[radius + t]
            before = x[first - t * distance : first - t * distance + count]
            after = x[first + t * distance : first + t * distance + count]
            for i in range(count):
                out[i] += w * (before[i] + after[i])


@compiled()
def blur(out: Array, picture: Array, weights: Array, height: int, maps: int, line: Array, rows: Array) -> None:
    """out = picture (height rows) convolved along its rows and columns with symmetric weights; the border is
    repeated. ``line`` has room for a row of the picture and a radius at each end, ``rows`` for the picture and a
    radius of rows above and below."""
    radius = len(weights) // 2
    size = len(picture) // height
    border = radius * maps
    for y in range(height):
        source = picture[y * size : (y + 1) * size]
        middle = line[border : border + size]
        for i in range(size):
            middle[i] = source[i]
        for t in range(radius):
            for c in range(maps):
                line[t * maps + c] = source[c]
                line[border + size + t * maps + c] = source[size - maps + c]
        _weigh(rows[(radius + y) * size : (radius + y + 1) * size], line, border, weights, radius, maps)
    last = (radius + height - 1) * size
    for t in range(radius):
        above, below = rows[t * size : (t + 1) * size], rows[last + (t + 1) * size : last + (t + 2) * size]
        for i in range(size):
            above[i] = rows[radius * size + i]
            below[i] = rows[last + i]
    _weigh(out, rows, radius * size, weights, radius, size)


@compiled(reorder=True)
def _moments(picture: Array) -> Any:
    """Mean and variance of the pixels.

    Sums are those of distances from a value near the mean, so that their squares lose nothing where pixels are nearly
    equal; in blocks, so that float32 is enough within one.
    """
    size = picture.size
    near = _F(0)
    for i in range(min(_BLOCK, size)):
        near += picture[i]
    near /= _F(min(_BLOCK, size))
    total, squares = np.float64(0), np.float64(0)
    for start in range(0, size, _BLOCK):
        own, own_squares = _F(0), _F(0)
        block = picture[start : start + _BLOCK]
        for i in range(len(block)):
            distance = block[i] - near
            own += distance
            own_squares += distance * distance
        total += np.float64(own)
        squares += np.float64(own_squares)
    mean = total / size
    return near + mean, squares / size - mean * mean


@compiled()
def standardise(picture: Array) -> None:
    """picture = (picture - mean) / max(deviation, 1 / sqrt(size))."""
    mean, variance = _moments(picture)
    centre, factor = _F(mean), _F(1 / sqrt(max(variance, 1 / picture.size)))
    for i in range(picture.size):
        picture[i] = (picture[i] - centre) * factor


@compiled()
def local_contrast(
    picture: Array, blurred: Array, squares: Array, weights: Array, height: int, maps: int, line: Array, rows: Array
) -> None:
    """picture = d / (max(r, mean(r) / 2) + 4 / 255) with d = picture - G(picture), r = sqrt(G(d^2)), cut to
    [-4, 4]."""
    blur(blurred, picture, weights, height, maps, line, rows)
    for i in range(picture.size):
        picture[i] -= blurred[i]
        squares[i] = picture[i] * picture[i]
    blur(blurred, squares, weights, height, maps, line, rows)
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
