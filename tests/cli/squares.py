"""Made-up people whose faces are squares with a pattern, one beside the other in a photo, and a finder for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from facecnn.photos.folder import UNKNOWN
from facecnn.photos.preparation import EYE_HEIGHT, PhotoSettings
from photos.finders import KnownFaces, face_at

SIDE = 40
"""Pixels of a face's square."""


def write_album(folder: Path, people: int, photos: int, strangers: int, groups: float = 0.0, noise: float = 45) -> Path:
    """People whose photos are a pattern of their own under ``noise`` (a deviation of the greys; that of the patterns is
    40), usually so heavy that some are taken for others. In a share ``groups`` of the photos there are one or two faces
    more beside it: strangers', another person's, or a second one of the same person."""
    generator = np.random.default_rng(7)
    patterns = generator.uniform(60, 196, (people, 6, 6))
    albums = [(f"person{number}", pattern, photos) for number, pattern in enumerate(patterns)]

    def face(pattern: Any) -> Any:
        own = generator.uniform(60, 196, (6, 6)) if pattern is None else pattern
        coarse = np.clip(own + generator.normal(0, noise, (6, 6)), 0, 255).astype(np.uint8)
        return np.asarray(Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC))

    for name, pattern, count in [*albums, (UNKNOWN, None, strangers)]:
        (folder / name).mkdir(parents=True) if count else None
        for number in range(count):
            faces = [face(pattern)]
            if groups and generator.random() < groups:
                beside = [None, None, pattern, patterns[generator.integers(people)] if pattern is not None else None]
                faces += [face(beside[generator.integers(4)]) for _ in range(generator.integers(1, 3))]
                generator.shuffle(faces)
            Image.fromarray(np.hstack(faces)).save(folder / name / f"{number:02}.png")
    return folder


def finder() -> KnownFaces:
    """A finder that takes each square of a picture for a face."""
    distance = PhotoSettings().eye_distance * SIDE
    places = [face_at((number + 0.5) * SIDE, EYE_HEIGHT * SIDE, distance) for number in range(3)]
    return KnownFaces({(SIDE * count, SIDE): places[:count] for count in (1, 2, 3)}, "squares")


def find_squares(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let whatever trains or answers find faces with ``finder``."""
    for place in (
        *("people.installed_finder", "training.photos.installed_finder", "label_check.installed_finder"),
        *("models.finder_of_checkpoint", "training.train.finder_of_checkpoint"),
    ):
        monkeypatch.setattr(f"facecnn.jobs.{place}", lambda *_: finder())


def verdict(truth: str, faces: Sequence[dict[str, Any]]) -> str:
    """What a photo with these answers counts as, by the rule of the contract: the name or ``unknown``."""
    named = [face for face in faces if face["label"] != UNKNOWN]
    if not named:
        return UNKNOWN
    if truth in [face["label"] for face in named]:
        return truth
    return str(min(named, key=lambda face: face["unknown_score"])["label"])
