"""Photos as they lie in the cache become the network's input: tone, warp, blur, normalisation and erasing in one pass
over each photo, which stays in the first-level cache."""

from __future__ import annotations

from functools import cache

import numpy as np
from numba import prange

from facecnn.kernels.cpu.jit import compiled, thread_number
from facecnn.kernels.cpu.launching import launch
from facecnn.kernels.cpu.memory import THREADS, Array, Workspace
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
_HELD = 8192
"""About so many toned pixels are held at once; they stay in the first-level cache."""
_CODES: dict[Normalise, int] = {"none": 0, "standardise": 1, "local_contrast": 2}


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
    padded: Array,
    tables: Array,
    toned: Array,
    held: Array,
    places: Array,
    shares: Array,
) -> None:
    # out (N, H, W, C); pictures (threads, 2 H W C and more), lines (threads, (W + 2 radius) C), padded
    # (threads, (H + 2 radius) W C), tables (threads, 265);
    # of the stored photo: toned (threads, its size), held (threads, a row and those that are held); places (threads,
    # W), shares (threads, 2, W)
    height, width, maps = out.shape[1], out.shape[2], out.shape[3]
    size = height * width * maps
    for n in prange(out.shape[0]):
        thread = thread_number()
        first, second = pictures[thread, :size], pictures[thread, size : 2 * size]
        line = lines[thread]
        table, gaussian = tables[thread, :256], tables[thread, 256 : 256 + 2 * _BLUR_RADIUS + 1]
        p = parameters[n]
        picture = out[n].reshape(-1)
        stored_height, stored_width = pixels.shape[1], pixels.shape[2]
        photo = pixels[rows[n]].reshape(-1)
        fill_table(table, p[GAMMA], p[CONTRAST], p[BRIGHTNESS])
        warped = first if p[BLUR] > _ZERO else picture
        place, share, other = places[thread], shares[thread, 0], shares[thread, 1]
        if p[ANGLE] == _ZERO:
            warp_straight(
                warped, photo, stored_height, stored_width, maps, table, p, height, width, place, share, held[thread]
            )
        else:
            tone(toned[thread], photo, table, p[GAMMA], p[CONTRAST], p[BRIGHTNESS])
            warp(warped, toned[thread], stored_height, stored_width, maps, p, height, width, place, share, other)
        if p[BLUR] > _ZERO:
            fill_gaussian(gaussian, p[BLUR])
            blur(picture, first, gaussian, height, maps, line, padded[thread])
        if normalise == 1:
            standardise(picture)
        elif normalise == 2:
            local_contrast(picture, first, second, weights, height, maps, line, padded[thread])
        _erase(picture, p, height, width, maps)


@cache
def _contrast_weights(height: int, width: int) -> Array:
    return local_contrast_weights(height, width).astype(_F)


def prepare_photos(
    out: Array, pixels: Array, rows: Array, parameters: Array, normalise: Normalise, workspace: Workspace
) -> None:
    """Tone, warp, blur, normalise and erase each photo."""
    _, height, width, maps = out.shape
    weights = _contrast_weights(height, width)
    radius = max(len(weights) // 2, _BLUR_RADIUS)
    launch(
        _prepare,
        out,
        pixels,
        rows,
        parameters,
        _CODES[normalise],
        weights,
        workspace.per_thread("pictures", 2 * height * width * maps),
        workspace.per_thread("lines", width * maps + 2 * radius * maps),
        workspace.per_thread("padded rows", (height + 2 * radius) * width * maps),
        workspace.per_thread("tables", 256 + 2 * _BLUR_RADIUS + 1),
        workspace.per_thread("toned", pixels[0].size),
        workspace.per_thread("toned rows", pixels[0, 0].size * (1 + max(2, _HELD // pixels[0, 0].size))),
        workspace.per_thread("places", width, np.int32),
        workspace.array("shares", (THREADS, 2, width)),
    )
