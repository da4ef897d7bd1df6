"""Entry point of ``facecnn`` and ``python -m facecnn``."""

import atexit
import gc
import os
import sys
import threading
from contextlib import suppress


def main() -> None:
    """Run the command line; an interrupt ends it without a traceback even while modules are imported."""
    try:
        # BLAS only gets one thread to use. Without this it would start one for each processor, and raise SIGINT if it
        # can't.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        from facecnn.process_wide import RARELY

        gc.set_threshold(*RARELY)
        from facecnn.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)
    except ModuleNotFoundError as error:  # needed by the command line itself; commands check their own
        sys.exit(f"error: facecnn needs {error.name}: pip install {error.name}")
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            _end_at_once(end.code or 0)
        raise


def _end_at_once(code: int) -> None:
    """End the process without freeing piece by piece what the system frees anyway, which takes a tenth of a second, and
    half a second with compiled kernels. What was registered for the end is run, and output is written.

    Returns if the end takes more than that: other threads are working, the other ranks have to be told, a debugger or
    profiler is waiting for it, or output can't be written.
    """
    threads = (thread for thread in threading.enumerate() if thread is not threading.current_thread())
    if "mpi4py" in sys.modules or _is_watched() or not all(thread.daemon for thread in threads):
        return
    atexit._run_exitfuncs()
    with suppress(OSError, ValueError):
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:  # it is None if the caller closed it
                stream.flush()
        os._exit(code)


def _is_watched() -> bool:
    """Whether a debugger or profiler runs the program."""
    monitoring = getattr(sys, "monitoring", None)  # Python 3.12 or newer
    tools = [] if monitoring is None else map(monitoring.get_tool, range(6))
    return sys.gettrace() is not None or sys.getprofile() is not None or any(tools)


if __name__ == "__main__":
    main()
