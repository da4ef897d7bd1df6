"""Arrays of the CPU backend, and its scratch memory."""

from __future__ import annotations

import time
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from facecnn.arrays import Array
from facecnn.kernels.cpu.jit import config

THREADS: int = config.NUMBA_NUM_THREADS
"""The most threads there can be: the rows of per-thread scratch memory."""

_ALIGNMENT = 64
_TAIL = 256
"""Bytes after the end that belong to the array's memory: kernels may read (and ignore) up to 64 floats there."""


def empty(shape: Sequence[int], dtype: npt.DTypeLike) -> Array:
    """An array on a 64-byte boundary with arbitrary, finite content, followed by at least 64 finite floats."""
    kind = np.dtype(dtype)
    size = prod(shape) * kind.itemsize
    memory = np.zeros(size + _ALIGNMENT + _TAIL, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size].view(kind).reshape(tuple(shape))


def to_device(array: Array) -> Array:
    """A copy of a host array, aligned and with a tail."""
    copy = empty(array.shape, array.dtype)
    copy[...] = array
    return copy


def to_host(array: Array) -> Array:
    """A copy of a device array on the host."""
    return np.array(array)


def copy_to_device(out: Array, array: Array) -> None:
    """Overwrite a device array with a host array of the same shape."""
    out[...] = array


def resident(array: Array, rows: Array) -> tuple[Array, npt.NDArray[np.int32]]:
    """The host array itself, and the rows. It must be read-only: kernels would be compiled again for a writable one."""
    pixels = np.asarray(array).view()
    pixels.flags.writeable = False
    return pixels, np.asarray(rows, np.int32)


def synchronise() -> None:
    """Wait until all launched work is done: here it always is."""


def mark(workspace: Workspace) -> Any:
    """The current time."""
    return time.perf_counter()


def milliseconds(start: Any, stop: Any) -> float:
    """Time from one ``mark`` to another."""
    return float(1000 * (stop - start))


def hold_up(at_least: float, workspace: Workspace) -> None:
    """Nothing: a kernel is done when its launch returns."""


class Workspace:
    """Scratch memory for the layers of one network, which run one after another.

    It grows to what the largest layer needs and is then only handed out: no kernel allocates anything from the second
    step on. What it holds is lost from one kernel to the next.
    """

    def __init__(self) -> None:
        self._memory: dict[tuple[str, Any], Array] = {}
        self._views: dict[tuple[str, Any, tuple[int, ...]], Array] = {}

    def array(self, purpose: str, shape: tuple[int, ...], dtype: Any = np.float32) -> Array:
        """An array of arbitrary content; the same memory for every call with this purpose and dtype."""
        key = (purpose, dtype, shape)
        view = self._views.get(key)
        if view is None:
            size = prod(shape)
            memory = self._memory.get((purpose, dtype))
            if memory is None or memory.size < size:
                memory = self._memory[purpose, dtype] = empty((size,), dtype)
                self._views = {k: v for k, v in self._views.items() if k[:2] != key[:2]}
            view = self._views[key] = memory[:size].reshape(shape)
        return view

    def per_thread(self, purpose: str, size: int, dtype: Any = np.float32) -> Array:
        """(threads, at least ``size``): a row for every thread, on cache lines of its own."""
        return self.array(purpose, (THREADS, -(-size // 64) * 64), dtype)
