from typing import Any

import pytest
from matplotlib.figure import Figure
from PIL import ImageDraw


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


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that Pillow writes into pictures."""
    texts: list[str] = []
    original = ImageDraw.ImageDraw.text

    def noted(self: ImageDraw.ImageDraw, place: tuple[float, float], text: str, **named: Any) -> None:
        original(self, place, text, **named)
        texts.append(text)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", noted)
    return texts
