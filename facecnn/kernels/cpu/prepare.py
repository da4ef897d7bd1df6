"""Crops of photos become the network's input: tone, warp, blur, normalisation and erasing in one pass over each photo,
which stays in the processor's caches.

Photos to be standardised are made in scratch memory, which the second-level cache holds, and copied to the input in one
pass. Writing them there strip by strip, as large photos are made, would stall on cache misses.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numba import prange

from facecnn.arrays import Array
from facecnn.kernels.cpu.jit import compiled, helper, thread_number
from facecnn.kernels.cpu.launching import launch
from facecnn.kernels.cpu.memory import Workspace
from facecnn.kernels.cpu.normalise import blur, fill_gaussian, local_contrast, standardise
from facecnn.kernels.cpu.warp import fill_table, tone, warp, warp_straight
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
    Normalise,
    local_contrast_weights,
)

_F = np.float32
_ZERO = _F(0)
_BLUR_RADIUS = 4
_WEIGHTS_AT, _TOTALS_AT, _PICTURE_AT = 256, 288, 416
"""Where in a thread's scratch memory the weights of a blur, the sums and the first picture begin. Before them is the
table of tones."""
_CODES: dict[Normalise, int] = {"none": 0, "standardise": 1, "local_contrast": 2}


@helper()
def _erase(picture: Array, p: Array, height: int, width: int, maps: int) -> None:
    top, left = int(np.rint(p[ERASE_Y] * _F(height))), int(np.rint(p[ERASE_X] * _F(width)))
    bottom = min(top + int(np.rint(p[ERASE_HEIGHT] * _F(height))), height)
    right = min(left + int(np.rint(p[ERASE_WIDTH] * _F(width))), width)
    for y in range(top, bottom):
        for i in range((y * width + left) * maps, (y * width + right) * maps):
            picture[i] = _ZERO


@helper()
def _whole_lines(numbers: int) -> int:
    """Rounded up to whole cache lines."""
    return (numbers + 15) // 16 * 16


@helper()
def _places_in_scratch(
    height: int, width: int, maps: int, stored_height: int, stored_width: int, weights: int
) -> tuple[int, int, int, int, int, int, int]:
    """Where in a thread's scratch memory the parts after the first picture begin, and where the last one ends. They
    share one array, since each argument of a kernel costs time at every call."""
    row, stored_row, radius = width * maps, stored_width * maps, max(weights // 2, _BLUR_RADIUS)
    other = _PICTURE_AT + _whole_lines(height * row)
    line = other + _whole_lines(height * row)
    padded = line + _whole_lines(row + 2 * radius * maps)
    mixed = padded + _whole_lines((height + 2 * radius) * row)
    columns = mixed + _whole_lines(2 * row)
    toned = columns + 3 * _whole_lines(width)
    return other, line, padded, mixed, columns, toned, toned + _whole_lines(stored_height * stored_row)


@compiled(parallel=True)
def _prepare(
    out: Array, height: int, width: int, pixels: Array, stored_height: int, stored_width: int, maps: int, rows: Array,
    parameters: Array, normalise: int, weights: Array, scratch: Array,
) -> None:  # fmt: skip
    # out (N, H W C), pixels (P, stored H W C), scratch (threads, as _places_in_scratch says)
    size = height * width * maps
    other_at, line_at, padded_at, mixed_at, columns_at, toned_at, _ = _places_in_scratch(
        height, width, maps, stored_height, stored_width, len(weights)
    )
    column = _whole_lines(width)
    for n in prange(out.shape[0]):
        p, picture, photo, mine = parameters[n], out[n], pixels[rows[n]], scratch[thread_number()]
        table, gaussian = mine[:_WEIGHTS_AT], mine[_WEIGHTS_AT:][: 2 * _BLUR_RADIUS + 1]
        totals = mine[_TOTALS_AT:_PICTURE_AT].view(np.float64)
        first, second = mine[_PICTURE_AT:][:size], mine[other_at:][:size]
        line, padded, mixed = mine[line_at:padded_at], mine[padded_at:mixed_at], mine[mixed_at:columns_at]
        share, other_share = mine[columns_at:][:width], mine[columns_at + column :][:width]
        place = mine[columns_at + 2 * column :][:width].view(np.int32)
        toned = mine[toned_at:][: len(photo)]
        fill_table(table, p[GAMMA], p[CONTRAST], p[BRIGHTNESS])
        blurs, standardises = p[BLUR] > _ZERO, normalise == 1
        warped = first if blurs or standardises else picture
        if p[ANGLE] == _ZERO:
            warp_straight(
                warped, photo, stored_height, stored_width, maps, table, p, height, width, place, share, toned, mixed
            )  # fmt: skip
        else:
            tone(toned, photo, table, p[GAMMA], p[CONTRAST], p[BRIGHTNESS])
            warp(
                warped, toned, stored_height, stored_width, maps, p, height, width, place, share, other_share
            )  # fmt: skip
        made = warped
        if blurs:
            made = second if standardises else picture
            fill_gaussian(gaussian, p[BLUR])
            blur(made, warped, gaussian, height, maps, line, padded)
        if standardises:
            standardise(picture, made, totals)
        elif normalise == 2:
            local_contrast(picture, first, second, weights, height, maps, line, padded, totals)
        _erase(picture, p, height, width, maps)


@cache
def _contrast_weights(height: int, width: int) -> Array:
    return local_contrast_weights(height, width).astype(_F)


def prepare_photos(
    out: Array, pixels: Array, rows: Array, parameters: Array, normalise: Normalise, workspace: Workspace
) -> None:
    """Tone, warp, blur, normalise and erase each photo."""
    number, height, width, maps = out.shape
    _, stored_height, stored_width, _ = pixels.shape
    weights = _contrast_weights(height, width)
    places = _places_in_scratch(height, width, maps, stored_height, stored_width, len(weights))
    photos = pixels.reshape(len(pixels), stored_height * stored_width * maps)
    photos.flags.writeable = False  # as those in training are: for others the kernel would be compiled once more
    launch(
        _prepare, out.reshape(number, height * width * maps), height, width, photos, stored_height, stored_width, maps,
        rows, parameters, _CODES[normalise], weights, workspace.per_thread("pictures", places[-1]),
    )  # fmt: skip
