"""Neurons that each see one map.

x and weight are read as matrices of (position, map), with a tile of maps for a block as in ``columns``: each thread
keeps to one map. All of it is bound by memory: a thread works for several photos or neurons at once, so that what it
reads serves several times. Photos and neurons beyond the last are the last again, and are not stored.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from facecnn.kernels.cuda.columns import add_up, natural, tile
from facecnn.kernels.cuda.driver import SIMULATED, cuda, kernel, launch
from facecnn.kernels.cuda.memory import Array, Workspace
from facecnn.kernels.cuda.sizes import THREADS

_ZERO = np.float32(0)
_EACH = 2 if SIMULATED else 4
"""Photos, and neurons, that a thread works for at once."""
_TURNS = 2 if SIMULATED else 8
"""Least number of positions that a thread adds up in ``neuron_forward``, if there are that many, ..."""
_MOST_CHUNKS = 3 if SIMULATED else 64
"""... and the most chunks that the positions are cut into. Depends on neither photos nor neurons, so that a photo's
output is the same in every batch."""


@cache
def _forward(maps: int, neurons_each: int, biased: bool) -> Any:
    width, lanes, tiles = tile(maps)
    outputs = _EACH * neurons_each
    shape = (outputs, THREADS + width)  # so long a row that other outputs' sums lie in other banks

    @kernel
    def forward(partials: Array, bias: Array, x: Array, weight: Array, chunk: Any) -> None:
        # partials (chunks, N, M, K), bias (M, K), x (N, P, K), weight (M, P, K)
        # grid: (chunks of positions, groups of photos, groups of neurons * tiles of maps)
        sums = cuda.shared.array(shape, np.float32)
        own = cuda.local.array(outputs, np.float32)
        values = cuda.local.array(_EACH, np.float32)
        thread = natural(cuda.threadIdx.x)
        column, lane = thread % width, thread // width
        first_photo = natural(cuda.blockIdx.y) * _EACH
        first_neuron = natural(cuda.blockIdx.z) // tiles * neurons_each
        first_map = natural(cuda.blockIdx.z) % tiles * width
        for o in range(outputs):
            own[o] = _ZERO
        if lane < lanes:
            k = min(first_map + column, maps - 1)
            start = natural(cuda.blockIdx.x) * natural(chunk)
            stop = min(start + natural(chunk), x.shape[1])
            p = start + lane
            while p < stop:
                for i in range(_EACH):
                    values[i] = x[min(first_photo + i, x.shape[0] - 1), p, k]
                for j in range(neurons_each):
                    w = weight[min(first_neuron + j, weight.shape[0] - 1), p, k]
                    for i in range(_EACH):
                        own[i * neurons_each + j] += w * values[i]
                p += lanes
        for o in range(outputs):
            sums[o, thread] = own[o]
        cuda.syncthreads()
        e = thread
        while e < outputs * width:
            o, column = e // width, e % width
            n, m, k = first_photo + o // neurons_each, first_neuron + o % neurons_each, first_map + column
            if n < partials.shape[1] and m < partials.shape[2] and k < maps:
                total = sums[o, column]
                for other in range(1, lanes):
                    total += sums[o, other * width + column]
                if biased:
                    total += bias[m, k]
                partials[natural(cuda.blockIdx.x), n, m, k] = total
            e += THREADS

    return forward


def neuron_forward(out: Array, x: Array, weight: Array, bias: Array, workspace: Workspace) -> None:
    """out[n, m, k] = bias[m, k] + sum over positions p of weight[m, p, k] * x[n, p, k]."""
    photos, neurons, maps = out.shape
    positions = x.shape[1] * x.shape[2]
    _, lanes, tiles = tile(maps)
    chunk = max(_TURNS * lanes, -(-positions // _MOST_CHUNKS))
    chunks = -(-positions // chunk)
    neurons_each = min(_EACH, neurons)
    grid = (chunks, -(-photos // _EACH), -(-neurons // neurons_each) * tiles)
    direct = chunks == 1
    shape = (chunks, photos, neurons, maps)
    partials = out.reshape(shape) if direct else workspace.array("neurons' partials", shape)
    launch(
        _forward(maps, neurons_each, direct), grid, THREADS, workspace, partials, bias,
        x.reshape(photos, positions, maps), weight.reshape(neurons, positions, maps), chunk,
    )  # fmt: skip
    if not direct:
        add_up(out, partials, bias, workspace)


@cache
def _backward_weight(maps: int, neurons_each: int) -> Any:
    @kernel
    def backward_weight(dweight: Array, dbias: Array, dout: Array, x: Array) -> None:
        # dweight (M, P K), dbias (M, K), dout (N, M, K), x (N, P K); grid: (parts of P K, groups of neurons)
        own = cuda.local.array(neurons_each, np.float32)
        total = cuda.local.array(neurons_each, np.float32)
        first = natural(cuda.blockIdx.y) * neurons_each
        q = natural(cuda.blockIdx.x) * THREADS + natural(cuda.threadIdx.x)
        if q < x.shape[1]:
            k = q % maps
            for j in range(neurons_each):
                own[j] = _ZERO
                total[j] = _ZERO
            n = 0
            while n < x.shape[0]:
                value = x[n, q]
                for j in range(neurons_each):
                    delta = dout[n, min(first + j, dout.shape[1] - 1), k]
                    own[j] += delta * value
                    total[j] += delta
                n += 1
            for j in range(neurons_each):
                if first + j < dout.shape[1]:
                    dweight[first + j, q] = own[j]
                    if q < maps:
                        dbias[first + j, q] = total[j]

    return backward_weight


def neuron_backward_weight(dweight: Array, dbias: Array, dout: Array, x: Array, workspace: Workspace) -> None:
    """dweight[m, p, k] = sum over photos of dout[n, m, k] * x[n, p, k]; dbias = sum of dout."""
    photos, neurons, maps = dout.shape
    size = x.size // photos
    neurons_each = min(_EACH, neurons)
    launch(
        _backward_weight(maps, neurons_each), (-(-size // THREADS), -(-neurons // neurons_each)), THREADS, workspace,
        dweight.reshape(neurons, size), dbias, dout, x.reshape(photos, size),
    )  # fmt: skip


@cache
def _backward_input(maps: int) -> Any:
    @kernel
    def backward_input(dx: Array, dout: Array, weight: Array) -> None:
        # dx (N, P K), dout (N, M, K), weight (M, P K); grid: (parts of P K, groups of photos)
        own = cuda.local.array(_EACH, np.float32)
        first = natural(cuda.blockIdx.y) * _EACH
        q = natural(cuda.blockIdx.x) * THREADS + natural(cuda.threadIdx.x)
        if q < dx.shape[1]:
            k = q % maps
            for i in range(_EACH):
                own[i] = _ZERO
            m = 0
            while m < weight.shape[0]:
                w = weight[m, q]
                for i in range(_EACH):
                    own[i] += dout[min(first + i, dout.shape[0] - 1), m, k] * w
                m += 1
            for i in range(_EACH):
                if first + i < dout.shape[0]:
                    dx[first + i, q] = own[i]

    return backward_input


def neuron_backward_input(dx: Array, dout: Array, weight: Array, workspace: Workspace) -> None:
    """dx[n, p, k] = sum over the map's neurons m of dout[n, m, k] * weight[m, p, k]."""
    photos, neurons, maps = dout.shape
    size = dx.size // photos
    launch(
        _backward_input(maps), (-(-size // THREADS), -(-photos // _EACH)), THREADS, workspace, dx.reshape(photos, size),
        dout, weight.reshape(neurons, size),
    )  # fmt: skip
