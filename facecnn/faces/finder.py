"""The face finder: a cascade of three networks, each of which looks closer at what the one before let through.

MTCNN: Zhang, Zhang, Li, Qiao, "Joint Face Detection and Alignment Using Multitask Cascaded Convolutional Networks",
2016, arXiv:1604.02878, with the thresholds of the authors' program. Unlike there, the last network runs twice (see
``FaceFinder``), and a photo without a certain face is searched again with a border and rotated.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
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

    def find(self, picture: UInt8Array | Image.Image, *, alone: bool = True) -> list[Face]:
        """The faces in an upright picture, most certain first; there may be none.

        Args:
            picture: (height, width, 3) uint8 RGB, or an image of mode L or RGB.
            alone: whether no other picture is searched at the same time; otherwise this one is searched on one
                processor.
        """
        image = picture if isinstance(picture, Image.Image) else Image.fromarray(np.ascontiguousarray(picture))
        return self._find(image) if alone else self._nets.beside_others(lambda: self._find(image))

    def _find(self, image: Image.Image) -> list[Face]:
        smallest = max(SMALLEST_FACE, SMALLEST_SHARE * min(image.size))
        shrinkage = int(smallest // SMALLEST_FACE)
        if shrinkage > 1:
            image = image.reduce(shrinkage)
        if image.mode != "RGB":
            image = image.convert("RGB")
        best: list[Face] = []
        for view in _views(image):
            faces = view.faces(self._search(Pyramid(view.image, self._crop_squares), smallest / shrinkage), shrinkage)
            if faces and (not best or faces[0].score > best[0].score):
                best = faces
            if best and best[0].score > SURE and not view.turned:
                break
        return best

    def run_blank(self) -> None:
        """Run the networks, and what they are fed by, on a blank picture, so that all is compiled."""
        picture = Pyramid(Image.new("RGB", (CELL * 4, CELL * 4)), self._crop_squares)
        self._propose(picture, SMALLEST_FACE)
        square, score = np.array([[0.0, 0.0, CELL, CELL]]), np.ones(1, np.float32)
        for name, net in NETS.items():
            self._nets.run(name, picture.crops(square, net.side))
        suppress(square, score, _AFTER_REFINING, mark=self._mark_kept)
        self.rest()

    def rest(self) -> None:
        """End the threads, which slow down kernels elsewhere while they exist; ``find`` restarts them."""
        self._nets.rest()

    def _search(self, picture: Pyramid, smallest: float) -> _Faces:
        boxes = self._propose(picture, smallest)
        shifts, logits = self._nets.run("rnet", picture.crops(boxes, NETS["rnet"].side))
        boxes, scores = _sure(shifted(boxes, shifts), face_probability(logits), _REFINED)
        boxes = squares(boxes[suppress(boxes, scores, _AFTER_REFINING, mark=self._mark_kept)])
        shifts, _, logits = self._nets.run("onet", picture.crops(boxes, NETS["onet"].side))
        boxes, scores = _sure(shifted(boxes, shifts), face_probability(logits), _FOUND)
        kept = suppress(boxes, scores, _AFTER_FINDING, of_smaller=True, mark=self._mark_kept)
        return self._look_again(picture, boxes[kept], scores[kept])

    def _propose(self, picture: Pyramid, smallest: float) -> Boxes:
        """Squares (n, 4) in which the P-Net sees a face."""
        scales, sizes, pieces, windows = _levels(*picture.size, smallest)
        if not sizes:
            return np.empty((0, 4))
        levels = [picture.resized(*size) for size in sizes]
        shifts, logits = self._nets.run("pnet", fill_tiles(levels, pieces, NETS["pnet"].side))
        found = self._candidates(windows, face_probability(logits), shifts, scales)
        boxes, probabilities, of_level = found
        kept = suppress(boxes, probabilities, _WITHIN_LEVEL, groups=of_level, mark=self._mark_kept)
        boxes, probabilities = boxes[kept], probabilities[kept]
        return squares(boxes[suppress(boxes, probabilities, _OVER_LEVELS, mark=self._mark_kept)])

    def _candidates(
        self, windows: Int64Array, probabilities: Float32Array, shifts: Float32Array, scales: Float64Array
    ) -> tuple[Boxes, Float32Array, Int64Array]:
        """Boxes (n, 4) in which the P-Net sees a face, in pixels of the picture, their probabilities and levels.

        ``probabilities``: (tiles, rows, columns); ``shifts``: (tiles, rows, columns, 4)
        """
        most = np.count_nonzero(probabilities > np.float32(_PROPOSED))
        boxes, scores, levels = np.empty((most, 4)), np.empty(most, np.float32), np.full(most, -1)
        collect = self._collect or _collect
        collect(boxes, scores, levels, probabilities, shifts, windows, scales, _PROPOSED, CELL, STRIDE)
        found = slice(np.count_nonzero(levels >= 0))
        return boxes[found], scores[found], levels[found]

    def _look_again(self, picture: Pyramid, boxes: Boxes, scores: Float32Array) -> _Faces:
        """A second pass of the O-Net, for landmarks and steadier scores."""
        around = squares(boxes)
        crops = picture.crops(around, NETS["onet"].side)
        _, numbers, logits = self._nets.run("onet", np.concatenate([crops, crops[:, :, ::-1]]))
        own, mirrored = np.float64(numbers).reshape(2, -1, 2, 5).swapaxes(2, 3)  # (n, 5, 2), relative to the square
        mirrored = mirrored[:, _SWAPPED] * (-1, 1) + (1, 0)
        side = (around[:, 2:] - around[:, :2])[:, None]
        landmarks = around[:, None, :2] + (own + mirrored) / 2 * side
        scores = (scores + face_probability(logits).reshape(2, -1).sum(axis=0)) / 3
        order = np.argsort(-scores, kind="stable")
        order = order[scores[order] > _FOUND]
        return _Faces(boxes[order], landmarks[order], scores[order])


@lru_cache(maxsize=64)
def _levels(
    width: int, height: int, smallest: float
) -> tuple[Float64Array, list[tuple[int, int]], list[Piece], Int64Array]:
    """The levels of a picture's pyramid: scales, sizes (width, height), pieces and ``windows_of`` these. Photos of an
    album often have the same size."""
    scales = level_scales(min(width, height), smallest)
    sizes = [(int(width * scale), int(height * scale)) for scale in scales]
    pieces = pack([(rows, columns) for columns, rows in sizes], NETS["pnet"].side)
    return np.array(scales), sizes, pieces, windows_of(pieces)


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


def _sure(boxes: Boxes, scores: Float32Array, least: float) -> tuple[Boxes, Float32Array]:
    sure = scores > least
    return boxes[sure], scores[sure]


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


def _views(image: Image.Image) -> Iterator[_View]:
    """The views of a picture, in the order in which they are searched."""
    yield _View(image)
    border = round(BORDER * min(image.size))
    padded = np.pad(np.asarray(image), ((border, border), (border, border), (0, 0)), mode="edge")
    bordered = Image.fromarray(padded)
    yield _View(bordered, border)
    yield _View(bordered.transpose(Image.Transpose.ROTATE_90), border, 90)
    yield _View(bordered.transpose(Image.Transpose.ROTATE_270), border, 270)
    yield _View(bordered.transpose(Image.Transpose.ROTATE_180), border, 180)
