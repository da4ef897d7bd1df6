"""Random numbers by counter (Philox4x32-10), and what is drawn from them: dropout's masks and the augmentation."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from numba import prange

from facecnn.arrays import Array
from facecnn.kernels import formulas
from facecnn.kernels.cpu.jit import compiled, helper
from facecnn.kernels.cpu.launching import launch
from facecnn.kernels.cpu.memory import Workspace
from facecnn.kernels.protocol import PURPOSE_AUGMENT

_F, _U64 = np.float32, np.uint64
_LOW = _U64(0xFFFFFFFF)

philox = helper(inline=True)(formulas.philox)
_dropped = helper(inline=True)(formulas.dropped)
_uniform = helper(inline=True)(formulas.uniform)
# No fused multiply-adds: every device must draw the same bits.
_parameters = helper(inline=True, exact=True)(formulas.augmentation(operator.mul, operator.add))


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
                    out[n, e] = _dropped(x[n, e], word, threshold, keep)


def dropout(
    out: Array, x: Array, photos: Array, rate: float, seed: int, purpose: int, step: Array, workspace: Workspace
) -> None:
    """Each element is zero with probability ``rate``, else x / (1 - rate)."""
    if rate == 0:
        launch(np.copyto, out, x)
        return
    threshold = _U64(min(int(rate * 2**32), 2**32 - 1))
    launch(_dropout, out, x, photos, _F(1 - rate), threshold, _U64(seed), _U64(purpose), step, operations=20 * x.size)


@compiled(exact=True)
def _draw_augmentation(
    parameters: Array, photos: Array, epoch: Array, seed: Any, mirror: bool, shift: Any, zoom: Any, rotate: Any,
    gamma: Any, contrast: Any, brightness: Any, blur: Any, erase: Any,
) -> None:  # fmt: skip
    u = np.empty(16, _F)
    step, zero = _U64(epoch[0]) & _LOW, _U64(0)
    for n in range(photos.shape[0]):
        photo = _U64(photos[n])
        for block in range(4):
            words = philox(_U64(block), photo, step, zero, seed, _U64(PURPOSE_AUGMENT))
            for i, word in enumerate(words):
                u[4 * block + i] = _uniform(word)
        drawn = _parameters(u, mirror, shift, zoom, rotate, gamma, contrast, brightness, blur, erase)
        for i, value in enumerate(drawn):
            parameters[n, i] = value


def draw_augmentation(
    parameters: Array, photos: Array, epoch: Array, seed: int, mirror: bool, shift: float, zoom: float, rotate: float,
    gamma: float, contrast: float, brightness: float, blur: float, erase: float, workspace: Workspace,
) -> None:  # fmt: skip
    """Draw each photo's augmentation in this epoch: parameters (N, len(AUGMENTATION)), equal to the reference's
    bits."""
    launch(
        _draw_augmentation, parameters, photos, epoch, _U64(seed), bool(mirror), _F(shift), _F(zoom), _F(rotate),
        _F(gamma), _F(contrast), _F(brightness), _F(blur), _F(erase),
    )  # fmt: skip
