"""Blurring and normalisation of pictures, for ``prepare``."""

from __future__ import annotations

from math import exp, sqrt
from typing import Any

import numpy as np

from facecnn.arrays import Array
from facecnn.kernels.cpu.jit import helper
from facecnn.kernels.cpu.vector_ir.photo_kernels import LANES, VECTOR, scale_run, sum_distances, weigh_neighbours

_F = np.float32
_ZERO, _HALF = _F(0), _F(0.5)
_scale_run, _sum_distances = scale_run(VECTOR), sum_distances(VECTOR)
_NEAR = 16
"""Pixels whose mean is a number near the mean."""


@helper()
def fill_gaussian(weights: Array, sigma: Any) -> None:
    """As ``protocol.gaussian_weights``, of as many numbers as there is room for."""
    total = 0.0
    for i in range(weights.size):
        distance = (i - weights.size // 2) / sigma
        weights[i] = exp(-0.5 * distance * distance)
        total += weights[i]
    for i in range(weights.size):
        weights[i] /= _F(total)


def _weigh_vectors(vectors: int) -> Any:
    """The helper ``weigh``: ``_weigh``, several vectors at once; the last ones partly again."""
    weigh_some, length = weigh_neighbours(vectors, VECTOR), vectors * VECTOR

    @helper(inline=True)
    def weigh(out: Array, place: int, x: Array, first: int, weights: Array, distance: int, count: int) -> None:
        radius = len(weights) // 2
        for start in range(0, count, length):
            i = min(start, count - length)
            weigh_some(out, place + i, x, first + i, weights, radius, radius, distance)

    return weigh


_weigh_1, _weigh_2, _weigh_3, _weigh_4 = map(_weigh_vectors, (1, 2, 3, 4))


@helper()
def _weigh(out: Array, place: int, x: Array, first: int, weights: Array, distance: int, count: int) -> None:
    """So many of out from ``place`` on = what ``weigh_neighbours`` says, of x from ``first`` on."""
    vectors = count // LANES if LANES > 0 else 0
    if vectors >= 4:
        _weigh_4(out, place, x, first, weights, distance, count)
    elif vectors == 3:
        _weigh_3(out, place, x, first, weights, distance, count)
    elif vectors == 2:
        _weigh_2(out, place, x, first, weights, distance, count)
    elif vectors == 1:
        _weigh_1(out, place, x, first, weights, distance, count)
    else:
        radius = len(weights) // 2
        o, middle = out[place : place + count], x[first : first + count]
        for i in range(count):
            o[i] = weights[radius] * middle[i]
        for t in range(1, radius + 1):
            w = weights[radius + t]
            before = x[first - t * distance : first - t * distance + count]
            after = x[first + t * distance : first + t * distance + count]
            for i in range(count):
                o[i] += w * (before[i] + after[i])


@helper()
def blur(out: Array, picture: Array, weights: Array, height: int, maps: int, line: Array, rows: Array) -> None:
    """out = picture (height rows) convolved along its rows and columns with symmetric weights; the border is
    repeated. ``line`` has room for a row of the picture and a radius at each end, ``rows`` for the picture and a
    radius of rows above and below."""
    radius = len(weights) // 2
    size = len(picture) // height
    border = radius * maps
    middle, end = line[border : border + size], line[border + size :]
    for y in range(height):
        source = picture[y * size : (y + 1) * size]
        for i in range(size):
            middle[i] = source[i]
        for i in range(0, border, maps):
            for c in range(maps):
                line[i + c] = source[c]
                end[i + c] = source[size - maps + c]
        _weigh(rows, (radius + y) * size, line, border, weights, maps, size)
    first, last = rows[radius * size : (radius + 1) * size], rows[(radius + height - 1) * size :]
    for t in range(radius):
        above, below = rows[t * size : (t + 1) * size], last[(t + 1) * size : (t + 2) * size]
        for i in range(size):
            above[i] = first[i]
            below[i] = last[i]
    start = np.int64(0)  # not a constant, for which all of it would be compiled once more
    _weigh(out, start, rows, radius * size, weights, size, len(picture))


@helper()
def _moments(picture: Array, totals: Array) -> Any:
    """Mean and variance of the pixels; totals (2 * lanes and more,) float64 is room for sums.

    Sums are those of distances from the mean of the first pixels, so that their squares lose little where pixels are
    nearly equal.
    """
    size, vectors = picture.size, picture.size // VECTOR
    near = _ZERO
    for i in range(min(_NEAR, size)):
        near += picture[i]
    near /= _F(min(_NEAR, size))
    total, squares, done = 0.0, 0.0, 0
    if LANES > 0:
        _sum_distances(totals, 0, picture, 0, near, vectors)
        for lane in range(VECTOR):
            total += totals[lane]
            squares += totals[VECTOR + lane]
        done = vectors * VECTOR
    for i in range(done, size):
        distance = np.float64(picture[i] - near)
        total += distance
        squares += distance * distance
    mean = total / size
    return near + mean, squares / size - mean * mean


@helper()
def standardise(out: Array, picture: Array, totals: Array) -> None:
    """out = (picture - mean) / max(deviation, 1 / sqrt(size)); totals: see ``_moments``."""
    mean, variance = _moments(picture, totals)
    centre, factor = _F(mean), _F(1 / sqrt(max(variance, 1 / picture.size)))
    if LANES > 0 and picture.size >= LANES:
        _scale_run(out, 0, picture, 0, centre, factor, picture.size)
    else:
        for i in range(picture.size):
            out[i] = (picture[i] - centre) * factor


@helper()
def _mean(picture: Array, first: int, maps: int, totals: Array) -> Any:
    """The mean of a map, every ``maps``-th number from ``first`` on; totals: see ``_moments``."""
    if maps == 1:
        return _F(_moments(picture, totals)[0])
    total = 0.0
    for i in range(first, len(picture), maps):
        total += picture[i]
    return _F(total * maps / len(picture))


@helper(inline=True)
def _contrast(d: Any, deviation: Any, least: Any) -> Any:
    return min(max(d / (max(deviation, least) + _F(4 / 255)), _F(-4)), _F(4))


@helper()
def local_contrast(
    picture: Array, blurred: Array, squares: Array, weights: Array, height: int, maps: int, line: Array, rows: Array,
    totals: Array,
) -> None:  # fmt: skip
    """picture = d / (max(r, mean(r) / 2) + 4 / 255) with d = picture - G(picture), r = sqrt(G(d^2)), cut to
    [-4, 4]; totals: see ``_moments``."""
    blur(blurred, picture, weights, height, maps, line, rows)
    for i in range(picture.size):
        picture[i] -= blurred[i]
        squares[i] = picture[i] * picture[i]
    blur(blurred, squares, weights, height, maps, line, rows)
    for i in range(picture.size):
        blurred[i] = _F(sqrt(blurred[i]))
    for c in range(maps):
        least = _HALF * _mean(blurred, c, maps, totals)
        if maps == 1:  # with a step that is known, in vectors
            for i in range(picture.size):
                picture[i] = _contrast(picture[i], blurred[i], least)
        else:
            for i in range(c, picture.size, maps):
                picture[i] = _contrast(picture[i], blurred[i], least)
