"""The program's start: ``facecnn``, or ``python -m facecnn``."""

import os
import sys


def main() -> None:
    """Run the command line. Nothing is imported before an interrupt is answered in one line."""
    try:
        # BLAS is only ever asked for one thread. It would start all the others all the same, and where it can't it
        # sends itself a Ctrl-C.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        from facecnn.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)
    except ModuleNotFoundError as error:  # of the command line itself; commands answer for what they need
        sys.exit(f"error: facecnn needs {error.name}: pip install {error.name}")


if __name__ == "__main__":
    main()
