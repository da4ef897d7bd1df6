"""The picture that explains an answer: the photo with its faces named, and what each name rests on."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from math import exp
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from facecnn.runs.findings import confidence
from facecnn.runs.lettering import Lettering
from facecnn.runs.plots import saved_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure
    from matplotlib.image import AxesImage

Array = npt.NDArray[Any]

_PERSON_COLOUR = "#1f6fb4"
_STRANGER_COLOUR = "#c05a12"
_FAINT = "#555555"
_PHOTO_WIDTH = 4.6  # inches
_MAPS_WIDTH = 8.6
_ROW_HEIGHT = 4.1
_LINE = 108  # characters beside the photo
_LABEL_HEIGHT = 0.22  # inches
_CHARACTER_WIDTH = 0.085  # inches, of a label's text on average, generously
_TITLE_LENGTH = 48
_MOST_ODDS = 1e6


@dataclass(frozen=True)
class NamedFace:
    """A face in the photo, with its answer."""

    box: tuple[float, float, float, float]
    """left, top, right, bottom, in pixels of the photo as it is drawn."""
    name: str
    is_person: bool
    confidence: float


@dataclass(frozen=True)
class FaceMaps:
    """What the answer for one face rests on."""

    person: str
    """Whom the maps are about: the likeliest person, also where the answer is ``unknown``."""
    crop: npt.NDArray[np.uint8]
    """(H, W, C): the part of the photo that the network is given."""
    seen: Array
    """(H, W, C): the same as the network's input, normalised."""
    drop: Array
    """(H, W): by how much covering a place lowers the log-odds for ``person``."""
    before: float
    """The log-odds for ``person``."""
    lowest: float
    """The log-odds with the patch where they are lowest."""
    gradient: Array
    """(H, W, C): the derivative of the log-odds by the network's input."""


def draw_explanation(
    path: Path,
    title: str,
    photo: npt.NDArray[np.uint8],
    faces: Sequence[NamedFace],
    maps: Sequence[FaceMaps],
    people: Sequence[str],
) -> None:
    """Draws the photo with a box and a name for every face, and beside it a row of maps for each of the first ones.

    A name in a script that no font here has is written in Latin letters.

    Args:
        path: the PNG file to write.
        title: the photo's name.
        photo: (height, width, 3), reduced to a sensible size.
        faces: all of the photo's, at least one.
        maps: of the first of them, at least one.
        people: all of the model's, in its order.

    Raises:
        OutputError: the picture couldn't be written.
    """
    readable = Lettering(people, title)
    rows = len(maps)
    with saved_figure(path, _PHOTO_WIDTH + _MAPS_WIDTH, _ROW_HEIGHT * rows, readable.families) as figure:
        left, right = np.asarray(figure.subfigures(1, 2, width_ratios=[_PHOTO_WIDTH, _MAPS_WIDTH], wspace=0.02))
        left.suptitle(readable(title, _TITLE_LENGTH), x=0.01, ha="left", fontsize=10.5, parse_math=False)
        _draw_photo(left.subplots(), readable, photo, faces, rows)
        parts = np.asarray(right.subfigures(rows, 1, squeeze=False, hspace=0.03))[:, 0]
        for number, (part, face, of_face) in enumerate(zip(parts, faces, maps, strict=False), 1):
            _draw_maps(part, readable, number if len(faces) > 1 else None, face, of_face)


def _draw_photo(panel: Axes, readable: Lettering, photo: Array, faces: Sequence[NamedFace], explained: int) -> None:
    from matplotlib.patches import Rectangle

    height, width = photo.shape[:2]
    per_inch = max(width / _PHOTO_WIDTH, height / (_ROW_HEIGHT * explained))  # the photo's pixels
    names = [readable(face.name) for face in faces]
    labels = [f" {number}  {name} " for number, name in enumerate(names, 1)] if len(faces) > 1 else [f" {names[0]} "]
    sizes = [(_CHARACTER_WIDTH * len(label) * per_inch, _LABEL_HEIGHT * per_inch) for label in labels]
    places = _label_places([face.box for face in faces], sizes, width, height)
    panel.imshow(photo)
    panel.set_axis_off()
    panel.set_anchor("N")
    for face, label, (x, y) in reversed(list(zip(faces, labels, places, strict=True))):  # the first above the others
        colour = _PERSON_COLOUR if face.is_person else _STRANGER_COLOUR
        left, top, right, bottom = face.box
        panel.add_patch(
            Rectangle((left - 0.5, top - 0.5), right - left, bottom - top, fill=False, edgecolor=colour, linewidth=2.2)
        )
        panel.text(
            x,
            y,
            label,
            parse_math=False,
            fontsize=9.5,
            color="white",
            ha="left",
            va="top",
            clip_on=True,
            bbox={"facecolor": colour, "edgecolor": "none", "pad": 1.5},
        )
    panel.set_xlim(-0.5, width - 0.5)
    panel.set_ylim(height - 0.5, -0.5)
    if explained < len(faces):
        text = f"{explained} of the {len(faces)} faces are explained: those nearest the middle"
        panel.text(0, -0.02, text, transform=panel.transAxes, va="top", fontsize=9, color=_FAINT)


def _label_places(
    boxes: Sequence[tuple[float, float, float, float]], sizes: Sequence[tuple[float, float]], width: int, height: int
) -> list[tuple[float, float]]:
    """Left and top of each box's label, of a size (width, height), within the photo: above the box, else below it or at
    an edge within, where it hides no label of those before; where there is no such place, as if it were alone."""
    taken: list[tuple[float, float, float, float]] = []
    for (left, top, _, bottom), (wide, high) in zip(boxes, sizes, strict=True):
        x = max(0.0, min(left, width - wide))
        rows = [y for y in (top - high, bottom) if 0 <= y <= height - high]
        rows += [max(0.0, min(y, height - high)) for y in (top, bottom - high)]
        places = [(x, y, x + wide, y + high) for y in rows]
        taken.append(next((place for place in places if not any(_overlap(place, other) for other in taken)), places[0]))
    return [(x, y) for x, y, _, _ in taken]


def _overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _draw_maps(part: SubFigure, readable: Lettering, number: int | None, face: NamedFace, maps: FaceMaps) -> None:
    name = readable(maps.person)
    shown = f"{readable(face.name)} ({confidence(face.confidence)})" if face.is_person else "unknown"
    heading = f"{number}  {shown}" if number is not None else shown
    if not face.is_person:
        heading += f": too strange to be named; the maps are about {name}, the likeliest"
    lines = [textwrap.fill(sentence, _LINE) for sentence in (heading, *_sentences(name, maps))]
    part.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=10, parse_math=False)
    (seen, covered, sensitive), (beside, *bars) = part.subplots(
        2, 3, height_ratios=[1, 0.05], gridspec_kw={"wspace": 0.12}
    )
    beside.set_axis_off()
    height, width = maps.drop.shape
    _draw_grey(seen, _stretched(maps.seen))
    seen.set_title(f"what the network saw ({width}×{height})", fontsize=9.5)

    limit = float(np.abs(maps.drop).max()) or 1.0
    image = _overlay(covered, maps.crop, maps.drop, "RdBu_r", (-limit, limit))
    _draw_bar(part, bars[0], image, "log-odds lost when covered")
    covered.set_title("covered by a grey patch", fontsize=9.5)

    strength = np.linalg.norm(maps.gradient, axis=2)
    # One bright pixel shouldn't darken all others (Smilkov et al. 2017 cut at this percentile, too).
    top = float(np.percentile(strength, 99)) or 1.0
    image = _overlay(sensitive, maps.crop, np.minimum(strength / top, 1), "inferno", (0, 1))
    _draw_bar(part, bars[1], image, "gradient, as a share of the strongest")
    sensitive.set_title("sensitive to a pixel (SmoothGrad)", fontsize=9.5)


def _sentences(name: str, maps: FaceMaps) -> tuple[str, str]:
    """What the maps say, in plain words."""
    odds = f"the odds for {name}"
    if maps.lowest < maps.before:
        covered = (
            f"Red places are needed for {name}: a patch on the most important one changes {odds} from "
            f"{_odds(maps.before)} to {_odds(maps.lowest)}. Blue places speak against {name}."
        )
    else:
        covered = f"No place is needed for {name}: wherever a patch lies, {odds} stay {_odds(maps.before)} or better."
    return covered, "Bright pixels are those of which a small change moves the answer most."


def _odds(log_odds: float) -> str:
    """``12:1``, ``1:3``, with two figures below ten."""
    ratio = min(exp(min(abs(log_odds), 50.0)), _MOST_ODDS)
    figure = f"{ratio:,.0f}" if ratio >= 9.95 else f"{ratio:.1f}".removesuffix(".0")
    if ratio == _MOST_ODDS:
        figure = f"over {figure}" if log_odds > 0 else f"more than {figure}"
    return f"{figure}:1" if log_odds >= 0 else f"1:{figure}"


def _stretched(picture: Array) -> Array:
    """From 0 to 1, whatever the normalisation left."""
    low, high = float(picture.min()), float(picture.max())
    return np.asarray((picture - low) / ((high - low) or 1.0))


def _draw_grey(panel: Axes, picture: Array) -> None:
    panel.imshow(picture[..., 0] if picture.shape[2] == 1 else picture, cmap="gray", vmin=0, vmax=1)
    panel.set_axis_off()


def _overlay(panel: Axes, crop: Array, figures: Array, colours: str, limits: tuple[float, float]) -> AxesImage:
    """Figures in colours over the pale crop."""
    grey = crop.mean(axis=2, keepdims=True) / 255
    _draw_grey(panel, 0.15 + 0.7 * grey)
    return panel.imshow(figures, cmap=colours, vmin=limits[0], vmax=limits[1], alpha=0.6, interpolation="nearest")


def _draw_bar(part: SubFigure, panel: Axes, image: AxesImage, label: str) -> None:
    bar = part.colorbar(image, cax=panel, orientation="horizontal")
    bar.set_label(label, fontsize=8.5)
    bar.ax.tick_params(labelsize=8)
    bar.ax.locator_params(nbins=5)
    bar.outline.set_visible(False)
