"""Place the labels in a picture so that they hide neither faces nor each other."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from facecnn.arrays import Array

Box = tuple[float, float, float, float]
"""left, top, right, bottom."""

_ROUNDS = 3
"""Rounds in which each label may move to a better place."""
_ON_LABEL, _ON_FACE, _ON_OWN_FACE = 4.0, 3.0, 2.5
"""Cost of a whole label on another label, on another's face, or on its own face."""
_TOUCHING = 1e-6
"""Pixels of an overlap that may be rounding errors."""
_OFF = 0.05
"""Cost of each line's height between a label and its box."""


@dataclass(frozen=True)
class Placing:
    """The places of all labels in a picture."""

    corners: list[tuple[float, float]]
    """Left and top of each."""
    hidden: float
    """Hidden areas of faces and labels, in units of a label's area; 0 where nothing is hidden."""


def place_labels(boxes: Sequence[Box], sizes: Sequence[tuple[float, float]], width: float, height: float) -> Placing:
    """Find a place for each box's label.

    A label is placed at an edge of its box, preferably above it; if there is no room, up to two lines away; and only if
    all of these hide something, on a face. Boxes may reach beyond the picture's edges.

    ``sizes``: (width, height) of each box's label; ``width`` and ``height`` are the picture's.
    """
    faces = np.clip(np.array(boxes, np.float64).reshape(-1, 4), 0, [width, height, width, height])
    options = [_options(face, size, width, height) for face, size in zip(faces, sizes, strict=True)]
    fixed = [_fixed_costs(number, faces, rectangles) for number, rectangles in enumerate(options)]
    chosen: dict[int, int] = {}
    for _ in range(1 + _ROUNDS):
        before = dict(chosen)
        for number, rectangles in enumerate(options):
            taken = [options[other][choice] for other, choice in chosen.items() if other != number]
            on_labels = _covered(rectangles, np.array(taken).reshape(-1, 4))
            chosen[number] = int(np.argmin(fixed[number] + _ON_LABEL * on_labels))
        if chosen == before:
            break
    placed = np.array([options[number][choice] for number, choice in chosen.items()]).reshape(-1, 4)
    each = [_covered(place[None], np.delete(placed, number, axis=0)) for number, place in enumerate(placed)]
    hidden = float(_covered(placed, faces).sum() + sum(float(share[0]) for share in each))
    return Placing([(float(left), float(top)) for left, top, _, _ in placed], hidden)


def _options(face: Array, size: tuple[float, float], width: float, height: float) -> Array:
    """(places, 4): the possible places of a face's label, the best first, within the picture if it is large enough."""
    (left, top, right, bottom), (wide, high) = face, size
    middle = (left + right - wide) / 2
    beside = [(x, y) for x in (left, right - wide, middle) for y in (top - high, bottom)]
    beside = [beside[index] for index in (0, 2, 4, 1, 3, 5)]  # above first
    beside += [(x, y) for y in (top, (top + bottom - high) / 2, bottom - high) for x in (right, left - wide)]
    off = [
        (x, y)
        for lines in (1, 2)
        for x in (left, right - wide, left - wide, right)
        for y in (top - (1 + lines) * high, bottom + lines * high)
    ]
    within = [(left, top), (left, bottom - high)]
    corners = np.array([*beside, *off, *within])
    corners[:, 0] = np.clip(corners[:, 0], 0, max(0.0, width - wide))
    corners[:, 1] = np.clip(corners[:, 1], 0, max(0.0, height - high))
    return np.concatenate([corners, corners + np.array([wide, high])], axis=1)


def _fixed_costs(number: int, faces: Array, rectangles: Array) -> Array:
    """(places,): costs of a label's places that don't depend on other labels."""
    own, others = faces[number : number + 1], np.delete(faces, number, axis=0)
    gaps = np.maximum(rectangles[:, :2] - own[:, 2:], own[:, :2] - rectangles[:, 2:]).max(axis=1)
    off = np.maximum(gaps, 0) / (rectangles[:, 3] - rectangles[:, 1])  # lines between a label and its box
    preference = np.arange(len(rectangles)) / (1000 * len(rectangles))
    return np.asarray(
        preference + _OFF * off + _ON_FACE * _covered(rectangles, others) + _ON_OWN_FACE * _covered(rectangles, own)
    )


def _covered(rectangles: Array, others: Array) -> Array:
    """(rectangles,): how much of each lies on the others, in units of its own area."""
    if not len(others):
        return np.zeros(len(rectangles))
    low = np.maximum(rectangles[:, None, :2], others[None, :, :2])
    high = np.minimum(rectangles[:, None, 2:], others[None, :, 2:])
    sides = high - low
    sides[sides < _TOUCHING] = 0
    common = np.prod(sides, axis=2).sum(axis=1)
    areas = np.prod(rectangles[:, 2:] - rectangles[:, :2], axis=1)
    return np.asarray(common / np.maximum(areas, 1e-9))
