"""The face finder: a cascade of three networks, each of which looks closer at what the one before let through.

MTCNN: Zhang, Zhang, Li, Qiao, "Joint Face Detection and Alignment Using Multitask Cascaded Convolutional Networks",
2016, arXiv:1604.02878, with the thresholds of the authors' program. Unlike there, the last network runs twice (see
``FaceFinder``), and a photo without a certain face is searched again with a border and rotated.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image

from facecnn.arrays import Float32Array, Float64Array, Int64Array, UInt8Array
from facecnn.faces.boxes import Boxes, shifted, squares, suppress
from facecnn.faces.nets import CELL, NETS, STRIDE, Nets, face_probability
from facecnn.faces.pyramid import Piece, Pyramid, fill_tiles, level_scales, pack, windows_of
from facecnn.photos.face import Face

FINDER_VERSION = 2
"""Part of ``identity``: raise it whenever other faces, or other positions, may be found."""

SMALLEST_FACE = 20
"""Minimum width of a face in pixels."""

SMALLEST_SHARE = 1 / 20
"""Minimum width of a face as a fraction of the photo's shorter side."""

BORDER = 1 / 4
"""Border around a photo without a certain face, as a fraction of the shorter side, for faces that fill the photo."""

SURE = 0.97
"""A photo with a better score isn't searched again. Some faces on their side or upside down are found as upright ones,
but hardly any with such a score (docs/FACES.md)."""

_PROPOSED, _REFINED, _FOUND = 0.6, 0.7, 0.8
"""Minimum probability of a face for a candidate to pass each network."""

_WITHIN_LEVEL, _OVER_LEVELS, _AFTER_REFINING, _AFTER_FINDING = 0.5, 0.7, 0.7, 0.7
"""Overlaps above which the worse of two candidates is dropped; the last one is relative to the smaller box."""

_SWAPPED = [1, 0, 2, 4, 3]
"""The order of a mirrored face's landmarks."""


@dataclass(frozen=True)
class _Faces:
    """Faces in one picture, most certain first."""

    boxes: Boxes
    landmarks: Float64Array
    """(n, 5, 2)"""
    scores: Float32Array


class FaceFinder:
    """Finds faces and landmarks in photos: a ``facecnn.photos.face.Finder``. Thread-safe; never runs on a card.

    - Faces are found from 20 pixels and 1/20 of the photo's shorter side up to the whole photo. So a large photo is
      shrunk first (a phone's to about 400 to 800 pixels), which takes most of the time.
    - The O-Net runs again on the square around each face's final box, and on its mirror image. Landmarks are the mean
      of these two, the score is the mean of all three: a single pass is far off now and then (docs/FACES.md).
    - If no face is certain, the photo is searched again with a border that repeats its edge, upright and rotated by 90,
      270 and 180 degrees. The search with the most certain face wins.
    """

    def __init__(self, arrays: Mapping[str, Float32Array], threads: int | None = None, device: str = "cpu") -> None:
        """
        Args:
            arrays: those of ``facecnn.faces.weights.installed_arrays``, or of a model that was trained with them.
            threads: as for ``facecnn.kernels.open_device``; the faces found don't depend on it.
            device: ``cpu``, or ``reference``, which starts sooner, but is ten times slower, and rounds differently.

        Raises:
            CheckpointError: the arrays don't fit the three networks.
        """
        self._nets = Nets(arrays, threads, device)
        self._crop_squares: Callable[..., None] | None = None
        self._collect: Callable[..., None] | None = None
        self._mark_kept: Callable[..., None] | None = None
        if device == "cpu":
            # Not for the reference: they would load Numba.
            from facecnn.kernels.cpu.candidates import collect, mark_kept
            from facecnn.kernels.cpu.crop_squares import crop_squares

            self._crop_squares, self._collect, self._mark_kept = crop_squares, collect, mark_kept
        self.arrays: dict[str, Float32Array] = {name: np.array(arrays[name], np.float32) for name in sorted(arrays)}
        rounding = "" if device == "cpu" else f" {device}"
        digest = hashlib.sha256(f"{FINDER_VERSION}{rounding}".encode())
        for name, array in self.arrays.items():
            digest.update(f"\0{name}\0".encode() + array.astype("<f4").tobytes())
        self.identity = digest.hexdigest()
        """Hash of the arrays, of this module's version, and of the device if it isn't ``cpu``."""

    def find(self, picture: UInt8Array | Image.Image) -> list[Face]:
        """The faces in an upright picture, most certain first; there may be none. All threads search it together.

        ``picture``: (height, width, 3) uint8 RGB, or an image of mode L or RGB.
        """
        return self._find([picture])[0]

    def find_in_each(self, pictures: Sequence[UInt8Array | Image.Image]) -> list[list[Face]]:
        """``find`` for each picture, all on one processor, beside other callers.

        Pictures that are searched together take less time than one after the other: a network is called once for all.
        After each call a thread waits until no other one runs Python.
        """
        return self._nets.beside_others(lambda: self._find(pictures))

    def _find(self, pictures: Sequence[UInt8Array | Image.Image]) -> list[list[Face]]:
        shrunk = [_shrunk(picture) for picture in pictures]
        uprights = self._search([_View(picture.image) for picture in shrunk], shrunk)
        return [
            faces if _is_sure(faces) else self._search_again(picture, faces)
            for picture, faces in zip(shrunk, uprights, strict=True)
        ]

    def _search_again(self, picture: "_Shrunk", upright: list[Face]) -> list[Face]:
        """The faces of a picture of which none is certain, out of those found ``upright`` and in its other views."""
        best = upright
        for view in _further_views(picture.image):
            (faces,) = self._search([view], [picture])
            if faces and (not best or faces[0].score > best[0].score):
                best = faces
            if _is_sure(best) and not view.turned:
                break
        return best

    def run_blank(self) -> None:
        """Run the networks, and what feeds them, on a blank picture, so that everything is compiled."""
        picture = Pyramid(Image.new("RGB", (CELL * 4, CELL * 4)), self._crop_squares)
        self._propose([picture], [SMALLEST_FACE])
        square, score = np.array([[0.0, 0.0, CELL, CELL]]), np.ones(1, np.float32)
        for name, net in NETS.items():
            self._nets.run(name, picture.crops(square, net.side))
        suppress(square, score, _AFTER_REFINING, mark=self._mark_kept)
        self.rest()

    def rest(self) -> None:
        """End the threads, which slow down kernels elsewhere while they exist; ``find`` restarts them."""
        self._nets.rest()

    def _search(self, views: Sequence["_View"], pictures: Sequence["_Shrunk"]) -> list[list[Face]]:
        """The faces in a view of each picture, most certain first."""
        pyramids = [Pyramid(view.image, self._crop_squares) for view in views]
        boxes, places = self._propose(pyramids, [picture.smallest for picture in pictures])
        shifts, logits = self._nets.run("rnet", _crops(pyramids, boxes, places, "rnet"))
        boxes, scores, places = _sure(shifted(boxes, shifts), face_probability(logits), places, _REFINED)
        kept = suppress(boxes, scores, _AFTER_REFINING, groups=places, mark=self._mark_kept)
        boxes, places = squares(boxes[kept]), places[kept]
        shifts, _, logits = self._nets.run("onet", _crops(pyramids, boxes, places, "onet"))
        boxes, scores, places = _sure(shifted(boxes, shifts), face_probability(logits), places, _FOUND)
        kept = suppress(boxes, scores, _AFTER_FINDING, of_smaller=True, groups=places, mark=self._mark_kept)
        found = self._look_again(pyramids, boxes[kept], scores[kept], places[kept])
        return [
            view.faces(faces, picture.shrinkage) for view, faces, picture in zip(views, found, pictures, strict=True)
        ]

    def _propose(self, pictures: Sequence[Pyramid], smallest: Sequence[float]) -> tuple[Boxes, Int64Array]:
        """Squares (n, 4) in which the P-Net sees a face, and in which of the pictures each of them is, ascending."""
        scales: list[Float64Array] = []
        tiles: list[UInt8Array] = []
        windows: list[Int64Array] = []
        picture_of: list[int] = []
        """(levels of all pictures,)"""
        for place, (picture, least) in enumerate(zip(pictures, smallest, strict=True)):
            levels = _levels(*picture.size, least)
            # Tiles of its own: the last bits of the P-Net's outputs depend on where a piece lies.
            first_tile = sum(len(before) for before in tiles)
            windows.append(levels.windows + np.array([len(picture_of), 0, 0, first_tile, 0, 0, 0, 0]))
            shrunk = [picture.resized(*size) for size in levels.sizes]
            tiles.append(fill_tiles(shrunk, levels.pieces, NETS["pnet"].side))
            scales.append(levels.scales)
            picture_of += [place] * len(levels.sizes)
        shifts, logits = self._nets.run("pnet", np.concatenate(tiles))
        boxes, scores, of_level = self._candidates(
            np.concatenate(windows), face_probability(logits), shifts, np.concatenate(scales)
        )
        kept = suppress(boxes, scores, _WITHIN_LEVEL, groups=of_level, mark=self._mark_kept)
        boxes, scores, places = boxes[kept], scores[kept], np.array(picture_of, np.int64)[of_level[kept]]
        kept = suppress(boxes, scores, _OVER_LEVELS, groups=places, mark=self._mark_kept)
        return squares(boxes[kept]), places[kept]

    def _candidates(
        self, windows: Int64Array, probabilities: Float32Array, shifts: Float32Array, scales: Float64Array
    ) -> tuple[Boxes, Float32Array, Int64Array]:
        """Boxes (n, 4) in which the P-Net sees a face, in pixels of the picture, their probabilities and levels.

        ``probabilities``: (tiles, rows, columns); ``shifts``: (tiles, rows, columns, 4)
        """
        most = np.count_nonzero(probabilities > np.float32(_PROPOSED))
        boxes, scores, of_level = np.empty((most, 4)), np.empty(most, np.float32), np.full(most, -1)
        collect = self._collect or _collect
        collect(boxes, scores, of_level, probabilities, shifts, windows, scales, _PROPOSED, CELL, STRIDE)
        found = slice(np.count_nonzero(of_level >= 0))
        return boxes[found], scores[found], of_level[found]

    def _look_again(
        self, pictures: Sequence[Pyramid], boxes: Boxes, scores: Float32Array, places: Int64Array
    ) -> list[_Faces]:
        """A second pass of the O-Net, for landmarks and steadier scores: the faces of each picture."""
        around = squares(boxes)
        crops = _crops(pictures, around, places, "onet")
        _, numbers, logits = self._nets.run("onet", np.concatenate([crops, crops[:, :, ::-1]]))
        own, mirrored = np.float64(numbers).reshape(2, -1, 2, 5).swapaxes(2, 3)  # (n, 5, 2), relative to the square
        mirrored = mirrored[:, _SWAPPED] * (-1, 1) + (1, 0)
        side = (around[:, 2:] - around[:, :2])[:, None]
        landmarks = around[:, None, :2] + (own + mirrored) / 2 * side
        scores = (scores + face_probability(logits).reshape(2, -1).sum(axis=0)) / 3
        order = np.lexsort((-scores, places))
        order = order[scores[order] > _FOUND]
        parts = np.split(order, np.searchsorted(places[order], np.arange(1, len(pictures))))
        return [_Faces(boxes[part], landmarks[part], scores[part]) for part in parts]


@dataclass(frozen=True)
class _Shrunk:
    """A picture at the size at which it is searched."""

    image: Image.Image
    """Mode RGB."""
    shrinkage: int
    """Pixels of the photo that became one, along a side."""
    smallest: float
    """Minimum width of a face in pixels of ``image``."""


def _shrunk(picture: UInt8Array | Image.Image) -> _Shrunk:
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(np.ascontiguousarray(picture))
    smallest = max(SMALLEST_FACE, SMALLEST_SHARE * min(image.size))
    shrinkage = int(smallest // SMALLEST_FACE)
    if shrinkage > 1:
        image = image.reduce(shrinkage)
    return _Shrunk(image if image.mode == "RGB" else image.convert("RGB"), shrinkage, smallest / shrinkage)


def _is_sure(faces: Sequence[Face]) -> bool:
    return bool(faces) and faces[0].score > SURE


def _crops(pictures: Sequence[Pyramid], boxes: Boxes, places: Int64Array, net: str) -> UInt8Array:
    """Squares ``boxes`` (n, 4) of pictures, as a network's input; ``places`` (n,), ascending: the picture of each."""
    edges = np.searchsorted(places, np.arange(len(pictures) + 1)).tolist()
    parts = zip(pictures, edges, edges[1:], strict=False)
    return np.concatenate([picture.crops(boxes[start:stop], NETS[net].side) for picture, start, stop in parts])


@dataclass(frozen=True)
class _Levels:
    """The levels of a picture's pyramid, and how they are packed on tiles."""

    scales: Float64Array
    """(levels,)"""
    sizes: list[tuple[int, int]]
    """(levels,) width and height"""
    pieces: list[Piece]
    windows: Int64Array
    """``windows_of`` the pieces"""


@lru_cache(maxsize=64)
def _levels(width: int, height: int, smallest: float) -> _Levels:
    """The levels of a picture. Photos of an album often have the same size."""
    scales = level_scales(min(width, height), smallest)
    sizes = [(int(width * scale), int(height * scale)) for scale in scales]
    pieces = pack([(rows, columns) for columns, rows in sizes], NETS["pnet"].side)
    return _Levels(np.array(scales), sizes, pieces, windows_of(pieces))


def _collect(
    boxes: Boxes,
    scores: Float32Array,
    levels: Int64Array,
    probabilities: Float32Array,
    shifts: Float32Array,
    windows: Int64Array,
    scales: Float64Array,
    least: float,
    cell: int,
    stride: int,
) -> None:
    """``facecnn.kernels.cpu.candidates.collect`` with NumPy."""
    first = 0
    for level, top, left, tile, first_row, first_column, rows, columns in windows.tolist():
        part = (tile, slice(first_row, first_row + rows), slice(first_column, first_column + columns))
        row, column = np.nonzero(probabilities[part] > np.float32(least))
        corner = np.stack([column * stride + left, row * stride + top], axis=1)
        fields = np.concatenate([corner, corner + cell], axis=1).astype(np.float64)
        found = slice(first, first + len(row))
        boxes[found] = shifted(fields, shifts[part][row, column]) / scales[level]
        scores[found], levels[found] = probabilities[part][row, column], level
        first += len(row)


def _sure(
    boxes: Boxes, scores: Float32Array, places: Int64Array, least: float
) -> tuple[Boxes, Float32Array, Int64Array]:
    sure = scores > least
    return boxes[sure], scores[sure], places[sure]


@dataclass(frozen=True)
class _View:
    """One view of a picture, and the way back to the picture's coordinates."""

    image: Image.Image
    border: int = 0
    """Grey pixels on each side."""
    turned: int = 0
    """Degrees, anticlockwise."""

    def faces(self, found: _Faces, shrinkage: int) -> list[Face]:
        """The faces found in this view, in pixels of the photo before it was shrunk."""
        corners = self._upright(found.boxes.reshape(-1, 2, 2)) * shrinkage
        boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
        landmarks = self._upright(found.landmarks) * shrinkage
        return [
            Face(tuple(box), tuple(map(tuple, points)), score, self.turned)  # type: ignore[arg-type]
            for box, points, score in zip(boxes.tolist(), landmarks.tolist(), found.scores.tolist(), strict=True)
        ]

    def _upright(self, points: Float64Array) -> Float64Array:
        """Float64Array (..., 2) of this view in coordinates of the picture."""
        width, height = self.image.size
        for _ in range(self.turned // 90):  # rotate back, clockwise
            points = np.stack([height - points[..., 1], points[..., 0]], axis=-1)
            width, height = height, width
        return points - self.border


def _further_views(image: Image.Image) -> Iterator[_View]:
    """The views of a picture in which no face is certain, in the order in which they are searched."""
    border = round(BORDER * min(image.size))
    padded = np.pad(np.asarray(image), ((border, border), (border, border), (0, 0)), mode="edge")
    bordered = Image.fromarray(padded)
    yield _View(bordered, border)
    yield _View(bordered.transpose(Image.Transpose.ROTATE_90), border, 90)
    yield _View(bordered.transpose(Image.Transpose.ROTATE_270), border, 270)
    yield _View(bordered.transpose(Image.Transpose.ROTATE_180), border, 180)
