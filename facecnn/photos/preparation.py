"""What is cut out of a photo, and the settings for it: the geometry between a decoded picture and the network's input.

A photo is stored with a margin around the window that the network sees, so that shifts, zooms and rotations find real
pixels beyond the window's edges. Without augmentation the network sees exactly the window.
"""

import math
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import Field
from pydantic.dataclasses import dataclass

from facecnn.settings import SETTINGS

PREPARATION_VERSION = 1
"""Part of the cache's key: raise it whenever ``crop_with_margin`` gives other pixels than before."""

MARGIN = 0.25
"""The margin on each edge, as a fraction of the side. The default augmentation (a shift of 6 %, a zoom of 10 % and a
rotation by 8 degrees, all at once) reaches about 18 % beyond the window at its corners."""

_Side = Annotated[int, Field(ge=4, le=1024)]


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class AugmentSettings:
    """How much a photo is changed at random each time it is trained on."""

    mirror: bool = Field(default=True, description="show half of the photos mirrored, left to right")
    shift: float = Field(
        default=0.06,
        ge=0,
        le=0.5,
        description="largest shift in either direction, as a fraction of the side",
    )
    zoom: float = Field(default=0.1, ge=0, le=0.5, description="largest zoom in or out, as a fraction")
    rotate: float = Field(default=8, ge=0, le=45, description="largest rotation either way, in degrees")
    gamma: float = Field(
        default=0.5,
        ge=0,
        le=2,
        description="gamma between e^-x and e^x, 0 for none",
    )
    contrast: float = Field(
        default=0.3,
        ge=0,
        le=1,
        description="largest change of contrast, as a fraction",
    )
    brightness: float = Field(
        default=0.2,
        ge=0,
        le=1,
        description="largest change of brightness, as a fraction of the full range",
    )
    blur: float = Field(default=0.2, ge=0, le=1, description="share of the photos that are blurred")
    erase: float = Field(
        default=0.3,
        ge=0,
        le=1,
        description="share of the photos that have a box of 15 to 45 % a side erased",
    )


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class PhotoSettings:
    """Where the photos are and how one becomes the network's input."""

    folder: str | None = Field(
        default=None, min_length=1, description="folder with one folder of photos per person, or null: the argument"
    )
    faces: Literal["auto", "required", "off"] = Field(
        default="auto", description="auto | off: the middle of the photo; required: this version can't find faces"
    )
    crop: float = Field(
        default=0.6,
        gt=0,
        le=1,
        description="side of the centre square that is kept, as a fraction of the photo's shorter side",
    )
    size: _Side | Annotated[tuple[_Side, _Side], Field(strict=False)] = Field(
        default=48, description="pixels the network sees: the side of a square, or [height, width]"
    )
    colour: Literal["grey", "rgb"] = Field(default="grey", description="grey | rgb")
    normalise: Literal["none", "standardise", "local_contrast"] = Field(
        default="local_contrast",
        description="none | standardise (mean 0, deviation 1 for each photo) | local_contrast (the same in each place)",
    )
    validation: float = Field(
        default=0.2,
        ge=0,
        lt=1,
        description="share of each person's photos that is kept out of training to judge by",
    )
    augment: AugmentSettings | None = Field(
        default=AugmentSettings(), description="random changes while training, or null for none"
    )

    @property
    def height(self) -> int:
        """Rows that the network sees."""
        return self.size if isinstance(self.size, int) else self.size[0]

    @property
    def width(self) -> int:
        """Columns that the network sees."""
        return self.size if isinstance(self.size, int) else self.size[1]

    @property
    def channels(self) -> int:
        """1 for grey, 3 for red, green and blue."""
        return 1 if self.colour == "grey" else 3

    @property
    def margin(self) -> tuple[int, int]:
        """Rows stored above and below the window, columns stored to the left and right of it."""
        return round(MARGIN * self.height), round(MARGIN * self.width)

    @property
    def margin_shape(self) -> tuple[int, int, int]:
        """Shape of a stored photo: rows, columns, channels, with the margin on all four edges."""
        rows, columns = self.margin
        return self.height + 2 * rows, self.width + 2 * columns, self.channels

    def window(self, width: int, height: int) -> tuple[int, int, int, int]:
        """The part of an upright photo of this size, in pixels, that the network sees: left, top, right, bottom."""
        scale = self.crop * min(width, height) / max(self.height, self.width)
        left, right = _centred(width, self.width * scale)
        top, bottom = _centred(height, self.height * scale)
        return round(left), round(top), round(right), round(bottom)

    @property
    def cropping(self) -> dict[str, object]:
        """The settings that decide about the stored pixels; with any other setting changed they stay as they are."""
        names = ("crop", "height", "width", "colour", "margin")
        return {name: getattr(self, name) for name in names}


def crop_with_margin(picture: npt.NDArray[np.uint8] | Image.Image, settings: PhotoSettings) -> npt.NDArray[np.uint8]:
    """Cut the middle out of a picture and resample it to the network's size plus the margin.

    The window is the largest one of the network's aspect inside the centre square of ``crop`` times the shorter side.
    It is extended by the margin at the same scale, and what then lies beyond the picture repeats the picture's border.

    Window and margin are resampled in one step with Lanczos' filter, which Pillow widens by the scale, so that every
    pixel counts when a photo is made smaller (no aliasing) and little sharpness is lost when it isn't. Grey is ITU-R
    BT.601's luma, 0.299 R + 0.587 G + 0.114 B.

    Args:
        picture: upright picture, mode L or RGB, or uint8 of (rows, columns) or (rows, columns, 1 or 3).
        settings: crop, size and colour.

    Returns:
        uint8 of ``settings.margin_shape``; without the margin, rows ``margin[0]:-margin[0]``, it is the window.
    """
    image = picture if isinstance(picture, Image.Image) else _as_image(picture)
    stored_rows, stored_columns, channels = settings.margin_shape
    scale = settings.crop * min(image.size) / max(settings.height, settings.width)  # photo's pixels per stored pixel
    left, right = _centred(image.width, stored_columns * scale)
    top, bottom = _centred(image.height, stored_rows * scale)
    # The filter looks this far beyond the box, so the picture, or its repeated border, is needed that far.
    reach = math.ceil(3 * max(scale, 1.0)) + 1
    first_column, end_column = math.floor(left) - reach, math.ceil(right) + reach
    first_row, end_row = math.floor(top) - reach, math.ceil(bottom) + reach
    inside = (max(first_column, 0), max(first_row, 0), min(end_column, image.width), min(end_row, image.height))
    part = np.asarray(image.crop(inside).convert("L" if channels == 1 else "RGB"))
    beyond = [(inside[1] - first_row, end_row - inside[3]), (inside[0] - first_column, end_column - inside[2]), (0, 0)]
    part = np.pad(part, beyond[: part.ndim], mode="edge")
    box = (left - first_column, top - first_row, right - first_column, bottom - first_row)
    stored = Image.fromarray(part).resize((stored_columns, stored_rows), Image.Resampling.LANCZOS, box=box)
    return np.asarray(stored, dtype=np.uint8).reshape(settings.margin_shape)


def _centred(length: int, extent: float) -> tuple[float, float]:
    return (length - extent) / 2, (length + extent) / 2


def _as_image(pixels: npt.NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(pixels[:, :, 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels)
