"""What Numba finds of CUDA on this machine. ``facecnn.kernels.cards`` asks in the right order and words the answer."""

from __future__ import annotations

import numpy as np

from facecnn.kernels.cards import Card
from facecnn.kernels.cuda.driver import SIMULATED, cuda
from facecnn.kernels.cuda.memory import Workspace, free_bytes, to_device, to_host
from facecnn.kernels.cuda.update import accumulate


def why_unavailable() -> str | None:
    """The driver's or Numba's own words for why there is no CUDA; None if nothing speaks against it.

    May raise whatever the driver's error codes do to Numba.
    """
    if cuda.is_available():
        return None
    # The text is there only after the driver was asked, above.
    return cuda.cuda_error() or "NVVM, the toolkit's compiler, was not found"


def toolkit_version() -> tuple[int, int]:
    """Of the toolkit's libraries (of NVRTC, to be exact). Raises various errors where they are not found."""
    major, minor = cuda.runtime.get_version()
    return int(major), int(minor)


def cards() -> list[Card]:
    """The cards that are visible, in CUDA's order."""
    return [
        Card(number, _text(getattr(gpu, "name", "simulator")), ".".join(map(str, gpu.compute_capability)))
        for number, gpu in enumerate(cuda.gpus)
    ]


def select(number: int) -> None:
    """Let this thread work on a card."""
    cuda.select_device(number)


def memory(number: int) -> tuple[int, int] | None:
    """Bytes of a card, free and in all; None where they can't be told, as when another process has it for itself."""
    if SIMULATED:
        return None
    used = cuda.get_current_device().id
    try:
        # Not ``with cuda.gpus[number]``: the first time, Numba loses there which card was in use.
        cuda.select_device(number)
        free = free_bytes()
        return None if free is None else (free, int(cuda.current_context().get_memory_info().total))
    except Exception:  # a card beside the one in use, in whatever state
        return None
    finally:
        cuda.select_device(used)


def prove() -> None:
    """Compile a small kernel, run it on the selected card and read what it gives. Raises whatever goes wrong."""
    total = to_device(np.array([1, 2, 3], np.float32))
    accumulate(total, to_device(np.array([4, 5, 6], np.float32)), False, Workspace())
    result = to_host(total).tolist()
    if result != [5, 7, 9]:
        raise RuntimeError(f"1 + 4, 2 + 5 and 3 + 6 gave {result}")


def _text(name: str | bytes) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else name
