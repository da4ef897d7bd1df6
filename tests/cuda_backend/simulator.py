"""Makes Numba's simulator as strict as a card is, or stricter.

Its own takes an index below 0 for Python's, hands out memory that may happen to hold zeros, keeps shared memory from
block to block, may give two threads that ask at once for shared memory each another array, and says nothing of races.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from numba.cuda.simulator import kernel, kernelapi
from numba.cuda.simulator.cudadrv.devicearray import FakeWithinKernelCUDAArray as InKernel

from cuda_backend.racecheck import NEW, READ, WRITE, Thread, checked_launch, touch
from facecnn.kernels.cases import nonsense


class New(np.ndarray):
    """A shared or local array: poisoned, and what is read of it must have been written."""

    address: int

    def __getitem__(self, index: Any) -> Any:
        touch(self.address, self.strides, index, READ + NEW)
        return super().__getitem__(index)

    def __setitem__(self, index: Any, value: Any) -> None:
        touch(self.address, self.strides, index, WRITE + NEW)
        super().__setitem__(index, value)


def _new(shape: Any, dtype: Any) -> New:
    plain = np.full(shape, nonsense(dtype), dtype)
    made = plain.view(New)
    made.address = plain.ctypes.data
    return made


_making = threading.Lock()


def _shared_array(self: Any, shape: Any, dtype: Any) -> New:
    """As the simulator's own, an array by the line that asks for it, but one for each block."""
    caller = sys._getframe(1)
    thread: Any = threading.current_thread()
    key = tuple(thread.blockIdx), caller.f_code.co_filename, caller.f_lineno
    with _making:
        if key not in self._allocations:
            self._allocations[key] = _new(shape, dtype)
        made: New = self._allocations[key]
        return made


def _local_array(self: Any, shape: Any, dtype: Any) -> New:
    thread: Any = threading.current_thread()
    made = _new(shape, dtype)
    thread.arrays.append(made)
    return made


def _in_global_memory(array: Any) -> tuple[Any, int, tuple[int, ...]]:
    """The NumPy array behind a kernel's argument, its address and its strides."""
    known: dict[str, Any] = array.__dict__
    if "facts" not in known:
        plain = known["_item"]._ary
        known["facts"] = plain, plain.ctypes.data, plain.strides
    facts: tuple[Any, int, tuple[int, ...]] = known["facts"]
    return facts


def _read(self: Any, index: Any) -> Any:
    plain, address, strides = _in_global_memory(self)
    touch(address, strides, index, READ)
    return plain[index]


def _write(self: Any, index: Any, value: Any) -> None:
    plain, address, strides = _in_global_memory(self)
    touch(address, strides, index, WRITE)
    plain[index] = value


_plain_context = kernel._push_kernel_context


@contextmanager
def _checked_context(module: Any) -> Iterator[None]:
    with _plain_context(module), checked_launch():
        yield


@contextmanager
def strict() -> Iterator[None]:
    """Every launch raises an error for what would be a fault on a card: see ``racecheck`` for what it finds."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(kernel, "BlockThread", Thread)
        monkeypatch.setattr(kernel, "_push_kernel_context", _checked_context)
        monkeypatch.setattr(InKernel, "__getitem__", _read)
        monkeypatch.setattr(InKernel, "__setitem__", _write)
        monkeypatch.setattr(kernelapi.FakeCUDAShared, "array", _shared_array)
        monkeypatch.setattr(kernelapi.FakeCUDALocal, "array", _local_array)
        yield
