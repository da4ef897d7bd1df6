"""Sums of two stacks of maps, and rows scaled to length 1.

In CUDA's simulator a block is 8 threads and a grid has at most 3 blocks, so tiny shapes have several turns of a thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

import numpy as np

from contract.cases.numbers import as_float32, random, times
from facecnn.arrays import Array
from facecnn.kernels import reference
from facecnn.kernels.cases import Case, Out, Size
from facecnn.kernels.protocol import FUSED_ACTIVATIONS, Activation

SLOPE = 0.1
FUSED = tuple(activation for activation in get_args(Activation) if activation in FUSED_ACTIVATIONS)

Maps = tuple[int, int, int, int]


def _add_maps(branch: Maps, shortcut: Maps, activation: Activation = "relu", size: Size = "tiny") -> Iterator[Case]:
    a, b, shape = random(*branch), random(*shortcut, seed=1), tuple(np.maximum(branch, shortcut).tolist())
    yield from _added(f"{times(*branch)} + {times(*shortcut)}, {activation}", shape, a, b, activation, size)


def _added(
    name: str, shape: tuple[int, ...], a: Array, b: Array, activation: Activation, size: Size = "tiny"
) -> Iterator[Case]:
    out, settings = np.zeros(shape), (activation, SLOPE)
    reference.add_maps_forward(out, a, b, *settings, reference.Workspace())
    yield Case("add_maps_forward", name, (Out(shape), a, b, *settings), size)
    dout = random(*shape, seed=2)
    yield Case("add_maps_backward", name, (Out(a.shape), Out(b.shape), dout, as_float32(out), *settings), size)


def _with_nan() -> Iterator[Case]:
    a, b = random(1, 3, 3, 2), random(1, 2, 4, 3)
    a[0, 2, 0, 1] = b[0, 0, 3, 2] = np.nan
    for activation in FUSED:
        yield from _added(f"NaN, {activation}", (1, 3, 4, 3), a, b, activation)


def _unit_length(rows: int, units: int, size: Size = "tiny") -> Iterator[Case]:
    yield from _scaled(times(rows, units), random(rows, units), size)


def _scaled(name: str, x: Array, size: Size = "tiny") -> Iterator[Case]:
    out, norms = np.zeros_like(x), np.zeros(len(x))
    reference.unit_length_forward(out, x, norms, reference.Workspace())
    yield Case("unit_length_forward", name, (Out(x.shape), x, Out((len(x),))), size)
    dout = random(*x.shape, seed=1)
    arguments = (Out(x.shape), dout, as_float32(out), as_float32(norms))
    yield Case("unit_length_backward", name, arguments, size)


def _some_rows() -> Array:
    """Rows of zeros, of very small and of large numbers, and one with a NaN."""
    x = random(5, 9)
    x[0] = 0
    x[1] *= 1e-15
    x[2] *= 1e15
    x[4, 3] = np.nan
    return as_float32(x)


CASES = [
    *_add_maps((1, 1, 1, 1), (1, 1, 1, 1)),
    *_add_maps((2, 3, 5, 2), (2, 3, 5, 2)),
    *_add_maps((2, 3, 5, 2), (2, 3, 5, 2), "leaky_relu"),
    *_add_maps((2, 2, 2, 5), (2, 3, 3, 2)),  # dlib's blocks that halve the maps
    *_add_maps((1, 1, 1, 4), (1, 2, 2, 4), "identity"),
    *_add_maps((1, 4, 2, 3), (1, 3, 3, 4), "sigmoid"),
    *_add_maps((3, 2, 3, 2), (3, 3, 2, 1), "tanh"),
    *_with_nan(),
    *(
        case
        for activation in FUSED
        for branch, shortcut in [
            ((3, 17, 17, 64), (3, 17, 17, 64)), ((2, 3, 3, 256), (2, 4, 4, 128)), ((5, 9, 4, 3), (5, 2, 11, 30)),
        ]
        for case in _add_maps(branch, shortcut, activation, "usual")
    ),
    *_add_maps((23, 19, 18, 16), (23, 20, 17, 9), size="large"),
    *_unit_length(1, 1),
    *_unit_length(3, 7),
    *_unit_length(5, 21),
    *_scaled("zeros, small and large numbers, and NaN", _some_rows()),
    *(case for shape in [(1, 128), (61, 128), (7, 1000), (300, 3)] for case in _unit_length(*shape, size="usual")),
    *_unit_length(2303, 128, "large"),
]  # fmt: skip
