"""Random numbers by counter (Philox4x32-10), and what is drawn from them: dropout's masks and the augmentation."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from facecnn.kernels.cpu.jit import compiled, helper
from facecnn.kernels.cpu.launching import launch
from facecnn.kernels.cpu.memory import Array, Workspace
from facecnn.kernels.protocol import PURPOSE_AUGMENT

_F, _U32, _U64 = np.float32, np.uint32, np.uint64
_LOW, _SHIFT = _U64(0xFFFFFFFF), _U64(32)
_MULTIPLIER_0, _MULTIPLIER_1 = _U64(0xD2511F53), _U64(0xCD9E8D57)
_WEYL_0, _WEYL_1 = _U64(0x9E3779B9), _U64(0xBB67AE85)


@helper(inline=True)
def philox(c0: Any, c1: Any, c2: Any, c3: Any, k0: Any, k1: Any) -> Any:
    """Philox4x32-10 (Salmon et al. 2011): four random words for counter c and key k, 32-bit words kept in uint64."""
    for _ in range(10):
        p0, p1 = _MULTIPLIER_0 * c0, _MULTIPLIER_1 * c2
        c0, c1, c2, c3 = (p1 >> _SHIFT) ^ c1 ^ k0, p1 & _LOW, (p0 >> _SHIFT) ^ c3 ^ k1, p0 & _LOW
        k0, k1 = (k0 + _WEYL_0) & _LOW, (k1 + _WEYL_1) & _LOW
    return c0, c1, c2, c3


@compiled()
def _random_words(out: Array, seed: Any, purpose: Any, photo: Any, step: Array) -> None:
    zero = _U64(0)
    for block in range((out.size + 3) // 4):
        words = philox(_U64(block), photo, _U64(step[0]) & _LOW, zero, seed, purpose)
        for i, word in enumerate(words):
            if 4 * block + i < out.size:
                out[4 * block + i] = word


def random_words(out: Array, seed: int, purpose: int, photo: int, step: Array, workspace: Workspace) -> None:
    """out (n,) uint32: word e is word e % 4 of philox(counter=(e // 4, photo, step, 0), key=(seed, purpose))."""
    launch(_random_words, out, _U64(seed), _U64(purpose), _U64(photo), step)


@compiled(parallel=True)
def _dropout(
    out: Array, x: Array, photos: Array, keep: Any, threshold: Any, seed: Any, purpose: Any, step: Array
) -> None:
    size = x.shape[1]
    zero = _U64(0)
    for n in prange(x.shape[0]):
        photo = _U64(photos[n])
        for block in range((size + 3) // 4):
            words = philox(_U64(block), photo, _U64(step[0]), zero, seed, purpose)
            for i, word in enumerate(words):
                e = 4 * block + i
                if e < size:
                    out[n, e] = x[n, e] / keep if word >= threshold else _F(0)


def dropout(
    out: Array, x: Array, photos: Array, rate: float, seed: int, purpose: int, step: Array, workspace: Workspace
) -> None:
    """Each element is zero with probability ``rate``, else x / (1 - rate)."""
    if rate == 0:
        launch(np.copyto, out, x)
        return
    threshold = _U64(min(int(rate * 2**32), 2**32 - 1))
    launch(_dropout, out, x, photos, _F(1 - rate), threshold, _U64(seed), _U64(purpose), step, operations=20 * x.size)


@helper(inline=True, exact=True)
def _either_way(u: Any) -> Any:
    """From -1 to 1, of a number from 0 to 1."""
    return _F(2) * u - _F(1)


# Without contracted multiply-adds: every device must draw the same bits.
@compiled(exact=True)
def _draw_augmentation(
    parameters: Array,
    photos: Array,
    epoch: Array,
    seed: Any,
    mirror: bool,
    shift: Any,
    zoom: Any,
    rotate: Any,
    gamma: Any,
    contrast: Any,
    brightness: Any,
    blur: Any,
    erase: Any,
) -> None:
    u = np.empty(16, _F)
    step, zero = _U64(epoch[0]) & _LOW, _U64(0)
    for n in range(photos.shape[0]):
        photo = _U64(photos[n])
        for block in range(4):
            words = philox(_U64(block), photo, step, zero, seed, _U64(PURPOSE_AUGMENT))
            for i, word in enumerate(words):
                u[4 * block + i] = _F(_U32(word) >> _U32(8)) * _F(2.0**-24)
        erased = u[10] < erase
        height = _F(0.15) + _F(0.3) * u[11] if erased else _F(0)
        width = _F(0.15) + _F(0.3) * u[12] if erased else _F(0)
        p = parameters[n]
        p[0] = _F(1) if mirror and u[0] < _F(0.5) else _F(0)
        p[1] = shift * _either_way(u[1])
        p[2] = shift * _either_way(u[2])
        p[3] = _F(1) + zoom * _either_way(u[3])
        p[4] = rotate * _either_way(u[4])
        p[5] = gamma * _either_way(u[5])
        p[6] = _F(1) + contrast * _either_way(u[6])
        p[7] = brightness * _either_way(u[7])
        p[8] = _F(0.5) + u[9] if u[8] < blur else _F(0)
        p[9] = u[13] * (_F(1) - height)
        p[10] = u[14] * (_F(1) - width)
        p[11] = height
        p[12] = width


def draw_augmentation(
    parameters: Array,
    photos: Array,
    epoch: Array,
    seed: int,
    mirror: bool,
    shift: float,
    zoom: float,
    rotate: float,
    gamma: float,
    contrast: float,
    brightness: float,
    blur: float,
    erase: float,
    workspace: Workspace,
) -> None:
    """What happens to each photo in this epoch: parameters (N, len(AUGMENTATION)), equal to the reference's bits."""
    launch(
        _draw_augmentation,
        parameters,
        photos,
        epoch,
        _U64(seed),
        bool(mirror),
        _F(shift),
        _F(zoom),
        _F(rotate),
        _F(gamma),
        _F(contrast),
        _F(brightness),
        _F(blur),
        _F(erase),
    )
