"""How the CPU kernels are compiled: options, and a cache of compiled code that notices every edit.

Numba keys its cache by the file that a function stands in, and so misses edits of the helpers that the function calls
in other files. Here the folder itself is named by a hash of all kernel sources, Numba's version and the processor.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numba
import platformdirs
from numba.core import config as _numba_config
from numba.np.ufunc.parallel import get_thread_id

config: Any = _numba_config  # its attributes are made at run time
thread_number: Any = get_thread_id
"""In a parallel loop: the thread that runs this turn, from 0 on."""

# No nnan and ninf: a NaN must come through to the loss. No reassoc: sums keep the order in which they are written.
_FASTMATH = frozenset({"contract", "nsz", "arcp"})

_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def _fingerprint() -> str:
    digest = hashlib.sha256()
    for part in (numba.__version__, llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()):
        digest.update(part.encode() + b"\0")
    folder = Path(__file__).parent
    for source in [folder.parent / "protocol.py", *sorted(folder.glob("*.py"))]:
        digest.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    return digest.hexdigest()[:32]


@cache
def cache_folder() -> str:
    """The folder of the compiled code: in the user's NUMBA_CACHE_DIR, else in facecnn's cache (FACECNN_CACHE_DIR, or
    the system's place for caches), else, where that can't be written to, a temporary one."""
    own = os.environ.get("FACECNN_CACHE_DIR") or platformdirs.user_cache_dir("facecnn", appauthor=False)
    base = Path(config.CACHE_DIR) / "facecnn" if config.CACHE_DIR else Path(own).expanduser() / "kernels"
    folder = base / _fingerprint()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return tempfile.mkdtemp(prefix="facecnn-kernels-")
    return str(folder)


def are_compiled() -> bool:
    """Whether there is compiled code from before; of other networks' kernels, maybe."""
    return any(Path(cache_folder()).rglob("*.nbc"))


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
        # Numba reads the folder when it decorates; it is put back, since it is meant for all users of Numba.
        before = config.CACHE_DIR
        config.CACHE_DIR = cache_folder()
        try:
            return numba.njit(**options)(function)
        finally:
            config.CACHE_DIR = before

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
