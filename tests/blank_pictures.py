"""The pictures of a training, and how to have them blank: they take most of a small training's time."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

PICTURES = (
    "draw_curves",
    "draw_watching",
    "draw_confusion",
    "draw_kernels",
    "draw_patches",
)
"""The functions that draw them, as facecnn.jobs.run_pictures calls them."""


def draw_nothing(path: Path, *_: object) -> None:
    Image.new("L", (1, 1)).save(path)
