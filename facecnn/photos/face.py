"""Faces in photos, and the interface of face finders."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Protocol

from PIL import Image

from facecnn.arrays import Array

Point = tuple[float, float]

NO_FACE = "no face found: take a photo in which the face is larger or turned to the camera, or set photos.faces=off"
"""The reason for not using a photo without a face."""

TOO_SMALL = "no face as large as photos.smallest_face asks for: take a photo in which the face is larger, or lower it"
"""The reason for not using a photo all of whose faces are too small."""

SHOWS_NOBODY = frozenset({NO_FACE, TOO_SMALL})
"""The reasons of photos that could be read."""

_POSITION, _SHARPNESS = 1.5, 0.1
"""Weights of the distance to the middle and of the logarithm of the sharpness, relative to that of the size."""


@dataclass(frozen=True)
class Face:
    """A face found in an upright photo.

    Coordinates are pixels from the photo's top left corner, x to the right; the first pixel's centre is (0.5, 0.5).
    """

    box: tuple[float, float, float, float]
    """left, top, right, bottom; may reach beyond the photo."""
    landmarks: tuple[Point, Point, Point, Point, Point]
    """Centres of the eyes, tip of the nose, corners of the mouth. The one on the left of the picture comes first, or in
    a photo lying on its side, the one that would be left if the face stood upright."""
    score: float
    """0 to 1: how sure the finder is."""
    turned: int = 0
    """Degrees by which the photo was rotated anticlockwise to find the face; 0 if it was found without."""

    @property
    def side(self) -> float:
        """The longer side of the box, in pixels."""
        left, top, right, bottom = self.box
        return max(right - left, bottom - top)

    def scaled(self, factor: float) -> "Face":
        """The same face in a photo ``factor`` times as large."""
        if factor == 1:
            return self
        left, top, right, bottom = (factor * edge for edge in self.box)
        first, second, nose, *mouth = ((factor * x, factor * y) for x, y in self.landmarks)
        return replace(self, box=(left, top, right, bottom), landmarks=(first, second, nose, mouth[0], mouth[1]))


class Finder(Protocol):
    """Finds faces in pictures."""

    @property
    def identity(self) -> str:
        """Changes whenever other faces, or other positions, may be found."""

    @property
    def arrays(self) -> Mapping[str, Array]:
        """The finder's weights by name, with which a stored model can find faces on its own."""

    def find(self, picture: Image.Image) -> list[Face]:
        """The faces in an upright picture of mode L or RGB, in no particular order. Any thread may call it."""

    def find_in_each(self, pictures: Sequence[Image.Image]) -> list[list[Face]]:
        """``find`` for each picture, while other threads may do the same with others."""

    def rest(self) -> None:
        """Release threads until the finder is used again."""


def size_and_place(face: Face, width: int, height: int) -> float:
    """How likely a photo (width, height) was taken of the face, by its size and position; higher is likelier."""
    left, top, right, bottom = face.box
    distance = math.hypot(left + right - width, top + bottom - height) / math.hypot(width, height)
    return math.log(max(face.side, 1.0) / min(width, height)) - _POSITION * distance


def main_first(faces: Sequence[Face], width: int, height: int, sharpness: Sequence[float]) -> list[Face]:
    """Sort a photo's faces by how likely it was taken of each: by size, position and ``sharpness`` (faces,).

    Each alone may mislead: a face in the background may lie nearer the middle, the largest may be a bystander's, the
    sharpest may hang on the wall. In 115 of 116 photos of LFW with several faces the first is that of the folder's
    person, and so is the one nearest the middle; in photos of groups, no such rule does much better than chance.
    """
    scores = [
        size_and_place(face, width, height) + _SHARPNESS * math.log(max(sharp, 1e-6))
        for face, sharp in zip(faces, sharpness, strict=True)
    ]
    return [face for _, face in sorted(zip(scores, faces, strict=True), key=lambda scored: -scored[0])]


def notes_of(faces: Sequence[Face]) -> tuple[str, ...]:
    """Remarks for the user about a photo's faces; the first one is used."""
    several = (f"{len(faces)} faces, the most prominent is the main one",) if len(faces) > 1 else ()
    turned = faces[0].turned
    return (*several, f"turned by {turned} degrees to find the face") if turned else several


def as_json(faces: Sequence[Face]) -> str:
    """Faces as text, which ``from_json`` reads."""
    return json.dumps([astuple(face) for face in faces])


def from_json(text: str) -> tuple[Face, ...]:
    """Faces from what ``as_json`` wrote."""
    return tuple(
        Face(tuple(box), tuple((x, y) for x, y in landmarks), score, turned)  # type: ignore[arg-type]
        for box, landmarks, score, turned in json.loads(text)
    )
