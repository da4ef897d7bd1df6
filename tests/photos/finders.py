"""Made-up faces, five dots on grey, and finders that know where they are."""

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

from facecnn.arrays import Array
from facecnn.photos.face import Face

GREY, DOT = 100, 240

UPRIGHT = np.array([(-0.5, 0.0028), (0.5, -0.0028), (0.0032, 0.5715), (-0.4076, 1.1569), (0.4205, 1.1523)])
"""Eyes, nose and mouth of ArcFace's mean face, as published for 112x112 pixels (InsightFace), in eye distances from the
middle between the eyes. Not taken from the program, whose own numbers these are to check."""


def face_at(x: float, y: float, eye_distance: float, degrees: float = 0.0) -> Face:
    """A face with the middle between its eyes at (x, y), turned clockwise."""
    turn = np.exp(1j * np.radians(degrees))
    places = (UPRIGHT[:, 0] + 1j * UPRIGHT[:, 1]) * turn * eye_distance + complex(x, y)
    landmarks = tuple((float(place.real), float(place.imag)) for place in places)
    left, top, side = x - 1.2 * eye_distance, y - 0.9 * eye_distance, 2.4 * eye_distance
    return Face((left, top, left + side, top + side), landmarks, 0.99)  # type: ignore[arg-type]


def draw_faces(width: int, height: int, faces: Sequence[Face], mode: str = "RGB", dot: float = 0.12) -> Image.Image:
    """A grey picture with a dot at each landmark, its radius ``dot`` eye distances; drawn large, then made small."""
    image = Image.new("L", (4 * width, 4 * height), GREY)
    pen = ImageDraw.Draw(image)
    for face in faces:
        radius = 4 * dot * float(np.hypot(*np.subtract(face.landmarks[1], face.landmarks[0])))
        for x, y in face.landmarks:
            pen.ellipse((4 * x - radius, 4 * y - radius, 4 * x + radius, 4 * y + radius), fill=DOT)
    return image.resize((width, height), Image.Resampling.BOX).convert(mode)


class KnownFaces:
    """A finder that is told where faces are, by the picture's size (width, height); elsewhere it finds none."""

    def __init__(self, faces: Mapping[tuple[int, int], Sequence[Face]], identity: str = "known") -> None:
        self._faces = faces
        self.identity = identity
        self.arrays: dict[str, Array] = {}
        self.searched: list[tuple[int, int]] = []
        self.together: list[int] = []
        """Numbers of pictures that were searched together."""
        self.rests = 0

    def find(self, picture: Image.Image) -> list[Face]:
        assert picture.mode in ("L", "RGB")
        self.searched.append(picture.size)
        return list(self._faces.get(picture.size, []))

    def find_in_each(self, pictures: Sequence[Image.Image]) -> list[list[Face]]:
        self.together.append(len(pictures))
        return [self.find(picture) for picture in pictures]

    def rest(self) -> None:
        self.rests += 1
