"""What there is to know about kernels besides what they compute, told to whoever runs a command, each thing once."""

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
        """Meanwhile ``tell`` is called, once, with each text; first with those from before."""
        before, self._tell = self._tell, tell
        try:
            for text in self.texts:
                tell(text)
            yield
        finally:
            self._tell = before


slow = Notes()
"""Why what runs takes longer than it should."""
