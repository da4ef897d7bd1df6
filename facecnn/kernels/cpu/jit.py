"""How the CPU kernels are compiled, and on how many threads they run."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numba
from numba.np.ufunc.parallel import get_thread_id

from facecnn.kernels.code_cache import code_folder, config, holds_code, kept_in

__all__ = ["are_compiled", "cache_folder", "compiled", "config", "set_threads", "thread_number"]

thread_number: Any = get_thread_id
"""In a parallel loop: the thread that runs this turn, from 0 on."""

# No nnan and ninf: a NaN must come through to the loss. No reassoc: sums keep the order in which they are written.
_FASTMATH = frozenset({"contract", "nsz", "arcp"})

_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def cache_folder() -> str:
    """The folder of the compiled code."""
    return code_folder(Path(__file__).parent, llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten())


def are_compiled() -> bool:
    """Whether there is compiled code from before; of other networks' kernels, maybe."""
    return holds_code(cache_folder())


def compiled(
    *, parallel: bool = False, inline: bool = False, exact: bool = False, reorder: bool = False
) -> Callable[[Callable[..., Any]], Any]:
    """Decorator: compile with Numba when first called, and keep the machine code on the disk.

    ``parallel`` lets prange loops run on all threads; ``inline`` is for helpers of an element, so that the loops around
    them can be vectorised; with ``exact`` every operation is rounded by itself, as in NumPy; ``reorder`` lets LLVM
    split the sum of a loop into several interleaved ones, as many as fit the processor, to vectorise it.
    """
    fastmath = (_FASTMATH | {"reassoc"} if reorder else _FASTMATH) if not exact else frozenset()
    options: dict[str, Any] = {"error_model": "numpy", "fastmath": set(fastmath) or False}
    if inline:
        options["forceinline"] = True
    else:
        options["cache"] = True
        options["nogil"] = True
        options["no_cfunc_wrapper"] = True
        if parallel:
            options["parallel"] = True

    def decorate(function: Callable[..., Any]) -> Any:
        with kept_in(cache_folder()):
            return numba.njit(**options)(function)

    return decorate


def set_threads(count: int) -> None:
    """Run the parallel loops that this Python thread starts on ``count`` threads; results don't depend on it.

    The first call starts the threads, and asks OpenMP to let them sleep when they have nothing to do (unless the user's
    environment says otherwise). By default they spin, and where another program wants a processor at the same time, a
    training step was measured to take 60 times as long.
    """
    if any(name in os.environ for name in _WAITING):
        numba.set_num_threads(count)
        return
    os.environ[_WAITING[0]] = "passive"
    try:
        numba.set_num_threads(count)
    finally:
        del os.environ[_WAITING[0]]
