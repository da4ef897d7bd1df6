from typing import Any

import pytest
from matplotlib.figure import Figure


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that get drawn."""
    figures: list[Figure] = []
    original = Figure.__init__

    def noted(self: Figure, *arguments: Any, **named: Any) -> None:
        original(self, *arguments, **named)
        figures.append(self)

    monkeypatch.setattr(Figure, "__init__", noted)
    return figures
