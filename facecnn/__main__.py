"""Entry point of ``facecnn`` and ``python -m facecnn``."""

import os
import sys


def main() -> None:
    """Run the command line; an interrupt ends it without a traceback even while modules are imported."""
    try:
        # BLAS only gets one thread to use. Without this it would start one for each processor, and raise SIGINT if it
        # can't.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        from facecnn.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)
    except ModuleNotFoundError as error:  # needed by the command line itself; commands check their own
        sys.exit(f"error: facecnn needs {error.name}: pip install {error.name}")


if __name__ == "__main__":
    main()
