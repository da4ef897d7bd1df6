"""A photo with its faces framed and named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, features

from facecnn.reports.findings import confidence
from facecnn.reports.labels import Box, Placing, place_labels
from facecnn.reports.lettering import Lettering

PERSON_COLOUR = "#1f6fb4"
STRANGER_COLOUR = "#c05a12"

_SIZES = (1.0, 0.85, 0.7, 0.55)
"""Sizes of letters, as shares of the wanted one, that are tried until no label hides anything."""
_SMALLEST_LETTERS = 6.0  # pixels
_LINE = 0.18  # of the letters' size
_PAD = 0.3


@dataclass(frozen=True)
class NamedFace:
    """A face in a photo, with its answer."""

    box: Box
    """left, top, right, bottom, in pixels of the photo as it is drawn."""
    name: str
    is_person: bool
    confidence: float
    also_like: str | None = None
    """The person whom this face is like, if another face in the photo has that name."""
    number: int | None = None
    """A number by which a text refers to the face."""

    def scaled(self, across: float, down: float) -> NamedFace:
        """The same face in a photo scaled by factors across and down."""
        left, top, right, bottom = self.box
        return replace(self, box=(across * left, down * top, across * right, down * bottom))


def letters_for(people: Sequence[str], *others: str) -> Lettering:
    """How to spell names that Pillow draws."""
    return Lettering(people, *others, left_to_right=not features.check("raqm"))


def draw_faces(photo: Image.Image, faces: Sequence[NamedFace], readable: Lettering, size: float) -> Image.Image:
    """A copy of a photo with a frame around each face, and a label that says who it is.

    Labels are placed so that they hide neither faces nor each other, if possible, and get smaller for it.

    Args:
        photo: mode L or RGB. The copy has none of its ``info``.
        faces: at least one; the first ones are drawn on top.
        readable: from ``letters_for``, for all names.
        size: approximate height of the letters in pixels; smaller where a label wouldn't fit into the photo.
    """
    picture = Image.new("RGB", photo.size)
    picture.paste(photo)
    fonts: dict[tuple[Path, float], ImageFont.FreeTypeFont] = {}
    labels = [_Label(_texts(face, readable), readable, fonts) for face in faces]
    widest, line = (max(sides) for sides in zip(*(label.extent(size) for label in labels), strict=True))
    size *= min(1.0, photo.width / widest, photo.height / line)
    chosen: tuple[float, Placing] | None = None
    for share in _SIZES:
        height = max(share * size, _SMALLEST_LETTERS)
        placing = place_labels([face.box for face in faces], [label.extent(height) for label in labels], *photo.size)
        if chosen is None or placing.hidden < chosen[1].hidden:
            chosen = height, placing
        if not placing.hidden:
            break
    assert chosen is not None
    height, placing = chosen
    pen = ImageDraw.Draw(picture)
    width = max(2, round(_LINE * size))
    for face, label, corner in reversed(list(zip(faces, labels, placing.corners, strict=True))):
        _draw_frame(pen, face, (*corner, *label.extent(height)), width)
    for face, label, corner in reversed(list(zip(faces, labels, placing.corners, strict=True))):
        label.draw(pen, corner, height, _colour(face))
    return picture


def _texts(face: NamedFace, readable: Lettering) -> list[str]:
    """The parts of a label. The name is one by itself, so that a right-to-left name doesn't reorder the rest."""
    number = [] if face.number is None else [f"{face.number}  "]
    if face.is_person:
        return [*number, readable(face.name), f" {confidence(face.confidence)}"]
    if face.also_like is not None:
        return [*number, "unknown (like ", readable(face.also_like), ")"]
    return [*number, "unknown"]


def _colour(face: NamedFace) -> str:
    return PERSON_COLOUR if face.is_person else STRANGER_COLOUR


def _draw_frame(pen: ImageDraw.ImageDraw, face: NamedFace, label: Box, width: int) -> None:
    """Draw a face's frame, and a line to its ``label`` (left, top, width, height) if that is apart."""
    left, top, right, bottom = face.box
    x, y, wide, high = label
    if x > right + width or x + wide < left - width or y > bottom + width or y + high < top - width:
        other = (x, y, x + wide, y + high)
        pen.line([_nearest(face.box, other), _nearest(other, face.box)], fill=_colour(face), width=width)
    pen.rectangle((left, top, max(left, right), max(top, bottom)), outline=_colour(face), width=width)


def _nearest(box: Box, other: Box) -> tuple[float, float]:
    """The point of a box that is nearest to the other's centre."""
    x, y = (other[0] + other[2]) / 2, (other[1] + other[3]) / 2
    return min(max(x, box[0]), box[2]), min(max(y, box[1]), box[3])


class _Label:
    """Text on a background of one colour."""

    def __init__(
        self, texts: Sequence[str], readable: Lettering, fonts: dict[tuple[Path, float], ImageFont.FreeTypeFont]
    ) -> None:
        """``fonts``: a cache by file and size, for one thread only, because FreeType's fonts aren't thread-safe."""
        self._pieces = [piece for text in texts for piece in readable.pieces(text)]
        self._fonts = fonts

    def extent(self, size: float) -> tuple[float, float]:
        """Width and height in pixels, with letters of a size."""
        widths = [font.getlength(text) for font, (text, _) in zip(self._sized(size), self._pieces, strict=True)]
        return sum(widths) + 2 * _PAD * size, (1 + 2 * _PAD) * size

    def draw(self, pen: ImageDraw.ImageDraw, corner: tuple[float, float], size: float, colour: str) -> None:
        x, y = corner
        wide, high = self.extent(size)
        pen.rectangle((round(x), round(y), round(x + wide) - 1, round(y + high) - 1), fill=colour)
        x += _PAD * size
        for font, (text, _) in zip(self._sized(size), self._pieces, strict=True):
            pen.text((x, y + high / 2), text, fill="white", font=font, anchor="lm")
            x += font.getlength(text)

    def _sized(self, size: float) -> list[ImageFont.FreeTypeFont]:
        for _, file in self._pieces:
            if (file, size) not in self._fonts:
                self._fonts[file, size] = ImageFont.truetype(file, size)
        return [self._fonts[file, size] for _, file in self._pieces]
