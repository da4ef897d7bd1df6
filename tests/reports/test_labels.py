"""Where names go in a picture: beside the faces, not on them nor on each other, as long as there is room."""

import itertools

import numpy as np
import pytest

from facecnn.reports.labels import Box, place_labels


def rectangles(boxes: list[Box], size: tuple[float, float], width: float, height: float) -> list[Box]:
    places = place_labels(boxes, [size] * len(boxes), width, height).corners
    return [(x, y, x + size[0], y + size[1]) for x, y in places]


def overlap(one: Box, other: Box) -> float:
    """The area that two rectangles have in common; touching isn't any."""
    sides = (min(one[axis + 2], other[axis + 2]) - max(one[axis], other[axis]) for axis in (0, 1))
    return float(np.prod([max(side - 1e-6, 0) for side in sides]))


def test_alone_it_lies_above() -> None:
    assert place_labels([(50, 60, 90, 110)], [(30, 10)], 200, 200).corners == [(50, 50)]


def test_at_the_top_it_lies_below() -> None:
    assert place_labels([(50, 5, 90, 110)], [(30, 10)], 200, 200).corners == [(50, 110)]


HEADS = {
    "side by side": [(40, 60, 100, 120), (105, 60, 165, 120), (170, 60, 230, 120)],
    "one above the other": [(100, 20, 160, 80), (100, 92, 160, 152), (100, 164, 160, 224)],
    "cheek to cheek": [(100, 100, 150, 150), (150, 100, 200, 150), (100, 150, 150, 200), (150, 150, 200, 200)],
    "nine": [(20 + 90 * x, 20 + 90 * y, 80 + 90 * x, 80 + 90 * y) for y in range(3) for x in range(3)],
    "at all edges": [(0, 0, 60, 60), (240, 0, 300, 60), (0, 240, 60, 300), (240, 240, 300, 300)],
    "over the edges": [(-30, -20, 60, 60), (250, 270, 340, 330)],
    "a large one and its shoulders": [(60, 80, 240, 280), (20, 60, 58, 100), (245, 60, 290, 100)],
}


@pytest.mark.parametrize("heads", HEADS)
def test_no_name_hides_a_face_or_a_name(heads: str) -> None:
    boxes: list[Box] = HEADS[heads]  # type: ignore[assignment]
    labels = rectangles(boxes, (58, 12), 300, 300)
    for one, other in itertools.combinations(labels, 2):
        assert overlap(one, other) == 0
    for label, box in itertools.product(labels, boxes):
        assert overlap(label, box) == 0
    for left, top, right, bottom in labels:
        assert 0 <= left < right <= 300
        assert 0 <= top < bottom <= 300
    assert place_labels(boxes, [(58, 12)] * len(boxes), 300, 300).hidden == 0


def test_each_name_is_near_its_face() -> None:
    """Above all others: nearer to it than two lines."""
    for heads in HEADS.values():
        for label, box in zip(rectangles(heads, (58, 12), 300, 300), heads, strict=True):  # type: ignore[arg-type]
            gap = max(label[0] - box[2], box[0] - label[2], label[1] - box[3], box[1] - label[3])
            assert gap <= 24 + 1e-6


def test_a_crowd_in_which_the_first_name_must_make_room() -> None:
    """Sixteen heads, placed one after the other as each likes best, would hide some; there is a place for all."""
    corners = [
        (175, 0), (65, 215), (35, 50), (220, 230), (150, 175), (45, 255), (85, 5), (155, 215),
        (240, 115), (250, 25), (160, 120), (90, 55), (70, 145), (225, 185), (200, 95), (5, 160),
    ]  # fmt: skip
    boxes: list[Box] = [(x, y, x + 40, y + 40) for x, y in corners]
    labels = rectangles(boxes, (80, 14), 300, 300)
    assert not any(overlap(one, other) for one, other in itertools.combinations(labels, 2))
    assert not any(overlap(label, box) for label, box in itertools.product(labels, boxes))


def test_roundings_hide_nothing() -> None:
    for shift in np.linspace(0.01, 0.99, 50):
        box = (50 + shift / 3, 60 + shift, 90 + shift / 7, 110 + shift / 9)
        assert place_labels([box], [(30 + shift, 10 + shift / 11)], 200, 200).hidden == 0


def test_where_there_is_no_room_it_stays_in_the_picture_and_says_so() -> None:
    boxes: list[Box] = [(0, 0, 100, 100), (0, 0, 100, 100)]
    placing = place_labels(boxes, [(40, 10), (40, 10)], 100, 100)
    one, other = ((x, y, x + 40, y + 10) for x, y in placing.corners)
    assert placing.hidden >= 2  # both hide a face, wherever they lie
    assert overlap(one, other) == 0
    assert all(0 <= edge <= 100 for edge in (*one, *other))
    wide = place_labels([(10, 40, 50, 60)], [(500, 10)], 100, 100)
    assert wide.corners == [(0, 30)]


def test_nothing_to_place() -> None:
    assert place_labels([], [], 100, 100).corners == []


def test_crowds_of_any_shape_stay_in_the_picture() -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        number, (width, height) = int(random.integers(1, 40)), random.uniform(100, 1000, 2)
        corner, size = random.uniform(-50, 1000, (number, 2)), random.uniform(5, 300, (number, 2))
        boxes: list[Box] = [tuple(box) for box in np.concatenate([corner, corner + size], axis=1)]
        for left, top, right, bottom in rectangles(boxes, (60, 12), width, height):
            assert -1e-9 <= left < right <= width + 1e-9
            assert -1e-9 <= top < bottom <= height + 1e-9
