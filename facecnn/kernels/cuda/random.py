"""Random numbers by counter (Philox4x32-10), and what is drawn from them: dropout's masks and the augmentation."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from facecnn.kernels.cuda.driver import cuda, device_function, kernel, launch, unfused
from facecnn.kernels.cuda.memory import Array, Workspace
from facecnn.kernels.cuda.sizes import STRIDE, THREADS, launch_each
from facecnn.kernels.protocol import PURPOSE_AUGMENT

_F, _I, _U32, _U64 = np.float32, np.int32, np.uint32, np.uint64
_ZERO, _HALF, _ONE, _TWO, _MINUS_ONE = _F(0), _F(0.5), _F(1), _F(2), _F(-1)
_LOW, _SHIFT = _U64(0xFFFFFFFF), _U64(32)
_MULTIPLIER_0, _MULTIPLIER_1 = _U64(0xD2511F53), _U64(0xCD9E8D57)
_WEYL_0, _WEYL_1 = _U64(0x9E3779B9), _U64(0xBB67AE85)
_UNIFORM_SHIFT, _UNIFORM_STEP = _U64(8), _F(2.0**-24)
_BOX_LEAST, _BOX_MORE = _F(0.15), _F(0.3)

"""Of the largest grid: a constant, so that no trip is counted by a 64-bit division. A smaller grid needs one turn."""


@device_function
def philox(c0: Any, c1: Any, c2: Any, c3: Any, k0: Any, k1: Any) -> Any:
    """Philox4x32-10 (Salmon et al. 2011): four random words for counter c and key k, 32-bit words kept in uint64.

    The compiler sees that the upper halves are 0 and multiplies 32 bits by 32.
    """
    for _ in range(10):
        p0, p1 = _MULTIPLIER_0 * c0, _MULTIPLIER_1 * c2
        c0, c1, c2, c3 = (p1 >> _SHIFT) ^ c1 ^ k0, p1 & _LOW, (p0 >> _SHIFT) ^ c3 ^ k1, p0 & _LOW
        k0, k1 = (k0 + _WEYL_0) & _LOW, (k1 + _WEYL_1) & _LOW
    return c0, c1, c2, c3


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


@cache
def _dropout(threads: int) -> Any:
    span = 4 * threads

    @kernel
    def dropout(
        out: Array, x: Array, photos: Array, keep: Any, threshold: Any, seed: Any, purpose: Any, step: Array
    ) -> None:
        # out, x (N, F). A block works on 4 * threads elements of one photo. Each thread makes four words that lie side
        # by side; they go through shared memory, so that the elements are read and written side by side by the threads.
        words = cuda.shared.array(span, _U32)
        thread = cuda.threadIdx.x
        n = cuda.blockIdx.x
        start = cuda.blockIdx.y * span
        counter = _word(cuda.blockIdx.y * threads + thread)
        w0, w1, w2, w3 = philox(counter, _word(photos[n]), _word(step[0]), _U64(0), seed, purpose)
        words[4 * thread] = _U32(w0)
        words[4 * thread + 1] = _U32(w1)
        words[4 * thread + 2] = _U32(w2)
        words[4 * thread + 3] = _U32(w3)
        cuda.syncthreads()
        i = thread
        while i < span:
            e = start + i
            if e < x.shape[1]:
                out[n, e] = x[n, e] / keep if words[i] >= threshold else _ZERO
            i += threads

    return dropout


def dropout(
    out: Array, x: Array, photos: Array, rate: float, seed: int, purpose: int, step: Array, workspace: Workspace
) -> None:
    """Each element is zero with probability ``rate``, else x / (1 - rate); with a rate of 0 a copy."""
    threshold = _U32(min(int(rate * 2**32), 2**32 - 1))
    grid = (x.shape[0], -(-x.shape[1] // (4 * THREADS)))
    launch(
        _dropout(THREADS),
        grid,
        THREADS,
        workspace,
        out,
        x,
        photos,
        1.0 - rate,
        threshold,
        _U64(seed),
        _U64(purpose),
        step,
    )


# ---------------------------------------------------------------------------------------------------- augmentation


@cache
def _draw_augmentation() -> Any:
    multiply, add = unfused()

    @device_function
    def uniform(word: Any) -> Any:
        # in [0, 1), exactly
        return multiply(_F(_U32(word >> _UNIFORM_SHIFT)), _UNIFORM_STEP)

    @device_function
    def signed(u: Any) -> Any:
        # in [-1, 1)
        return add(multiply(_TWO, u), _MINUS_ONE)

    @kernel
    def draw(
        parameters: Array,
        photos: Array,
        epoch: Array,
        seed: Any,
        mirror: Any,
        shift: Any,
        zoom: Any,
        rotate: Any,
        gamma: Any,
        contrast: Any,
        brightness: Any,
        blur: Any,
        erase: Any,
    ) -> None:
        # parameters (N, 13): a thread draws for one photo. Every operation is rounded by itself.
        n = cuda.grid(1)
        while n < photos.size:
            photo, when, purpose, zero = _word(photos[n]), _word(epoch[0]), _U64(PURPOSE_AUGMENT), _U64(0)
            w0, w1, w2, w3 = philox(zero, photo, when, zero, seed, purpose)
            parameters[n, 0] = _ONE if mirror and uniform(w0) < _HALF else _ZERO
            parameters[n, 1] = multiply(shift, signed(uniform(w1)))
            parameters[n, 2] = multiply(shift, signed(uniform(w2)))
            parameters[n, 3] = add(_ONE, multiply(zoom, signed(uniform(w3))))
            w4, w5, w6, w7 = philox(_U64(1), photo, when, zero, seed, purpose)
            parameters[n, 4] = multiply(rotate, signed(uniform(w4)))
            parameters[n, 5] = multiply(gamma, signed(uniform(w5)))
            parameters[n, 6] = add(_ONE, multiply(contrast, signed(uniform(w6))))
            parameters[n, 7] = multiply(brightness, signed(uniform(w7)))
            w8, w9, w10, w11 = philox(_U64(2), photo, when, zero, seed, purpose)
            w12, w13, w14, _ = philox(_U64(3), photo, when, zero, seed, purpose)
            parameters[n, 8] = add(_HALF, uniform(w9)) if uniform(w8) < blur else _ZERO
            height, width = _ZERO, _ZERO
            if uniform(w10) < erase:
                height = add(_BOX_LEAST, multiply(_BOX_MORE, uniform(w11)))
                width = add(_BOX_LEAST, multiply(_BOX_MORE, uniform(w12)))
            parameters[n, 9] = multiply(uniform(w13), add(_ONE, -height))
            parameters[n, 10] = multiply(uniform(w14), add(_ONE, -width))
            parameters[n, 11] = height
            parameters[n, 12] = width
            n += STRIDE

    return draw


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
    launch_each(
        _draw_augmentation(),
        photos.size,
        workspace,
        parameters,
        photos,
        epoch,
        _U64(seed),
        bool(mirror),
        float(shift),
        float(zoom),
        float(rotate),
        float(gamma),
        float(contrast),
        float(brightness),
        float(blur),
        float(erase),
    )
