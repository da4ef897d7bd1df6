"""Checks of the environment before anything heavy is imported: later, a library would fail with a worse message."""

import os
import re
import sys

from facecnn.errors import FacecnnError, UsageError, shown

_THREADING_LAYERS = ("default", "safe", "threadsafe", "forksafe", "tbb", "omp", "workqueue")

_SWITCHES = ("NUMBA_DISABLE_JIT", "NUMBA_ENABLE_CUDASIM", "NUMBA_DISABLE_CUDA", "NUMBA_BOUNDSCHECK")
"""Numba's on-off variables. Numba prints a traceback for a value that isn't a number."""

_LEAST_ADDRESS_SPACE = 1_000_000_000
"""Bytes of address space, most of it for libraries: the smallest training with compiled kernels took 0.8 GB. With less,
OpenBLAS or LLVM end the process with messages of their own."""


def check_environment() -> None:
    """Check Numba's environment variables and the memory limit.

    Raises UsageError for a variable that Numba can't work with, FacecnnError for too low a limit.
    """
    threads = os.environ.get("NUMBA_NUM_THREADS")
    if threads is not None and not (threads.strip().isdecimal() and int(threads) > 0):
        raise UsageError(
            f"NUMBA_NUM_THREADS is {_quoted(threads)}: set it to a number of threads, at least 1, or unset it"
        )
    layer = os.environ.get("NUMBA_THREADING_LAYER")
    if layer is not None and layer not in _THREADING_LAYERS:
        raise UsageError(
            f"NUMBA_THREADING_LAYER is {_quoted(layer)}: set it to one of {', '.join(_THREADING_LAYERS)}, or unset it"
        )
    for name in _SWITCHES:
        value = os.environ.get(name, "")
        if value and not value.strip().isdecimal():
            raise UsageError(f"{name} is {_quoted(value)}: set it to 0 or 1, or unset it")
    if int(os.environ.get("NUMBA_DISABLE_JIT") or 0):
        raise UsageError(
            "NUMBA_DISABLE_JIT is set, and kernels that aren't compiled would take hours: unset it (--device reference "
            "computes with NumPy)"
        )
    _check_address_space()


def _quoted(value: str) -> str:
    return repr(shown(value[:80]))


def _check_address_space() -> None:
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < _LEAST_ADDRESS_SPACE:
        raise FacecnnError(
            f"Not enough memory: this process may take {limit / 1e9:.1f} GB (ulimit -v), and needs "
            f"{_LEAST_ADDRESS_SPACE / 1e9:.0f} GB: raise the limit"
        )


def package_error(error: ImportError) -> FacecnnError | None:
    """The error for a package that is missing or can't be loaded; None for a module of facecnn or of Python itself."""
    module = _failed_module(error).partition(".")[0]
    if module in ("", "facecnn") or module in sys.stdlib_module_names:
        return None
    package = _PACKAGES.get(module, module)
    if isinstance(error, ModuleNotFoundError):
        return FacecnnError(f"facecnn needs {package}: pip install {package}")
    return FacecnnError(f"{package} can't be loaded ({error}): pip install --upgrade facecnn installs one that fits")


_PACKAGES = {"PIL": "pillow", "ruamel": "ruamel.yaml"}
"""Package by module, where the names differ."""


def _failed_module(error: ImportError) -> str:
    """The module that is missing, or that raised the error, for example because of another one's version."""
    if error.name:
        return error.name
    named = re.match(r"No module named '([\w.]+)'", str(error))
    if named is not None:
        return named[1]
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return "" if traceback is None else str(traceback.tb_frame.f_globals.get("__name__", ""))
