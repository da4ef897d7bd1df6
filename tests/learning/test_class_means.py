"""Recognition by class means: the head, worked out by hand, and what it is made of."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from facecnn.body.threshold import FEW_PHOTOS, SCALE
from facecnn.config import load
from facecnn.kernels import reference
from facecnn.learning import class_means
from facecnn.learning.calibration import CalibrationSettings
from facecnn.learning.class_means import (
    EMBEDDINGS,
    OWNERS,
    ClassMeansTrainer,
    Head,
    calibration_by_distance,
    head_of,
    initial_arrays_of_body,
)
from facecnn.learning.data import PhotoSet, TrainingData

FACES = np.zeros((3, 128), np.float32)
FACES[0, 0] = 2.0
FACES[1, :2] = 0.9, 1.2  # of length 1.5
FACES[2, 2] = 1.25
WHOSE = np.array([0, 0, 1])


@pytest.fixture
def head() -> Head:
    return head_of(FACES, WHOSE, 2, 0.9)


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
    once, twice = (head.log_probabilities(factor * FACES) for factor in (1, 2))
    assert twice == pytest.approx(once, abs=1e-6)


def test_strangers_have_no_part_in_the_head(head: Head) -> None:
    with_strangers = head_of(np.vstack([FACES, -FACES]), np.array([0, 0, 1, 2, 2, 2]), 2, 0.9)
    assert np.array_equal(with_strangers.weight, head.weight)
    assert np.array_equal(with_strangers.bias, head.bias)


# --------------------------------------------------------------------------------------------------- what is kept of it


class Known:
    """Stands for the body: a crop's embedding is its number in ``FACES``; of strangers, the negative one."""

    def __init__(self, *_: object) -> None:
        pass

    def embed(self, pixels: Any, rows: Any) -> Any:
        return np.vstack([FACES, -FACES])[rows]


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch) -> TrainingData:
    """Photos of two people, and of strangers between them, all trained on."""
    monkeypatch.setattr(class_means, "Embedder", Known)
    monkeypatch.setattr(class_means, "installed_body", lambda: {})
    rows = np.array([3, 0, 4, 1, 2, 5])
    pixels = np.zeros((6, 150, 150, 3), np.uint8)
    labels = np.array([2, 0, 2, 0, 1, 2])
    return TrainingData(PhotoSet(pixels, rows, labels), np.arange(6), PhotoSet(pixels, rows[:0], labels[:0]), 3)


def made(data: TrainingData) -> ClassMeansTrainer:
    trainer = ClassMeansTrainer(load("pretrained").settings, data, reference)
    nobody = SimpleNamespace(epoch=lambda _: None, save_best=lambda *_: None, save_last=lambda *_, **__: None)
    assert trainer.run(nobody)
    return trainer


def test_what_is_kept_are_the_embeddings_of_people_and_none_of_strangers(data: TrainingData, head: Head) -> None:
    arrays = made(data).arrays()
    np.testing.assert_array_equal(arrays[EMBEDDINGS], FACES)
    assert arrays[OWNERS].tolist() == [0, 0, 1]
    assert arrays[OWNERS].dtype == np.int32
    np.testing.assert_array_equal(arrays["model.dense2.weight"], head.weight)


def test_a_restored_training_has_all_that_the_saved_one_had(data: TrainingData) -> None:
    before = made(data)
    progress = {**vars(before.progress)}
    after = ClassMeansTrainer(load("pretrained").settings, data, reference)
    after.restore(before.arrays(), progress)
    assert after.arrays().keys() == before.arrays().keys()
    assert all(np.array_equal(array, before.arrays()[name]) for name, array in after.arrays().items())
    begun = ClassMeansTrainer(load("pretrained").settings, data, reference)
    begun.restore(ClassMeansTrainer(load("pretrained").settings, data, reference).arrays(), vars(begun.progress))
    assert made(data).arrays().keys() == before.arrays().keys()
    assert EMBEDDINGS not in begun.arrays()


def test_training_goes_on_gently_from_class_means(data: TrainingData, head: Head) -> None:
    """``finetune`` begins with each person's mean, at a scale at which photos aren't right beyond doubt."""
    start = initial_arrays_of_body(load("finetune").settings, data, reference)
    np.testing.assert_allclose(start["dense2.weight"][:2], head.weight[:2] * (30 / SCALE), rtol=1e-6)
    # Strangers have an output to train, which begins with their mean: -(2.9, 1.2, 1.25), of length 3.378240.
    assert start["dense2.weight"][2, :3] == pytest.approx([-25.75306, -10.65644, -11.10046], rel=1e-5)
    assert not start["dense2.bias"].any()


@pytest.mark.parametrize(
    ("rate", "threshold"),
    [
        (0.02, 0.5),  # 0.924857 for two people: strangers' score is the threshold
        # 0.9194 + 0.0189 (0.30103 + 2) - ln(1.0475) / 200 = 0.962657, which is 0.032657 above the strangers' highest
        # score: 1 / (1 + e^(200 * 0.032657))
        (0.0002, 0.0014547),
    ],
)
def test_the_threshold_is_the_formulas_and_held_out_photos_are_counted(rate: float, threshold: float) -> None:
    arrays = {EMBEDDINGS: FACES, OWNERS: WHOSE}
    labels = np.array([0, 1, 2, 2, 1, 0, 2, 2])
    found = calibration_by_distance(arrays, labels, 2, CalibrationSettings(false_accept_rate=rate))
    assert found.threshold == pytest.approx(threshold, rel=1e-3)
    assert (found.photos, found.strangers, found.false_accept_rate) == (4, 4, rate)
