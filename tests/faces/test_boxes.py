"""Suppression against the same in plain words, and what becomes of boxes."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facecnn.faces import boxes as with_numpy
from facecnn.faces.boxes import shifted, squares, suppress
from facecnn.kernels.cpu import candidates as compiled

STEADY = settings(deadline=None, derandomize=True)

Box = tuple[float, float, float, float]

BOX = st.tuples(*[st.integers(-20, 20)] * 2, *[st.integers(1, 20)] * 2).map(
    lambda box: (box[0], box[1], box[0] + box[2], box[1] + box[3])
)
SCORED = st.lists(st.tuples(BOX, st.sampled_from([0.6, 0.7, 0.8, 0.9, 1.0])), max_size=25)


def overlap(a: Box, b: Box, of_smaller: bool) -> float:
    shared = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return shared / (min(areas) if of_smaller else sum(areas) - shared)


def naive(boxes: Sequence[Box], scores: Sequence[float], threshold: float, of_smaller: bool) -> list[int]:
    order = sorted(range(len(boxes)), key=lambda number: -scores[number])
    return [
        number
        for place, number in enumerate(order)
        if not any(overlap(boxes[number], boxes[better], of_smaller) > threshold for better in order[:place])
    ]


@STEADY
@given(SCORED, st.sampled_from([0.3, 0.5, 0.7]), st.booleans())
def test_suppression_is_what_it_says(scored: list[tuple[Box, float]], threshold: float, of_smaller: bool) -> None:
    boxes, scores = [box for box, _ in scored], [score for _, score in scored]
    kept = suppress(np.array(boxes, float).reshape(-1, 4), np.array(scores), threshold, of_smaller=of_smaller)
    assert kept.tolist() == naive(boxes, scores, threshold, of_smaller)


@STEADY
@given(SCORED, st.sampled_from([0.3, 0.5, 0.7]), st.booleans(), st.integers(1, 3))
def test_compiled_suppression_is_the_same_in_every_group(
    scored: list[tuple[Box, float]], threshold: float, of_smaller: bool, groups: int
) -> None:
    boxes = np.array([box for box, _ in scored], float).reshape(-1, 4)
    scores, group = np.array([score for _, score in scored], np.float32), np.arange(len(scored)) % groups
    expected = [
        number
        for one in range(groups)
        for number in one + groups * suppress(boxes[one::groups], scores[one::groups], threshold, of_smaller=of_smaller)
    ]
    for mark in (with_numpy.mark_kept, compiled.mark_kept):
        kept = suppress(boxes, scores, threshold, of_smaller=of_smaller, groups=group, mark=mark)
        assert kept.tolist() == expected


@pytest.mark.parametrize("of_smaller", [False, True])
def test_suppression_of_more_boxes_than_are_compared_at_once(of_smaller: bool) -> None:
    random = np.random.default_rng(0)
    corner, size = random.integers(0, 300, (700, 2)), random.integers(10, 40, (700, 2))
    boxes = np.concatenate([corner, corner + size], axis=1)
    scores = random.random(700)
    kept = suppress(boxes.astype(float), scores, 0.3, of_smaller=of_smaller).tolist()
    assert 50 < len(kept) < 600
    assert kept == naive(boxes.tolist(), scores.tolist(), 0.3, of_smaller)
    groups = np.arange(700) // 300
    of_groups = [
        suppress(boxes.astype(float), scores, 0.3, of_smaller=of_smaller, groups=groups, mark=mark).tolist()
        for mark in (None, compiled.mark_kept)
    ]
    assert of_groups[0] == of_groups[1] != kept


def test_a_suppressed_box_suppresses_others() -> None:
    boxes = np.array([[0, 0, 10, 10], [3, 0, 13, 10], [6, 0, 16, 10]], float)  # each overlaps its neighbour by 7 / 13
    assert suppress(boxes, np.array([0.9, 0.8, 0.7]), 0.5).tolist() == [0]
    assert suppress(boxes, np.array([0.9, 0.7, 0.8]), 0.5).tolist() == [0, 2]


@STEADY
@given(st.lists(BOX, min_size=1, max_size=5))
def test_squares_have_the_centre_and_the_longer_side(boxes: list[Box]) -> None:
    given_boxes = np.array(boxes, float)
    made = squares(given_boxes)
    np.testing.assert_allclose(centres(made), centres(given_boxes))
    longer = np.maximum(given_boxes[:, 2] - given_boxes[:, 0], given_boxes[:, 3] - given_boxes[:, 1])
    np.testing.assert_allclose(made[:, 2:] - made[:, :2], np.stack([longer, longer], axis=1))


def centres(boxes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return (boxes[:, :2] + boxes[:, 2:]) / 2


def test_edges_move_by_shares_of_width_and_height() -> None:
    moved = shifted(np.array([[10.0, 20, 110, 70]]), np.array([[0.1, 0.2, -0.1, -0.2]]))
    np.testing.assert_allclose(moved, [[20, 30, 100, 60]])
