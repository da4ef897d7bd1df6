"""What the scripts of this folder do as facecnn's commands do."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from facecnn.errors import FacecnnError


@contextmanager
def errors_told() -> Iterator[None]:
    """Whatever is wrong in a way that a user can understand ends the script in a sentence, with its exit code."""
    try:
        yield
    except FacecnnError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
