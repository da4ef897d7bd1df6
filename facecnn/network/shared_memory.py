"""Memory that arrays share whose contents aren't needed at the same time."""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from facecnn.arrays import Array
from facecnn.kernels.backend import Backend
from facecnn.network.layers import Shape
from facecnn.network.weights import aligned_size


def shared_arrays(backend: Backend, users: Sequence[Sequence[tuple[Shape, npt.DTypeLike]]]) -> list[list[Array]]:
    """Arrays in memory that its users have in turn: what one of them writes is lost when the next one writes.

    ``users``: shape and type of each one's arrays, which don't overlap.
    """
    ends: dict[np.dtype[Any], int] = {}
    for wanted in users:
        own: dict[np.dtype[Any], int] = {}
        for shape, kind in wanted:
            own[np.dtype(kind)] = own.get(np.dtype(kind), 0) + aligned_size(shape)
        ends |= {kind: max(size, ends.get(kind, 0)) for kind, size in own.items()}
    memory = {kind: backend.empty((size,), kind) for kind, size in ends.items()}
    made = []
    for wanted in users:
        starts = dict.fromkeys(memory, 0)
        arrays = []
        for shape, dtype in wanted:
            kind = np.dtype(dtype)
            start, size = starts[kind], prod(shape)
            # A view without elements isn't possible everywhere.
            arrays.append(memory[kind][start : start + size].reshape(shape) if size else backend.empty(shape, kind))
            starts[kind] += aligned_size(shape)
        made.append(arrays)
    return made
