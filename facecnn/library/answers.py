"""What the library answers with."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from facecnn.photos.folder import UNKNOWN

Box = tuple[float, float, float, float]
"""left, top, right, bottom."""

Landmarks = tuple[tuple[float, float], ...]
"""Centres of the eyes, tip of the nose, corners of the mouth, each (x, y), those on the left of the picture first."""


@dataclass(frozen=True)
class Face:
    """A model's answer for one face, or for the middle of a photo if the model doesn't look for faces."""

    name: str
    """Whose it is, or ``unknown``."""
    confidence: float
    """For a person, the calibrated probability, at most what the held-out photos justify; for ``unknown``, the
    unknown-score."""
    box: Box
    """In pixels of the upright photo, x to the right and y down; may reach beyond the photo."""
    landmarks: Landmarks | None
    """In pixels of the upright photo; None if faces aren't looked for."""
    scores: Mapping[str, float]
    """The probability of each person, which sum to 1; of more than 1,000 people only those of the 100 likeliest."""
    unknown_score: float
    """From 0 to 1; higher is stranger."""
    also_like: str | None
    """The name that an ``unknown`` would have if another face in the photo didn't fit it better."""

    @property
    def is_unknown(self) -> bool:
        """Whether nobody is named."""
        return self.name == UNKNOWN


@dataclass(frozen=True)
class FoundFace:
    """A face that was found, whoever it is."""

    box: Box
    """In pixels of the upright photo, x to the right and y down; may reach beyond the photo."""
    landmarks: Landmarks
    """In pixels of the upright photo."""
    confidence: float
    """From 0 to 1: how sure it is that this is a face."""


@dataclass(frozen=True)
class Evaluation:
    """How good a model's answers to photos of known people are."""

    figures: dict[str, Any]
    """All figures, as ``facecnn eval --format json`` prints them."""
    predictions: list[dict[str, Any]]
    """The answer to each photo, as ``facecnn eval --predictions`` writes it."""

    @property
    def photos(self) -> int:
        """Number of photos judged by."""
        return int(self.figures["photos"])

    @property
    def accuracy(self) -> float | None:
        """Share of known people's photos that are named right; refused ones aren't. None without any."""
        return _number(self.figures["accuracy"])

    @property
    def closed_set_accuracy(self) -> float | None:
        """The same if the likeliest person is always named. None without photos of known people."""
        return _number(self.figures["closed_set_accuracy"])

    @property
    def interval(self) -> tuple[float, float] | None:
        """Accuracy to expect on other such photos, with a probability of 95 %. None without any."""
        interval = self.figures["interval"]
        return None if interval is None else (float(interval[0]), float(interval[1]))


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def face_of(answer: Mapping[str, Any]) -> Face:
    """A face of the ``predict`` JSON."""
    left, top, right, bottom = answer["box"]
    marks = answer["landmarks"]
    return Face(
        name=answer["label"],
        confidence=answer["confidence"],
        box=(left, top, right, bottom),
        landmarks=None if marks is None else tuple((x, y) for x, y in marks),
        scores=answer["probabilities"],
        unknown_score=answer["unknown_score"],
        also_like=answer["also_like"],
    )
