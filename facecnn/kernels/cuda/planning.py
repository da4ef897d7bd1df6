"""What would be launched, found out without a card: arrays that are shapes only, and launches that are written down.

This way the machine code of a whole training step can be examined, and its work counted, on any machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import types
from numba.np.numpy_support import from_dtype


@dataclass(frozen=True)
class Launch:
    """A kernel as it would be launched."""

    kernel: Any
    grid: tuple[int, ...]
    threads: int
    """Of a block."""
    arguments: tuple[Any, ...]
    """``PlannedArray``, NumPy numbers, and tuples of them."""


class PlannedArray:
    """Stands for a C-contiguous array on the card."""

    def __init__(self, shape: Sequence[int], dtype: npt.DTypeLike) -> None:
        self.shape = tuple(shape)
        self.dtype = np.dtype(dtype)
        self.ndim = len(self.shape)
        self.size = prod(self.shape)
        self.nbytes = self.size * self.dtype.itemsize

    @property
    def numba_type(self) -> Any:
        """The type that a kernel is compiled for."""
        return types.Array(from_dtype(self.dtype), self.ndim, "C")

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> PlannedArray:
        return PlannedArray((len(range(*rows.indices(self.shape[0]))), *self.shape[1:]), self.dtype)

    def reshape(self, *shape: Any) -> PlannedArray:
        wanted = shape[0] if len(shape) == 1 and isinstance(shape[0], tuple) else shape
        rest = self.size // max(1, -prod(wanted)) if -1 in wanted else 0
        return PlannedArray(tuple(rest if side == -1 else side for side in wanted), self.dtype)

    def copy_to_host(self) -> npt.NDArray[Any]:
        """Ones: some numbers have to be there."""
        return np.ones(self.shape, self.dtype)

    def copy_to_device(self, array: npt.NDArray[Any]) -> None:
        assert array.size == self.size


def flattened(arguments: Sequence[Any]) -> list[Any]:
    """Arguments, with what is in tuples in their place."""
    return [one for each in arguments for one in (flattened(each) if isinstance(each, tuple) else [each])]


_launches: list[Launch] | None = None


@contextmanager
def planning() -> Iterator[list[Launch]]:
    """While this lasts, the CUDA backend works on ``PlannedArray`` and its launches are appended to the list."""
    global _launches
    _launches = []
    try:
        yield _launches
    finally:
        _launches = None


def is_planning() -> bool:
    return _launches is not None


def write_down(kernel: Any, grid: int | tuple[int, ...], threads: int, arguments: tuple[Any, ...]) -> None:
    assert _launches is not None
    _launches.append(Launch(kernel, (grid,) if isinstance(grid, int) else tuple(grid), threads, arguments))
