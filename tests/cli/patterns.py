"""Made-up people whose faces are fine patterns, one beside the other in a photo, and stand-ins for the networks that
find and describe faces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from photos.finders import KnownFaces, face_at

CELL, FACE, EYES = 100, 60, 25
"""Pixels of the square around a face, of the face, and between its eyes."""


class PatternEmbedder:
    """Takes the coarse pattern of a crop for its embedding."""

    asked: ClassVar[list[int]] = []
    """The number of faces in each call, of all objects."""

    def __init__(self, backend: object) -> None:
        pass

    def embed(self, pixels: Any, rows: Any, progress: Callable[[int, int], None] | None = None) -> Any:
        self.asked.append(len(rows))
        if progress is not None:
            progress(len(rows), len(rows))
        found = np.zeros((len(rows), 144), np.float32)
        for index, row in enumerate(rows):
            middle = (
                Image.fromarray(pixels[row])
                .convert("L")
                .crop((45, 45, pixels[row].shape[1] - 45, -45 + len(pixels[row])))
            )
            grey = np.asarray(middle.resize((12, 12), Image.Resampling.BOX), np.float32)
            found[index] = (grey - grey.mean()).ravel()
        return found


def finder() -> KnownFaces:
    """Finds the faces of ``picture``, by its size; a small one in a picture that is one pixel lower, one that is cut
    off where it is two pixels lower, and a small one as the second of two where it is one pixel higher."""
    places = [face_at((number + 0.5) * CELL, 43, EYES) for number in range(4)]
    known = {(CELL * count, CELL): places[:count] for count in range(1, 5)}
    small = face_at(50, 43, 10)
    cut = face_at(10, 43, EYES)
    second = face_at(1.5 * CELL, 43, 10)
    odd = {(CELL, CELL - 1): [small], (CELL, CELL - 2): [cut], (2 * CELL, CELL + 1): [places[0], second]}
    return KnownFaces({**known, **odd}, "cells")


def picture(people: Sequence[int], number: int, height: int = CELL) -> Image.Image:
    """Faces side by side: a fine pattern for each person, under a little noise of the photo's own."""
    canvas = np.full((height, CELL * len(people)), 100, np.uint8)
    for place, person in enumerate(people):
        pattern = np.random.default_rng(1000 + person).uniform(30, 226, (12, 12))
        noise = np.random.default_rng((number, place)).normal(0, 5, (FACE, FACE))
        face = np.clip(np.kron(pattern, np.ones((5, 5))) + noise, 0, 255)
        left = place * CELL + (CELL - FACE) // 2
        canvas[20 : 20 + FACE, left : left + FACE] = face
    return Image.fromarray(canvas).convert("RGB")
