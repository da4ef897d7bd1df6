"""Cuts a photo to what is stored, and the settings for it: the geometry from a decoded picture to the network's input.

A photo is stored with a margin around the window that the network sees, so that shifts, zooms and rotations find real
pixels beyond the window. Without augmentation the network sees exactly the window.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Literal

import numpy as np
from PIL import Image
from pydantic import Field, ValidationInfo, field_validator
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError

from facecnn.arrays import Float64Array, UInt8Array
from facecnn.photos.chip import CHIP_VERSION, LANDMARKS, SIDE, chip_scale, face_chip, similarity
from facecnn.photos.face import Face
from facecnn.settings import SETTINGS, UNFIT

PREPARATION_VERSION = 3
"""Part of the cache's key: raise it whenever the pixels of a crop change."""

MARGIN = 0.25
"""Margin on each edge, as a fraction of the side. The default augmentation (a shift of 6 %, a zoom of 10 % and a
rotation by 8 degrees, all at once) reaches about 18 % beyond the window at its corners."""

ARCFACE = np.array([(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)])
"""Eyes, tip of the nose and corners of the mouth of an upright face, each as (x, y): the five points to which ArcFace's
crops of 112x112 pixels are aligned (Deng et al. 2019, arXiv:1801.07698; ``arcface_src`` in its code). Only their shape
matters here."""

EYE_HEIGHT = 0.36
"""Distance of the eyes from the top, as a fraction of the window's height: brows to chin fill the window."""

MOST_SAMPLES = 8
"""A picture that would need at least twice as many samples per side of a stored pixel is averaged first."""

_HIDDEN = 128
"""Grey of a hidden face."""

_Side = Annotated[int, Field(ge=4, le=1024)]


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class AugmentSettings:
    """How much a photo is changed at random each time it is trained on."""

    mirror: bool = Field(default=True, description="show half of the photos mirrored, left to right")
    shift: float = Field(
        default=0.06, ge=0, le=0.5, description="largest shift in either direction, as a fraction of the side"
    )
    zoom: float = Field(default=0.1, ge=0, le=0.5, description="largest zoom in or out, as a fraction")
    rotate: float = Field(default=8, ge=0, le=45, description="largest rotation either way, in degrees")
    gamma: float = Field(default=0.5, ge=0, le=2, description="gamma between e^-x and e^x, 0 for none")
    contrast: float = Field(default=0.3, ge=0, le=1, description="largest change of contrast, as a fraction")
    brightness: float = Field(
        default=0.2, ge=0, le=1, description="largest change of brightness, as a fraction of the full range"
    )
    blur: float = Field(default=0.2, ge=0, le=1, description="share of the photos that are blurred")
    erase: float = Field(
        default=0.3, ge=0, le=1, description="share of the photos that have a box of 15 to 45 % a side erased"
    )


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class SmallestFaceSettings:
    """Which faces count, by the longer side of their box. With 0 all faces found count: those of at least 20 pixels and
    at least a twentieth of the photo's shorter side (``facecnn.faces.finder``)."""

    share: float = Field(default=0.0, ge=0, le=1, description="of the photo's shorter side (default 0: any face found)")
    pixels: int = Field(default=0, ge=0, le=10_000, description="in the photo's own size (default 0: any face found)")


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class PhotoSettings:
    """Where the photos are and how one becomes the network's input."""

    folder: str | None = Field(
        default=None, min_length=1, description="folder with one folder of photos per person, or null: the argument"
    )
    faces: Literal["auto", "required", "off"] = Field(
        default="auto",
        description="auto: find and align where the extra faces is installed | required | off: the middle of the photo",
    )
    align: Literal["arcface", "dlib"] = Field(
        default="arcface",
        description="arcface | dlib: where the crop of a found face has eyes, nose and mouth (dlib: in a square only)",
    )
    eye_distance: float = Field(
        default=0.44,
        gt=0.1,
        le=1,
        description="between the eyes of a found face, as a fraction of the shorter side (ignored with align dlib)",
    )
    smallest_face: SmallestFaceSettings = Field(
        default=SmallestFaceSettings(),
        description="smaller faces, such as those of people in the background, are ignored",
    )
    hide_face: bool = Field(
        default=False, description="blank the face in the photo, to see what its surroundings alone give away"
    )
    crop: float = Field(
        default=0.6,
        gt=0,
        le=1,
        description="without face finding: the centre square that is kept, as a fraction of the shorter side",
    )
    size: _Side | Annotated[tuple[_Side, _Side], Field(strict=False)] = Field(
        default=48, description="pixels the network sees: the side of a square, or [height, width]"
    )
    colour: Literal["grey", "rgb"] = Field(default="grey", description="grey | rgb")
    largest_picture: int = Field(
        default=50,
        ge=1,
        le=89,  # above that Pillow warns whenever a part is cut out
        description="maximum megapixels of a picture (default 50); a JPEG may have 5 times as many, read at a fraction",
    )
    normalise: Literal["none", "standardise", "local_contrast"] = Field(
        default="local_contrast",
        description="none | standardise (photo: mean 0, standard deviation 1) | local_contrast (each place: the same)",
    )
    validation: float = Field(
        default=0.2, ge=0, lt=1, description="share of each person's photos that is held out for validation"
    )
    augment: AugmentSettings | None = Field(
        default=AugmentSettings(), description="random changes while training, or null for none"
    )

    @field_validator("size")
    @classmethod
    def _square_for_dlib(cls, size: int | tuple[int, int], info: ValidationInfo) -> int | tuple[int, int]:
        if info.data.get("align") == "dlib" and not isinstance(size, int) and size[0] != size[1]:
            text = "must be square with photos.align dlib, got [{height}, {width}]: take one number, such as 150"
            raise PydanticCustomError(UNFIT, text, {"height": size[0], "width": size[1]})
        return size

    @property
    def height(self) -> int:
        """Rows that the network sees."""
        return self.size if isinstance(self.size, int) else self.size[0]

    @property
    def width(self) -> int:
        """Columns that the network sees."""
        return self.size if isinstance(self.size, int) else self.size[1]

    @property
    def largest_pixels(self) -> int:
        """``largest_picture`` in pixels."""
        return self.largest_picture * 1_000_000

    @property
    def channels(self) -> int:
        """1 for grey, 3 for red, green and blue."""
        return 1 if self.colour == "grey" else 3

    @property
    def margin(self) -> tuple[int, int]:
        """Rows stored above and below the window, columns stored to the left and right of it.

        There are none with ``align`` dlib where nothing is augmented: at the 150 pixels a side that dlib's network
        wants, they would more than double the 67,500 bytes of a face.
        """
        if self.align == "dlib" and self.augment is None:
            return 0, 0
        return round(MARGIN * self.height), round(MARGIN * self.width)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of a photo as the network sees it: rows, columns, channels."""
        return self.height, self.width, self.channels

    @property
    def margin_shape(self) -> tuple[int, int, int]:
        """Shape of a stored photo: rows, columns, channels, with the margin on all four edges."""
        rows, columns = self.margin
        return self.height + 2 * rows, self.width + 2 * columns, self.channels

    def window(self, width: int, height: int) -> tuple[int, int, int, int]:
        """The part of an upright photo (width, height) that the network sees: left, top, right, bottom, in pixels."""
        scale = self.crop * min(width, height) / max(self.height, self.width)
        left, right = _centred(width, self.width * scale)
        top, bottom = _centred(height, self.height * scale)
        return round(left), round(top), round(right), round(bottom)

    def cropping(self, *, aligned: bool) -> dict[str, object]:
        """The settings that determine the stored pixels; ``aligned``: whether faces are found."""
        own: dict[str, object]
        if not aligned:
            own = {"crop": self.crop}
        elif self.align == "arcface":
            own = {"eye_distance": self.eye_distance}
        else:
            own = {"align": self.align, "align_version": CHIP_VERSION}
        if aligned:
            own |= {"hide_face": self.hide_face, "smallest_face": asdict(self.smallest_face)}
        common = ("largest_picture", "height", "width", "colour", "margin")
        return own | {name: getattr(self, name) for name in common}


def crop_with_margin(picture: UInt8Array | Image.Image, settings: PhotoSettings) -> UInt8Array:
    """Cut the middle out of a picture and resample it to the network's size plus the margin.

    The window is the largest one of the network's aspect ratio inside the centre square of ``crop`` times the shorter
    side. It is extended by the margin at the same scale; beyond the picture, the picture's border is repeated.

    Window and margin are resampled in one step with a Lanczos filter, which Pillow widens with the scale, so that there
    is no aliasing. Grey is ITU-R BT.601's luma, 0.299 R + 0.587 G + 0.114 B.

    ``picture``: upright picture, mode L or RGB, or uint8 of (rows, columns) or (rows, columns, 1 or 3). Returns uint8
    of ``settings.margin_shape``; ``without_margin`` gives the window.
    """
    image = as_image(picture)
    stored_rows, stored_columns, channels = settings.margin_shape
    scale = settings.crop * min(image.size) / max(settings.height, settings.width)  # photo pixels per stored pixel
    left, right = _centred(image.width, stored_columns * scale)
    top, bottom = _centred(image.height, stored_rows * scale)
    # Reach of the filter beyond the box.
    reach = math.ceil(3 * max(scale, 1.0)) + 1
    part, first_column, first_row = _with_border(image, (left, top, right, bottom), reach, channels)
    box = (left - first_column, top - first_row, right - first_column, bottom - first_row)
    stored = part.resize((stored_columns, stored_rows), Image.Resampling.LANCZOS, box=box)
    return np.asarray(stored, dtype=np.uint8).reshape(settings.margin_shape)


def aligned_crop(
    picture: UInt8Array | Image.Image, face: Face, settings: PhotoSettings, most_samples: int = MOST_SAMPLES
) -> UInt8Array:
    """Cut a face out of a picture so that eyes, nose and mouth are at the same positions in every crop.

    With ``hide_face`` the square around the face's box is blanked first: the box itself is as wide as the face, which
    would give away whose it is. With ``align`` dlib the crop is that of ``facecnn.photos.chip``.

    With ``align`` arcface, the similarity transform (rotation, scale, shift) that maps the face's landmarks to
    ``ARCFACE`` by least squares (Umeyama 1991) puts the eyes ``eye_distance`` apart and ``EYE_HEIGHT`` down. Beyond the
    picture its border is repeated. Each stored pixel is the mean of k x k bicubic samples, where k is the scale rounded
    up, against aliasing.

    Args:
        picture: upright picture, mode L or RGB, or uint8 of (rows, columns) or (rows, columns, 1 or 3).
        most_samples: with ``align`` arcface, a picture that would need at least twice as many of them a side is
            averaged first, so that it needs at least as many.

    Returns:
        uint8 of ``settings.margin_shape``; ``without_margin`` gives the window.
    """
    image = as_image(picture)
    if settings.hide_face:
        image = image.copy()
        image.paste((_HIDDEN,) * len(image.getbands()), _square_around(face))
    if settings.align == "dlib":
        return face_chip(image, face, settings.height, settings.margin[0], "L" if settings.colour == "grey" else "RGB")
    rows, columns, channels = settings.margin_shape
    to_photo, origin = _to_photo(face, settings)
    scale = _scale(to_photo)
    corners = origin + np.array([(0, 0), (columns, 0), (0, rows), (columns, rows)]) @ to_photo.T
    bounds = (*corners.min(axis=0).tolist(), *corners.max(axis=0).tolist())
    reduction = max(1, int(scale / most_samples))
    part, first_column, first_row = _with_border(image, bounds, 3 * reduction, channels)
    if reduction > 1:  # a huge photo: average first
        part = part.reduce(reduction)
    samples = max(1, math.ceil(scale / reduction))
    step = to_photo / (samples * reduction)
    shift = (origin - (first_column, first_row)) / reduction
    data = (step[0, 0], step[0, 1], shift[0], step[1, 0], step[1, 1], shift[1])
    size = (columns * samples, rows * samples)
    sampled = part.transform(size, Image.Transform.AFFINE, data, Image.Resampling.BICUBIC)
    return np.asarray(sampled.reduce(samples), dtype=np.uint8).reshape(settings.margin_shape)


def landmark_template(settings: PhotoSettings) -> Float64Array:
    """Where the eyes, the nose and the corners of the mouth of a found face come to lie in its crop.

    Returns (5, 2): x and y in stored pixels, margin included, from the crop's top left corner.
    """
    margin_rows, margin_columns = settings.margin
    if settings.align == "dlib":
        return np.asarray(LANDMARKS * settings.height / SIDE + (margin_columns, margin_rows))
    between_eyes = float(np.hypot(*(ARCFACE[1] - ARCFACE[0])))
    shape = (ARCFACE - ARCFACE[:2].mean(axis=0)) / between_eyes
    template = shape * settings.eye_distance * min(settings.height, settings.width)
    template += (margin_columns + settings.width / 2, margin_rows + EYE_HEIGHT * settings.height)
    return np.asarray(template)


def crop_scale(face: Face, settings: PhotoSettings) -> float:
    """Pixels of the picture for each pixel of the face's crop, along a side."""
    if settings.align == "dlib":
        return chip_scale(face, settings.height)
    to_photo, _ = _to_photo(face, settings)
    return _scale(to_photo)


def face_sharpness(picture: Image.Image, faces: Sequence[Face], most_samples: int = MOST_SAMPLES) -> list[float]:
    """Sharpness of each face in a picture, independent of the settings; see ``sharpness`` and ``aligned_crop``."""
    crops = [aligned_crop(picture, face, _FOR_SHARPNESS, most_samples) for face in faces]
    return [float(sharp) for sharp in sharpness(without_margin(np.stack(crops), _FOR_SHARPNESS))]


def without_margin(stored: UInt8Array, settings: PhotoSettings) -> UInt8Array:
    """What the network sees of stored photos (..., rows, columns, channels) without augmentation: a view of them."""
    rows, columns = settings.margin
    return stored[..., rows : rows + settings.height, columns : columns + settings.width, :]


def sharpness(pictures: UInt8Array) -> Float64Array:
    """Variance of the Laplacian (Pech-Pacheco et al. 2000) over that of the grey values, so that low contrast doesn't
    count as blur; 0 for a uniform picture.

    Args:
        pictures: (n, rows, columns, channels)

    Returns:
        (n,)
    """
    grey = pictures.mean(axis=3, dtype=np.float32)
    laplacian = -4 * grey[:, 1:-1, 1:-1]
    laplacian += grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:]
    contrast = grey.var(axis=(1, 2), dtype=np.float64)
    return np.asarray(laplacian.var(axis=(1, 2), dtype=np.float64) / np.maximum(contrast, 1.0))


_FOR_SHARPNESS = PhotoSettings()


def _square_around(face: Face) -> tuple[int, int, int, int]:
    """The box of a face, extended to a square around its middle, in whole pixels."""
    left, top, right, bottom = face.box
    half = max(right - left, bottom - top) / 2
    x, y = (left + right) / 2, (top + bottom) / 2
    return math.floor(x - half), math.floor(y - half), math.ceil(x + half), math.ceil(y + half)


def _to_photo(face: Face, settings: PhotoSettings) -> tuple[Float64Array, Float64Array]:
    """Matrix and origin of the similarity that takes stored pixels, margin included, to the photo's."""
    return similarity(landmark_template(settings), np.array(face.landmarks))


def _scale(similarity: Float64Array) -> float:
    """By how much the matrix of a similarity lengthens."""
    return float(np.hypot(similarity[0, 0], similarity[1, 0]))


def _with_border(
    image: Image.Image, bounds: tuple[float, ...], reach: int, channels: int
) -> tuple[Image.Image, int, int]:
    """Cut a part out of a picture, as grey or RGB, with the picture's border repeated beyond it.

    ``bounds``: left, top, right, bottom; ``reach``: pixels to add on each side; ``channels``: 1 for grey, 3 for RGB.
    Returns the part, and the column and row of the picture at which it begins.
    """
    first_column, first_row = (math.floor(edge) - reach for edge in bounds[:2])
    end_column, end_row = (math.ceil(edge) + reach for edge in bounds[2:])
    # At least the nearest row and column, for a part that lies wholly beyond the picture.
    inside = (
        min(max(first_column, 0), image.width - 1),
        min(max(first_row, 0), image.height - 1),
        max(min(end_column, image.width), 1),
        max(min(end_row, image.height), 1),
    )
    part = np.asarray(image.crop(inside).convert("L" if channels == 1 else "RGB"))
    beyond = [(inside[1] - first_row, end_row - inside[3]), (inside[0] - first_column, end_column - inside[2]), (0, 0)]
    padded = np.pad(part, [(max(before, 0), max(after, 0)) for before, after in beyond[: part.ndim]], mode="edge")
    return Image.fromarray(padded), first_column, first_row


def _centred(length: int, extent: float) -> tuple[float, float]:
    return (length - extent) / 2, (length + extent) / 2


def as_image(picture: UInt8Array | Image.Image) -> Image.Image:
    """A picture of mode L or RGB, or uint8 of (rows, columns) or (rows, columns, 1 or 3), as an image of Pillow."""
    if isinstance(picture, Image.Image):
        return picture
    pixels = picture
    return Image.fromarray(pixels[:, :, 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels)
