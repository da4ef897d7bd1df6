"""Arrays on the card, scratch memory, time, and photos that are sent batch by batch."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from facecnn.kernels.cuda.driver import SIMULATED, cuda
from facecnn.kernels.cuda.planning import PlannedArray, is_planning

Array = Any
"""An array on the card."""

_OUT_OF_MEMORY = 2
"""CUDA_ERROR_OUT_OF_MEMORY."""
_RESERVE = 256 << 20
"""Bytes of the card's memory that photos leave free, for compiled kernels and for whatever else runs there."""
_CHUNK = 64 << 20
"""Target size in bytes of the pieces in which photos are gathered and sent."""


@contextmanager
def _out_of_memory_said(what: str = "the card's memory is full") -> Iterator[None]:
    """The driver's error for a card that is full becomes Python's."""
    try:
        yield
    except Exception as error:
        if getattr(error, "code", None) == _OUT_OF_MEMORY:
            raise MemoryError(what) from error
        raise


def empty(shape: Sequence[int], dtype: npt.DTypeLike) -> Array:
    """An array on the card, of zeros."""
    if is_planning():
        return PlannedArray(shape, dtype)
    return to_device(np.zeros(tuple(shape), dtype))


def to_device(array: npt.NDArray[Any]) -> Array:
    """A copy of a host array on the card. Raises MemoryError where it doesn't fit."""
    if is_planning():
        return PlannedArray(array.shape, array.dtype)
    with _out_of_memory_said():
        return cuda.to_device(np.ascontiguousarray(array))


def to_host(array: Array) -> npt.NDArray[Any]:
    """A copy of a device array on the host; waits for everything launched before."""
    return np.asarray(array.copy_to_host())


def copy_to_device(out: Array, array: npt.NDArray[Any]) -> None:
    """Overwrite a device array with a host array of the same shape."""
    out.copy_to_device(np.ascontiguousarray(array))


def free_bytes() -> int | None:
    """Of the card's memory; None where it isn't known."""
    if SIMULATED:
        return None
    context = cuda.current_context()
    # Numba frees unused arrays later, and only once they are a fifth of the memory, or ten arrays.
    context.memory_manager.deallocations.clear()
    return int(context.get_memory_info().free)


def resident(array: npt.NDArray[Any], rows: npt.NDArray[Any]) -> tuple[Array, npt.NDArray[np.int32]]:
    """Copies of some rows of a host array on the card, each of them once, and where in it each of the rows lies.

    Raises MemoryError where they would leave too little room.
    """
    kept, places = np.unique(rows, return_inverse=True)
    if is_planning():
        return PlannedArray((len(kept), *array.shape[1:]), array.dtype), places.astype(np.int32)
    row_bytes = prod(array.shape[1:]) * array.itemsize
    free = free_bytes()
    if free is not None and len(kept) * row_bytes > free - _RESERVE:
        raise MemoryError(f"{len(kept) * row_bytes / 1e9:.1f} GB of photos, {free / 1e9:.1f} GB free on the card")
    with _out_of_memory_said():
        out = cuda.device_array((max(1, len(kept)), *array.shape[1:]), array.dtype)
    step = max(1, _CHUNK // row_bytes)
    for start in range(0, len(kept), step):
        piece = array[kept[start : start + step]]
        copy_to_device(out[start : start + len(piece)], piece)
    return out, places.reshape(-1).astype(np.int32)


def synchronise() -> None:
    """Wait until everything launched is done."""
    if not is_planning():
        cuda.synchronize()


def mark(workspace: Workspace) -> Any:
    """An event between kernels."""
    if SIMULATED:
        return time.perf_counter()
    event = _event(timing=True)
    event.record(workspace.stream)
    return event


def milliseconds(start: Any, stop: Any) -> float:
    """Time that the card took from one ``mark`` to another."""
    if SIMULATED:
        return float(1000 * (stop - start))
    stop.synchronize()
    return float(start.elapsed_time(stop))


def _event(*, timing: bool) -> Any:
    return cuda.event() if SIMULATED else cuda.event(timing)


class Workspace:
    """Scratch memory for the layers of one network, which run one after another, and the stream that they run on.

    It grows to what the largest layer needs and is then only handed out: no kernel allocates anything from the second
    step on. What it holds is lost from one kernel to the next.
    """

    def __init__(self) -> None:
        self.stream: Any = 0
        """CUDA's default stream, which copies are in line with, too; while a step is recorded, what records it."""
        self._memory: dict[tuple[str, str], Array] = {}
        self._views: dict[tuple[str, str, tuple[int, ...]], Array] = {}
        self._given_up: list[Array] = []

    def array(self, purpose: str, shape: tuple[int, ...], dtype: npt.DTypeLike = np.float32) -> Array:
        """An array of arbitrary content; the same memory for every call with this purpose and dtype."""
        kind = np.dtype(dtype).str
        view = self._views.get((purpose, kind, shape))
        if view is None:
            size = prod(shape)
            memory = self._memory.get((purpose, kind))
            if memory is None or memory.size < size:
                if memory is not None:
                    self._given_up.append(memory)  # a recorded step may use it still
                memory = self._memory[purpose, kind] = empty((size,), dtype)
                self._views = {key: value for key, value in self._views.items() if key[:2] != (purpose, kind)}
            view = self._views[purpose, kind, shape] = memory[:size].reshape(shape)
        return view


class PhotoStream:
    """Two batches of photos on the card: one to be worked on, while the next is sent to the other.

    ``send`` a batch to a slot, ``wait`` for it before the kernels that read it, and ``release`` it after them.
    """

    def __init__(self, shape: tuple[int, ...], batch_size: int) -> None:
        """``shape`` of one photo, uint8. Raises MemoryError where two batches don't fit on the card, or can't be pinned
        in the machine's own memory."""
        whole = (batch_size, *shape)
        self.arrays: list[Array] = [empty(whole, np.uint8) for _ in range(2)]
        self._pinned = [_pinned(whole) for _ in "ab"]
        self._sent = [_event(timing=False) for _ in "ab"]
        self._read = [_event(timing=False) for _ in "ab"]
        self._stream = _stream_beside()

    def send(self, slot: int, pixels: npt.NDArray[np.uint8], rows: npt.NDArray[Any]) -> None:
        """Bring ``pixels[rows]`` to ``arrays[slot]``, behind what the card is doing."""
        self._sent[slot].synchronize()  # the copy before last, which read the same buffer: it is long done
        count = len(rows)
        # All rows are there, so nothing is clipped; but to be able to raise, NumPy would copy everything once more.
        np.take(pixels, rows, axis=0, out=self._pinned[slot][:count], mode="clip")
        self._read[slot].wait(self._stream)
        self.arrays[slot][:count].copy_to_device(self._pinned[slot][:count], stream=self._stream)
        self._sent[slot].record(self._stream)

    def wait(self, slot: int) -> None:
        """Make kernels launched from now on wait for the slot's photos."""
        self._sent[slot].wait()

    def release(self, slot: int) -> None:
        """Say that all kernels that read the slot have been launched."""
        self._read[slot].record()


def _pinned(shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Pinned host memory, which a card can read while the processor goes on."""
    if SIMULATED:
        return np.zeros(shape, np.uint8)
    with _out_of_memory_said("no more of this machine's memory can be pinned for the card"):
        return np.asarray(cuda.pinned_array(shape, np.uint8))


def _stream_beside() -> Any:
    """A stream that doesn't wait for the default one (those that Numba makes do)."""
    if SIMULATED:
        return 0
    from cuda.core import Device

    device = Device(cuda.get_current_device().id)
    device.set_current()  # cuda-core wants it in every thread
    return device.create_stream()
