"""How the CPU kernels are compiled, and on how many threads they run."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numba
from numba.extending import overload
from numba.np.ufunc.parallel import get_thread_id
from numba.np.ufunc.parallel import threading_layer as _threading_layer

from facecnn.kernels.code_cache import code_folder, config, keep
from facecnn.kernels.cpu import code_library, parallel_loops
from facecnn.kernels.spinning import processors_are_free

__all__ = ["cache_folder", "compiled", "config", "helper", "one_thread", "set_threads", "thread_number"]

code_library.install()

thread_number: Any = get_thread_id
"""In a parallel loop: the thread that runs this turn, from 0 up."""

# No nnan and ninf: a NaN must come through to the loss. No reassoc: sums keep the order in which they are written.
_FASTMATH = frozenset({"contract", "nsz", "arcp"})

_environment_lock = threading.Lock()
_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def cache_folder() -> str | None:
    """The folder of the compiled code; None where it can't be kept."""
    return code_folder(Path(__file__).parent, llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten())


def compiled(
    *, parallel: bool = False, exact: bool = False, reorder: bool = False
) -> Callable[[Callable[..., Any]], Any]:
    """Decorator of a kernel, which Python calls: compile it with Numba when it is first called, and keep the machine
    code on the disk.

    ``parallel`` lets prange loops run on all threads (``parallel_loops``); with ``exact`` every operation is rounded by
    itself, as in NumPy; ``reorder`` lets LLVM split the sum of a loop into several interleaved ones, as many as fit the
    processor, to vectorise it.
    """
    options = {**_options(exact=exact), "nogil": True}
    if reorder:
        options["fastmath"] = {*options["fastmath"], "reassoc"}
    if parallel:
        options["pipeline_class"] = parallel_loops.Compiler

    def decorate(function: Callable[..., Any]) -> Any:
        dispatcher = numba.njit(**options)(function)
        keep(dispatcher, code_library.CodeCache, cache_folder())
        return dispatcher

    return decorate


def helper(*, inline: bool = False, parallel: bool = False, exact: bool = False) -> Callable[[Callable[..., Any]], Any]:
    """Decorator of what only compiled functions call, and which becomes a part of them; called from Python, it runs in
    Python. ``inline`` is for helpers of an element, so that the loops around them can be vectorised; ``parallel`` and
    ``exact`` as in ``compiled``."""
    options: Any = {**_options(exact=exact), "no_cpython_wrapper": True}
    if inline:
        options["forceinline"] = True
    if parallel:
        options["pipeline_class"] = parallel_loops.Compiler

    def decorate(function: Callable[..., Any]) -> Any:
        # As numba.extending.register_jitable, but numbers that are known stay known, to become constants of the code.
        @overload(function, jit_options=options, strict=False, prefer_literal=True)
        def chosen(*arguments: Any, **named: Any) -> Callable[..., Any]:
            return function

        return function

    return decorate


def _options(*, exact: bool) -> dict[str, Any]:
    return {"error_model": "numpy", "fastmath": set() if exact else set(_FASTMATH), "no_cfunc_wrapper": True}


def set_threads(count: int) -> None:
    """Run the parallel loops that this Python thread starts on ``count`` threads; results don't depend on it.

    The first call starts the threads, and says how those that have nothing to do wait for the next loop (unless the
    user's environment says so). Asleep, they take long to wake: on a virtual machine of 2 processors a training step
    of the default network took 16 ms, and 8.5 ms where they spun for half a millisecond before. But where other
    programs want the processors, spinning holds up what the loop waits for: 32 ms instead of 13, and with OpenMP's own
    default, which spins for longer, 60 times as long. So they spin, briefly, if there are processors to spare.
    """
    if any(name in os.environ for name in _WAITING):
        numba.set_num_threads(count)
        return
    name, value = ("GOMP_SPINCOUNT", "10000") if processors_are_free(count) else ("OMP_WAIT_POLICY", "passive")
    with _environment_lock:
        os.environ[name] = value
        try:
            numba.set_num_threads(count)
        finally:
            del os.environ[name]


@contextmanager
def one_thread() -> Iterator[None]:
    """Within the context, parallel loops that this Python thread starts run on it alone. For after ``set_threads``."""
    with _on_threads(1):
        yield


@contextmanager
def one_thread_fewer() -> Iterator[None]:
    """Within the context, parallel loops that this Python thread starts leave a processor to another process: threads
    that wait for one whose processor is in use take several times as long. For after ``set_threads``."""
    with _on_threads(max(1, numba.get_num_threads() - 1)):
        yield


@contextmanager
def _on_threads(count: int) -> Iterator[None]:
    before = numba.get_num_threads()
    numba.set_num_threads(count)
    try:
        yield
    finally:
        numba.set_num_threads(before)


def loops_may_overlap() -> bool:
    """Whether several threads may run parallel loops at the same time: with Numba's own layer, which it takes where
    there is no OpenMP, that would end the process. To be asked after ``set_threads``."""
    layer: Any = _threading_layer
    return bool(layer() != "workqueue")
