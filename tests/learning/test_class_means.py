"""Recognition by class means: the head, worked out by hand, and what it is made of."""

import numpy as np
import pytest

from facecnn.body.threshold import FEW_PHOTOS, SCALE
from facecnn.learning.class_means import Head, head_of

EMBEDDINGS = np.zeros((3, 128), np.float32)
EMBEDDINGS[0, 0] = 2.0
EMBEDDINGS[1, :2] = 0.9, 1.2  # of length 1.5
EMBEDDINGS[2, 2] = 1.25
OWNERS = np.array([0, 0, 1])


@pytest.fixture
def head() -> Head:
    return head_of(EMBEDDINGS, OWNERS, 2, 0.9)


def test_a_person_is_the_direction_of_the_sum_of_their_embeddings(head: Head) -> None:
    # (2.9, 1.2) has the length sqrt(9.85) = 3.138471.
    assert head.weight[0, :3] / SCALE == pytest.approx([0.924017, 0.382352, 0], abs=1e-6)
    assert head.weight[1, :3] / SCALE == pytest.approx([0, 0, 1])
    assert not head.weight[2].any()


def test_fewer_photos_need_less_likeness_and_strangers_have_the_threshold(head: Head) -> None:
    assert head.bias / SCALE == pytest.approx([FEW_PHOTOS / 2, FEW_PHOTOS, 0.9])


def test_a_face_at_the_threshold_is_as_likely_a_strangers(head: Head) -> None:
    angle = np.arccos(0.9 - FEW_PHOTOS)
    face = np.zeros((1, 128), np.float32)
    face[0, 2:4] = 1.4 * np.cos(angle), 1.4 * np.sin(angle)
    probabilities = np.exp(head.log_probabilities(face))[0]
    assert probabilities[1] == pytest.approx(probabilities[2], rel=1e-3)
    assert probabilities.sum() == pytest.approx(1)
    assert probabilities[0] < 1e-30


def test_the_length_of_an_embedding_does_not_count(head: Head) -> None:
    once, twice = (head.log_probabilities(factor * EMBEDDINGS) for factor in (1, 2))
    assert twice == pytest.approx(once, abs=1e-6)


def test_strangers_have_no_part_in_the_head(head: Head) -> None:
    with_strangers = head_of(np.vstack([EMBEDDINGS, -EMBEDDINGS]), np.array([0, 0, 1, 2, 2, 2]), 2, 0.9)
    assert np.array_equal(with_strangers.weight, head.weight)
    assert np.array_equal(with_strangers.bias, head.bias)
