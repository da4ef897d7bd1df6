"""The program's start: ``facecnn``, or ``python -m facecnn``."""

import sys


def main() -> None:
    """Run the command line. Nothing is imported before an interrupt is answered in one line."""
    try:
        from facecnn.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)
    except ModuleNotFoundError as error:  # of the command line itself; commands answer for what they need
        sys.exit(f"error: facecnn needs {error.name}: pip install {error.name}")


if __name__ == "__main__":
    main()
