"""The one module that imports ``numba.cuda``, so that another compiler of CUDA kernels is one line away.

The kernels are in the other modules. Factories make them, whose arguments (kernel size, maps, block and tile sizes)
become constants of the compiled code. Kernels have no signatures: with one they would be compiled at import, which
needs a card.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numba import cuda as _cuda

from facecnn.kernels.code_cache import code_folder, config, keep
from facecnn.kernels.compilation import tell_of
from facecnn.kernels.cuda import planning

cuda: Any = _cuda

SIMULATED = bool(config.ENABLE_CUDASIM)
"""Whether kernels run in Numba's simulator (NUMBA_ENABLE_CUDASIM=1): thread by thread in Python, to be tested."""


def _config() -> Any:
    """What Numba's CUDA reads its settings from: numba-cuda has one of its own."""
    if SIMULATED or cuda.implementation != "NVIDIA":
        return config
    from numba.cuda.core import config as own

    return own


# Numba would warn of every launch of fewer than 128 blocks, however little there is to be done.
_config().CUDA_LOW_OCCUPANCY_WARNINGS = 0


def cache_folder() -> str | None:
    """The folder of the compiled code; None where it can't be kept."""
    compiler = version("numba-cuda") if cuda.implementation == "NVIDIA" else "built-in"
    return code_folder(Path(__file__).parent, compiler)


def kernel(function: Callable[..., None]) -> Any:
    """Decorator: a kernel, compiled when it is first launched, and kept on the disk."""
    dispatcher = cuda.jit(function)
    if not SIMULATED:
        from numba.cuda.dispatcher import CUDACache

        keep(dispatcher, CUDACache, cache_folder())
        tell_of(dispatcher)
    return dispatcher


def device_function(function: Callable[..., Any]) -> Any:
    """Decorator: a function that kernels call."""
    return cuda.jit(device=True)(function)


@cache
def unfused() -> tuple[Any, Any]:
    """(multiply, add) of two float32 on the card, each rounded separately: never fused into a multiply-add, so that
    results equal the other backends' to the bit."""
    if SIMULATED:
        return device_function(lambda a, b: a * b), device_function(lambda a, b: a + b)
    from numba.cuda import libdevice

    return libdevice.fmul_rn, libdevice.fadd_rn


def launch(kernel: Any, grid: int | tuple[int, ...], threads: int, workspace: Any, *arguments: Any) -> None:
    """Launch a kernel on the workspace's stream. Integers are passed as int32 and other numbers as float32."""
    narrow = tuple(map(_narrow, arguments))
    if planning.is_planning():
        planning.write_down(kernel, grid, threads, narrow)
    else:
        kernel[grid, threads, workspace.stream](*narrow)


def _narrow(argument: Any) -> Any:
    if isinstance(argument, tuple):
        return tuple(map(_narrow, argument))
    if isinstance(argument, int | np.bool_):
        return np.int32(argument)
    return np.float32(argument) if isinstance(argument, float) else argument
