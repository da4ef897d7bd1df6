"""The picture that explains an answer: the photo with its faces named, and maps of what each name rests on."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

from facecnn.arrays import Array
from facecnn.reports.drawing import NamedFace, draw_faces, letters_for
from facecnn.reports.figure import DPI, saved_figure
from facecnn.reports.findings import confidence
from facecnn.reports.lettering import Lettering

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure
    from matplotlib.image import AxesImage


_FAINT = "#555555"
_PHOTO_WIDTH = 5.5  # inches
_LEAST_PHOTO_COLUMN = 3.0
_MOST_PHOTO_HEIGHT = 8.0
_MAPS_WIDTH = 8.6
_GAP = 0.15  # between the photo and the maps
_ROW_HEIGHT = 3.9
_TITLE_HEIGHT = 0.3
_NOTE_HEIGHT = 0.25
_LINE_HEIGHT = 0.19
_LINE = 108  # characters beside the photo
_LETTERS = 14.0  # pixels of names in the photo
_TITLE_CHARACTER = 0.09  # inches, on average, generously
_MOST_ODDS = 1e6

_LEGEND = (
    "Red places are needed for the name: covered by a grey patch, they make it less likely; blue places speak against "
    "it. Bright pixels are those where a small change moves the answer most."
)


@dataclass(frozen=True)
class FaceMaps:
    """The maps of what the answer for one face rests on."""

    person: str
    """The likeliest person, whom the maps are about, even if the answer is ``unknown``."""
    crop: npt.NDArray[np.uint8]
    """(H, W, C): the network's crop of the photo."""
    seen: Array
    """(H, W, C): the same, normalised as the network's input."""
    drop: Array
    """(H, W): how much covering a place lowers the log-odds for ``person``."""
    before: float
    """The log-odds for ``person``."""
    lowest: float
    """The lowest log-odds that a patch leads to."""
    gradient: Array
    """(H, W, C): the gradient of the log-odds with respect to the network's input."""


def draw_explanation(
    path: Path,
    title: str,
    photo: Image.Image,
    faces: Sequence[NamedFace],
    maps: Mapping[int, FaceMaps],
    people: Sequence[str],
) -> None:
    """Draw the photo with a frame and a name for every face, and beside it a row of maps for each explained face.

    A name in a script that no installed font has is written in Latin letters.

    Args:
        title: the photo's name.
        photo: of any size, preferably at least as wide as its column (605 pixels).
        faces: all faces in the photo, at least one. If there are several, those with maps get numbers.
        maps: of the faces to be explained, at least one, by their index in ``faces``, in order.

    Raises:
        OutputError: the picture couldn't be written.
    """
    readable = Lettering(people, title)
    if len(faces) > 1:
        numbers = {index: number for number, index in enumerate(maps, 1)}
        faces = [replace(face, number=numbers.get(index)) for index, face in enumerate(faces)]
    legend = textwrap.wrap(_LEGEND, _LINE)
    legend_height = _LINE_HEIGHT * (len(legend) + 1)
    drawn = _draw_photo(photo, faces, people)
    photo_width, photo_height = drawn.width / DPI, drawn.height / DPI
    column = max(photo_width, _LEAST_PHOTO_COLUMN) + _GAP
    note_height = _NOTE_HEIGHT if len(maps) < len(faces) else 0
    rows_height = legend_height + _ROW_HEIGHT * len(maps)
    height = max(rows_height, _TITLE_HEIGHT + photo_height + note_height)
    with saved_figure(path, column + _MAPS_WIDTH, height, readable.families) as figure:
        left, right = np.asarray(figure.subfigures(1, 2, width_ratios=[column, _MAPS_WIDTH], wspace=0))
        heading = readable(title, int(column / _TITLE_CHARACTER))
        left.text(0, 1, heading, ha="left", va="top", fontsize=10.5, parse_math=False)
        bottom = 1 - (_TITLE_HEIGHT + photo_height) / height
        panel = left.add_axes((0, bottom, photo_width / column, photo_height / height))
        panel.imshow(np.asarray(drawn), aspect="auto", interpolation="nearest")  # a pixel for a pixel
        panel.set_axis_off()
        if note_height:
            which = "the largest one, number 1" if len(maps) == 1 else f"the largest, numbers 1 to {len(maps)}"
            text = f"{len(maps)} of the {len(faces)} faces explained: {which}"
            left.text(0, bottom - 0.05 / height, text, va="top", fontsize=9, color=_FAINT)
        heights = [legend_height, *[_ROW_HEIGHT] * len(maps)]
        if height > rows_height:  # beside a tall photo
            heights.append(height - rows_height)
        parts = right.subfigures(len(heights), 1, squeeze=False, hspace=0.03, height_ratios=heights)[:, 0]
        parts[0].text(0.01, 1, "\n".join(legend), ha="left", va="top", fontsize=10, color=_FAINT)
        for row, (index, of_face) in enumerate(maps.items()):
            _draw_maps(parts[1 + row], readable, faces[index], of_face, titles=row == 0)


def _draw_photo(photo: Image.Image, faces: Sequence[NamedFace], people: Sequence[str]) -> Image.Image:
    """The photo with its faces, scaled to the picture's pixels."""
    scale = min(_PHOTO_WIDTH * DPI / photo.width, _MOST_PHOTO_HEIGHT * DPI / photo.height)
    size = (max(1, round(photo.width * scale)), max(1, round(photo.height * scale)))
    shown = photo.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    across, down = size[0] / photo.width, size[1] / photo.height
    return draw_faces(shown, [face.scaled(across, down) for face in faces], letters_for(people), _LETTERS)


def _draw_maps(part: SubFigure, readable: Lettering, face: NamedFace, maps: FaceMaps, *, titles: bool) -> None:
    name = readable(maps.person)
    shown = f"{readable(face.name)} ({confidence(face.confidence)})" if face.is_person else "unknown"
    heading = f"{face.number}  {shown}" if face.number is not None else shown
    if face.also_like is not None:
        heading += f": another face here is more like {readable(face.also_like)}; the maps are about {name}"
    elif not face.is_person:
        heading += f": too strange to be named; the maps are about {name}, the likeliest"
    lines = [textwrap.fill(sentence, _LINE) for sentence in (heading, _sentence(name, maps))]
    part.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=10, parse_math=False)
    (seen, covered, sensitive), (beside, *bars) = part.subplots(
        2, 3, height_ratios=[1, 0.05], gridspec_kw={"wspace": 0.12}
    )
    beside.set_axis_off()
    height, width = maps.drop.shape
    _draw_grey(seen, _stretched(maps.seen))

    limit = float(np.abs(maps.drop).max()) or 1.0
    image = _overlay(covered, maps.crop, maps.drop, "RdBu_r", (-limit, limit))
    _draw_bar(part, bars[0], image, "log-odds lost when covered")

    strength = np.linalg.norm(maps.gradient, axis=2)
    # So that one bright pixel doesn't darken all others (Smilkov et al. 2017 use this percentile, too).
    top = float(np.percentile(strength, 99)) or 1.0
    image = _overlay(sensitive, maps.crop, np.minimum(strength / top, 1), "inferno", (0, 1))
    _draw_bar(part, bars[1], image, "gradient, as a share of the strongest")
    if titles:
        seen.set_title(f"what the network saw ({width}×{height})", fontsize=9.5)
        covered.set_title("covered by a grey patch", fontsize=9.5)
        sensitive.set_title("sensitive to a pixel (SmoothGrad)", fontsize=9.5)


def _sentence(name: str, maps: FaceMaps) -> str:
    """What the map of covered places says, in plain words."""
    if maps.lowest < maps.before:
        return (
            f"A patch on the most important place changes the odds for {name} from {_odds(maps.before)} to "
            f"{_odds(maps.lowest)}."
        )
    return f"No place is needed for {name}: wherever a patch lies, the odds stay {_odds(maps.before)} or better."


def _odds(log_odds: float) -> str:
    """``12:1``, ``1:3``; two digits below ten."""
    ratio = min(exp(min(abs(log_odds), 50.0)), _MOST_ODDS)
    figure = f"{ratio:,.0f}" if ratio >= 9.95 else f"{ratio:.1f}".removesuffix(".0")
    if ratio == _MOST_ODDS:
        figure = f"over {figure}" if log_odds > 0 else f"more than {figure}"
    return f"{figure}:1" if log_odds >= 0 else f"1:{figure}"


def _stretched(picture: Array) -> Array:
    """The picture scaled to the range from 0 to 1."""
    low, high = float(picture.min()), float(picture.max())
    return np.asarray((picture - low) / ((high - low) or 1.0))


def _draw_grey(panel: Axes, picture: Array) -> None:
    panel.imshow(picture[..., 0] if picture.shape[2] == 1 else picture, cmap="gray", vmin=0, vmax=1)
    panel.set_axis_off()


def _overlay(panel: Axes, crop: Array, values: Array, colours: str, limits: tuple[float, float]) -> AxesImage:
    """Draw a map in colours over the pale crop."""
    grey = crop.mean(axis=2, keepdims=True) / 255
    _draw_grey(panel, 0.15 + 0.7 * grey)
    return panel.imshow(values, cmap=colours, vmin=limits[0], vmax=limits[1], alpha=0.6, interpolation="nearest")


def _draw_bar(part: SubFigure, panel: Axes, image: AxesImage, label: str) -> None:
    bar = part.colorbar(image, cax=panel, orientation="horizontal")
    bar.set_label(label, fontsize=8.5)
    bar.ax.tick_params(labelsize=8)
    bar.ax.locator_params(nbins=5)
    bar.outline.set_visible(False)
