"""The surroundings of a computation: what it sets for the whole process is restored, and threads keep out of each
other's way."""

import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from facecnn.jobs.environment import check_environment
from facecnn.process_wide import WhileInUse


@contextmanager
def computing() -> Iterator[None]:
    """Within the context a job may compute. Any thread may enter it; a thread that is inside may enter it again.

    Raises UsageError or FacecnnError for an environment in which that can't work.
    """
    check_environment()
    with ExitStack() as held:
        if not _loops_may_overlap():
            held.enter_context(_one_at_a_time)
        held.enter_context(_one_blas_thread())
        held.enter_context(_numba_threads_kept())
        yield


_one_at_a_time = threading.RLock()


def _loops_may_overlap() -> bool:
    """Whether several threads may compute at the same time, which isn't known until Numba has started its threads:
    with its own threading layer, which it takes where there is no OpenMP, that would end the process."""
    jit: Any = sys.modules.get("facecnn.kernels.cpu.jit")
    try:
        return jit is not None and bool(jit.loops_may_overlap())
    except ValueError:
        return False


def _limit_blas(restore: ExitStack) -> None:
    """One thread, as BLAS sums in another order with another number of threads."""
    from threadpoolctl import ThreadpoolController

    limits = ThreadpoolController().select(user_api="blas").limit(limits=1)
    restore.callback(limits.restore_original_limits)


_one_blas_thread = WhileInUse(_limit_blas)


@contextmanager
def _numba_threads_kept() -> Iterator[None]:
    """Restore the number of threads on which Numba's parallel loops of this Python thread run."""
    before = _numba_threads()
    try:
        yield
    finally:
        if _numba_threads() is not None:
            numba: Any = sys.modules["numba"]
            numba.set_num_threads(before or numba.config.NUMBA_NUM_THREADS)


def _numba_threads() -> int | None:
    """That number; None if Numba hasn't started any threads. (Asking it would start them.)"""
    parallel: Any = sys.modules.get("numba.np.ufunc.parallel")
    if parallel is None or not parallel._is_initialized:
        return None
    return int(sys.modules["numba"].get_num_threads())
