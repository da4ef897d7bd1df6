"""Notes about kernels besides what they compute, for the user who runs a command, each of them once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Notes:
    """Texts that are kept, and told to the one who listens."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._tell: Callable[[str], None] | None = None

    def add(self, text: str) -> None:
        if text not in self.texts:
            self.texts.append(text)
            if self._tell is not None:
                self._tell(text)

    @contextmanager
    def told(self, tell: Callable[[str], None]) -> Iterator[None]:
        """Within the context, ``tell`` is called once with each text, first with those from before."""
        before, self._tell = self._tell, tell
        try:
            for text in self.texts:
                tell(text)
            yield
        finally:
            self._tell = before


slow = Notes()
"""Why what runs takes longer than it should."""
