"""Random numbers by counter (Philox4x32-10), and what is drawn from them: dropout's masks and the augmentation."""

from __future__ import annotations

from typing import Any

import numpy as np

from facecnn.kernels import formulas
from facecnn.kernels.cuda.driver import cuda, device_function, kernel, launch, unfused
from facecnn.kernels.cuda.memory import Array, Workspace
from facecnn.kernels.cuda.sizes import STRIDE, THREADS, launch_each
from facecnn.kernels.protocol import PURPOSE_AUGMENT

_U32, _U64 = np.uint32, np.uint64

philox = device_function(formulas.philox)
_dropped = device_function(formulas.dropped)
_uniform = device_function(formulas.uniform)
_parameters_of = device_function(formulas.augmentation(*unfused()))

_SPAN = 4 * THREADS
"""Elements of a photo that a block drops or keeps: four for each thread."""


@device_function
def _word(number: Any) -> Any:
    """An index or a step, which is not negative, as a word of the counter."""
    return _U64(_U32(number))


# ---------------------------------------------------------------------------------------------------------- words


@kernel
def _random_words(out: Array, seed: Any, purpose: Any, photo: Any, step: Array) -> None:
    # out (n,): a thread makes the four words of one counter
    block = cuda.grid(1)
    while 4 * block < out.size:
        w0, w1, w2, w3 = philox(_word(block), photo, _word(step[0]), _U64(0), seed, purpose)
        at = 4 * block
        out[at] = _U32(w0)
        if at + 1 < out.size:
            out[at + 1] = _U32(w1)
        if at + 2 < out.size:
            out[at + 2] = _U32(w2)
        if at + 3 < out.size:
            out[at + 3] = _U32(w3)
        block += STRIDE


def random_words(out: Array, seed: int, purpose: int, photo: int, step: Array, workspace: Workspace) -> None:
    """out (n,) uint32: word e is word e % 4 of philox(counter=(e // 4, photo, step, 0), key=(seed, purpose))."""
    launch_each(_random_words, -(-out.size // 4), workspace, out, _U64(seed), _U64(purpose), _U64(photo), step)


# --------------------------------------------------------------------------------------------------------- dropout


@kernel
def _dropout(
    out: Array, x: Array, photos: Array, keep: Any, threshold: Any, seed: Any, purpose: Any, step: Array
) -> None:
    # out, x (N, F). A block works on _SPAN elements of one photo. Each thread makes four words that lie side
    # by side; they go through shared memory, so that the elements are read and written side by side by the threads.
    words = cuda.shared.array(_SPAN, _U32)
    thread = cuda.threadIdx.x
    n = cuda.blockIdx.x
    start = cuda.blockIdx.y * _SPAN
    counter = _word(cuda.blockIdx.y * THREADS + thread)
    w0, w1, w2, w3 = philox(counter, _word(photos[n]), _word(step[0]), _U64(0), seed, purpose)
    words[4 * thread] = _U32(w0)
    words[4 * thread + 1] = _U32(w1)
    words[4 * thread + 2] = _U32(w2)
    words[4 * thread + 3] = _U32(w3)
    cuda.syncthreads()
    i = thread
    while i < _SPAN:
        e = start + i
        if e < x.shape[1]:
            out[n, e] = _dropped(x[n, e], words[i], threshold, keep)
        i += THREADS


def dropout(
    out: Array, x: Array, photos: Array, rate: float, seed: int, purpose: int, step: Array, workspace: Workspace
) -> None:
    """Each element is zero with probability ``rate``, else x / (1 - rate); with a rate of 0 a copy."""
    threshold = _U32(min(int(rate * 2**32), 2**32 - 1))
    grid = (x.shape[0], -(-x.shape[1] // _SPAN))
    launch(
        _dropout, grid, THREADS, workspace, out, x, photos, 1.0 - rate, threshold, _U64(seed), _U64(purpose),
        step,
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------------- augmentation


@kernel
def _draw_augmentation(
    parameters: Array, photos: Array, epoch: Array, seed: Any, mirror: Any, shift: Any, zoom: Any, rotate: Any,
    gamma: Any, contrast: Any, brightness: Any, blur: Any, erase: Any,
) -> None:  # fmt: skip
    # parameters (N, 13): a thread draws for one photo
    n = cuda.grid(1)
    while n < photos.size:
        photo, when, purpose, zero = _word(photos[n]), _word(epoch[0]), _U64(PURPOSE_AUGMENT), _U64(0)
        w0, w1, w2, w3 = philox(zero, photo, when, zero, seed, purpose)
        w4, w5, w6, w7 = philox(_U64(1), photo, when, zero, seed, purpose)
        w8, w9, w10, w11 = philox(_U64(2), photo, when, zero, seed, purpose)
        w12, w13, w14, _ = philox(_U64(3), photo, when, zero, seed, purpose)
        u = (
            _uniform(w0), _uniform(w1), _uniform(w2), _uniform(w3), _uniform(w4), _uniform(w5), _uniform(w6),
            _uniform(w7), _uniform(w8), _uniform(w9), _uniform(w10), _uniform(w11), _uniform(w12), _uniform(w13),
            _uniform(w14),
        )  # fmt: skip
        drawn = _parameters_of(u, mirror, shift, zoom, rotate, gamma, contrast, brightness, blur, erase)
        for i in range(len(drawn)):
            parameters[n, i] = drawn[i]
        n += STRIDE


def draw_augmentation(
    parameters: Array, photos: Array, epoch: Array, seed: int, mirror: bool, shift: float, zoom: float, rotate: float,
    gamma: float, contrast: float, brightness: float, blur: float, erase: float, workspace: Workspace,
) -> None:  # fmt: skip
    """What happens to each photo in this epoch: parameters (N, len(AUGMENTATION)), equal to the reference's bits."""
    launch_each(
        _draw_augmentation, photos.size, workspace, parameters, photos, epoch, _U64(seed), bool(mirror), float(shift),
        float(zoom), float(rotate), float(gamma), float(contrast), float(brightness), float(blur), float(erase),
    )  # fmt: skip
