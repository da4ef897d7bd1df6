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
    out: Array, height: int, width: int, pixels: Array, stored_height: int, stored_width: int, maps: int, rows: Array,
    parameters: Array, normalise: int, weights: Array, pictures: Array, lines: Array, padded: Array, tables: Array,
    gaussians: Array, totals: Array, toned: Array, held: Array, mixed: Array, places: Array, shares: Array,
) -> None:  # fmt: skip
    # out (N, H W C), pixels (P, stored H W C);
    # pictures (2 threads, H W C and more), lines (threads, (W + 2 radius) C), padded (threads, (H + 2 radius) W C),
    # tables (threads, 256 and more), gaussians (threads, 2 blur radius + 1 and more), totals (threads, 64);
    # of the stored photo: toned (threads, its size), held (threads, rows that are held); mixed (threads, 2 W C and
    # more), places (threads, W), shares (2 threads, W)
    size = height * width * maps
    for n in prange(out.shape[0]):
        thread = thread_number()
        p, picture, photo, table = parameters[n], out[n], pixels[rows[n]], tables[thread]
        place, share = places[thread, :width], shares[2 * thread, :width]
        fill_table(table, p[GAMMA], p[CONTRAST], p[BRIGHTNESS])
        warped = pictures[2 * thread, :size] if p[BLUR] > _ZERO else picture
        if p[ANGLE] == _ZERO:
            warp_straight(
                warped, photo, stored_height, stored_width, maps, table, p, height, width, place,
                share, held[thread], mixed[thread],
            )  # fmt: skip
        else:
            tone(toned[thread], photo, table, p[GAMMA], p[CONTRAST], p[BRIGHTNESS])
            warp(
                warped, toned[thread], stored_height, stored_width, maps, p, height, width, place,
                share, shares[2 * thread + 1, :width],
            )  # fmt: skip
        if p[BLUR] > _ZERO:
            gaussian = gaussians[thread, : 2 * _BLUR_RADIUS + 1]
            fill_gaussian(gaussian, p[BLUR])
            blur(picture, warped, gaussian, height, maps, lines[thread], padded[thread])
        if normalise == 1:
            standardise(picture, totals[thread])
        elif normalise == 2:
            first, second = pictures[2 * thread, :size], pictures[2 * thread + 1, :size]
            local_contrast(picture, first, second, weights, height, maps, lines[thread], padded[thread], totals[thread])
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
    radius = max(len(weights) // 2, _BLUR_RADIUS)
    size, stored_size, stored_row = height * width * maps, pixels[0].size, stored_width * maps
    launch(
        _prepare,
        out.reshape(number, size),
        height,
        width,
        pixels.reshape(len(pixels), stored_size),
        stored_height,
        stored_width,
        maps,
        rows,
        parameters,
        _CODES[normalise],
        weights,
        workspace.array("pictures", (2 * THREADS, -(-size // 64) * 64)),
        workspace.per_thread("lines", (width + 2 * radius) * maps),
        workspace.per_thread("padded rows", (height + 2 * radius) * width * maps),
        workspace.per_thread("tables", 256),
        workspace.per_thread("gaussians", 2 * _BLUR_RADIUS + 1),
        workspace.per_thread("totals", 64, np.float64),
        workspace.per_thread("toned", stored_size),
        workspace.per_thread("toned rows", stored_row * max(2, _HELD // stored_row)),
        workspace.per_thread("mixed rows", 2 * width * maps),
        workspace.per_thread("places", width, np.int32),
        workspace.array("shares", (2 * THREADS, -(-width // 64) * 64)),
    )
