"""The ridge regression that leaves photos out, and the choice of each photo's face by it."""

import numpy as np
import pytest

from facecnn.photos.consensus import CONSTANT, RIDGE, LeavePhotoOut, choose, folder_scores, likeness
from facecnn.photos.hog import FEATURES, describe


@pytest.mark.parametrize(
    ("features", "photos"),
    [(40, 50), (400, 50), (4, 1100)],
    ids=["fewer features than faces", "more features than faces", "more faces than are looked at at once"],
)
def test_each_photo_is_scored_by_a_regression_on_the_others(features: int, photos: int) -> None:
    random = np.random.default_rng(0)
    photo = np.repeat(np.arange(photos), random.integers(1, 5, photos))
    x = random.normal(size=(len(photo), features)).astype(np.float32)
    targets = random.normal(size=(len(photo), 2))
    found = LeavePhotoOut(x, photo).scores(targets)
    z = np.column_stack([x - x.mean(axis=0, dtype=np.float64), np.full(len(x), CONSTANT**0.5)])
    for number in (0, 7, photos - 1):
        inside, others = photo == number, photo != number
        gram = z[others].T @ z[others] + RIDGE * np.eye(features + 1)
        weights = np.linalg.solve(gram, z[others].T @ targets[others])
        np.testing.assert_allclose(found[inside], z[inside] @ weights, atol=1e-6)


def groups(share: float, photos: int = 30) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Features, photo, labels of two people's photos, and the true face of each; a share of them has three faces."""
    random = np.random.default_rng(1)
    people = random.normal(size=(2, 60))
    features, photo, truth = [], [], []
    labels = np.repeat([0, 1], photos)
    for number, label in enumerate(labels.tolist()):
        faces = 3 if random.random() < share else 1
        own = int(random.integers(faces))
        truth.append(len(features) + own)
        for face in range(faces):
            like = people[label] if face == own else random.normal(size=60)
            features.append(like + 0.6 * random.normal(size=60))
            photo.append(number)
    return np.array(features, np.float32), np.array(photo), labels, np.array(truth)


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_the_face_that_is_like_the_folders_others_is_chosen(share: float) -> None:
    features, photo, labels, truth = groups(share)
    choice = choose(features, photo, labels, np.zeros(len(photo)))
    assert (choice.face == truth).all()
    assert choice.fit.min() > 0.3
    assert (choice.companion == 0).all()


def test_a_photo_without_the_person_fits_badly() -> None:
    features, photo, labels, truth = groups(0.5)
    absent = next(face for face in truth.tolist() if (photo == photo[face]).sum() > 1)
    features[absent] = np.random.default_rng(5).normal(size=features.shape[1])
    choice = choose(features, photo, labels, np.zeros(len(photo)))
    assert choice.fit[photo[absent]] == choice.fit.min() < 0.3


def test_a_companion_in_most_photos_is_noticed_where_no_photo_shows_the_person_alone() -> None:
    features, photo, labels, truth = groups(1.0)
    companion = np.random.default_rng(9).normal(size=features.shape[1])
    of_first = [number for number in range(30) if number % 5]
    for number in of_first:
        other = next(face for face in np.flatnonzero(photo == number) if face != truth[number])
        features[other] = companion + 0.6 * np.random.default_rng(number).normal(size=features.shape[1])
    choice = choose(features, photo, labels, np.zeros(len(photo)))
    assert np.median(choice.companion[labels == 0]) > 0.7
    assert np.median(choice.companion[labels == 1]) < 0.5


def test_somebody_elses_person_beside_is_like_a_folder_and_a_stranger_is_not() -> None:
    features, photo, labels, truth = groups(0.5)
    random = np.random.default_rng(3)
    strangers = random.normal(size=(40, 60)) + 0.6 * random.normal(size=(40, 60))
    beside = np.setdiff1d(np.arange(len(photo)), truth)
    known = features[truth[labels == 1][:5]] + 0.6 * random.normal(size=(5, 60))
    looks = np.concatenate([features[truth], strangers]).astype(np.float32)
    found = likeness(looks, np.concatenate([labels, np.full(40, -1)]), np.concatenate([features[beside], known]))
    assert np.quantile(found[: len(beside)], 0.9) < 0.5 < found[len(beside) :].min()


def test_folder_scores_tell_who_a_face_looks_like() -> None:
    features, photo, labels, truth = groups(0.5)
    chosen = np.isin(np.arange(len(photo)), truth)
    scores = folder_scores(features, photo, labels, chosen)
    assert (scores[truth].argmax(axis=1) == labels).all()
    assert scores[~chosen].max() < scores[truth, labels].min()


def test_features_are_the_same_for_a_mirrored_face_and_any_crops_size() -> None:
    crops = np.random.default_rng(2).integers(0, 256, (3, 72, 72, 1), np.uint8)
    found = describe(crops)
    assert found.shape == (3, FEATURES)
    np.testing.assert_allclose(describe(crops[:, :, ::-1]), found, atol=1e-4)
    smooth = np.indices((144, 144)).sum(axis=0).astype(np.uint8)[None, ..., None]
    np.testing.assert_allclose(describe(np.repeat(smooth, 3, axis=3)), describe(smooth), atol=1e-4)
